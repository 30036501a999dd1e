//! Bootstrap intervals (Efron 1979): how much a number would vary with other pictures of the same kind. Where all pictures are
//! alike a bootstrap knows no spread, and the exact interval of Clopper and Pearson (1934) takes its place.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How often the pictures of a share or a mean are drawn again.
pub const RESAMPLES: usize = 2000;
/// Seed of what is drawn.
const SEED: u64 = 0x626F_6F74;
/// The part of the resamples that lies below the interval, and above it: 95 % lie inside.
const TAIL: f64 = 0.025;

/// A measured number with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// What was measured.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// How many pictures (or objects, or times) it was measured on.
    pub samples: usize,
}

impl Measure {
    /// All three numbers times a factor.
    pub fn times(self, factor: f64) -> Self {
        Self { value: self.value * factor, low: self.low * factor, high: self.high * factor, ..self }
    }
}

/// Draws `len` positions below `len` with replacement, `times` times, and hands each draw to `statistic`. Of nothing the draws
/// are empty.
pub fn resample(len: usize, times: usize, mut statistic: impl FnMut(&[usize]) -> f64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut drawn = vec![0; len];
    (0..times)
        .map(|_| {
            drawn.fill_with(|| rng.random_range(0..len));
            statistic(&drawn)
        })
        .collect()
}

/// The percentile interval of resampled statistics around `value`.
pub fn interval(value: f64, mut resampled: Vec<f64>, samples: usize) -> Measure {
    resampled.retain(|statistic| statistic.is_finite());
    resampled.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = part * resampled.len().saturating_sub(1) as f64;
        resampled.get(place.round() as usize).copied().unwrap_or(value)
    };
    Measure { value, low: at(TAIL), high: at(1.0 - TAIL), samples }
}

/// The sum of what was right over the sum of what was asked, both of each picture: a share of pictures where each asks one
/// thing, of objects where some ask more. `None` when nothing was asked.
///
/// Where all is right, or all is wrong, the interval is that of Clopper and Pearson over the n pictures that ask: none of n
/// leaves the shares up to 1 − 0.025^(1/n) likely enough.
pub fn share(pictures: &[(f64, f64)]) -> Option<Measure> {
    let measure = ratio(pictures)?;
    let all = |alike: fn(&(f64, f64)) -> bool| pictures.iter().filter(|(_, asked)| *asked > 0.0).all(alike);
    if all(|(right, _)| *right == 0.0) {
        return Some(Measure { low: 0.0, high: unseen(pictures), ..measure });
    }
    if all(|(right, asked)| right == asked) {
        return Some(Measure { low: 1.0 - unseen(pictures), high: 1.0, ..measure });
    }
    Some(measure)
}

/// How much more was right in the same pictures in one way than in another, over what was asked: of each picture the first,
/// the other and what was asked. The pictures are drawn in pairs, so what makes one prompt harder than another does not
/// widen the interval. `None` when nothing was asked.
///
/// Where no picture differs, up to 1 − 0.025^(1/n) of all such pictures may, in either direction.
pub fn difference(pictures: &[(f64, f64, f64)]) -> Option<Measure> {
    let gains: Vec<(f64, f64)> = pictures.iter().map(|(first, other, asked)| (first - other, *asked)).collect();
    let measure = ratio(&gains)?;
    if gains.iter().filter(|(_, asked)| *asked > 0.0).any(|(gain, _)| *gain != 0.0) {
        return Some(measure);
    }
    Some(Measure { low: -unseen(&gains), high: unseen(&gains), ..measure })
}

/// The largest share that none of the pictures that ask would still show in one sample out of forty.
fn unseen(pictures: &[(f64, f64)]) -> f64 {
    let asking = pictures.iter().filter(|(_, asked)| *asked > 0.0).count();
    1.0 - TAIL.powf(1.0 / asking.max(1) as f64)
}

