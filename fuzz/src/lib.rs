//! What the fuzz targets share: how a target begins and ends, memory that is counted, folders whose files are exchanged, and what an
//! error may look like.
//!
//! A target is a function of bytes that panics where a promise of `docs/security.md` is broken.

mod memory;
mod quiet;
mod room;
mod said;

pub use libfuzzer_sys;
pub use memory::peak;
pub use quiet::{begin, guarded};
pub use room::{Room, fixture};
pub use said::{check, checked};

/// Makes a program of a function of bytes.
#[macro_export]
macro_rules! target {
    ($run:path) => {
        $crate::libfuzzer_sys::fuzz_target!(init: $crate::begin(), |data: &[u8]| $crate::guarded($run, data));
    };
}
