//! Texts of unknown length, cut for a message.

/// The most characters of a foreign text that a message repeats.
pub const BRIEF: usize = 64;

/// `text`, cut after [`BRIEF`] characters: a message about a request must not grow with it.
///
/// ```
/// use ediffi_core::brief::brief;
///
/// assert_eq!(brief("a cat"), "a cat");
/// assert_eq!(brief(&"x".repeat(65)), format!("{}…", "x".repeat(64)));
/// ```
#[must_use]
pub fn brief(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(BRIEF) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}