/// The median, the mean of the two in the middle if there are two. `None` of nothing.
pub fn median(values: &[f64]) -> Option<Measure> {
    let value = middle(values.to_vec())?;
    let drawn = |places: &[usize]| {
        middle(places.iter().filter_map(|&place| values.get(place).copied()).collect()).unwrap_or(f64::NAN)
    };
    Some(interval(value, resample(values.len(), RESAMPLES, drawn), values.len()))
}

/// The median of some values.
pub fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = values.get(half).copied()?;
    let lower = values.get(if values.len().is_multiple_of(2) { half - 1 } else { half }).copied()?;
    Some((lower + upper) / 2.0)
}

/// The sum of the first numbers over the sum of the second: quantities of pictures, which may be alike without being all or
/// nothing of what they could be. `None` where the second are not above zero.
pub fn ratio(pictures: &[(f64, f64)]) -> Option<Measure> {
    let asking: Vec<(f64, f64)> = pictures.iter().copied().filter(|(_, asked)| *asked > 0.0).collect();
    let over = |pairs: &mut dyn Iterator<Item = (f64, f64)>| {
        let (right, asked) = pairs.fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        right / asked
    };
    if asking.is_empty() {
        return None;
    }
    let value = over(&mut asking.iter().copied());
    let drawn = |places: &[usize]| over(&mut places.iter().filter_map(|&place| asking.get(place).copied()));
    let resampled = resample(asking.len(), RESAMPLES, drawn);
    let asked: f64 = asking.iter().map(|(_, asked)| asked).sum();
    Some(interval(value, resampled, asked as usize))
}

