//! Permutations of any length that take no memory.

use ediffi_train::random::batch_rng;
use rand::Rng;

/// Rounds of the network. Four make a permutation that cannot be told from chance where the rounds are chance (Luby & Rackoff 1988); the
/// rounds here are simpler, and numbers of few bits want more.
const ROUNDS: usize = 8;

/// The bits that make the seed of permutations another than that of whatever else is drawn from the seed of a run.
const OF_PERMUTATIONS: u64 = 0x7065_726d_7574_6521;

/// A permutation of 0 .. `len`: a Feistel network on the smallest even number of bits that has room, walked along its cycle until it is
/// below `len` (Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
#[derive(Debug, Clone)]
pub(crate) struct Permutation {
    keys: [u64; ROUNDS],
    /// Bits of a half.
    half: u32,
    len: u64,
}

impl Permutation {
    /// Permutation `number` of those of `seed`.
    pub(crate) fn new(seed: u64, number: u64, len: u64) -> Self {
        let mut rng = batch_rng(seed ^ OF_PERMUTATIONS, number);
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self { keys: std::array::from_fn(|_| rng.next_u64()), half: bits.div_ceil(2).max(1), len }
    }

    /// Where `place`, which is below the length, goes to.
    pub(crate) fn forward(&self, place: u64) -> u64 {
        self.walk(place, |place| {
            self.keys.iter().fold(place, |place, &key| {
                let (left, right) = self.halves(place);
                self.joined(right, left ^ self.round(right, key))
            })
        })
    }

    /// Where `place`, which is below the length, comes from.
    pub(crate) fn backward(&self, place: u64) -> u64 {
        self.walk(place, |place| {
            self.keys.iter().rev().fold(place, |place, &key| {
                let (left, right) = self.halves(place);
                self.joined(right ^ self.round(left, key), left)
            })
        })
    }

    /// One step of the network at least, and on until there is a place of that number: the cycle leads back to where it began.
    fn walk(&self, place: u64, step: impl Fn(u64) -> u64) -> u64 {
        let mut place = step(place);
        while place >= self.len {
            place = step(place);
        }
        place
    }

    fn mask(&self) -> u64 {
        (1 << self.half) - 1
    }

    fn halves(&self, place: u64) -> (u64, u64) {
        (place >> self.half, place & self.mask())
    }

    fn joined(&self, left: u64, right: u64) -> u64 {
        left << self.half | right
    }

    /// The mixer of SplitMix64 (Steele et al. 2014) as the function of a round.
    fn round(&self, half: u64, key: u64) -> u64 {
        let mixed = (half ^ key).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_place_is_met_once_whatever_the_length() {
        for len in (1..70).chain([127, 128, 129, 1000, 4096, 4097, 10_007]) {
            let permutation = Permutation::new(5, len, len);
            let mut seen = vec![false; len as usize];
            for place in 0..len {
                let to = permutation.forward(place);
                assert!(!std::mem::replace(&mut seen[to as usize], true), "{len}: {to} is met twice");
                assert_eq!(permutation.backward(to), place);
            }
        }
    }

    proptest! {
        #[test]
        fn large_ones_lead_back(seed: u64, number: u64, len in 1_u64..1 << 62, place: u64) {
            let permutation = Permutation::new(seed, number, len);
            let to = permutation.forward(place % len);
            prop_assert!(to < len);
            prop_assert_eq!(permutation.backward(to), place % len);
        }
    }

    /// Where neighbours go to has nothing to do with each other, and no place is preferred.
    #[test]
    fn places_are_spread_evenly() {
        let (len, numbers) = (1000, 400);
        let (mut counts, mut together) = ([0_u32; 10], 0.0);
        for number in 0..numbers {
            let permutation = Permutation::new(9, number, len);
            let (a, b) = (permutation.forward(0), permutation.forward(1));
            counts[(a / 100) as usize] += 1;
            together += (a as f64 / 999.0 - 0.5) * (b as f64 / 999.0 - 0.5) * 12.0;
        }
        // Chi-squared of nine degrees of freedom: one in a hundred thousand is above 39.
        let chi: f64 = counts.iter().map(|&count| (f64::from(count) - 40.0).powi(2) / 40.0).sum();
        assert!(chi < 39.0, "{counts:?}");
        // Five standard deviations of the mean of 400.
        assert!((together / 400.0).abs() < 0.25, "{together}");
    }
}
