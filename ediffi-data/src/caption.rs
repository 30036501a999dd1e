//! Captions as files have them. Errors are reasons: the caller knows the name.

use serde::Deserialize;

/// The longest file of one caption, in bytes; JSON files hold other things, too.
pub(crate) const LONGEST: u64 = 1 << 20;

/// A caption under one of its two names; other keys are somebody else's.
#[derive(Debug, Deserialize)]
pub(crate) struct Captioned {
    caption: Option<String>,
    text: Option<String>,
}

impl Captioned {
    /// What stands under each of the names.
    pub(crate) fn of(caption: Option<String>, text: Option<String>) -> Self {
        Self { caption, text }
    }

    /// The caption, without the space around it.
    pub(crate) fn one(self) -> Result<String, String> {
        match (self.caption, self.text) {
            (Some(said), None) | (None, Some(said)) => Ok(said.trim().to_owned()),
            (None, None) => Err("it has neither a `caption` nor a `text`".to_owned()),
            (Some(_), Some(_)) => Err("it has both a `caption` and a `text`: one has to go".to_owned()),
        }
    }
}

/// What stands behind the mark that some editors put before UTF-8.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// The caption of a text file: all of it, without the space around it.
pub(crate) fn of_text(bytes: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(bytes).map_err(|error| format!("it is no UTF-8: {error}"))?;
    Ok(text.trim_start_matches('\u{feff}').trim().to_owned())
}

/// The caption of a JSON file, under the key `caption` or `text`.
pub(crate) fn of_json(bytes: &[u8]) -> Result<String, String> {
    serde_json::from_slice::<Captioned>(without_mark(bytes)).map_err(|error| error.to_string())?.one()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_is_trimmed_and_one() {
        assert_eq!(of_text("\u{feff} a cat\n".into()).unwrap(), "a cat");
        assert_eq!(of_text(Vec::new()).unwrap(), "");
        assert!(of_text(vec![0xff]).unwrap_err().contains("UTF-8"));
        assert_eq!(of_json(br#"{"caption": "a cat ", "width": 3}"#).unwrap(), "a cat");
        assert_eq!(of_json(br#"{"text": "a cat", "caption": null}"#).unwrap(), "a cat");
        assert_eq!(of_json("\u{feff}{\"text\": \"a cat\"}".as_bytes()).unwrap(), "a cat");
        assert!(of_json(br#"{"text": "a", "caption": "b"}"#).unwrap_err().contains("both"));
        assert!(of_json(br#"{"width": 3}"#).unwrap_err().contains("neither"));
        assert!(of_json(br#"{"text": 3}"#).unwrap_err().contains("line 1"));
    }
}