/// The mean of one number a picture. `None` without any.
pub fn mean(values: &[f64]) -> Option<Measure> {
    let pairs: Vec<(f64, f64)> = values.iter().map(|value| (*value, 1.0)).collect();
    ratio(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For a share p of n the standard error is √(p (1 − p) / n), and 95 % lie within 1.96 of them.
    #[test]
    fn the_interval_of_a_share_is_the_closed_form() {
        for (right, n) in [(300, 400), (30, 400), (350, 500)] {
            let pictures: Vec<(f64, f64)> = (0..n).map(|i| (f64::from(u8::from(i < right)), 1.0)).collect();
            let got = share(&pictures).unwrap();
            let p = f64::from(right) / f64::from(n);
            let wide = 1.96 * (p * (1.0 - p) / f64::from(n)).sqrt();
            assert_eq!((got.value, got.samples), (p, n as usize));
            // The ends of 2000 resamples vary by about a fifteenth of the half width.
            assert!((got.high - p - wide).abs() < 0.2 * wide, "{got:?}, expected ± {wide}");
            assert!((p - got.low - wide).abs() < 0.2 * wide, "{got:?}, expected ± {wide}");
        }
    }

    #[test]
    fn the_interval_of_a_mean_is_the_closed_form() {
        // 0, 1, …, 399: the standard error of the mean is √((n² − 1) / 12 / n).
        let values: Vec<f64> = (0..400).map(f64::from).collect();
        let got = mean(&values).unwrap();
        let wide = 1.96 * ((400.0_f64.powi(2) - 1.0) / 12.0 / 400.0).sqrt();
        assert_eq!(got.value, 199.5);
        assert!((got.high - 199.5 - wide).abs() < 0.2 * wide && (199.5 - got.low - wide).abs() < 0.2 * wide, "{got:?}");
    }

    /// Pictures are drawn, not objects: two objects of one picture that are always right or wrong together count as one.
    #[test]
    fn objects_of_one_picture_are_drawn_together() {
        let single: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i % 2), 1.0)).collect();
        let double: Vec<(f64, f64)> = (0..200).map(|i| (2.0 * f64::from(i % 2), 2.0)).collect();
        let (single, double) = (share(&single).unwrap(), share(&double).unwrap());
        assert_eq!((single.value, single.low, single.high), (double.value, double.low, double.high));
        assert_eq!((single.samples, double.samples), (200, 400));
    }

    #[test]
    fn what_asks_nothing_does_not_count() {
        assert_eq!(share(&[]), None);
        assert_eq!(share(&[(0.0, 0.0)]), None);
        let one = share(&[(1.0, 1.0), (0.0, 0.0)]).unwrap();
        // Of one picture hardly anything is known.
        assert!(one.value == 1.0 && (one.low - 0.025).abs() < 1e-12, "{one:?}");
        assert_eq!(resample(0, 3, |drawn| drawn.len() as f64), [0.0; 3]);
        assert_eq!((mean(&[]), difference(&[])), (None, None));
    }

    /// Clopper and Pearson: with a share p, none of n happens with the probability (1 − p)ⁿ; at the upper end that is 0.025.
    #[test]
    fn all_and_nothing_have_the_exact_interval() {
        for n in [1, 24, 30, 400] {
            let of = |right: f64, asked: f64| share(&vec![(right, asked); n]).unwrap();
            let (none, all) = (of(0.0, 1.0), of(1.0, 1.0));
            assert_eq!((none.value, none.low, all.value, all.high), (0.0, 0.0, 1.0, 1.0));
            assert!(((1.0 - none.high).powi(n as i32) - 0.025).abs() < 1e-12, "{none:?}");
            assert!((all.low.powi(n as i32) - 0.025).abs() < 1e-12, "{all:?}");
            // Two objects of a picture are no two pictures.
            assert_eq!((of(0.0, 2.0).high, of(0.0, 2.0).samples), (none.high, 2 * n));
        }
        // The rule of three.
        assert!((share(&[(0.0, 1.0); 1000]).unwrap().high - 3.69e-3).abs() < 1e-4);
        // Equal quantities are equal, not all of something.
        assert_eq!(mean(&[1.0; 9]).map(|measure| (measure.low, measure.high)), Some((1.0, 1.0)));
    }

    /// Of 200 pictures 60 gain and 20 lose, whatever else is right in both: √((60 + 20 − 40² / 200) / 200²) is the standard
    /// error of the difference, far below that of two shares that do not know of each other.
    #[test]
    fn pictures_are_compared_in_pairs() {
        let picture = |i: usize| match i {
            0..60 => (1.0, 0.0, 1.0),
            60..80 => (0.0, 1.0, 1.0),
            _ if i.is_multiple_of(2) => (1.0, 1.0, 1.0),
            _ => (0.0, 0.0, 1.0),
        };
        let got = difference(&(0..200).map(picture).collect::<Vec<_>>()).unwrap();
        let wide = 1.96 * (80.0_f64 - 8.0).sqrt() / 200.0;
        assert!((got.value - 0.2).abs() < 1e-12);
        assert!((got.high - 0.2 - wide).abs() < 0.2 * wide && (0.2 - got.low - wide).abs() < 0.2 * wide, "{got:?}");
        let same = difference(&[(1.0, 1.0, 2.0); 24]).unwrap();
        let end = 1.0 - 0.025_f64.powf(1.0 / 24.0);
        assert!(same.value == 0.0 && (same.high - end).abs() < 1e-12 && (same.low + end).abs() < 1e-12, "{same:?}");
    }

    /// Of n values the ends of the median's interval are near those that have n/2 ± 0.98 √n below them.
    #[test]
    fn the_median_is_in_the_middle() {
        let values: Vec<f64> = (0..401).map(|i| f64::from((i * 37) % 401)).collect();
        let got = median(&values).unwrap();
        assert_eq!((got.value, got.samples), (200.0, 401));
        let half = 0.98 * 401_f64.sqrt();
        assert!((got.high - 200.0 - half).abs() < 3.0 && (200.0 - got.low - half).abs() < 3.0, "{got:?}");
        assert_eq!((median(&[3.0, 1.0]).unwrap().value, median(&[]), middle(vec![5.0])), (2.0, None, Some(5.0)));
    }
}
