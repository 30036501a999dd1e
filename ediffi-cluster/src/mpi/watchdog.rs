//! Ends the process when a call of MPI that blocks takes too long: a machine that is lost in the middle of a sum.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use super::words::last_words;

/// Since when the process is in which call.
type Call = Mutex<Option<(Instant, &'static str)>>;

/// Looks at the calls of a process from a thread of its own, which makes none.
#[derive(Debug)]
pub(super) struct Watchdog {
    call: Arc<Call>,
}

/// A call that is watched until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched<'a>(&'a Call);

impl Watchdog {
    /// Watches the process `name`.
    pub(super) fn start(timeout: Duration, name: String) -> std::io::Result<Self> {
        let call = Arc::new(Call::default());
        let watched = Arc::downgrade(&call);
        let look = move || {
            while let Some(what) = overdue(&watched, timeout) {
                if let Some(what) = what {
                    last_words(&format!("{name} has been in {what} for {} s: the job ends", timeout.as_secs_f64()));
                    // No call of MPI from this thread: `mpirun` and `srun` end the job when a process dies.
                    std::process::abort();
                }
                sleep((timeout / 8).min(Duration::from_secs(1)));
            }
        };
        Builder::new().name("watchdog".to_owned()).spawn(look)?;
        Ok(Self { call })
    }

    pub(super) fn watch(&self, what: &'static str) -> Watched<'_> {
        set(&self.call, Some((Instant::now(), what)));
        Watched(&self.call)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        set(self.0, None);
    }
}

fn set(call: &Call, to: Option<(Instant, &'static str)>) {
    *call.lock().unwrap_or_else(PoisonError::into_inner) = to;
}

/// `None` when nobody is watched any more, else the call that takes too long, if there is one.
fn overdue(call: &Weak<Call>, timeout: Duration) -> Option<Option<&'static str>> {
    let call = call.upgrade()?;
    let call = call.lock().unwrap_or_else(PoisonError::into_inner);
    Some(call.filter(|(since, _)| since.elapsed() > timeout).map(|(_, what)| what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_overdue_until_it_returns() {
        let watchdog = Watchdog { call: Arc::default() };
        let weak = Arc::downgrade(&watchdog.call);
        assert_eq!(overdue(&weak, Duration::ZERO), Some(None));
        let watched = watchdog.watch("a sum");
        sleep(Duration::from_millis(2));
        assert_eq!(overdue(&weak, Duration::ZERO), Some(Some("a sum")));
        assert_eq!(overdue(&weak, Duration::from_secs(3600)), Some(None));
        drop(watched);
        assert_eq!(overdue(&weak, Duration::ZERO), Some(None));
        drop(watchdog);
        assert_eq!(overdue(&weak, Duration::ZERO), None);
    }
}
