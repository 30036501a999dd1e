//! Layout guidance: how far attention is from what was painted.

use ediffi_core::interval::SigmaInterval;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::Result;

/// The noise levels of layout guidance unless it says otherwise: it is there that the network decides where things are.
const FROM: f64 = 2.0;

/// Keeps a share defined where a phrase is not looked at anywhere.
const TINY: f64 = 1e-6;

/// Layout guidance: the picture is pulled to where its phrases are looked for inside their regions. Paint alone biases attention, and the
/// picture may not follow; guidance moves the picture. It takes a further evaluation of the network and its gradient at each step inside
/// `sigma`.
///
/// The energy of a phrase in a layer is (1 − share)², where its share is the attention that the phrase has inside its region, over all that it
/// has: equation 3 of Chen, Laina and Vedaldi 2024, "Training-Free Layout Control with Cross-Attention Guidance"
/// ([arXiv 2304.03373](https://arxiv.org/abs/2304.03373)). The estimate moves by −`scale` · σ² · the gradient of their sum, mean over layers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutGuidance {
    /// How strong it is, from 0 to [`MAX_LAYOUT`](crate::MAX_LAYOUT).
    pub scale: f64,
    /// The noise levels at which it acts (default: from 2 up).
    #[serde(default = "early")]
    pub sigma: SigmaInterval,
}

impl LayoutGuidance {
    /// At the default noise levels.
    #[must_use]
    pub fn new(scale: f64) -> Self {
        Self { scale, sigma: early() }
    }

    /// The scale at this noise level; none where it does not act.
    pub(crate) fn scale_at(self, sigma: f64) -> Option<f64> {
        Some(self.scale).filter(|scale| *scale > 0.0 && self.sigma.contains(sigma))
    }
}

fn early() -> SigmaInterval {
    SigmaInterval::new(FROM, f64::INFINITY).unwrap_or(SigmaInterval::ALL)
}

/// The sum of the energies of phrases, for each row.
///
/// # Shapes
/// `scores`: [rows, heads, pixels, columns], all columns of a layer, the text first; `bias`: of a shape that broadcasts to those of the text;
/// `masks`: [pixels, phrases] in [0, 1], `tokens`: [phrases, text columns], 1 for the columns of a phrase → [rows]
pub(crate) fn energy(scores: &Tensor, bias: Option<&Tensor>, masks: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let text = tokens.size2()?.1;
    let scores = match bias {
        Some(bias) => {
            let words = scores.f_narrow(-1, 0, text)?.f_add(bias)?;
            let others = scores.f_narrow(-1, text, scores.size4()?.3 - text)?;
            Tensor::f_cat(&[words, others], -1)?
        }
        None => scores.shallow_clone(),
    };
    let attention = scores.f_softmax(-1, Kind::Float)?.f_narrow(-1, 0, text)?;
    // [rows, pixels, phrases]
    let phrases = attention.f_mean_dim([1].as_slice(), false, Kind::Float)?.f_matmul(&tokens.f_transpose(0, 1)?)?;
    let over_pixels = |x: &Tensor| x.f_sum_dim_intlist([1].as_slice(), false, Kind::Float);
    let (inside, all) = (over_pixels(&phrases.f_mul(masks)?)?, over_pixels(&phrases)?.f_add_scalar(TINY)?);
    let outside = inside.f_div(&all)?.f_neg()?.f_add_scalar(1.0)?;
    Ok(outside.f_square()?.f_sum_dim_intlist([1].as_slice(), false, Kind::Float)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Four pixels, the first two painted; a column of text and a null token.
    fn masks_and_tokens() -> (Tensor, Tensor) {
        (Tensor::from_slice(&[1.0_f32, 1.0, 0.0, 0.0]).view([4, 1]), Tensor::ones([1, 1], OPTIONS))
    }

    /// Scores whose softmax gives the word these shares.
    fn scores(shares: [f32; 4]) -> Tensor {
        let shares = Tensor::from_slice(&shares).view([1, 1, 4, 1]);
        Tensor::cat(&[&shares, &(1.0 - &shares)], -1).log()
    }

    #[test]
    fn the_energy_is_the_square_of_what_is_looked_for_outside() {
        let (masks, tokens) = masks_and_tokens();
        let of = |shares| energy(&scores(shares), None, &masks, &tokens).unwrap().double_value(&[0]);
        assert!(of([0.5, 0.25, 0.0, 0.0]) < 1e-9);
        // 0.3 of 1.2 is outside.
        assert!((of([0.5, 0.4, 0.1, 0.2]) - 0.0625).abs() < 1e-5, "{}", of([0.5, 0.4, 0.1, 0.2]));
        assert!((of([0.0, 0.0, 0.9, 0.1]) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn the_gradient_leads_into_the_region() {
        let (masks, tokens) = masks_and_tokens();
        let scores = scores([0.2, 0.3, 0.3, 0.2]).set_requires_grad(true);
        let sum = energy(&scores, None, &masks, &tokens).unwrap().sum(Kind::Float);
        let gradient = Tensor::run_backward(&[sum], &[&scores], false, false).remove(0);
        let of = |pixel| gradient.double_value(&[0, 0, pixel, 0]);
        assert!(of(0) < 0.0 && of(1) < 0.0 && of(2) > 0.0 && of(3) > 0.0, "{gradient:?}");
    }

    #[test]
    fn a_bias_counts_and_phrases_add_up() {
        let (masks, _) = masks_and_tokens();
        let masks = Tensor::cat(&[&masks, &(1.0 - &masks)], 1);
        let tokens = Tensor::eye(2, OPTIONS);
        let scores = Tensor::randn([3, 2, 4, 5], OPTIONS);
        let bias = Tensor::randn([1, 1, 4, 2], OPTIONS);
        let biased = scores.copy();
        let _ = biased.narrow(-1, 0, 2).g_add_(&bias);
        let found = energy(&scores, Some(&bias), &masks, &tokens).unwrap();
        let expected = energy(&biased, None, &masks, &tokens).unwrap();
        assert_eq!(found.size(), [3]);
        assert!((&found - expected).abs().max().double_value(&[]) < 1e-6);
        let one = |phrase: i64| {
            let (masks, tokens) = (masks.narrow(1, phrase, 1), tokens.narrow(0, phrase, 1));
            energy(&scores, Some(&bias), &masks, &tokens).unwrap()
        };
        assert!((found - one(0) - one(1)).abs().max().double_value(&[]) < 1e-6);
    }
}
