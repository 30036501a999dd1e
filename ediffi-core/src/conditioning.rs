//! What a network is told besides the noisy image.

use tch::{Device, Kind, Tensor};

use crate::Result;

/// The embeddings of a batch, each optional (eDiff-I §4.2). An absent one enters the network as zeros, which is also how
/// training drops it and how the unconditional branch is made. Positions past the end of a text are zeros.
#[derive(Debug, Default)]
pub struct Conditioning {
    /// T5 token embeddings, [n, tokens, width].
    pub t5: Option<Tensor>,
    /// CLIP text token embeddings, [n, tokens, width].
    pub clip_text: Option<Tensor>,
    /// Pooled and projected CLIP text embedding, [n, width].
    pub clip_text_pooled: Option<Tensor>,
    /// Projected CLIP image embedding, [n, width].
    pub clip_image: Option<Tensor>,
    /// The smaller picture, already enlarged to the stage's size, [n, 3, h, w] in [-1, 1].
    pub low_res: Option<Tensor>,
}

impl Conditioning {
    /// A copy that shares storage.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        let clone = |x: &Option<Tensor>| x.as_ref().map(Tensor::shallow_clone);
        Self {
            t5: clone(&self.t5),
            clip_text: clone(&self.clip_text),
            clip_text_pooled: clone(&self.clip_text_pooled),
            clip_image: clone(&self.clip_image),
            low_res: clone(&self.low_res),
        }
    }

    /// The embeddings followed by `other`'s along the batch; an embedding that only one of them has is zeros in the rows
    /// of the other.
    ///
    /// # Errors
    /// Embeddings of different widths.
    pub fn stacked(&self, other: &Self) -> Result<Self> {
        Ok(Self {
            t5: stack(&self.t5, &other.t5)?,
            clip_text: stack(&self.clip_text, &other.clip_text)?,
            clip_text_pooled: stack(&self.clip_text_pooled, &other.clip_text_pooled)?,
            clip_image: stack(&self.clip_image, &other.clip_image)?,
            low_res: stack(&self.low_res, &other.low_res)?,
        })
    }

    /// Every embedding brought to a device and kind.
    ///
    /// # Errors
    /// A device without room.
    pub fn to(&self, device: Device, kind: Kind) -> Result<Self> {
        let move_to = |x: &Option<Tensor>| -> Result<Option<Tensor>> {
            Ok(x.as_ref().map(|x| x.f_to_device(device).and_then(|x| x.f_to_kind(kind))).transpose()?)
        };
        Ok(Self {
            t5: move_to(&self.t5)?,
            clip_text: move_to(&self.clip_text)?,
            clip_text_pooled: move_to(&self.clip_text_pooled)?,
            clip_image: move_to(&self.clip_image)?,
            low_res: move_to(&self.low_res)?,
        })
    }
}

fn stack(a: &Option<Tensor>, b: &Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (None, None) => None,
        (Some(a), Some(b)) => Some(Tensor::f_cat(&[a, b], 0)?),
        (Some(a), None) => Some(Tensor::f_cat(&[a, &a.f_zeros_like()?], 0)?),
        (None, Some(b)) => Some(Tensor::f_cat(&[&b.f_zeros_like()?, b], 0)?),
    })
}
