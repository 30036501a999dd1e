//! The Fréchet distance of two sets of pictures in the judge's feature space (Heusel et al. 2017, eq. 6, with the judge in
//! the place of the Inception network, so its numbers compare with no other's).

use tch::{Kind, Tensor};

use crate::bootstrap::{Measure, resample};
use crate::error::{Error, Result};

/// Resamples of the interval; each takes two decompositions of matrices.
const RESAMPLES: usize = 200;

/// |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½).
///
/// # Shapes
/// `a`: [n, width], `b`: [m, width]
pub fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let ((mean_a, a), (mean_b, b)) = (moments(a)?, moments(b)?);
    let apart = mean_a.f_sub(&mean_b)?.f_square()?.f_sum(Kind::Double)?;
    // tr (Σ₁ Σ₂)^½ is the trace of the root of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    let root = root(&a)?;
    let (values, _) = root.f_matmul(&b)?.f_matmul(&root)?.f_linalg_eigh("L")?;
    let both = values.f_clamp_min(0.0)?.f_sqrt()?.f_sum(Kind::Double)?;
    let trace = a.f_trace()?.f_add(&b.f_trace()?)?;
    Ok(apart.f_add(&trace)?.f_sub(&both.f_mul_scalar(2.0)?)?.f_double_value(&[])?.max(0.0))
}

/// The distance of `a` to a reference `b`, with an interval over the pictures of `a`; `b` is not drawn again. Drawing pictures twice makes
/// any two sets look further apart, so the resampled distances are moved to have the measured one as their mean.
pub fn measure(a: &Tensor, b: &Tensor) -> Result<Measure> {
    measure_by(a, 1, b)
}

/// As [`measure`] where each picture has `rows` rows of `a` in a row: its patches, which are drawn together.
pub fn measure_by(a: &Tensor, rows: usize, b: &Tensor) -> Result<Measure> {
    let value = distance(a, b)?;
    let mut failed = None;
    let pictures = a.size2()?.0 as usize / rows.max(1);
    let resampled = resample(pictures, RESAMPLES, |places| {
        let places: Vec<i64> =
            places.iter().flat_map(|&place| place * rows..(place + 1) * rows).map(|row| row as i64).collect();
        let drawn = Tensor::f_from_slice(&places).and_then(|places| a.f_index_select(0, &places));
        drawn.map_err(Error::from).and_then(|drawn| distance(&drawn, b)).unwrap_or_else(|error| {
            failed = Some(error);
            f64::NAN
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let shift = value - resampled.iter().sum::<f64>() / resampled.len().max(1) as f64;
    let moved = resampled.into_iter().map(|distance| distance + shift).collect();
    Ok(crate::bootstrap::interval(value, moved, pictures))
}

/// Features of pictures as rows of a tensor, [n, width].
pub fn features<'a>(verdicts: impl IntoIterator<Item = &'a crate::judge::Verdict>) -> Result<Tensor> {
    let rows = verdicts.into_iter().map(|verdict| Ok(Tensor::f_from_slice(&verdict.features)?.f_unsqueeze(0)?));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    if rows.is_empty() {
        return Err(few(0));
    }
    Ok(Tensor::f_cat(&rows, 0)?)
}

fn few(pictures: i64) -> Error {
    Error::Setting { what: "pictures", reason: format!("a distance of sets needs two or more, not {pictures}") }
}

/// Mean and covariance, in f64.
fn moments(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let rows = x.size2()?.0;
    if rows < 2 {
        return Err(few(rows));
    }
    let x = x.f_to_kind(Kind::Double)?;
    let mean = x.f_mean_dim([0_i64].as_slice(), false, Kind::Double)?;
    let centred = x.f_sub(&mean)?;
    Ok((mean, centred.f_transpose(0, 1)?.f_matmul(&centred)?.f_div_scalar((rows - 1) as f64)?))
}

/// The root of a symmetric matrix without negative eigenvalues.
fn root(x: &Tensor) -> Result<Tensor> {
    let (values, vectors) = x.f_linalg_eigh("L")?;
    let scaled = vectors.f_mul(&values.f_clamp_min(0.0)?.f_sqrt()?)?;
    Ok(scaled.f_matmul(&vectors.f_transpose(0, 1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 rows with the mean `m` and exactly the variances 4/3 s² along two axes.
    fn cross(m: [f64; 2], s: [f64; 2]) -> Tensor {
        let rows = [[s[0], s[1]], [s[0], -s[1]], [-s[0], s[1]], [-s[0], -s[1]]];
        let values: Vec<f64> = rows.iter().flat_map(|row| [row[0] + m[0], row[1] + m[1]]).collect();
        Tensor::from_slice(&values).reshape([4, 2])
    }

    /// With covariances that commute the distance is |μ₁ − μ₂|² + Σ (σ₁ − σ₂)².
    #[test]
    fn the_distance_is_the_closed_form() {
        let (a, b) = (cross([1.0, 2.0], [1.0, 3.0]), cross([0.0, 4.0], [2.0, 0.5]));
        let expected = 1.0 + 4.0 + 4.0 / 3.0 * (1.0 + 2.5 * 2.5);
        assert!((distance(&a, &b).unwrap() - expected).abs() < 1e-9);
        assert!(distance(&a, &a).unwrap() < 1e-9);
        // It does not change when both are turned.
        let turn = Tensor::from_slice(&[0.6, -0.8, 0.8, 0.6]).reshape([2, 2]);
        assert!((distance(&a.matmul(&turn), &b.matmul(&turn)).unwrap() - expected).abs() < 1e-9);
    }

    #[test]
    fn the_interval_holds_the_distance_and_narrows() {
        let wave = |n: i64, phase: f64| {
            let x = Tensor::arange(2 * n, (Kind::Double, tch::Device::Cpu)) * 2.399;
            (x + phase).sin().reshape([n, 2])
        };
        let other = wave(500, 0.3) + 0.5;
        let (few, many) = (measure(&wave(40, 0.0), &other).unwrap(), measure(&wave(400, 0.0), &other).unwrap());
        for measure in [few, many] {
            assert!(measure.low < measure.value && measure.value < measure.high, "{measure:?}");
        }
        assert!(many.high - many.low < 0.6 * (few.high - few.low), "{many:?} {few:?}");
        assert!(measure(&wave(1, 0.0), &other).is_err());
        // Four times the same row in each picture says no more than one: n − 1 over 4 n − 4 is all that differs.
        let rows = wave(40, 0.0).repeat_interleave_self_int(4, 0, None);
        let four = measure_by(&rows, 4, &other).unwrap();
        let (width, wide) = (few.high - few.low, four.high - four.low);
        assert!(four.samples == 40 && (wide / width - 1.0).abs() < 0.1, "{four:?} {few:?}");
        let apart = measure(&rows, &other).unwrap();
        assert!(apart.high - apart.low < 0.7 * wide, "{apart:?} {four:?}");
    }
}
