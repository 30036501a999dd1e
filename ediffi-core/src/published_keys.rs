//! The keys of published networks: what the readers of diffusers' `config.json` share.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::nn::Activation;
use crate::published::unknown_key;
use crate::{Error, Result};

/// The error of a field of a network's configuration.
pub(crate) fn wrong<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::NetworkConfig { field, reason: reason.into() })
}

/// A field whose value is always the same in the networks that a reader knows: its name, its default, and the one value that this library
/// computes.
pub(crate) type Fixed = (&'static str, Value, Value);

/// Checks the keys that a network's reader left over: each is `fixed`, or `without_effect`, or null.
///
/// # Errors
/// [`Error::NetworkConfig`] naming the first that is not.
pub(crate) fn check_left(left: &Map<String, Value>, fixed: &[Fixed], without_effect: &[&'static str]) -> Result<()> {
    let known: Vec<&str> = fixed.iter().map(|(field, ..)| *field).chain(without_effect.iter().copied()).collect();
    if let Some(key) = unknown_key(left, &known) {
        return wrong("config.json", format!("`{key}` is a field that this library does not know"));
    }
    for (field, default, supported) in fixed {
        let found = left.get(*field).filter(|value| !value.is_null()).unwrap_or(default);
        if found != supported && (found.as_f64().is_none() || found.as_f64() != supported.as_f64()) {
            return wrong(field, format!("{found} is not supported, only {supported}"));
        }
    }
    Ok(())
}

/// A field that holds one value for all levels or a list of one for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum PerLevel<T> {
    /// For all levels.
    One(T),
    /// For each level.
    Each(Vec<T>),
    /// Something else, which no network of this library has.
    Other(Value),
}

impl<T: Copy> PerLevel<T> {
    /// The values of as many levels.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming `field` unless there are as many.
    pub(crate) fn get(&self, field: &'static str, levels: usize) -> Result<Vec<T>> {
        match self {
            Self::One(value) => Ok(vec![*value; levels]),
            Self::Each(values) if values.len() == levels => Ok(values.clone()),
            Self::Each(values) => wrong(field, format!("{} values for {levels} blocks", values.len())),
            Self::Other(value) => other(field, value),
        }
    }
}

impl<T: Copy + PartialEq> PerLevel<T> {
    /// The one value that all levels share.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] naming `field` if they have different ones.
    pub(crate) fn shared(&self, field: &'static str) -> Result<T> {
        match self {
            Self::One(value) => Ok(*value),
            Self::Each(values) => match values.as_slice() {
                [first, rest @ ..] if rest.iter().all(|value| value == first) => Ok(*first),
                _ => wrong(field, "the blocks have different ones, which is not supported"),
            },
            Self::Other(value) => other(field, value),
        }
    }
}

fn other<T>(field: &'static str, value: &Value) -> Result<T> {
    wrong(field, format!("{value} is not supported, only one value, or a list of one for each block"))
}

/// A nonlinearity by its name in diffusers.
///
/// # Errors
/// [`Error::NetworkConfig`] naming `field`.
pub(crate) fn activation(field: &'static str, name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => wrong(field, format!("`{other}` is not supported, only `gelu` and `silu`")),
    }
}

/// Which blocks are of the kind `with`; the others are of the kind `plain`.
///
/// # Errors
/// [`Error::NetworkConfig`] naming `field` for another kind, or another number of blocks.
pub(crate) fn kinds(
    field: &'static str,
    types: &[String],
    count: usize,
    [plain, with]: [&str; 2],
) -> Result<Vec<bool>> {
    if types.len() != count {
        return wrong(field, format!("{} blocks for the {count} of block_out_channels", types.len()));
    }
    let has = |kind: &String| match kind.as_str() {
        kind if kind == plain => Ok(false),
        kind if kind == with => Ok(true),
        other => wrong(field, format!("`{other}` is not supported, only `{plain}` and `{with}`")),
    };
    types.iter().map(has).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field<T>(result: Result<T>) -> (&'static str, String) {
        match result {
            Err(Error::NetworkConfig { field, reason }) => (field, reason),
            _ => ("", String::new()),
        }
    }

    #[test]
    fn a_key_is_fixed_or_without_effect_or_named() {
        let fixed = [("kernel", json!(3), json!(3)), ("shift", json!("default"), json!("scale"))];
        let left = |value: Value| value.as_object().cloned().unwrap();
        let check = |value: Value| check_left(&left(value), &fixed, &["dropout"]);
        // 3.0 is the number 3; what is absent or null has its default.
        assert!(check(json!({ "kernel": 3.0, "shift": "scale", "dropout": 1, "new": null })).is_ok());
        assert_eq!(field(check(json!({ "kernel": 5, "shift": "scale" }))).0, "kernel");
        assert_eq!(field(check(json!({ "kernel": null }))).0, "shift");
        assert!(field(check(json!({ "shift": "scale", "new": 1 }))).1.contains("`new`"));
    }

    #[test]
    fn one_value_or_one_for_each_level() {
        let read = |value: Value| serde_json::from_value::<PerLevel<i64>>(value).unwrap();
        assert_eq!(read(json!(4)).get("heads", 2).unwrap(), [4, 4]);
        assert_eq!(read(json!([4, 6])).get("heads", 2).unwrap(), [4, 6]);
        assert_eq!(read(json!([4, 4])).shared("heads").unwrap(), 4);
        for (value, levels) in [(json!([4, 6]), 3), (json!([[4], 6]), 2), (json!("four"), 2), (json!(null), 1)] {
            assert_eq!(field(read(value).get("heads", levels)).0, "heads");
        }
        assert_eq!(field(read(json!([4, 6])).shared("heads")).0, "heads");
        assert_eq!(field(read(json!([[1, 2], 6])).shared("heads")).0, "heads");
    }
}
