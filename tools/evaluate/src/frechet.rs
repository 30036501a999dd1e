//! The Fréchet distance of two sets of pictures in the judge's feature space (Heusel et al. 2017, eq. 6, with the judge in
//! the place of the Inception network, so its numbers compare with no other's).

use tch::{Kind, Tensor};

use crate::bootstrap::{Measure, resample};
use crate::error::{Error, Result};

/// Resamples of the interval; each takes two decompositions of matrices.
const RESAMPLES: usize = 200;

/// |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½).
fn between((mean_a, a): &Moments, (mean_b, b): &Moments) -> Result<f64> {
    let apart = mean_a.f_sub(mean_b)?.f_square()?.f_sum(Kind::Double)?;
    // tr (Σ₁ Σ₂)^½ is the trace of the root of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    let root = root(a)?;
    let (values, _) = root.f_matmul(b)?.f_matmul(&root)?.f_linalg_eigh("L")?;
    let both = values.f_clamp_min(0.0)?.f_sqrt()?.f_sum(Kind::Double)?;
    let trace = a.f_trace()?.f_add(&b.f_trace()?)?;
    Ok(apart.f_add(&trace)?.f_sub(&both.f_mul_scalar(2.0)?)?.f_double_value(&[])?.max(0.0))
}

/// The distance of `a` to a reference `b`, with an interval over the pictures of `a`; `b` is not drawn again. Drawing pictures twice makes
/// any two sets look further apart, so the resampled distances are moved to have the measured one as their mean.
///
/// # Shapes
/// `a`: [n, width], `b`: [m, width]
pub fn measure(a: &Tensor, b: &Tensor) -> Result<Measure> {
    measure_by(a, 1, b)
}

/// As [`measure`] where each picture has `rows` rows of `a` in a row: its patches, which are drawn together.
pub fn measure_by(a: &Tensor, rows: i64, b: &Tensor) -> Result<Measure> {
    let (own, other) = (moments(a)?, moments(b)?);
    let value = between(&own, &other)?;
    let sums = Sums::new(a, &own.0, rows)?;
    let drawn = |places: &[usize]| between(&sums.drawn(places)?, &other);
    let mut failed = None;
    let resampled = resample(sums.pictures, RESAMPLES, |places| {
        drawn(places).unwrap_or_else(|error| {
            failed = Some(error);
            f64::NAN
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let shift = value - resampled.iter().sum::<f64>() / resampled.len().max(1) as f64;
    let moved = resampled.into_iter().map(|distance| distance + shift).collect();
    Ok(crate::bootstrap::interval(value, moved, sums.pictures))
}

/// What each picture adds to sums and products of rows about a common mean, so that the moments of a draw are a sum over pictures.
struct Sums {
    mean: Tensor,
    pictures: usize,
    rows: i64,
    /// [pictures, width]
    sums: Tensor,
    /// [pictures, width · width]
    products: Tensor,
}

impl Sums {
    fn new(a: &Tensor, mean: &Tensor, rows: i64) -> Result<Self> {
        let rows = rows.max(1);
        let centred = a.f_to_kind(Kind::Double)?.f_sub(mean)?.f_reshape([-1, rows, mean.size1()?])?;
        let sums = centred.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)?;
        let products = centred.f_transpose(1, 2)?.f_bmm(&centred)?.f_flatten(1, 2)?;
        Ok(Self { mean: mean.shallow_clone(), pictures: centred.size3()?.0 as usize, rows, sums, products })
    }

    /// The moments of the rows of the pictures at these places.
    fn drawn(&self, places: &[usize]) -> Result<Moments> {
        let mut times = vec![0.0_f64; self.pictures];
        for &place in places {
            if let Some(times) = times.get_mut(place) {
                *times += 1.0;
            }
        }
        let times = Tensor::f_from_slice(&times)?.f_unsqueeze(0)?;
        let count = places.len() as f64 * self.rows as f64;
        let mean = times.f_matmul(&self.sums)?.f_div_scalar(count)?;
        let square = mean.f_transpose(0, 1)?.f_matmul(&mean)?.f_mul_scalar(count)?;
        let product = times.f_matmul(&self.products)?.f_view_as(&square)?;
        let covariance = product.f_sub(&square)?.f_div_scalar(count - 1.0)?;
        Ok((mean.f_squeeze_dim(0)?.f_add(&self.mean)?, covariance))
    }
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
type Moments = (Tensor, Tensor);

/// The moments of the rows.
fn moments(x: &Tensor) -> Result<Moments> {
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

    fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
        between(&moments(a)?, &moments(b)?)
    }

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
        // A picture four times, whatever is drawn, is the distance itself.
        let alone = measure_by(&wave(4, 0.0), 4, &other).unwrap();
        assert!(
            alone.high - alone.low < 1e-12 && (alone.value - distance(&wave(4, 0.0), &other).unwrap()).abs() < 1e-12
        );
    }

    #[test]
    fn the_moments_of_a_draw_are_those_of_its_rows() {
        let rows = (Tensor::arange(5 * 3 * 4, (Kind::Float, tch::Device::Cpu)) * 2.399).sin().reshape([15, 4]) + 3.0;
        let sums = Sums::new(&rows, &moments(&rows).unwrap().0, 3).unwrap();
        let (mean, covariance) = sums.drawn(&[0, 4, 4, 1, 4]).unwrap();
        let places = [0_i64, 1, 2, 12, 13, 14, 12, 13, 14, 3, 4, 5, 12, 13, 14];
        let expected = moments(&rows.index_select(0, &Tensor::from_slice(&places))).unwrap();
        let off = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(off(&mean, &expected.0) < 1e-12 && off(&covariance, &expected.1) < 1e-12);
    }
}
