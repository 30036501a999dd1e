//! How large the pictures of stages in a row are: the one place where sides are carried from stage to stage.
//!
//! The picture that comes out of the last stage has the side that was asked for; the stages before make theirs smaller in
//! proportion to the sizes that they were trained for, and all of them have to be whole multiples of what their networks
//! take.

use ediffi_core::multiple::{gcd, lcm};

/// A stage as far as sizes go. Both numbers are positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageSize {
    /// Side in pixels of the square pictures that the stage was trained for.
    pub size: i64,
    /// Height and width of its pictures are multiples of this.
    pub multiple: i64,
}

impl StageSize {
    /// A side of the last stage's picture has to be a multiple of this, so that this stage can draw its part. `last` is the
    /// size of the last stage.
    ///
    /// A side v there is v · size / last here, which is a multiple of m exactly where v is one of m · last / gcd(size, m · last).
    #[must_use]
    pub fn unit(self, last: i64) -> i64 {
        let needed = last.saturating_mul(self.multiple);
        needed / gcd(needed, self.size).max(1)
    }
}

/// What a side of the last stage's picture has to be a multiple of, so that every stage can draw its part.
#[must_use]
pub fn unit(stages: &[StageSize]) -> i64 {
    let last = stages.last().map_or(1, |stage| stage.size);
    stages.iter().map(|stage| stage.unit(last)).fold(1, lcm)
}

/// The side of every stage's picture where that of the last has `side` pixels, or its own size if `None`. There are none
/// where some stage could not draw its part.
#[must_use]
pub fn sides(stages: &[StageSize], side: Option<u32>) -> Option<Vec<u32>> {
    let last = stages.last().map_or(1, |stage| stage.size);
    let side = side.map_or(last, i64::from);
    let fits = side > 0 && side % unit(stages) == 0;
    let scaled = |stage: &StageSize| u32::try_from(side.checked_mul(stage.size)? / last).ok();
    stages.iter().map(scaled).collect::<Option<Vec<_>>>().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stages(sizes: &[(i64, i64)]) -> Vec<StageSize> {
        sizes.iter().map(|&(size, multiple)| StageSize { size, multiple }).collect()
    }

    #[test]
    fn sides_follow_the_ratios_of_the_stages() {
        // The paper's three stages, whose networks take multiples of 8: 1024 to 64 is a factor of 16.
        let paper = stages(&[(64, 8), (256, 8), (1024, 8)]);
        assert_eq!((unit(&paper), unit(&paper[..2]), unit(&paper[..1])), (128, 32, 8));
        assert_eq!(sides(&paper, None).unwrap(), [64, 256, 1024]);
        assert_eq!(sides(&paper, Some(1280)).unwrap(), [80, 320, 1280]);
        assert_eq!(sides(&paper[..2], Some(96)).unwrap(), [24, 96]);
        for side in [0, 64, 129, 1000] {
            assert_eq!(sides(&paper, Some(side)), None, "{side}");
        }
    }

    /// Of stages of 6, 10 and 16 pixels whose networks take multiples of 2, a side of 16 makes 6 and 10; half of it would make
    /// 3 and 5.
    #[test]
    fn odd_ratios_have_a_common_multiple() {
        let odd = stages(&[(6, 2), (10, 2), (16, 2)]);
        assert_eq!((unit(&odd), unit(&odd[1..]), unit(&odd[..2])), (16, 16, 10));
        assert_eq!(sides(&odd, Some(32)).unwrap(), [12, 20, 32]);
    }

    #[test]
    fn numbers_that_overflow_fit_nothing() {
        assert_eq!(sides(&stages(&[(3, i64::MAX), (5, i64::MAX - 1)]), Some(5)), None);
        assert_eq!(sides(&stages(&[(1 << 40, 1), (1, 1)]), Some(u32::MAX)), None);
        assert_eq!(sides(&[], Some(3)).unwrap(), [0_u32; 0]);
    }

    proptest! {
        /// A side fits exactly where every stage gets a whole number of pixels that is a multiple of what it takes.
        #[test]
        fn the_unit_is_the_smallest_side_that_fits_all(
            sizes in prop::collection::vec((1_i64..40, 1_i64..5), 1..4),
            side in 1_u32..3000,
        ) {
            let stages = stages(&sizes);
            let last = sizes[sizes.len() - 1].0;
            let whole = |(size, multiple): &(i64, i64)| (i64::from(side) * size) % (last * multiple) == 0;
            prop_assert_eq!(sides(&stages, Some(side)).is_some(), sizes.iter().all(whole));
        }
    }
}
