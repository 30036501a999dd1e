//! Reads the fields of a request one by one. An error names its field, and a field that nobody has read is refused.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The field; none where the body is not understood.
    pub(crate) field: Option<String>,
    /// One word for programs.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl Wrong {
    /// The value of a field is none that it takes.
    pub(crate) fn value(field: &str, message: impl Into<String>) -> Self {
        Self { field: Some(brief(field)), code: "invalid_value", message: message.into() }
    }

    /// A field that has to be there is not.
    pub(crate) fn missing(field: &str) -> Self {
        let message = format!("`{field}` is missing");
        Self { field: Some(field.to_owned()), code: "missing_required_parameter", message }
    }

    /// The body as a whole.
    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self { field: None, code: "invalid_body", message: message.into() }
    }

    fn kind(field: &str, expected: &str) -> Self {
        let message = format!("`{field}` has to be {expected}");
        Self { field: Some(field.to_owned()), code: "invalid_type", message }
    }
}

/// A name or a text as an error tells of it: it may be very long.
pub(crate) fn brief(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Fields by name, each as its JSON text: what nobody asks for is not unpacked.
pub(crate) type Raw = BTreeMap<String, Box<RawValue>>;

/// The longest text of a number or a flag, or of a setting that is looked at as a whole.
const SHORT: usize = 4096;

/// The fields of a request that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Raw,
    /// Of a form, in which everything is text.
    form: bool,
}

impl Fields {
    /// Those of a JSON body.
    pub(crate) fn of_json(body: &[u8]) -> Result<Self, Wrong> {
        let map = serde_json::from_slice(body).map_err(|error| {
            Wrong::body(format!("the body is no JSON object: line {} column {}", error.line(), error.column()))
        })?;
        Ok(Self { map, form: false })
    }

    /// Those of a form.
    pub(crate) fn of_form(texts: impl IntoIterator<Item = (String, String)>) -> Result<Self, Wrong> {
        let field = |(name, text): (String, String)| Ok((name, raw(&text)?));
        Ok(Self { map: texts.into_iter().map(field).collect::<Result<_, Wrong>>()?, form: true })
    }

    /// All that has not been read yet.
    pub(crate) fn rest(&self) -> &Raw {
        &self.map
    }

    /// A field as it came. Null stands for none.
    pub(crate) fn value(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.map.remove(name).filter(|value| value.get() != "null")
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Wrong> {
        self.typed(name, "a text")
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Wrong> {
        self.typed(name, "a list of texts")
    }

    fn typed<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Wrong> {
        let value = self.value(name).map(|value| serde_json::from_str(value.get()));
        value.transpose().map_err(|_| Wrong::kind(name, expected))
    }

    /// A field with one of these texts.
    pub(crate) fn choice(&mut self, name: &str, choices: &[&'static str]) -> Result<Option<&'static str>, Wrong> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = choices.iter().find(|choice| **choice == text);
        let unknown =
            || Wrong::value(name, format!("`{name}` is `{}`: it can be {}", brief(&text), choices.join(", ")));
        found.copied().map(Some).ok_or_else(unknown)
    }

    pub(crate) fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Wrong> {
        let Some(value) = self.short(name, "a whole number")? else { return Ok(None) };
        // Clients in JavaScript and Python may send 1.0.
        let whole = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15);
        let number = value.as_i64().or(whole.map(|number| number as i64));
        let number = number.ok_or_else(|| Wrong::kind(name, "a whole number"))?;
        let (from, to) = (range.start(), range.end());
        let outside = || Wrong::value(name, format!("`{name}` is {number}: it has to be from {from} to {to}"));
        range.contains(&number).then_some(Some(number)).ok_or_else(outside)
    }

    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Wrong> {
        let Some(value) = self.short(name, "a number")? else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| Wrong::kind(name, "a number"))?;
        let (from, to) = (range.start(), range.end());
        let outside = || Wrong::value(name, format!("`{name}` is {number}: it has to be from {from} to {to}"));
        range.contains(&number).then_some(Some(number)).ok_or_else(outside)
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Wrong> {
        let expected = "true or false";
        let Some(value) = self.short(name, expected)? else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| Wrong::kind(name, expected))
    }

    /// A JSON object, or its text.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Raw>, Wrong> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let wrong = |_| Wrong::kind(name, "a JSON object");
        if value.get().starts_with('"') {
            let text: String = serde_json::from_str(value.get()).map_err(wrong)?;
            return serde_json::from_str(&text).map(Some).map_err(wrong);
        }
        serde_json::from_str(value.get()).map(Some).map_err(wrong)
    }

