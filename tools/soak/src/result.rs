//! What can go wrong here.

/// Every error is told, and ends the soak.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
