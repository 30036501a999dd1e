//! The mean of several style embeddings.

use tch::{Kind, Tensor};

use crate::Result;

/// The mean of embeddings under weights that are not negative and not all zero, brought to the mean of their lengths; see
/// [`Style::references`](super::Style::references). A single embedding comes back as it is, bit for bit. Embeddings that
/// cancel each other out have no direction, and their mean is zeros: no style.
///
/// # Shapes
/// `embeddings`: [1, width] each → [1, width]
pub(crate) fn mean(embeddings: &[(Tensor, f64)]) -> Result<Option<Tensor>> {
    let embeddings: Vec<&(Tensor, f64)> = embeddings.iter().filter(|(_, weight)| *weight > 0.0).collect();
    if let [(single, _)] = embeddings.as_slice() {
        return Ok(Some(single.shallow_clone()));
    }
    let total: f64 = embeddings.iter().map(|(_, weight)| weight).sum();
    let (mut sum, mut length) = (None::<Tensor>, 0.0);
    for (embedding, weight) in embeddings {
        let share = embedding.f_to_kind(Kind::Double)?.f_mul_scalar(weight / total)?;
        length += norm(&share)?;
        sum = Some(match sum {
            Some(sum) => sum.f_add(&share)?,
            None => share,
        });
    }
    let Some(sum) = sum else { return Ok(None) };
    let own = norm(&sum)?;
    // What is left of embeddings that cancel each other out is rounding, which nobody wants to see enlarged.
    let scale = if own > 1e-6 * length { length / own } else { 0.0 };
    Ok(Some(sum.f_mul_scalar(scale)?.f_to_kind(Kind::Float)?))
}

fn norm(x: &Tensor) -> Result<f64> {
    Ok(f64::try_from(x.f_norm()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: [f32; 2]) -> Tensor {
        Tensor::from_slice(&values).unsqueeze(0)
    }

    fn of(embeddings: &[([f32; 2], f64)]) -> Vec<f32> {
        let embeddings: Vec<_> = embeddings.iter().map(|&(values, weight)| (row(values), weight)).collect();
        Vec::try_from(mean(&embeddings).unwrap().unwrap().flatten(0, -1)).unwrap()
    }

    #[test]
    fn one_embedding_is_its_own_mean() {
        assert_eq!(of(&[([0.1, 0.7], 0.3)]), [0.1, 0.7]);
        assert_eq!(of(&[([0.1, 0.7], 0.3), ([5.0, 5.0], 0.0)]), [0.1, 0.7], "a weight of zero is no reference");
        assert!(mean(&[]).unwrap().is_none());
    }

    #[test]
    fn the_mean_has_the_direction_of_the_sum_and_the_mean_of_the_lengths() {
        // Weights 3 and 1: the sum points along (3·2, 1·4) / 4, the lengths are 2 and 4, their mean is 2.5.
        let [x, y] = of(&[([2.0, 0.0], 3.0), ([0.0, 4.0], 1.0)])[..] else { panic!() };
        assert!((x / y - 1.5).abs() < 1e-6 && (x.hypot(y) - 2.5).abs() < 1e-6, "{x} {y}");
        let doubled = of(&[([2.0, 0.0], 6.0), ([0.0, 4.0], 2.0)]);
        assert_eq!(doubled, [x, y], "weights count beside each other");
    }

    #[test]
    fn opposites_are_no_style() {
        assert_eq!(of(&[([1.0, -3.0], 1.0), ([-1.0, 3.0], 1.0)]), [0.0, 0.0]);
    }
}
