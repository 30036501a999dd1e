//! The part of a request that other interfaces have no fields for: the key `ediffi`, a request of the library with some keys left out.

use ediffi::Request;

use crate::fields::{Fields, Raw, Wrong, raw};

/// The key.
pub(crate) const KEY: &str = "ediffi";

/// Keys of a request that the interface has fields for, with their names there.
pub(crate) type Taken<'a> = &'a [(&'a str, &'a str)];

/// The keys of a request that stand below [`KEY`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Partial {
    keys: Raw,
    /// How much of a given picture is drawn anew.
    pub(crate) strength: Option<f64>,
}

impl Partial {
    /// Reads the key. What `taken` names is refused: it is said elsewhere. `edits`: whether a picture is given, so that `strength` has a
    /// meaning.
    pub(crate) fn read(fields: &mut Fields, taken: Taken<'_>, edits: bool) -> Result<Self, Wrong> {
        let mut keys = fields.object(KEY)?.unwrap_or_default();
        for (key, field) in taken {
            if keys.contains_key(*key) {
                return Err(wrong(key, format!("say it with `{field}`")));
            }
        }
        let strength = keys.remove("strength").filter(|_| edits).map(|value| serde_json::from_str(value.get()));
        let strength = strength.transpose().map_err(|_| wrong("strength", "it has to be a number".to_owned()))?;
        Ok(Self { keys, strength })
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The request, with `prompt` where there is one. Pictures of any number have seeds of their own: a request that names none has one
    /// by chance.
    pub(crate) fn request(self, prompt: Option<String>) -> Result<Request, Wrong> {
        let mut keys = self.keys;
        if let Some(prompt) = prompt {
            keys.insert("prompt".to_owned(), raw(&prompt)?);
        }
        if !keys.contains_key("seed") {
            keys.insert("seed".to_owned(), raw(&random_seed())?);
        }
        let json = serde_json::to_vec(&keys).map_err(|error| Wrong::body(error.to_string()))?;
        Request::from_json(&json).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| error.to_string());
            // The line is of no text that was sent.
            let cause = cause.split(" at line ").next().unwrap_or_default();
            Wrong { field: Some(KEY.to_owned()), code: "invalid_value", message: format!("`{KEY}`: {cause}") }
        })
    }
}

fn wrong(key: &str, reason: String) -> Wrong {
    Wrong::value(&format!("{KEY}.{key}"), format!("`{KEY}.{key}`: {reason}"))
}

/// A seed that nobody chose, small enough for every language.
pub(crate) fn random_seed() -> u64 {
    u64::from(uuid::Uuid::now_v7().as_u128() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, edits: bool) -> Result<Request, Wrong> {
        let mut fields = Fields::of_json(json.as_bytes()).unwrap();
        Partial::read(&mut fields, &[("images", "n")], edits)?.request(Some("a cat".to_owned()))
    }

    #[test]
    fn the_rest_of_a_request_has_a_key_of_its_own() {
        let request = read(r#"{"ediffi": {"seed": 18446744073709551615, "stages": {"base": {"steps": 3}}}}"#, false);
        assert_eq!(request, Ok(Request::new("a cat").seed(u64::MAX).steps("base", 3)));
        // As text, for forms.
        let text = read(r#"{"ediffi": "{\"seed\": 7}"}"#, false);
        assert_eq!(text, Ok(Request::new("a cat").seed(7)));
        for (json, said) in [
            (r#"{"ediffi": {"images": 2}}"#, "say it with `n`"),
            (r#"{"ediffi": {"sed": 2}}"#, "unknown field `sed`"),
            (r#"{"ediffi": {"seed": "x"}}"#, "invalid type"),
            (r#"{"ediffi": 3}"#, "JSON object"),
            (r#"{"ediffi": {"strength": "x"}}"#, "number"),
        ] {
            let wrong = read(json, true).unwrap_err();
            assert!(wrong.message.contains(said) && !wrong.message.contains("line"), "{wrong:?}");
            assert!(wrong.field.unwrap().starts_with("ediffi"));
        }
    }

    #[test]
    fn seeds_by_chance_differ() {
        let seeds: Vec<_> = (0..20).map(|_| read("{}", false).unwrap().seed).collect();
        assert!(seeds.windows(2).all(|pair| pair[0] != pair[1]), "{seeds:?}");
        assert!(seeds.iter().any(|seed| *seed > 1 << 24));
    }
}
