//! The processes that train one network together, and what they say to each other.
//!
//! Each computes the gradients of its own batches. Between their sum in the process and the norm of the step they are added up over
//! all processes, and each takes the same step.

use tch::Tensor;

use crate::{Error, Result};

/// The processes that train one network together, as one of them sees them.
///
/// All of them call [`sum`](Self::sum), [`broadcast`](Self::broadcast) and [`barrier`](Self::barrier), in the same order, each on one
/// thread.
pub trait Reduce: std::fmt::Debug {
    /// The number of this process, from 0. Rank 0 reads and writes the files.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn world(&self) -> usize;

    /// Adds up the numbers of all processes, which all have the same bits in `buffer` afterwards. In which order they are added is
    /// the transport's to choose: with another number of processes the last bits differ.
    ///
    /// # Shapes
    /// `buffer`: `[n]` f32 or f64, one after another in memory, as long for all
    ///
    /// # Errors
    /// [`Error::Reduce`] for a buffer that cannot be sent, or processes that cannot be reached.
    fn sum(&self, buffer: &mut Tensor) -> Result<()>;

    /// Gives all processes the numbers of rank 0.
    ///
    /// # Shapes
    /// As for [`sum`](Self::sum).
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    fn broadcast(&self, buffer: &mut Tensor) -> Result<()>;

    /// Waits until all processes have come here, for as long as it takes.
    ///
    /// # Errors
    /// [`Error::Reduce`] for processes that cannot be reached.
    fn barrier(&self) -> Result<()>;

    /// What to call process `rank` in a message, such as the machine that it runs on.
    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }
}

/// A process that trains by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Reduce for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

/// The numbers of every process, by rank. All give equally many.
///
/// # Errors
/// As [`Reduce::sum`].
pub fn gather(reduce: &dyn Reduce, numbers: &[f64]) -> Result<Vec<Vec<f64>>> {
    let (world, rank, count) = (reduce.world(), reduce.rank(), numbers.len());
    if world <= 1 || count == 0 {
        return Ok(vec![numbers.to_vec(); world]);
    }
    let mut all = vec![0.0; world * count];
    if let Some(own) = all.get_mut(rank * count..(rank + 1) * count) {
        own.copy_from_slice(numbers);
    }
    let mut buffer = Tensor::f_from_slice(&all)?;
    // Zeros and one number: the sum is exact.
    reduce.sum(&mut buffer)?;
    Ok(Vec::<f64>::try_from(&buffer)?.chunks(count).map(<[f64]>::to_vec).collect())
}

/// The result of this process, if every process has one. The others then need not wait for one that goes no further.
///
/// # Errors
/// That of this process, or else [`Error::Elsewhere`] with the first that has one; those of [`gather`].
pub fn agree<T, E: From<Error>>(reduce: &dyn Reduce, result: Result<T, E>) -> Result<T, E> {
    agree_and_gather(reduce, result, &[]).map(|(value, _)| value)
}

/// As [`agree`], and the `numbers` of every process, by rank.
pub(crate) fn agree_and_gather<T, E: From<Error>>(
    reduce: &dyn Reduce,
    result: Result<T, E>,
    numbers: &[f64],
) -> Result<(T, Vec<Vec<f64>>), E> {
    let said: Vec<f64> = std::iter::once(f64::from(result.is_err())).chain(numbers.iter().copied()).collect();
    let all = gather(reduce, &said);
    let value = result?;
    let all = all?;
    match all.iter().position(|said| said.first().is_some_and(|failed| *failed > 0.0)) {
        None => Ok((value, all.into_iter().map(|said| said.into_iter().skip(1).collect()).collect())),
        Some(rank) => Err(Error::Elsewhere { who: reduce.name(rank) }.into()),
    }
}

/// What rank 0 answers to a question that it alone is asked, for instance whether a file is there.
///
/// # Errors
/// That of rank 0, which is [`Error::Elsewhere`] for the others; those of [`gather`].
pub fn ask_first<E: From<Error>>(reduce: &dyn Reduce, question: impl FnOnce() -> Result<bool, E>) -> Result<bool, E> {
    let own = agree(reduce, if reduce.rank() == 0 { question() } else { Ok(false) })?;
    let said = gather(reduce, &[f64::from(own)])?;
    Ok(said.first().is_some_and(|first| first.iter().any(|yes| *yes > 0.0)))
}

/// Fails unless `fingerprint` is that of rank 0 in every process. `what` names what it is of. [`hash`](crate::lineage::hash) makes one of a text.
///
/// # Errors
/// [`Error::Apart`] with the first process that has another; those of [`gather`].
pub fn expect_alike(reduce: &dyn Reduce, what: &'static str, fingerprint: u64) -> Result<()> {
    // 32 bits have a place in an f64.
    let halves = [fingerprint >> 32, fingerprint & u64::from(u32::MAX)].map(|half| half as f64);
    let all = gather(reduce, &halves)?;
    match all.iter().position(|halves| Some(halves) != all.first()) {
        None => Ok(()),
        Some(rank) => Err(Error::Apart { who: reduce.name(rank), what }),
    }
}
