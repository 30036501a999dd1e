//! The versions that must match.

/// The version of libtorch that `tch` 0.24 is generated from.
pub const VERSION: &str = "2.11.0";
