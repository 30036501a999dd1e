//! The JSON files of published folders: written by Python, with keys of many versions.
//!
//! Each reader honours a key, knows that it is without effect here, or refuses it by name. A setting that is left unread would be taken
//! for its default.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The first of the keys that a reader left over which may matter: it is not among those `without_effect`, and not null, which in these
/// files stands for what is not used.
#[must_use]
pub fn unknown_key<'a>(left: &'a Map<String, Value>, without_effect: &[&str]) -> Option<&'a str> {
    let matters = |(key, value): &(&String, &Value)| !value.is_null() && !without_effect.contains(&key.as_str());
    left.iter().find(matters).map(|(key, _)| key.as_str())
}

/// Python's `json` writes `NaN`, `Infinity` and `-Infinity`, which JSON has not. They become texts here: a key without effect may have
/// any value, and one that wants a number names the text that it found.
pub(crate) fn quote_numbers_of_python(text: &str) -> Cow<'_, str> {
    const NUMBERS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 16);
    let (mut rest, mut in_text) = (text, false);
    while let Some(next) = rest.chars().next() {
        let number = NUMBERS.into_iter().find(|number| !in_text && rest.starts_with(number));
        let taken = match (number, next) {
            (Some(number), _) => number.len(),
            // What follows ends no text.
            (None, '\\') if in_text => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            _ => next.len_utf8(),
        };
        in_text ^= next == '"';
        let (piece, after) = rest.split_at(taken);
        match number {
            Some(number) => quoted.extend(["\"", number, "\""]),
            None => quoted.push_str(piece),
        }
        rest = after;
    }
    Cow::Owned(quoted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_of_python_become_texts_and_texts_stay() {
        let text = r#"{"a": -Infinity, "b": [NaN,Infinity], "NaN": "x \" Infinity \\", "c": "ä\\\"NaN", "d": 1e5}"#;
        let read: Value = serde_json::from_str(&quote_numbers_of_python(text)).unwrap();
        let expected = json!({
            "a": "-Infinity", "b": ["NaN", "Infinity"], "NaN": "x \" Infinity \\", "c": "ä\\\"NaN", "d": 1e5
        });
        assert_eq!(read, expected);
        assert!(matches!(quote_numbers_of_python(r#"{"a": 1}"#), Cow::Borrowed(_)));
        for broken in ["NaN", "\"NaN", "\"\\", "{\"a\": Inf", "-Infinity]"] {
            let _ = quote_numbers_of_python(broken);
        }
    }

    #[test]
    fn a_key_matters_unless_it_is_known_or_null() {
        let left = json!({ "known": 1, "off": null, "zeal": 3 });
        let left = left.as_object().unwrap();
        assert_eq!(unknown_key(left, &["known"]), Some("zeal"));
        assert_eq!(unknown_key(left, &["known", "zeal"]), None);
    }
}
