//! What the processes of a training tell each other beside the steps: what rank 0 found, and that its files are there.

use ediffi_train::lineage::hash;
use ediffi_train::reduce::{Reduce, agree, ask_first, expect_alike, gather};

use crate::error::wrong;
use crate::options::Options;
use crate::plan::Plan;
use crate::processes::Processes;
use crate::{Error, Result};

/// Refuses fewer batches a step than a group has processes, and processes with other plans, data or options.
pub(crate) fn check(processes: &Processes<'_>, plan: &Plan, data: &str, options: &Options) -> Result<()> {
    let (accumulate, groups, most) = (plan.accumulate, processes.groups, processes.largest());
    if most > 1 && accumulate < most as u64 {
        let whose = if groups > 1 { "processes of a group" } else { "processes" };
        let reason = format!("it is {accumulate}, and has to be at least the number of {whose}, which is {most}");
        return wrong("accumulate", reason);
    }
    let Options { begin, only, sheet_steps, .. } = options;
    let text = format!("{} {data} {begin:?} {only:?} {sheet_steps} {groups}", plan.to_toml()?);
    Ok(expect_alike(processes.everyone, "plan, data or options", hash(text.as_bytes()))?)
}

/// Waits for the other groups, for as long as they train. Whether any process `stopped`.
///
/// # Errors
/// Processes that cannot be reached.
pub(crate) fn meet(processes: &Processes<'_>, stopped: bool) -> Result<bool> {
    if processes.groups <= 1 {
        return Ok(stopped);
    }
    // Nobody is missed at a barrier.
    processes.everyone.barrier()?;
    let all = gather(processes.everyone, &[f64::from(stopped)])?;
    Ok(all.iter().flatten().any(|stopped| *stopped > 0.0))
}

/// Has rank 0 do `work`, for however long that takes, while the others wait. All are told its answer, and may then read what it wrote.
///
/// # Errors
/// That of `work`, which is [`ediffi_train::Error::Elsewhere`] for the others; processes that cannot be reached.
pub(crate) fn first(reduce: &dyn Reduce, work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    let own = if reduce.rank() == 0 { work() } else { Ok(false) };
    // Nobody is missed at a barrier.
    let met = reduce.barrier().map_err(Error::from);
    ask_first(reduce, || own.and_then(|answer| met.map(|()| answer)))
}

/// What rank 0 has where it alone has something to do.
///
/// # Errors
/// As [`first`].
pub(crate) fn on_first<T>(reduce: &dyn Reduce, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    agree(reduce, (reduce.rank() == 0).then(work).transpose())
}

/// The number of rank 0, which an f64 has to have a place for.
///
/// # Errors
/// Processes that cannot be reached.
pub(crate) fn number_of_first(reduce: &dyn Reduce, own: u64) -> Result<u64> {
    let all = gather(reduce, &[own as f64])?;
    Ok(all.first().and_then(|numbers| numbers.first()).map_or(own, |number| *number as u64))
}
