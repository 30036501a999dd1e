//! What an error may look like.

use std::error::Error;

/// The longest text of an error with all its causes, in bytes: who wrote the input must not decide how much goes into a log.
const LONGEST: usize = 10_000;

/// Checks that an error says something, and not too much.
pub fn check(error: &dyn Error) {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said.push_str(&format!(": {error}"));
        cause = error.source();
    }
    assert!(!said.trim().is_empty(), "an error says nothing");
    assert!(said.len() <= LONGEST, "an error of {} bytes: {}", said.len(), said.chars().take(200).collect::<String>());
}

/// The value of a result whose error was checked.
pub fn checked<T, E: Error>(result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| check(error)).ok()
}
