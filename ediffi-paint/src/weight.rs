//! The factor w of the bias, computed from the scores of an attention layer.

use std::fmt::Debug;
use std::sync::Arc;

use ediffi_core::nn::Site;
use tch::{Kind, Tensor};

use crate::{Result, Statistic, Strength};

/// Computes w/√d of the paper in one attention layer: the factor in front of the masks.
///
/// [`Strength`] is the weight function of a canvas, and the only one that can be stored.
/// [`Painter::with_weight`](crate::Painter::with_weight) takes any other.
pub trait WeightFunction: Debug + Send + Sync {
    /// The factor at `site`. `None` switches the paint off: the layer then computes what it would compute without paint,
    /// bit for bit.
    ///
    /// The factor of a row must depend on that row of the [scores](Site::scores) alone, so that no image depends on its batch. A
    /// function that needs no scores should not ask for them: they are computed when it does.
    ///
    /// # Shapes
    /// The result: f32 and broadcastable to the scores, usually `[rows, heads, 1, 1]`.
    ///
    /// # Errors
    /// [`Error::Torch`](crate::Error::Torch) if a tensor operation fails.
    fn weight(&self, site: &Site<'_>) -> Result<Option<Tensor>>;
}

impl<W: WeightFunction + ?Sized> WeightFunction for Arc<W> {
    fn weight(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
        (**self).weight(site)
    }
}

impl WeightFunction for Strength {
    /// w′ · growth(σ) · statistic, with the statistic of each row and head over all its pixels and text columns.
    ///
    /// The paper adds w·A to Q·Kᵀ and then divides by √d (eDiff-I, section "Paint-with-words"). The scores here are divided
    /// already. max and std are homogeneous, so w/√d = w′ · log(1 + σ) · max(Q·Kᵀ/√d).
    ///
    /// The paper does not say over which scores the maximum runs. A maximum over the batch would make an image depend on the
    /// others. A negative maximum counts as 0, because it would push phrases out of their regions.
    fn weight(&self, site: &Site<'_>) -> Result<Option<Tensor>> {
        let factor = self.factor(site.sigma);
        if factor == 0.0 {
            return Ok(None);
        }
        Ok(Some(match self.statistic {
            // Pixels first: a maximum over rows of memory is faster than one within them.
            Statistic::Max => {
                site.scores()?.f_amax([2], true)?.f_amax([3], true)?.f_clamp_min_(0.0)?.f_mul_scalar_(factor)?
            }
            // The deviation of the population: that of a sample is NaN for a single score.
            Statistic::Std => {
                site.scores()?.f_std_correction([2_i64, 3].as_slice(), 0.0, true)?.f_mul_scalar_(factor)?
            }
            Statistic::One => Tensor::f_full([1, 1, 1, 1], factor, (Kind::Float, site.device()))?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).unwrap()
    }

    /// The weight at a site with these scores of two pixels, or one.
    fn weight(strength: &Strength, sigma: f64, scores: &Tensor) -> Option<Tensor> {
        strength.weight(&Site::new(sigma, scores.size()[2], 1, scores)).unwrap()
    }

    /// Two rows, one head, two pixels, two columns.
    fn scores() -> Tensor {
        Tensor::from_slice(&[1.0_f32, -2.0, 3.0, 0.0, -1.0, -5.0, -1.5, -3.0]).view([2, 1, 2, 2])
    }

    #[test]
    fn the_maximum_is_taken_for_each_row_and_never_negative() {
        let weight = weight(&Strength::new(2.0), 1.0, &scores()).unwrap();
        assert_eq!(weight.size(), [2, 1, 1, 1]);
        let [first, second] = values(&weight)[..] else { panic!("two rows") };
        assert!((first - 2.0 * 2.0_f64.ln() * 3.0).abs() < 1e-6 && second == 0.0, "{first}, {second}");
    }

    #[test]
    fn the_deviation_is_that_of_the_population() {
        let strength = Strength { statistic: Statistic::Std, ..Strength::new(1.0) };
        let found = values(&weight(&strength, 1.0, &scores()).unwrap());
        // Of 1, -2, 3, 0: mean 0.5, variance 3.25.
        assert!((found[0] - 2.0_f64.ln() * 3.25_f64.sqrt()).abs() < 1e-6, "{found:?}");
        let single = values(&weight(&strength, 1.0, &scores().narrow(2, 0, 1).narrow(3, 0, 1)).unwrap());
        assert_eq!(single, [0.0, 0.0]);
    }

    #[test]
    fn without_a_statistic_the_scores_do_not_matter() {
        let strength = Strength { statistic: Statistic::One, ..Strength::new(1.5) };
        assert!((values(&weight(&strength, 1.0, &scores()).unwrap())[0] - 1.5 * 2.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn no_factor_is_no_tensor() {
        assert!(weight(&Strength::new(0.0), 1.0, &scores()).is_none());
        assert!(weight(&Strength::new(1.0), 0.0, &scores()).is_none());
    }

    #[test]
    fn dividing_the_scores_divides_the_weight() {
        for statistic in [Statistic::Max, Statistic::Std] {
            let strength = Strength { statistic, ..Strength::default() };
            let whole = values(&(weight(&strength, 5.0, &scores()).unwrap() / 8.0));
            let divided = values(&weight(&strength, 5.0, &(scores() / 8.0)).unwrap());
            assert!(whole.iter().zip(&divided).all(|(a, b)| (a - b).abs() < 1e-6), "{whole:?} {divided:?}");
        }
    }
}
