//! Waiting for other processes, which may need the core that waits.

use std::time::{Duration, Instant};

use ::mpi::request::Request;

/// Whether all came before `patience` ended. If not, the request is left as it is, and the process has to end.
pub(super) fn wait_for_all(mut request: Request<'static, ()>, patience: Option<Duration>) -> bool {
    let began = Instant::now();
    loop {
        match request.test() {
            Ok(_) => return true,
            Err(again) => request = again,
        }
        if patience.is_some_and(|patience| began.elapsed() > patience) {
            std::mem::forget(request);
            return false;
        }
        pause(began.elapsed());
    }
}

/// Gives the core to another process, and the more readily the longer this one has waited: there may be fewer cores than processes.
pub(super) fn pause(waited: Duration) {
    match waited.as_micros() {
        ..2_000 => std::thread::yield_now(),
        2_000..1_000_000 => std::thread::sleep(Duration::from_micros(50)),
        _ => std::thread::sleep(Duration::from_millis(1)),
    }
}
