//! What to do about a folder that is not whole.

/// What to do where weights are missing.
pub(super) const ADVICE: &str = "Download";
