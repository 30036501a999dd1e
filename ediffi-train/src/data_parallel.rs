//! Data-parallel training: the ranks that share the batches of a step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, Scope};

use ediffi_core::guard::guarded;
use tch::{Device, Tensor};

use crate::Error;
use crate::state::Replica;

/// One rank: a thread with a replica of the network.
pub struct Rank<'a, B, E> {
    /// Its view of the parameters, which its network is built from.
    pub replica: Replica,
    /// The mean loss of a batch by its number.
    pub loss: Loss<'a, B, E>,
}

/// The mean loss of a batch, from its number and the batch.
pub type Loss<'a, B, E> = Box<dyn FnMut(u64, B) -> Result<Tensor, E> + Send + 'a>;

impl<B, E> std::fmt::Debug for Rank<'_, B, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rank").field("replica", &self.replica).finish_non_exhaustive()
    }
}

/// How many ranks share a step of `batches` batches best: one a CPU core, but no more than there are batches; one on a GPU.
///
/// Libtorch's threads are shared out among them, for the whole process. Small networks gain far more from batches side by side
/// than from threads that share one operation.
#[must_use]
pub fn ranks(device: Device, batches: u64) -> u64 {
    if device != Device::Cpu {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let ranks = cores.min(batches).max(1);
    tch::set_num_threads((cores / ranks) as i32);
    ranks
}

/// Loss and gradients of some batches. The gradients are left in the rank's replica.
fn compute<B, E: From<Error>>(loss: &mut Loss<'_, B, E>, share: Share<B>) -> Losses<E> {
    let gradients = |(number, batch)| {
        let value = loss(number, batch)?;
        value.f_backward().map_err(Error::from)?;
        Ok(value.f_detach().map_err(Error::from)?)
    };
    share.into_iter().map(gradients).collect()
}

/// [`compute`], where a panic is an error; one of `tch` says what libtorch said.
fn run<B, E: From<Error>>(loss: &mut Loss<'_, B, E>, share: Share<B>) -> Losses<E> {
    let computed = catch_unwind(AssertUnwindSafe(|| guarded(|| Ok(compute(loss, share)))));
    computed.map_err(|_| Error::RankPanicked).and_then(|torch: Result<_, Error>| torch)?
}

/// The batches of one rank in one step, by their numbers.
type Share<B> = Vec<(u64, B)>;
/// The losses of a share.
type Losses<E> = Result<Vec<Tensor>, E>;

/// Ranks at work. Several have a thread each, for the whole training: jemalloc gives the memory of a thread back to the
/// kernel when it ends, and a thread of the next step would have to get it again, zeroed page by page.
pub(crate) enum Group<'scope, 'a, B, E> {
    /// On the calling thread, with all of libtorch's threads.
    One(&'scope mut Loss<'a, B, E>),
    Many(Vec<Channels<B, E>>),
}

/// Where a rank's shares go to, and its losses come from.
pub(crate) struct Channels<B, E> {
    shares: Sender<Share<B>>,
    losses: Receiver<Losses<E>>,
}

impl<'scope, 'a: 'scope, B: Send + 'scope, E: From<Error> + Send + 'scope> Group<'scope, 'a, B, E> {
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
        let start = |loss: &'scope mut Loss<'a, B, E>| {
            let (shares, inbox) = channel::<Share<B>>();
            let (outbox, losses) = channel();
            // Closed channels end the work: those of a training that is over, or failed elsewhere.
            let work = move || while inbox.recv().is_ok_and(|share| outbox.send(run(loss, share)).is_ok()) {};
            let started = Builder::new().name("rank".to_owned()).spawn_scoped(scope, work);
            started.map(|_| Channels { shares, losses }).map_err(|source| Error::Thread { source })
        };
        Ok(Self::Many(losses.into_iter().map(start).collect::<Result<_, _>>()?))
    }

    /// Deals the batches of a step out and gathers their losses.
    pub(crate) fn step(&mut self, batches: Vec<(u64, B)>) -> Losses<E> {
        let ranks = match self {
            Self::One(loss) => return run(loss, batches),
            Self::Many(ranks) => ranks,
        };
        let mut shares: Vec<Share<B>> = ranks.iter().map(|_| Vec::new()).collect();
        for (index, batch) in batches.into_iter().enumerate() {
            let turn = index % shares.len();
            if let Some(share) = shares.get_mut(turn) {
                share.push(batch);
            }
        }
        for (rank, share) in ranks.iter().zip(shares) {
            rank.shares.send(share).map_err(|_| Error::RankPanicked)?;
        }
        let mut values = Vec::new();
        for rank in ranks {
            values.extend(rank.losses.recv().map_err(|_| Error::RankPanicked)??);
        }
        Ok(values)
    }
}
