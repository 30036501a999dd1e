//! Who hears of a download.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How far the download of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched<'a> {
    /// The repository.
    pub repository: &'a str,
    /// The path of the file in it.
    pub file: &'a str,
    /// Bytes that are there, with those of an earlier download that broke off.
    pub have: u64,
    /// Bytes of the whole file.
    pub size: u64,
}

type Heard = dyn Fn(&Fetched<'_>) -> ControlFlow<()> + Send + Sync;

/// Somebody who hears of it, or nobody.
#[derive(Clone, Default)]
pub(super) struct Watcher(Option<Arc<Heard>>);

impl Watcher {
    pub(super) fn new(heard: impl Fn(&Fetched<'_>) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(heard)))
    }

    pub(super) fn hears(&self, fetched: &Fetched<'_>) -> ControlFlow<()> {
        self.0.as_ref().map_or(ControlFlow::Continue(()), |heard| heard(fetched))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watcher").field(&self.0.is_some()).finish()
    }
}
