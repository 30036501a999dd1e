//! Data-parallel training: the workers that share the batches of a step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{Builder, Scope};

use ediffi_core::guard::guarded;
use tch::{Device, Tensor};

use crate::flat::Gradients;
use crate::replica::{Replica, lock};
use crate::{Error, Result};

/// One worker: a replica of the network, and its loss. The first works on the thread that trains, each other on one of its own.
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

/// How many workers share a step of `batches` batches best: one a CPU core, but no more than there are batches; one on a GPU. Small
/// networks gain far more from batches side by side than from threads that share one operation.
#[must_use]
pub fn workers(device: Device, batches: u64) -> u64 {
    if device != Device::Cpu {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    cores.min(batches).max(1)
}

/// Divides the libtorch threads of the thread that makes it by the number of workers, and restores them when it is dropped. Libtorch
/// hands the number on to all threads that are new to it.
pub(crate) struct ShareOfThreads {
    whole: i32,
}

impl ShareOfThreads {
    pub(crate) fn of(workers: usize) -> Self {
        let whole = tch::get_num_threads();
        tch::set_num_threads(i32::try_from(workers).map_or(1, |workers| whole / workers.max(1)).max(1));
        Self { whole }
    }
}

impl Drop for ShareOfThreads {
    fn drop(&mut self) {
        tch::set_num_threads(self.whole);
    }
}

/// The batches of one worker in one step, by their numbers.
type Share<B> = Vec<(u64, B)>;
/// The losses of a share.
type Losses<E> = Result<Vec<Tensor>, E>;

/// What a worker works with: its loss, and where its gradients are gathered.
pub(crate) type Work<'scope, 'a, B, E> = (&'scope mut Loss<'a, B, E>, Arc<Mutex<Gradients>>);

/// Losses of a share, with the gradients left in the worker's replica. A panic is an error; one of `tch` says what libtorch said.
fn compute<B, E: From<Error>>((loss, gradients): &mut Work<'_, '_, B, E>, share: Share<B>) -> Losses<E> {
    let backward = |(number, batch)| {
        let value = loss(number, batch)?;
        value.f_backward().map_err(Error::from)?;
        // At once, so that those of the next batch are added in f32.
        lock(gradients)?.gather()?;
        Ok(value.f_detach().map_err(Error::from)?)
    };
    let losses = || guarded(|| Ok::<Losses<E>, Error>(share.into_iter().map(backward).collect()));
    catch_unwind(AssertUnwindSafe(losses)).map_err(|_| Error::WorkerPanicked)??
}

/// Workers at work: a function that deals the batches of a step out and gathers their losses. The first worker works on the calling
/// thread, each other on a thread of its own for the whole training, with as many of libtorch's threads. jemalloc gives the
/// memory of a thread back to the kernel when it ends, and a thread of the next step would have to get it again, zeroed page by
/// page.
pub(crate) fn group<'scope, 'env, 'a: 'scope, B: Send + 'scope, E: From<Error> + Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    work: Vec<Work<'scope, 'a, B, E>>,
) -> Result<impl FnMut(Share<B>) -> Losses<E>> {
    let mut work = work.into_iter();
    let none = || Error::Setting { field: "workers", reason: "there are none".to_owned() };
    let mut first = work.next().ok_or_else(none)?;
    let threads = tch::get_num_threads();
    let start = |mut own: Work<'scope, 'a, B, E>| {
        let (shares, inbox) = channel();
        let (outbox, values) = channel();
        // Closed channels end the work: those of a training that is over, or failed elsewhere.
        let worker = move || {
            // What libtorch gives a new thread, when it is first asked, depends on what else the process does.
            let _ = tch::get_num_threads();
            tch::set_num_threads(threads);
            while inbox.recv().is_ok_and(|share| outbox.send(compute(&mut own, share)).is_ok()) {}
        };
        let started = Builder::new().name("worker".to_owned()).spawn_scoped(scope, worker);
        started.map(|_| (shares, values)).map_err(|source| Error::Thread { source })
    };
    let others = work.map(start).collect::<Result<Vec<_>>>()?;
    Ok(move |batches: Share<B>| {
        let mut shares: Vec<Share<B>> = std::iter::repeat_with(Vec::new).take(1 + others.len()).collect();
        let turns = (0..shares.len()).cycle();
        for (turn, batch) in turns.zip(batches) {
            if let Some(share) = shares.get_mut(turn) {
                share.push(batch);
            }
        }
        let mut shares = shares.into_iter();
        let own = shares.next().unwrap_or_default();
        for ((worker, _), share) in others.iter().zip(shares) {
            worker.send(share).map_err(|_| Error::WorkerPanicked)?;
        }
        let mut values = compute(&mut first, own)?;
        for (_, losses) in &others {
            values.extend(losses.recv().map_err(|_| Error::WorkerPanicked)??);
        }
        Ok(values)
    })
}
