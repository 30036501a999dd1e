//! What is held out of a training.

use crate::Result;
use crate::error::expect_setting;
use crate::permutation::Permutation;

/// The key of the permutation: not the seed of a run, so that all runs over the same data hold out the same.
const KEY: u64 = 0x6865_6c64_206f_7574;

/// Which part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// What is trained on.
    #[default]
    Train,
    /// What is held out, and never trained on.
    HeldOut,
}

/// Divides samples into those that are trained on and those that are held out, by a fixed permutation of their numbers: the same for equal
/// numbers of samples, whatever the seed of the run. No list is kept.
///
/// Two copies of one picture are two samples: one may be held out while the other is trained on.
#[derive(Debug, Clone)]
pub struct Split {
    permutation: Permutation,
    len: usize,
    held_out: usize,
}

impl Split {
    /// Holds out a share of `len` samples, from 0 to below 1: the nearest number, at least one where the share is above 0, and never all.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for another share.
    pub fn of_share(len: usize, share: f64) -> Result<Self> {
        expect_setting((0.0..1.0).contains(&share), "held_out", || format!("{share} is not in [0, 1)"))?;
        let nearest = (len as f64 * share).round() as usize;
        let least = usize::from(share > 0.0);
        Ok(Self::new(len, nearest.max(least).min(len.saturating_sub(1))))
    }

    /// Holds out `count` of `len` samples.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for as many as there are, or more.
    pub fn of_count(len: usize, count: usize) -> Result<Self> {
        expect_setting(count == 0 || count < len, "held_out", || {
            format!("{count} of {len} samples leave none to train on")
        })?;
        Ok(Self::new(len, count))
    }

    fn new(len: usize, held_out: usize) -> Self {
        Self { permutation: Permutation::new(KEY, 0, len as u64), len, held_out }
    }

    /// How many samples a part has.
    #[must_use]
    pub fn len(&self, part: Part) -> usize {
        match part {
            Part::Train => self.len - self.held_out,
            Part::HeldOut => self.held_out,
        }
    }

    /// The number in the data of sample `index` of a part, which has to be below its [`Split::len`].
    #[must_use]
    pub fn sample(&self, part: Part, index: usize) -> usize {
        let place = match part {
            Part::Train => self.held_out + index,
            Part::HeldOut => index,
        };
        self.permutation.forward(place as u64) as usize
    }

    /// In which part a sample of the data is, by its number in the data, which has to be below their length.
    #[must_use]
    pub fn part(&self, sample: usize) -> Part {
        let place = self.permutation.backward(sample as u64);
        if place < self.held_out as u64 { Part::HeldOut } else { Part::Train }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn parts_are_apart_and_everything_is_in_one() {
        for (len, share, held_out) in [(1, 0.5, 0), (10, 0.0, 0), (10, 0.01, 1), (10, 0.99, 9), (1000, 0.25, 250)] {
            let split = Split::of_share(len, share).unwrap();
            assert_eq!(split.len(Part::HeldOut), held_out, "{share} of {len}");
            let mut seen = vec![0; len];
            for part in [Part::Train, Part::HeldOut] {
                for index in 0..split.len(part) {
                    let sample = split.sample(part, index);
                    seen[sample] += 1;
                    assert_eq!(split.part(sample), part);
                }
            }
            assert_eq!(seen, vec![1; len]);
        }
        assert_eq!(Split::of_count(7, 3).unwrap().len(Part::Train), 4);
    }

    #[test]
    fn what_leaves_nothing_is_refused() {
        for share in [-0.1, 1.0, f64::NAN] {
            assert!(matches!(Split::of_share(10, share), Err(Error::Setting { field: "held_out", .. })), "{share}");
        }
        assert!(matches!(Split::of_count(10, 10), Err(Error::Setting { field: "held_out", .. })));
    }
}
