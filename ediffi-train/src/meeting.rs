//! What the processes of a run tell each other in a step: whether all of them are well, how long each took, whether to stop.

use std::time::{Duration, Instant};

use tch::Tensor;

use crate::log::Entry;
use crate::reduce::{Reduce, agree, agree_and_gather, gather};
use crate::state::TrainState;
use crate::{Error, Result};

/// A process is slow that takes so many times as long for a batch as the one in the middle.
const SLOW: f64 = 1.5;

/// What one process sums up for a line of the log.
pub(crate) struct Sums {
    pub(crate) losses: Vec<Tensor>,
    pub(crate) gradient: f64,
    pub(crate) steps: u64,
    /// Time that was spent waiting for batches.
    pub(crate) waiting: Duration,
    /// Time until the gradients were there, waiting included. Not that of waiting for others.
    pub(crate) busy: Duration,
    began: Instant,
}

impl Sums {
    pub(crate) fn new() -> Self {
        let (waiting, busy) = (Duration::ZERO, Duration::ZERO);
        Self { losses: Vec::new(), gradient: 0.0, steps: 0, waiting, busy, began: Instant::now() }
    }

    /// A line of the log over all processes. Rank 0 tells of the slow ones.
    pub(crate) fn entry(
        self,
        reduce: &dyn Reduce,
        state: &TrainState,
        rate: f64,
        pictures_a_step: u64,
    ) -> Result<Entry> {
        let steps = self.steps.max(1) as f64;
        let losses = self.losses.iter().map(|loss| Ok(loss.f_double_value(&[])?)).collect::<Result<Vec<_>>>();
        let losses = agree(reduce, losses)?;
        let seconds = self.began.elapsed().as_secs_f64();
        // Of one batch: not all have as many.
        let busy = self.busy.as_secs_f64() / losses.len().max(1) as f64;
        let waiting = self.waiting.as_secs_f64() / seconds;
        let all = gather(reduce, &[losses.iter().sum::<f64>(), losses.len() as f64, waiting, busy])?;
        let column = |index: usize| all.iter().filter_map(move |numbers| numbers.get(index).copied());
        if reduce.rank() == 0 {
            for (rank, seconds, usual) in slow(&column(3).collect::<Vec<_>>()) {
                let who = reduce.name(rank);
                tracing::warn!(step = state.step(), seconds, usual, "{who} is slow: the others wait for it");
            }
        }
        Ok(Entry {
            step: state.step(),
            pictures: state.pictures(),
            loss: column(0).sum::<f64>() / column(1).sum::<f64>().max(1.0),
            gradient: self.gradient / steps,
            rate,
            speed: steps * pictures_a_step as f64 / seconds,
            waiting: column(2).sum::<f64>() / all.len().max(1) as f64,
        })
    }
}

/// The slow ones of processes that take so many seconds a batch: their ranks, their seconds, and those of the one in the middle.
fn slow(seconds: &[f64]) -> Vec<(usize, f64, f64)> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Of two, the faster one.
    let Some(&usual) = sorted.get(sorted.len().saturating_sub(1) / 2) else { return Vec::new() };
    let ranked = seconds.iter().copied().enumerate();
    ranked.filter(|(_, seconds)| *seconds > SLOW * usual).map(|(rank, seconds)| (rank, seconds, usual)).collect()
}

/// What this process computed, if all have something, and whether anybody has `grown`.
///
/// # Errors
/// As [`agree`].
pub(crate) fn agree_on_growth<T, E: From<Error>>(
    reduce: &dyn Reduce,
    computed: Result<T, E>,
    grown: bool,
) -> Result<(T, bool), E> {
    let (value, all) = agree_and_gather(reduce, computed, &[f64::from(grown)])?;
    Ok((value, all.iter().flatten().any(|grown| *grown > 0.0)))
}

/// What the processes decide at the end of a step: whether anybody wants to stop, and whether a checkpoint is due on the clock of
/// rank 0.
///
/// # Errors
/// As [`agree`].
pub(crate) fn decide<E: From<Error>>(reduce: &dyn Reduce, stop: Result<bool, E>, due: bool) -> Result<(bool, bool), E> {
    let said = [f64::from(matches!(stop, Ok(true))), f64::from(due)];
    let (_, all) = agree_and_gather(reduce, stop, &said)?;
    let says = |said: &Vec<f64>, index: usize| said.get(index).is_some_and(|yes| *yes > 0.0);
    Ok((all.iter().any(|said| says(said, 0)), all.first().is_some_and(|first| says(first, 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_ones_are_those_that_take_much_longer_than_the_middle() {
        assert_eq!(slow(&[]), []);
        assert_eq!(slow(&[7.0]), []);
        assert_eq!(slow(&[1.0, 1.4]), []);
        assert_eq!(slow(&[2.0, 1.0]), [(0, 2.0, 1.0)]);
        assert_eq!(slow(&[1.0, 5.0, 1.25, 2.0]), [(1, 5.0, 1.25), (3, 2.0, 1.25)]);
    }
}
