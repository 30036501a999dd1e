//! Dropping embeddings in training, so that the network knows how to do without (eDiff-I §4.2, table 7).

use ediffi_core::conditioning::Conditioning;
use rand::Rng;
use tch::{Kind, Tensor};

use crate::Result;

/// How often each embedding is replaced by zeros, independently of the others and for each picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConditioningDropout {
    /// CLIP text, tokens and pooled embedding together.
    pub clip_text: f64,
    /// T5.
    pub t5: f64,
    /// CLIP image.
    pub clip_image: f64,
}

impl Default for ConditioningDropout {
    /// The paper's rates (table 7): 0.20, 0.25, 0.90.
    fn default() -> Self {
        Self { clip_text: 0.20, t5: 0.25, clip_image: 0.90 }
    }
}

impl ConditioningDropout {
    /// Zeroes embeddings of some of the `rows` pictures.
    ///
    /// # Errors
    /// An embedding with another number of rows.
    pub fn apply<R: Rng + ?Sized>(
        &self,
        conditioning: &Conditioning,
        rows: i64,
        rng: &mut R,
    ) -> Result<Conditioning> {
        let clip_text = keep(self.clip_text, rows, rng)?;
        let t5 = keep(self.t5, rows, rng)?;
        let clip_image = keep(self.clip_image, rows, rng)?;
        Ok(Conditioning {
            t5: masked(&conditioning.t5, &t5)?,
            clip_text: masked(&conditioning.clip_text, &clip_text)?,
            clip_text_pooled: masked(&conditioning.clip_text_pooled, &clip_text)?,
            clip_image: masked(&conditioning.clip_image, &clip_image)?,
            low_res: conditioning.low_res.as_ref().map(Tensor::shallow_clone),
        })
    }
}

/// 1 for the rows that keep an embedding, 0 for those that lose it.
fn keep<R: Rng + ?Sized>(rate: f64, rows: i64, rng: &mut R) -> Result<Tensor> {
    let values: Vec<f32> = (0..rows)
        .map(|_| {
            let u = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            if u < rate { 0.0 } else { 1.0 }
        })
        .collect();
    Ok(Tensor::f_from_slice(&values)?)
}

fn masked(x: &Option<Tensor>, keep: &Tensor) -> Result<Option<Tensor>> {
    let Some(x) = x else { return Ok(None) };
    let mut shape = vec![1_i64; x.dim()];
    if let Some(rows) = shape.first_mut() {
        *rows = keep.size1()?;
    }
    let keep = keep.f_reshape(&shape)?.f_to_device(x.device())?.f_to_kind(x.kind())?;
    debug_assert!(matches!(x.kind(), Kind::Float | Kind::BFloat16 | Kind::Half));
    Ok(Some(x.f_mul(&keep)?))
}
