//! The libtorch that ediffi is built against: whether a folder holds it, and how it gets there.
//!
//! [`install`](install()) puts libtorch [`VERSION`] into a folder, out of PyTorch's wheel; `ediffi setup` (of the crate
//! `ediffi-cli`) is a command line around it. `LIBTORCH` then names that folder's `torch`.
//!
//! With the feature `build-check`, which the other crates of ediffi turn on, the build ends with a line that says what to do
//! where libtorch is missing. Without it one would read the panic of `torch-sys`, whose build script looks for libtorch, too. Cargo
//! lets no crate wait for another that it does not need. But this one needs nothing, so it can be built at once; and of what can be
//! built Cargo takes that first on which most depends. So the build scripts of `ediffi` and `ediffi-encoders`, which need this crate
//! as well, also see to it that it comes before `torch-sys`.

mod error;
mod install;
mod needs;
mod pair;
#[cfg(test)]
mod refusal;
mod rpath;
mod source;
mod version;

pub use error::Error;
pub use install::{Extent, Ready, install};
pub use needs::{Need, check as check_needs};
pub use pair::VERSION;
pub use rpath::{RPATH, of_programs, rpath};
pub use source::Source;
pub use version::{check, has_library, version_of};
