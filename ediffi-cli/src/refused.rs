//! Arguments that are refused, and the exit code that says so.

use std::error::Error;
use std::fmt;

/// The exit code of arguments and requests that are refused, as of those that clap does not understand.
pub(crate) const REFUSED: u8 = 2;

/// Why arguments are refused.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}
