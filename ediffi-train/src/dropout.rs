//! Dropping embeddings in training, so that the network learns to work without each of them (eDiff-I §4.2, table 7).

use ediffi_core::conditioning::Conditioning;
use rand::Rng;
use tch::Tensor;

use crate::Result;
use crate::error::{expect_shape, expect_share};
use crate::random::{draws, elements, uniform};

/// How often each embedding is replaced by zeros. Each is dropped independently of the others, and for each picture by itself.
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
    /// [`Error::Setting`](crate::Error::Setting) for a rate that is no probability, [`Error::Shape`](crate::Error::Shape) for an
    /// embedding with another number of rows, [`Error::RandomShape`](crate::Error::RandomShape) for a number that cannot be.
    pub fn apply<R: Rng + ?Sized>(&self, conditioning: &Conditioning, rows: i64, rng: &mut R) -> Result<Conditioning> {
        let clip_text = keep("clip_text", self.clip_text, rows, rng)?;
        let t5 = keep("t5", self.t5, rows, rng)?;
        let clip_image = keep("clip_image", self.clip_image, rows, rng)?;
        Ok(Conditioning {
            t5: masked(&conditioning.t5, &t5)?,
            clip_text: masked(&conditioning.clip_text, &clip_text)?,
            clip_text_pooled: masked(&conditioning.clip_text_pooled, &clip_text)?,
            clip_image: masked(&conditioning.clip_image, &clip_image)?,
            ..conditioning.shallow_clone()
        })
    }
}

/// 1 for the rows that keep an embedding, 0 for those that lose it.
fn keep<R: Rng + ?Sized>(field: &'static str, rate: f64, rows: i64, rng: &mut R) -> Result<Tensor> {
    expect_share(field, rate)?;
    let values = draws(elements(&[rows])?, || if uniform(rng) < rate { 0.0_f32 } else { 1.0 })?;
    Ok(Tensor::f_from_slice(&values)?)
}

fn masked(x: &Option<Tensor>, keep: &Tensor) -> Result<Option<Tensor>> {
    let Some(x) = x else { return Ok(None) };
    let rows = keep.size1()?;
    let (mut column, mut expected) = (vec![1_i64; x.dim()], x.size());
    for first in [column.first_mut(), expected.first_mut()].into_iter().flatten() {
        *first = rows;
    }
    // libtorch would stretch one row over the batch in silence.
    expect_shape("embedding", &expected, &x.size())?;
    let keep = keep.f_reshape(&column)?.f_to_device(x.device())?.f_to_kind(x.kind())?;
    Ok(Some(x.f_mul(&keep)?))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use tch::{Device, Kind};

    use super::*;
    use crate::Error;

    const ROWS: i64 = 4000;

    /// Every value differs from zero, so that a zeroed row is told from a kept one.
    fn embedding(shape: &[i64]) -> Option<Tensor> {
        let count: i64 = shape.iter().product();
        Some((Tensor::arange(count, (Kind::Float, Device::Cpu)).sin() + 2.0).reshape(shape))
    }

    fn conditioning(rows: i64) -> Conditioning {
        Conditioning {
            t5: embedding(&[rows, 2, 3]),
            clip_text: embedding(&[rows, 3, 2]),
            clip_text_pooled: embedding(&[rows, 4]),
            clip_image: embedding(&[rows, 3]),
            low_res: embedding(&[rows, 3, 1, 1]),
            micro: None,
            noise_level: None,
        }
    }

    /// Which rows are left; fails on a row that is neither zeros nor the original.
    fn kept(before: &Option<Tensor>, after: &Option<Tensor>) -> Vec<bool> {
        let flat = |x: &Option<Tensor>| x.as_ref().unwrap().reshape([ROWS, -1]);
        let (before, after) = (flat(before), flat(after));
        let equal = after.eq_tensor(&before).all_dim(1, false);
        let zero = after.eq(0.0).all_dim(1, false);
        assert_eq!(equal.logical_xor(&zero).all().int64_value(&[]), 1, "a row is neither dropped nor kept");
        Vec::<bool>::try_from(equal).unwrap()
    }

    fn share(rows: impl Iterator<Item = bool>) -> f64 {
        rows.filter(|kept| !kept).count() as f64 / ROWS as f64
    }

    #[test]
    fn drops_whole_embeddings_at_the_paper_s_rates_independently() {
        let before = conditioning(ROWS);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let after = ConditioningDropout::default().apply(&before, ROWS, &mut rng).unwrap();
        let text = kept(&before.clip_text, &after.clip_text);
        let t5 = kept(&before.t5, &after.t5);
        let image = kept(&before.clip_image, &after.clip_image);
        assert_eq!(text, kept(&before.clip_text_pooled, &after.clip_text_pooled), "tokens and pooled go together");
        assert_eq!(before.low_res, after.low_res);
        let all = text.iter().zip(&t5).zip(&image).map(|((a, b), c)| *a || *b || *c);
        // The last is the paper's 4.5 % of unconditional pictures.
        for (what, got, rate) in [
            ("text", share(text.iter().copied()), 0.20),
            ("t5", share(t5.iter().copied()), 0.25),
            ("image", share(image.iter().copied()), 0.90),
            ("all", share(all), 0.20 * 0.25 * 0.90),
        ] {
            let five_deviations = 5.0 * (rate * (1.0 - rate) / ROWS as f64).sqrt();
            assert!((got - rate).abs() < five_deviations, "{what}: {got} for {rate}");
        }
    }

    #[test]
    fn a_rate_of_zero_changes_no_bit_and_a_rate_of_one_leaves_nothing() {
        let before = conditioning(ROWS);
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let never = ConditioningDropout { clip_text: 0.0, t5: 0.0, clip_image: 0.0 };
        let after = never.apply(&before, ROWS, &mut rng).unwrap();
        assert_eq!((&after.t5, &after.clip_image), (&before.t5, &before.clip_image));
        assert_eq!((&after.clip_text, &after.clip_text_pooled), (&before.clip_text, &before.clip_text_pooled));
        let always = ConditioningDropout { clip_text: 1.0, t5: 1.0, clip_image: 1.0 };
        let after = always.apply(&before, ROWS, &mut rng).unwrap();
        assert!(kept(&before.t5, &after.t5).iter().all(|kept| !kept));
        assert!(always.apply(&Conditioning::default(), ROWS, &mut rng).unwrap().t5.is_none());
    }

    #[test]
    fn bad_rates_and_rows_are_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for t5 in [-0.1, 1.1, f64::NAN] {
            let dropout = ConditioningDropout { t5, ..ConditioningDropout::default() };
            let error = dropout.apply(&Conditioning::default(), 2, &mut rng).unwrap_err();
            assert!(matches!(error, Error::Setting { field: "t5", .. }), "{error}");
        }
        // One row would broadcast over the batch, were it not looked at.
        for rows in [1, 3] {
            let error = ConditioningDropout::default().apply(&conditioning(rows), 2, &mut rng).unwrap_err();
            let Error::Shape { expected, got, .. } = error else { panic!("{error}") };
            assert_eq!((expected, got), (vec![2, 2, 3], vec![rows, 2, 3]));
        }
        for rows in [-1, i64::MAX] {
            let error = ConditioningDropout::default().apply(&Conditioning::default(), rows, &mut rng).unwrap_err();
            assert!(matches!(error, Error::RandomShape { .. }), "{rows}: {error}");
        }
    }
}
