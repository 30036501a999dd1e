//! Stopping what a thread does between two evaluations of a U-Net: loading weights, encoding texts, enlarging pictures.
//!
//! Whoever can be cancelled has a flag. [`watch`] makes it the flag of a thread, and [`check`] looks at it: before each piece of a tensor
//! that is loaded, before each matrix product of T5, each layer of CLIP and each convolution of the enlarger.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result, exit};

/// Says whether to stop.
type Stop = Arc<dyn Fn() -> bool + Send + Sync>;

thread_local! {
    static STOPS: RefCell<Vec<Stop>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, its thread looks at a flag.
#[derive(Debug)]
#[must_use = "the flag is looked at for as long as this lives"]
pub struct Watched {
    /// How many of the thread's flags were there before.
    before: usize,
    /// It belongs to its thread.
    thread: std::marker::PhantomData<*const ()>,
}

/// Looks at `flag` as well in every [`check`] of this thread. Drop what it returns in the reverse order.
pub fn watch(flag: Arc<AtomicBool>) -> Watched {
    watch_if(move || flag.load(Ordering::Relaxed))
}

/// As [`watch`], but asks a function, such as one that looks at the clock. It should be cheap, and must not panic.
pub fn watch_if(stop: impl Fn() -> bool + Send + Sync + 'static) -> Watched {
    add(vec![Arc::new(stop)])
}

fn add(stops: Vec<Stop>) -> Watched {
    let before = STOPS.with_borrow_mut(|all| {
        let before = all.len();
        all.extend(stops);
        before
    });
    Watched { before, thread: std::marker::PhantomData }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Dropped outside: what a function holds may look here when it goes.
        let done = STOPS.with_borrow_mut(|stops| stops.split_off(self.before.min(stops.len())));
        drop(done);
    }
}

/// What a thread looks at, for another that works for it.
pub(crate) struct Inherited(Vec<Stop>);

impl Inherited {
    /// What this thread looks at.
    pub(crate) fn here() -> Self {
        Self(STOPS.with_borrow(Clone::clone))
    }

    /// Looks at the same in this thread.
    pub(crate) fn watch(self) -> Watched {
        add(self.0)
    }
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Inherited").field(&self.0.len()).finish()
    }
}

/// Fails when this thread is to stop.
///
/// # Errors
/// [`Error::Cancelled`].
pub fn check() -> Result<()> {
    let stops = exit::is_near() || STOPS.with_borrow(|stops| stops.iter().any(|stop| stop()));
    if stops { Err(Error::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_flags_of_the_thread_count_and_no_others() {
        let flag = || Arc::new(AtomicBool::new(false));
        let (outer, inner) = (flag(), flag());
        let first = watch(outer.clone());
        let second = watch(inner.clone());
        assert!(check().is_ok());
        inner.store(true, Ordering::Relaxed);
        assert!(matches!(check(), Err(Error::Cancelled)));
        assert!(std::thread::spawn(|| check().is_ok()).join().unwrap());
        drop(second);
        assert!(check().is_ok());
        outer.store(true, Ordering::Relaxed);
        assert!(check().is_err());
        drop(first);
        assert!(check().is_ok());
    }
}
