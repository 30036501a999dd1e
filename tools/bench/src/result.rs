//! Any error, in words: all of them end up on the screen or in a table.

/// The program's result.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
