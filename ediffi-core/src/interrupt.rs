//! Stopping what a thread does between two evaluations: loading weights.
//!
//! Whoever can be cancelled has a flag. [`watch`] makes it the flag of a thread, and [`check`] looks at it before each piece of a tensor
//! that is loaded. An encoder is not stopped within a text.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result, exit};

thread_local! {
    static FLAGS: RefCell<Vec<Arc<AtomicBool>>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, its thread looks at a flag.
#[derive(Debug)]
#[must_use = "the flag is looked at for as long as this lives"]
pub struct Watched {
    /// It belongs to its thread.
    thread: std::marker::PhantomData<*const ()>,
}

/// Looks at `flag` as well in every [`check`] of this thread. Drop what it returns in the reverse order.
pub fn watch(flag: Arc<AtomicBool>) -> Watched {
    FLAGS.with_borrow_mut(|flags| flags.push(flag));
    Watched { thread: std::marker::PhantomData }
}

impl Drop for Watched {
    fn drop(&mut self) {
        FLAGS.with_borrow_mut(|flags| drop(flags.pop()));
    }
}

/// Fails when this thread is to stop.
///
/// # Errors
/// [`Error::Cancelled`].
pub fn check() -> Result<()> {
    let set = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
    if exit::is_near() || FLAGS.with_borrow(|flags| flags.iter().any(set)) { Err(Error::Cancelled) } else { Ok(()) }
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
