//! What to do about a folder that is not whole.

/// What to do where weights are missing.
pub(super) const ADVICE: &str = "DeepFloyd's files are given out when their licence has been accepted on the page of the model: accept it, log in, and download";
