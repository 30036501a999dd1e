//! Loading experts, and keeping them in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use crate::interrupt::Inherited;
use crate::plan::Plan;
use crate::{Error, Result, interrupt};

/// How many experts of an ensemble are in memory at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Residency {
    /// All: an expert is loaded when it is first needed, and stays.
    #[default]
    All,
    /// One: an expert is dropped before the next one is loaded. A cascade draws the batches of a stage in turns then, all with one
    /// expert before any with the next, so each expert is loaded once. Batches that wait are on the device, each with its
    /// embeddings and at most six times the f32 pixels of its pictures: 72 MiB for a picture of 1024×1024.
    Relay,
    /// At most two: while one works, a thread loads the next one of the plan. Otherwise as [`Relay`](Self::Relay).
    RelayPrefetch,
}

/// Loads the expert with the given index.
///
/// [`Residency::RelayPrefetch`] calls it on another thread, which has as many of libtorch's threads as the one that asks for experts,
/// and looks at the same [flags](crate::interrupt). The loader has to make other settings that belong to a thread, such as libtorch's
/// no-grad guard, itself.
pub type Loader<N> = Box<dyn FnMut(usize) -> Result<N> + Send>;

/// The loaded experts of an ensemble.
///
/// An expert is loaded when it is first asked for. [`Residency::RelayPrefetch`] loads one ahead if the plan visits it. If
/// loading fails, [`ExpertPool::get`] returns the error, and the next call tries again.
pub struct ExpertPool<N> {
    experts: usize,
    residency: Residency,
    loaded: BTreeMap<usize, N>,
    loader: Arc<Mutex<Loader<N>>>,
    /// The expert that is being loaded ahead, and the thread that does it.
    ahead: Option<(usize, JoinHandle<Result<N>>)>,
    /// The experts of the plan in the order of their work.
    order: Vec<usize>,
}

impl<N: Send + 'static> ExpertPool<N> {
    /// A pool of `experts` experts. Nothing is loaded yet.
    #[must_use]
    pub fn new(experts: usize, residency: Residency, loader: Loader<N>) -> Self {
        let loader = Arc::new(Mutex::new(loader));
        Self { experts, residency, loaded: BTreeMap::new(), loader, ahead: None, order: Vec::new() }
    }

    /// Tells the pool which experts will be asked for, so that it can load the next one ahead.
    ///
    /// An expert that was loaded ahead is dropped if `plan` does not visit it.
    pub fn follow(&mut self, plan: &Plan) {
        self.order = plan.experts().collect();
        if self.ahead.as_ref().is_some_and(|(index, _)| !self.order.contains(index)) {
            self.discard_ahead();
        }
    }

    /// The experts in memory, lowest index first. One that is still being loaded ahead is not among them.
    pub fn resident(&self) -> impl Iterator<Item = usize> + '_ {
        self.loaded.keys().copied()
    }

    /// Drops every expert. Waits for one that is being loaded ahead.
    pub fn clear(&mut self) {
        self.loaded.clear();
        self.discard_ahead();
    }

    /// Returns expert `index`, and loads it first if it is not in memory.
    ///
    /// # Errors
    /// [`Error::NoSuchExpert`] for an index that the ensemble does not have, [`Error::ExpertThread`] if the loader
    /// panicked on its thread, and the errors of the loader.
    pub fn get(&mut self, index: usize) -> Result<&mut N> {
        let missing = Error::NoSuchExpert { index, experts: self.experts };
        if index >= self.experts {
            return Err(missing);
        }
        if !self.loaded.contains_key(&index) {
            if self.residency != Residency::All {
                self.loaded.clear();
            }
            let expert = self.load(index)?;
            self.loaded.insert(index, expert);
        }
        if self.residency == Residency::RelayPrefetch {
            self.prefetch_after(index);
        }
        self.loaded.get_mut(&index).ok_or(missing)
    }

    /// Loads expert `index`, or takes it from the thread that has been loading it.
    fn load(&mut self, index: usize) -> Result<N> {
        if let Some((_, thread)) = self.ahead.take_if(|(ahead, _)| *ahead == index) {
            match thread.join().map_err(|_| Error::ExpertThread(index))? {
                // A run that was cancelled, and not this one.
                Err(Error::Cancelled) => interrupt::check()?,
                loaded => return loaded,
            }
        }
        self.discard_ahead();
        load(&self.loader, index)
    }

    /// Starts to load the expert that works after `current`, unless one is being loaded already.
    fn prefetch_after(&mut self, current: usize) {
        let next = self.order.iter().skip_while(|expert| **expert != current).nth(1).copied();
        let Some(index) = next.filter(|index| *index < self.experts && self.ahead.is_none()) else { return };
        let (loader, stops, threads) = (Arc::clone(&self.loader), Inherited::here(), tch::get_num_threads());
        let work = move || {
            // What libtorch gives a new thread, when it is first asked, depends on what else the process does.
            let _ = tch::get_num_threads();
            tch::set_num_threads(threads);
            let _watched = stops.watch();
            load(&loader, index)
        };
        match std::thread::Builder::new().name(format!("expert {index}")).spawn(work) {
            Ok(thread) => self.ahead = Some((index, thread)),
            // Not an error: the expert is loaded when its turn comes.
            Err(error) => tracing::warn!(%error, expert = index, "no thread to load ahead"),
        }
    }
}

impl<N> ExpertPool<N> {
    /// Waits for the loading thread and drops what it loaded. An error is dropped too: nobody asked for that expert.
    fn discard_ahead(&mut self) {
        if let Some((_, thread)) = self.ahead.take() {
            drop(thread.join());
        }
    }
}

/// Waits for the loading thread, which must not outlive the files that it loads from.
impl<N> Drop for ExpertPool<N> {
    fn drop(&mut self) {
        self.discard_ahead();
    }
}

impl<N> fmt::Debug for ExpertPool<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { residency, loaded, .. } = self;
        f.debug_struct("ExpertPool")
            .field("residency", residency)
            .field("loaded", &loaded.keys())
            .finish_non_exhaustive()
    }
}

fn load<N>(loader: &Mutex<Loader<N>>, index: usize) -> Result<N> {
    tracing::debug!(expert = index, "loading");
    // A loader that panicked once may be asked again.
    let mut loader = loader.lock().unwrap_or_else(PoisonError::into_inner);
    loader(index)
}
