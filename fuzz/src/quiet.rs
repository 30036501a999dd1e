//! The end of a target: a panic that nobody catches.

use std::backtrace::Backtrace;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Mutex;

/// The variable that asks for the way to a panic; `cargo xtask fuzz --replay` sets it.
const WAY: &str = "EDIFFI_FUZZ_BACKTRACE";

/// What the last panic said.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Before the first input. libFuzzer's binding ends the program at every panic; but the library catches those of a parser of others,
/// and makes errors of them.
pub fn begin() {
    // One thread, as many programs run beside each other.
    tch::set_num_threads(1);
    set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST.lock() {
            // Of a panic that is caught nobody asks for the way there, and finding it takes 60 MB.
            let way = std::env::var_os(WAY).map(|_| Backtrace::force_capture().to_string());
            *last = format!("{panic}\n{}", way.unwrap_or_default());
        }
    }));
}

/// Runs a target on one input, and ends the program if it panics, so that libFuzzer keeps the input.
pub fn guarded(run: fn(&[u8]), data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| run(data))).is_err() {
        let said = LAST.lock().map_or_else(|_| "a panic".to_owned(), |last| last.clone());
        eprintln!("find: {said}");
        std::process::abort();
    }
}
