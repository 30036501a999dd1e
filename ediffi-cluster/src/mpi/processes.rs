//! Processes that add up over MPI, by way of the crate `mpi` (rsmpi).
//!
//! A process comes to a meeting with calls that do not block, so that it can see how long it has waited for others. Numbers of which
//! there are many are sent with calls that do, once all are there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::mpi::collective::SystemOperation;
use ::mpi::request::{Request, Scope, scope};
use ::mpi::topology::{Color, SimpleCommunicator};
use ::mpi::traits::{Communicator, CommunicatorCollectives, Destination, Equivalence, Root, Source};
use ediffi_train::reduce::Reduce;
use tch::kind::Element;
use tch::{Kind, Tensor};

use super::session::{Session, names};
use super::waiting::{pause, wait_for_all};
use crate::{Error, Result};

/// So many elements of a large tensor are sent at a time: they are copied, and the copies stay in the cache.
const PART: i64 = 1 << 20;
/// Up to so many are few.
const FEW: usize = 1 << 12;
/// The tag of a message that says to rank 0: I wait.
const WAITING: i32 = 1;
/// Such a message is sent after this share of the timeout.
const SHARE: u32 = 8;

/// Processes that add up gradients together.
pub(crate) struct Mpi {
    /// For what all do together.
    meeting: SimpleCommunicator,
    /// For what one says to another.
    talk: SimpleCommunicator,
    names: Vec<String>,
    timeout: Duration,
    /// The number of the meeting at hand.
    number: Cell<u64>,
    /// Of each process, the last meeting that it waited for, as rank 0 has heard.
    heard: RefCell<Vec<u64>>,
    // Last: the communicators have to be gone before MPI ends.
    session: Rc<Session>,
}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank()).field("names", &self.names).finish_non_exhaustive()
    }
}

impl Mpi {
    /// All processes of the job. Once in a process.
    pub(crate) fn start(timeout: Duration) -> Result<Self> {
        let (session, world) = Session::start(timeout)?;
        Self::over(&world, Rc::new(session), timeout)
    }

    fn over(communicator: &SimpleCommunicator, session: Rc<Session>, timeout: Duration) -> Result<Self> {
        let (meeting, talk) = (communicator.duplicate(), communicator.duplicate());
        let names = names(&meeting, session.name())?;
        let heard = RefCell::new(vec![0; names.len()]);
        Ok(Self { meeting, talk, names, timeout, number: Cell::new(0), heard, session })
    }

    /// Those of these processes that come with the same `group`.
    pub(crate) fn part(&self, group: usize) -> Result<Self> {
        let no = || Error::Start { reason: format!("the group {group} cannot be made") };
        let color = i32::try_from(group).map_err(|_| no())?;
        let own = self.meeting.split_by_color(Color::with_value(color)).ok_or_else(no)?;
        Self::over(&own, self.session.clone(), self.timeout)
    }

    pub(crate) fn session(&self) -> Rc<Session> {
        self.session.clone()
    }

    /// Waits for a request that all make, and ends the job if somebody does not.
    fn wait<'a, D: ?Sized, S: Scope<'a>>(&self, mut request: Request<'a, D, S>) {
        let (began, say_after) = (Instant::now(), self.timeout / SHARE);
        let mut said = false;
        loop {
            match request.test() {
                Ok(_) => return,
                Err(again) => request = again,
            }
            let waited = began.elapsed();
            if waited > say_after {
                match self.rank() {
                    0 => self.listen(),
                    _ if !said => {
                        self.talk.process_at_rank(0).send_with_tag(&self.number.get(), WAITING);
                        said = true;
                    }
                    _ => {}
                }
            }
            // Who came shortly before the end has had time to say so; and rank 0 to end the job, unless it is the one that hangs.
            let patience = self.timeout + say_after * if self.rank() == 0 { 2 } else { 4 };
            if waited > patience {
                self.session.end_job(&self.blame());
            }
            pause(waited);
        }
    }

    /// Hears who waits. Of rank 0.
    fn listen(&self) {
        while let Some((message, status)) = self.talk.any_process().immediate_matched_probe_with_tag(WAITING) {
            let (number, _) = message.matched_receive::<u64>();
            let from = usize::try_from(status.source_rank()).unwrap_or_default();
            if let Some(heard) = self.heard.borrow_mut().get_mut(from) {
                *heard = number;
            }
        }
    }

    /// Who is not there, in words.
    fn blame(&self) -> String {
        let missing: Vec<String> = match self.rank() {
            0 => {
                let heard = self.heard.borrow();
                let absent = heard.iter().enumerate().skip(1).filter(|(_, number)| **number < self.number.get());
                absent.map(|(rank, _)| self.name(rank)).collect()
            }
            _ => vec![self.name(0)],
        };
        let seconds = self.timeout.as_secs_f64();
        match missing.as_slice() {
            [] => format!("all processes have waited for each other for {seconds} s: the job ends"),
            missing => format!("{} did not come to a sum within {seconds} s: the job ends", missing.join(", ")),
        }
    }

