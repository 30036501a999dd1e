//! Lists that belong together row by row.

use crate::error::{Error, Result};

/// As [`Iterator::zip`] of two slices, which would leave out what has no partner.
///
/// # Errors
/// [`Error::Rows`], naming `what` the second list is of, when one list is longer.
pub(crate) fn paired<'a, A, B>(
    what: &'static str,
    first: &'a [A],
    second: &'a [B],
) -> Result<impl Iterator<Item = (&'a A, &'a B)> + use<'a, A, B>> {
    if first.len() != second.len() {
        return Err(Error::Rows { what, expected: first.len(), found: second.len() });
    }
    Ok(first.iter().zip(second))
}
