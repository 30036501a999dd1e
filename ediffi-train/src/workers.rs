//! The threads that share the batches of a step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, Scope};

use tch::Tensor;

use crate::Error;
use crate::state::Replica;

/// One of the threads that share the batches of a step.
pub struct Worker<'a, B, E> {
    /// Its view of the parameters, which its network is built from.
    pub replica: Replica,
    /// The mean loss of a batch by its number.
    pub loss: Loss<'a, B, E>,
}

/// The mean loss of a batch, from its number and the batch.
pub type Loss<'a, B, E> = Box<dyn FnMut(u64, B) -> Result<Tensor, E> + Send + 'a>;

impl<B, E> std::fmt::Debug for Worker<'_, B, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// Loss and gradients of some batches; the gradients are left in the worker's replica.
fn run<B, E: From<Error>>(
    loss: &mut impl FnMut(u64, B) -> Result<Tensor, E>,
    batches: Vec<(u64, B)>,
) -> Result<Vec<Tensor>, E> {
    let gradients = |(number, batch)| {
        let value = loss(number, batch)?;
        value.f_backward().map_err(Error::from)?;
        Ok(value.f_detach().map_err(Error::from)?)
    };
    batches.into_iter().map(gradients).collect()
}

/// [`run`], where a panic of the loss is an error.
fn guarded<B, E: From<Error>>(loss: &mut Loss<'_, B, E>, share: Share<B>) -> Losses<E> {
    catch_unwind(AssertUnwindSafe(|| run(loss, share))).unwrap_or_else(|_| Err(Error::Worker.into()))
}

/// The batches of one worker in one step, by their numbers.
pub(crate) type Share<B> = Vec<(u64, B)>;
/// The losses of a share.
pub(crate) type Losses<E> = Result<Vec<Tensor>, E>;

/// Workers at their desks. Several have a thread each, for the whole training: jemalloc gives the memory of a thread back to the
/// kernel when it ends, and a thread of the next step would have to get it again, zeroed page by page.
pub(crate) enum Team<'scope, 'a, B, E> {
    /// On the calling thread, with all of libtorch's threads.
    One(&'scope mut Loss<'a, B, E>),
    Many(Vec<Desk<B, E>>),
}

/// Where a worker's shares go to, and its losses come from.
pub(crate) struct Desk<B, E> {
    shares: Sender<Share<B>>,
    losses: Receiver<Losses<E>>,
}

impl<'scope, 'a: 'scope, B: Send + 'scope, E: From<Error> + Send + 'scope> Team<'scope, 'a, B, E> {
    /// # Errors
    /// [`Error::Thread`] when a thread cannot be started.
    pub(crate) fn new<'env>(
        scope: &'scope Scope<'scope, 'env>,
        mut losses: Vec<&'scope mut Loss<'a, B, E>>,
    ) -> Result<Self, Error> {
        if losses.len() == 1
            && let Some(loss) = losses.pop()
        {
            return Ok(Self::One(loss));
        }
        let desk = |loss: &'scope mut Loss<'a, B, E>| {
            let (shares, inbox) = channel::<Share<B>>();
            let (outbox, losses) = channel();
            // Closed channels end the work: those of a training that is over, or failed elsewhere.
            let work = move || while inbox.recv().is_ok_and(|share| outbox.send(guarded(loss, share)).is_ok()) {};
            let started = Builder::new().name("worker".to_owned()).spawn_scoped(scope, work);
            started.map(|_| Desk { shares, losses }).map_err(|source| Error::Thread { source })
        };
        Ok(Self::Many(losses.into_iter().map(desk).collect::<Result<_, _>>()?))
    }

    /// Deals the batches of a step out and gathers their losses.
    pub(crate) fn step(&mut self, batches: Vec<(u64, B)>) -> Losses<E> {
        let desks = match self {
            Self::One(loss) => return guarded(loss, batches),
            Self::Many(desks) => desks,
        };
        let mut shares: Vec<Share<B>> = desks.iter().map(|_| Vec::new()).collect();
        for (index, batch) in batches.into_iter().enumerate() {
            let turn = index % shares.len();
            if let Some(share) = shares.get_mut(turn) {
                share.push(batch);
            }
        }
        for (desk, share) in desks.iter().zip(shares) {
            desk.shares.send(share).map_err(|_| Error::Worker)?;
        }
        let mut values = Vec::new();
        for desk in desks {
            values.extend(desk.losses.recv().map_err(|_| Error::Worker)??);
        }
        Ok(values)
    }
}