    /// Waits until all are there.
    pub(crate) fn meet(&self) {
        self.number.set(self.number.get() + 1);
        self.wait(self.meeting.immediate_barrier());
    }

    fn sum_of<T: Element + Equivalence + Copy + Default>(&self, buffer: &mut Tensor) -> Result<()> {
        if buffer.numel() <= FEW {
            self.number.set(self.number.get() + 1);
            let own = copied::<T>(buffer)?;
            let mut sum = vec![T::default(); own.len()];
            scope(|scope| {
                let request = self.meeting.immediate_all_reduce_into(
                    scope,
                    own.as_slice(),
                    sum.as_mut_slice(),
                    SystemOperation::sum(),
                );
                self.wait(request);
            });
            return Ok(buffer.f_copy_(&Tensor::f_from_slice(&sum)?)?);
        }
        self.meet();
        let _watched = self.session.watch("a sum");
        let mut sum = Vec::new();
        for mut part in buffer.f_split(PART, 0)? {
            let own = copied::<T>(&part)?;
            sum.resize(own.len(), T::default());
            self.meeting.all_reduce_into(own.as_slice(), sum.as_mut_slice(), SystemOperation::sum());
            part.f_copy_(&Tensor::f_from_slice(&sum)?)?;
        }
        Ok(())
    }

    fn broadcast_of<T: Element + Equivalence + Copy + Default>(&self, buffer: &mut Tensor) -> Result<()> {
        self.meet();
        let _watched = self.session.watch("a broadcast");
        for mut part in buffer.f_split(PART, 0)? {
            let mut numbers = copied::<T>(&part)?;
            self.meeting.process_at_rank(0).broadcast_into(numbers.as_mut_slice());
            if self.rank() != 0 {
                part.f_copy_(&Tensor::f_from_slice(&numbers)?)?;
            }
        }
        Ok(())
    }
}

impl Reduce for Mpi {
    fn rank(&self) -> usize {
        usize::try_from(self.meeting.rank()).unwrap_or_default()
    }

    fn world(&self) -> usize {
        self.names.len()
    }

    fn sum(&self, buffer: &mut Tensor) -> ediffi_train::Result<()> {
        let _no_grad = tch::no_grad_guard();
        match expect_flat(buffer)? {
            Kind::Double => self.sum_of::<f64>(buffer)?,
            _ => self.sum_of::<f32>(buffer)?,
        }
        Ok(())
    }

    fn broadcast(&self, buffer: &mut Tensor) -> ediffi_train::Result<()> {
        let _no_grad = tch::no_grad_guard();
        match expect_flat(buffer)? {
            Kind::Double => self.broadcast_of::<f64>(buffer)?,
            _ => self.broadcast_of::<f32>(buffer)?,
        }
        Ok(())
    }

    fn barrier(&self) -> ediffi_train::Result<()> {
        wait_for_all(self.meeting.immediate_barrier(), None);
        Ok(())
    }

    fn name(&self, rank: usize) -> String {
        self.names.get(rank).cloned().unwrap_or_else(|| format!("rank {rank}"))
    }
}

/// Fails unless a buffer is one row of f32 or f64.
pub(crate) fn expect_flat(buffer: &Tensor) -> Result<Kind> {
    let (kind, shape) = (buffer.f_kind()?, buffer.size());
    match (kind, shape.as_slice()) {
        (Kind::Float | Kind::Double, [_]) if buffer.is_contiguous() => Ok(kind),
        _ => Err(Error::Buffer { reason: format!("it is {kind:?} of shape {shape:?}, and not a row of f32 or f64") }),
    }
}

/// The numbers of a tensor, wherever it is.
fn copied<T: Element + Copy + Default>(tensor: &Tensor) -> Result<Vec<T>> {
    let mut numbers = vec![T::default(); tensor.numel()];
    let count = numbers.len();
    tensor.f_copy_data(&mut numbers, count)?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_row_of_f32_or_f64_can_be_sent_and_nothing_else() {
        let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, Device::Cpu));
        for kind in [Kind::Float, Kind::Double] {
            assert_eq!(expect_flat(&zeros(&[3], kind)).unwrap(), kind);
        }
        let every_second = zeros(&[8], Kind::Float).slice(0, None, None, 2);
        for other in [zeros(&[3], Kind::Int64), zeros(&[3, 1], Kind::Float), zeros(&[], Kind::Float), every_second] {
            let error = expect_flat(&other).unwrap_err();
            assert!(matches!(error, Error::Buffer { .. }), "{error}");
        }
    }
}