    /// A number or a flag. What a form has for it is text.
    fn short(&mut self, name: &str, expected: &str) -> Result<Option<Value>, Wrong> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let read = if value.get().len() > SHORT { None } else { serde_json::from_str(value.get()).ok() };
        let value = read.ok_or_else(|| Wrong::kind(name, expected))?;
        Ok(Some(match value {
            Value::String(text) if self.form => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            value => value,
        }))
    }

    /// Reads past fields that change nothing.
    pub(crate) fn without_effect(&mut self, names: &[&str]) {
        for name in names {
            self.map.remove(*name);
        }
    }

    /// Refuses fields that ask for what there is not, unless their value asks for nothing.
    pub(crate) fn refuse(&mut self, names: &[(&str, &str)]) -> Result<(), Wrong> {
        for (name, reason) in names {
            if self.value(name).is_some_and(|value| !asks_for_nothing(&value)) {
                let message = format!("`{name}` is not supported: {reason}");
                return Err(Wrong { field: Some((*name).to_owned()), code: "unsupported_parameter", message });
            }
        }
        Ok(())
    }

    /// Refuses what is left: nobody knows it.
    pub(crate) fn finish(self) -> Result<(), Wrong> {
        let Some(name) = self.map.keys().next() else { return Ok(()) };
        let name = brief(name);
        let message = format!("there is no field `{name}`");
        Err(Wrong { field: Some(name), code: "unknown_parameter", message })
    }
}

/// A value in JSON.
pub(crate) fn raw(value: &(impl Serialize + ?Sized)) -> Result<Box<RawValue>, Wrong> {
    serde_json::value::to_raw_value(value).map_err(|error| Wrong::body(error.to_string()))
}

/// Whether a value is what clients send for a setting that they do not use.
fn asks_for_nothing(value: &RawValue) -> bool {
    fn nothing(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_f64().is_some_and(|number| number <= 0.0),
            Value::String(text) => text.is_empty() || text.eq_ignore_ascii_case("none"),
            Value::Array(values) => values.iter().all(nothing),
            Value::Object(map) => map.values().all(nothing),
        }
    }
    value.get().len() <= SHORT && serde_json::from_str(value.get()).is_ok_and(|value| nothing(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_field() {
        let fields = |json: &str| Fields::of_json(json.as_bytes()).unwrap();
        let code = |wrong: Wrong| (wrong.field.unwrap_or_default(), wrong.code);
        assert_eq!(fields(r#"{"n": 2}"#).integer("n", 1..=10), Ok(Some(2)));
        assert_eq!(fields(r#"{"n": 2.0}"#).integer("n", 1..=10), Ok(Some(2)));
        assert_eq!(fields(r#"{"n": null}"#).integer("n", 1..=10), Ok(None));
        for (json, expected) in [
            (r#"{"n": 11}"#, "invalid_value"),
            (r#"{"n": "2"}"#, "invalid_type"),
            (r#"{"n": 1.5}"#, "invalid_type"),
            (r#"{"n": true}"#, "invalid_type"),
        ] {
            let wrong = fields(json).integer("n", 1..=10).unwrap_err();
            assert_eq!(code(wrong), ("n".to_owned(), expected), "{json}");
        }
        assert_eq!(code(fields(r#"{"size": "big"}"#).choice("size", &["auto"]).unwrap_err()).1, "invalid_value");
        assert_eq!(code(fields(r#"{"sice": 1}"#).finish().unwrap_err()), ("sice".to_owned(), "unknown_parameter"));
        assert_eq!(Fields::of_json(b"[1]").unwrap_err().code, "invalid_body");
    }

    #[test]
    fn in_a_form_numbers_are_text() {
        let form = || {
            Fields::of_form([("n", "2"), ("stream", "true")].map(|(name, text)| (name.to_owned(), text.to_owned())))
                .unwrap()
        };
        assert_eq!(form().integer("n", 1..=10), Ok(Some(2)));
        assert_eq!(form().flag("stream"), Ok(Some(true)));
        assert!(form().flag("n").is_err());
    }

    #[test]
    fn a_value_that_asks_for_nothing_is_not_refused() {
        let nothing = r#"{"a": null, "b": false, "c": 0, "d": "", "e": "None", "f": [], "g": {"x": [false]}, "h": -1}"#;
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| (name, "there is none"));
        assert_eq!(Fields::of_json(nothing.as_bytes()).unwrap().refuse(&names), Ok(()));
        for something in [r#"{"a": true}"#, r#"{"a": 0.5}"#, r#"{"a": "x"}"#, r#"{"a": {"x": [1]}}"#] {
            let wrong = Fields::of_json(something.as_bytes()).unwrap().refuse(&names).unwrap_err();
            assert_eq!((wrong.field.as_deref(), wrong.code), (Some("a"), "unsupported_parameter"), "{something}");
        }
    }
}
