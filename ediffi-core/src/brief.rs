//! Texts of unknown length, cut for a message.

use std::borrow::Cow;

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
pub fn brief(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(BRIEF) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// The most characters of a message of somebody else's parser that is repeated. It may quote what it read.
pub const TOLD: usize = 512;

/// The characters at the end of such a message that are kept: where in the file the fault is.
const END: usize = 128;

/// `message`, of a parser that may quote what it read, cut in the middle if it has more than [`TOLD`] characters.
///
/// ```
/// use ediffi_core::brief::told;
///
/// assert_eq!(told("missing field `size` at line 3 column 1"), "missing field `size` at line 3 column 1");
/// assert_eq!(told(&"x".repeat(600)), format!("{}…{}", "x".repeat(384), "x".repeat(128)));
/// ```
#[must_use]
pub fn told(message: &str) -> Cow<'_, str> {
    // No more characters than bytes: most messages are not counted.
    if message.len() <= TOLD || message.char_indices().nth(TOLD).is_none() {
        return message.into();
    }
    let cut = |at: Option<(usize, char)>| at.map_or(0, |(place, _)| place);
    let start = message.get(..cut(message.char_indices().nth(TOLD - END))).unwrap_or_default();
    let end = message.get(cut(message.char_indices().nth_back(END - 1))..).unwrap_or_default();
    format!("{start}…{end}").into()
}

/// An error of the JSON parser, with a message that does not grow with the keys and values that it quotes. Line and column stay.
#[must_use]
pub fn told_json(error: serde_json::Error) -> serde_json::Error {
    match told(&error.to_string()) {
        Cow::Borrowed(_) => error,
        Cow::Owned(short) => serde::de::Error::custom(short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        for message in ["é".repeat(TOLD), "é".repeat(TOLD / 2)] {
            assert!(matches!(told(&message), Cow::Borrowed(_)));
        }
        let message = format!("unknown field `{}` at line 7 column 9", "é".repeat(10_000));
        let short = told(&message);
        assert_eq!(short.chars().count(), TOLD + 1);
        assert!(short.starts_with("unknown field `éé") && short.ends_with("éé` at line 7 column 9"), "{short}");
    }

    #[test]
    fn an_error_of_json_keeps_its_place() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        let read = |key: &str| told_json(serde_json::from_str::<Nothing>(&format!("\n{{\"{key}\": 1}}")).unwrap_err());
        let (short, long) = (read("k"), read(&"k".repeat(10_000)));
        assert_eq!((short.line(), long.line(), long.column()), (2, 2, 10_003));
        assert!(short.to_string().starts_with("unknown field `k`"), "{short}");
        let said = long.to_string();
        assert!(said.len() < 700 && said.ends_with("at line 2 column 10003"), "{said}");
    }
}
