//! What a network is told besides the noisy image.

use tch::{Device, Kind, Tensor};

use crate::Result;

/// The embeddings of a batch, each optional (eDiff-I §4.2), and the smaller picture of super-resolution.
///
/// eDiff-I's networks read an absent embedding as zeros: that is how training drops it and how the unconditional branch is
/// made. Positions past the end of a text are zeros. DeepFloyd IF's networks need T5, Stable
/// Diffusion's need CLIP's text.
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
    /// The smaller picture, already enlarged to the stage's size, [n, channels, h, w] in [-1, 1].
    pub low_res: Option<Tensor>,
    /// The numbers that SDXL's networks are told of a picture, [n, numbers] f32: height and width of the original, top and left of the crop,
    /// then height and width of the target; or, for its refiner, an aesthetic score in their place.
    pub micro: Option<Tensor>,
    /// The timestep whose noise was added to each smaller picture, `[n]` i64, for networks that are told.
    pub noise_level: Option<Tensor>,
}

impl Conditioning {
    /// Every field with its name.
    fn fields(&self) -> [(&'static str, Option<&Tensor>); 7] {
        [
            ("t5", self.t5.as_ref()),
            ("clip_text", self.clip_text.as_ref()),
            ("clip_text_pooled", self.clip_text_pooled.as_ref()),
            ("clip_image", self.clip_image.as_ref()),
            ("micro", self.micro.as_ref()),
            ("low_res", self.low_res.as_ref()),
            ("noise_level", self.noise_level.as_ref()),
        ]
    }

    /// In the order of [`fields`](Self::fields).
    fn from_fields(fields: [Option<Tensor>; 7]) -> Self {
        let [t5, clip_text, clip_text_pooled, clip_image, micro, low_res, noise_level] = fields;
        Self { t5, clip_text, clip_text_pooled, clip_image, micro, low_res, noise_level }
    }

    /// A copy that shares storage.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        self.filtered(|_| true)
    }

    /// A copy that shares storage, of the tensors whose names `keep` wants.
    pub(crate) fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self::from_fields(self.fields().map(|(name, x)| x.filter(|_| keep(name)).map(Tensor::shallow_clone)))
    }

    /// Each tensor as `change` makes it.
    fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        self.zip(&Self::default(), |x, _| x.map(&change).transpose())
    }

    /// Each tensor as `join` makes it of the two.
    fn zip(
        &self,
        other: &Self,
        join: impl Fn(Option<&Tensor>, Option<&Tensor>) -> Result<Option<Tensor>>,
    ) -> Result<Self> {
        let mut joined = [const { None }; 7];
        for (place, ((_, a), (_, b))) in joined.iter_mut().zip(self.fields().into_iter().zip(other.fields())) {
            *place = join(a, b)?;
        }
        Ok(Self::from_fields(joined))
    }

    /// The tensors with their names.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Tensor)> {
        self.fields().into_iter().filter_map(|(name, x)| Some((name, x?)))
    }

    /// `count` rows from row `first`. A tensor of one row is that of all rows.
    ///
    /// # Errors
    /// Rows that a tensor of several does not have.
    pub fn rows(&self, first: i64, count: i64) -> Result<Self> {
        self.map(|x| {
            if x.size().first() != Some(&1) {
                return Ok(x.f_narrow(0, first, count)?);
            }
            let mut times = vec![1; x.dim()];
            times.iter_mut().take(1).for_each(|rows| *rows = count);
            Ok(x.f_repeat(times)?)
        })
    }

    /// The tensors followed by `other`'s along the batch; one that only one of them has is zeros in the rows of the other.
    ///
    /// # Errors
    /// Embeddings of different widths.
    pub fn stacked(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| {
            Ok(match (a, b) {
                (None, None) => None,
                (Some(a), Some(b)) => Some(Tensor::f_cat(&[a, b], 0)?),
                (Some(a), None) => Some(Tensor::f_cat(&[a, &a.f_zeros_like()?], 0)?),
                (None, Some(b)) => Some(Tensor::f_cat(&[&b.f_zeros_like()?, b], 0)?),
            })
        })
    }

    /// The row of each of several, as often as its number says, one after the other. One that some have is zeros in the rows of those that
    /// have it not.
    ///
    /// # Errors
    /// Embeddings of different widths.
    pub fn gathered(all: &[(&Self, i64)]) -> Result<Self> {
        let mut gathered = [const { None }; 7];
        for (place, field) in gathered.iter_mut().enumerate() {
            let of =
                |one: &'_ Self| one.fields().into_iter().nth(place).and_then(|(_, x)| x.map(Tensor::shallow_clone));
            let Some(like) = all.iter().find_map(|(one, _)| of(one)) else { continue };
            let part = |&(one, count): &(&Self, i64)| {
                let row = of(one).map_or_else(|| like.f_zeros_like(), Ok)?;
                let mut times = vec![1; row.dim()];
                times.iter_mut().take(1).for_each(|rows| *rows = count);
                row.f_repeat(times)
            };
            let parts = all.iter().map(part).collect::<std::result::Result<Vec<_>, _>>()?;
            *field = Some(Tensor::f_cat(&parts, 0)?);
        }
        Ok(Self::from_fields(gathered))
    }

    /// Every tensor brought to a device, and to a kind if it holds fractions.
    ///
    /// # Errors
    /// A device without room.
    pub fn to(&self, device: Device, kind: Kind) -> Result<Self> {
        self.map(|x| {
            let x = x.f_to_device(device)?;
            Ok(if x.is_floating_point() { x.f_to_kind(kind)? } else { x })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_and_what_one_lacks_is_zeros() {
        let row = |value: f64| Some(Tensor::full([1, 2, 3], value, (Kind::Float, Device::Cpu)));
        let (both, one) = (
            Conditioning { t5: row(1.0), clip_text: row(2.0), ..Conditioning::default() },
            Conditioning { t5: row(3.0), ..Conditioning::default() },
        );
        let gathered = Conditioning::gathered(&[(&one, 2), (&both, 1), (&Conditioning::default(), 1)]).unwrap();
        let first =
            |x: Option<Tensor>| Vec::<f64>::try_from(x.unwrap().narrow(1, 0, 1).narrow(2, 0, 1).reshape([-1])).unwrap();
        assert_eq!(first(gathered.t5), [3.0, 3.0, 1.0, 0.0]);
        assert_eq!(first(gathered.clip_text), [0.0, 0.0, 2.0, 0.0]);
        assert!(gathered.clip_image.is_none());
    }
}
