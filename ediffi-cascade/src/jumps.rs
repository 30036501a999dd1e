//! Going back up in noise while a part of a picture is drawn.

use serde::{Deserialize, Serialize};

/// Jumps back up in noise (`RePaint`, Lugmayr et al. 2022, [arXiv 2201.09865](https://arxiv.org/abs/2201.09865), section 4.2): what is drawn
/// anew gets noise again, together with what stays, and is drawn once more, so that both come to fit each other.
///
/// Every `length` steps the picture goes `length` steps back, `count` times. The paper's resampling `r` is `count + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jumps {
    /// How many steps a jump goes back, at least 1.
    pub length: usize,
    /// How often it does so at each place; 0 is not at all.
    pub count: usize,
}

impl Jumps {
    /// The most steps that a stage makes with its jumps: a hundred times those of the longest schedule.
    pub const MOST: usize = 1_000_000;

    /// What is wrong with them where a schedule has `steps`, in words, if something is.
    pub(crate) fn problem(self, steps: usize) -> Option<String> {
        if self.length == 0 {
            return Some("they have no length: it has to be 1 at least".to_owned());
        }
        let all = self.steps(steps);
        (all > Self::MOST).then(|| format!("{all} steps would be made, {} at most can be", Self::MOST))
    }

    /// How many steps are made in all where a schedule has `steps`.
    #[must_use]
    pub fn steps(self, steps: usize) -> usize {
        let Self { length, count } = self;
        // At the multiples of the length, counted from the end, from which there is room.
        let places = steps.saturating_sub(length).div_ceil(length.max(1));
        steps.saturating_add(places.saturating_mul(count).saturating_mul(length))
    }

    /// The steps of a schedule in the order in which they are made: after each comes the next one, or one further up.
    pub(crate) fn walk(self, steps: usize) -> Vec<usize> {
        let length = self.length.max(1);
        let (mut walk, mut next, mut left) = (Vec::new(), 0, vec![self.count; steps]);
        while next < steps {
            walk.push(next);
            next += 1;
            let before_the_last = steps.checked_sub(next + 1);
            let place = before_the_last.is_some_and(|level| level % length == 0) && next >= length;
            if let Some(left) = left.get_mut(next).filter(|left| place && **left > 0) {
                *left -= 1;
                next -= length;
            }
        }
        walk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of `get_schedule_jump` in the code of the paper, which counts levels of noise from the end and tells of every step up, too.
    fn published(steps: usize, length: usize, samples: usize) -> Vec<usize> {
        let mut jumps: std::collections::BTreeMap<usize, usize> =
            (0..steps.saturating_sub(length)).step_by(length).map(|level| (level, samples - 1)).collect();
        let (mut level, mut levels) = (steps, Vec::new());
        while level >= 1 {
            level -= 1;
            levels.push(level as i64);
            if let Some(left) = jumps.get_mut(&level).filter(|left| **left > 0) {
                *left -= 1;
                for _ in 0..length {
                    level += 1;
                    levels.push(level as i64);
                }
            }
        }
        levels.push(-1);
        let down = levels.array_windows().filter(|[from, to]| to < from);
        down.map(|[from, _]| steps - 1 - *from as usize).collect()
    }

    #[test]
    fn the_walk_is_the_paper_s() {
        for steps in 1..14 {
            for length in 1..6 {
                for count in 0..4 {
                    let jumps = Jumps { length, count };
                    let walk = jumps.walk(steps);
                    assert_eq!(walk, published(steps, length, count + 1), "{steps} {jumps:?}");
                    assert_eq!(jumps.steps(steps), walk.len(), "{steps} {jumps:?}");
                }
            }
        }
        // The paper's own: 250 steps, jumps of 10, 10 samples.
        assert_eq!(Jumps { length: 10, count: 9 }.walk(250).len(), 2410);
        assert_eq!(Jumps { length: 1, count: 1 }.walk(3), [0, 0, 1, 1, 2]);
        assert_eq!(Jumps { length: 3, count: usize::MAX }.steps(usize::MAX), usize::MAX);
    }
}
