//! What is said on standard error.

use std::io::Write;

/// Writes a line to standard error. Where nobody listens, nothing is said: what a command does is not less done for it.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
