//! The end of the process: nobody computes while libtorch's static objects are destroyed.
//!
//! When `main` returns or somebody calls [`std::process::exit`], C destroys the static objects of all libraries, under whatever
//! other threads compute: a crash. So a thread that computes says that it is [inside](enter). A handler that C calls before it
//! destroys anything asks those inside to stop ([`is_near`]), waits until nobody is, and lets nobody in again: who comes later
//! sleeps until the process is gone. Code that may wait for others, such as an observer's, runs [`outside`].
//!
//! Handlers are called in the reverse order of their registration, and so are the destructors of the objects that libtorch makes when
//! it first needs them: the lists of oneDNN, for instance. A handler that was registered before one of them would come too late. So
//! whoever comes in first computes a little of everything, and the handler is registered behind that, and again and again later. It is
//! registered once more when a thread ends that used the library. For the thread that ends the process that is before any handler is
//! called, where the C library knows the destructors of threads: then it is the first.
#![allow(unsafe_code, reason = "foreign calls: `atexit` of C, and which thread is the main one")]

use std::cell::Cell;
use std::ffi::c_int;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

unsafe extern "C" {
    // SAFETY: the declaration is that of C99. The function takes any function that does not unwind, from any thread.
    safe fn atexit(handler: extern "C" fn()) -> c_int;
}

#[cfg(target_os = "linux")]
unsafe extern "C" {
    // SAFETY: the declarations are those of POSIX and of glibc 2.30 and musl. Neither can fail.
    safe fn getpid() -> c_int;
    safe fn gettid() -> c_int;
}

static GATE: Gate = Gate { state: Mutex::new(State { inside: 0, entered: 0, closed: false }), changed: Condvar::new() };
/// How many threads that used the library have ended.
static ENDS: AtomicU64 = AtomicU64::new(0);
static NEAR: AtomicBool = AtomicBool::new(false);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Made on threads that use the library.
    static THREAD: ThreadEnd = const { ThreadEnd };
}

/// Is dropped when its thread ends, or when it ends the process.
struct ThreadEnd;

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        let is_main = getpid() == gettid();
        #[cfg(not(target_os = "linux"))]
        let is_main = false;
        // A registration takes 32 bytes for ever. By the time that so many threads have ended, libtorch has made what it needs.
        let ends = ENDS.fetch_add(1, Ordering::Relaxed) + 1;
        if is_main || ends <= 16 * DENSE || ends.is_power_of_two() {
            register();
        }
    }
}

/// Looks out for the end of this thread. Whoever starts threads that compute calls it.
pub fn watch_thread() {
    // A destructor of another thread-local may come behind this one's end.
    let _ = THREAD.try_with(|_| {});
}

/// Makes the handler the first to be called.
fn register() {
    if atexit(end) != 0 {
        tracing::debug!("no room for a handler at exit");
    }
}

/// Up to so many times the handler is registered whenever somebody comes in; then when they have come in twice as often, and so on.
const DENSE: u64 = 64;

/// Has libtorch make the objects that it makes when it first needs them.
fn warm_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let compute = || -> Result<(), tch::TchError> {
            for kind in [Kind::Float, Kind::BFloat16] {
                let x = Tensor::f_zeros([1, 8, 8, 8], (Kind::Float, Device::Cpu))?.f_to_kind(kind)?;
                let weight = Tensor::f_ones([8, 8, 3, 3], (kind, Device::Cpu))?;
                let y = x.f_conv2d(&weight, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1)?;
                let rows = y.f_flatten(0, 2)?;
                let _ = rows.f_matmul(&rows.f_transpose(0, 1)?)?.f_softmax(-1, kind)?;
            }
            Ok(())
        };
        if let Err(error) = compute() {
            tracing::debug!(%error, "libtorch was not warmed up");
        }
    });
}

struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    inside: usize,
    /// How often somebody came in.
    entered: u64,
    closed: bool,
}

impl Gate {
    /// The numbers are whole after every change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) {
        let entered = {
            let open = self.changed.wait_while(self.lock(), |state| state.closed);
            let mut state = open.unwrap_or_else(PoisonError::into_inner);
            (state.inside, state.entered) = (state.inside + 1, state.entered + 1);
            state.entered
        };
        INSIDE.set(true);
        watch_thread();
        warm_up();
        if entered <= DENSE || entered.is_power_of_two() {
            register();
        }
    }

    fn leave(&self) {
        INSIDE.set(false);
        self.lock().inside -= 1;
        self.changed.notify_all();
    }
}

/// How long the end of a process waits. What runs inside may be a program's own, too, and may wait for what the ending thread holds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until nobody computes but perhaps the thread that ends the process, though not longer than [`PATIENCE`]. The second time it
/// has nothing to wait for.
extern "C" fn end() {
    NEAR.store(true, Ordering::SeqCst);
    let own = usize::from(INSIDE.get());
    let mut state = GATE.lock();
    state.closed = true;
    drop(GATE.changed.wait_timeout_while(state, PATIENCE, |state| state.inside > own));
}

/// While it lives, its thread computes. The end of the process waits for it.
#[derive(Debug)]
#[must_use = "the thread is inside for as long as this lives"]
pub struct Inside {
    outermost: bool,
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

/// Says that this thread computes from now on. At the end of the process it does not return. Within another one it changes nothing.
pub fn enter() -> Inside {
    let outermost = !INSIDE.get();
    if outermost {
        GATE.enter();
    }
    Inside { outermost, thread: PhantomData }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if self.outermost {
            GATE.leave();
        }
    }
}

/// Runs somebody else's code, which may wait for whatever it likes. It should not compute meanwhile. At the end of the process it
/// does not return.
pub fn outside<T>(run: impl FnOnce() -> T) -> T {
    struct Return(bool);
    impl Drop for Return {
        fn drop(&mut self) {
            if self.0 {
                GATE.enter();
            }
        }
    }
    let inside = INSIDE.get();
    if inside {
        GATE.leave();
    }
    // A panic comes back in, too.
    let _return = Return(inside);
    run()
}

/// Whether the process is about to end, so that those inside should stop.
#[must_use]
pub fn is_near() -> bool {
    NEAR.load(Ordering::SeqCst)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are inside is not asked: other tests of the process may be.
    #[test]
    fn a_thread_is_inside_until_the_outermost_guard_goes() {
        let is_inside = || INSIDE.get();
        let whole = enter();
        drop(enter());
        assert!(is_inside());
        assert_eq!(outside(|| (is_inside(), outside(is_inside))), (false, false));
        let panic = std::panic::catch_unwind(|| outside(|| panic!("an observer's own")));
        assert!(panic.is_err() && is_inside(), "a panic comes back in");
        drop(whole);
        assert!(!is_inside() && !outside(is_inside) && !is_near());
    }
}
