//! The first key in which two configurations differ.

use serde_json::Value;

/// A key with what two configurations have there, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The way to it, as `levels[1].blocks`.
    pub(crate) key: String,
    /// What the first has there.
    pub(crate) first: String,
    /// What the second has there.
    pub(crate) second: String,
}

/// The first difference of two values, keys in the order of the alphabet. A key that one lacks is as one that is null.
pub(crate) fn first_difference(first: &Value, second: &Value) -> Option<Difference> {
    between("", first, second)
}

fn between(key: &str, first: &Value, second: &Value) -> Option<Difference> {
    match (first, second) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            let of = |map: &serde_json::Map<String, Value>, name: &str| map.get(name).cloned().unwrap_or(Value::Null);
            keys.into_iter().find_map(|name| {
                let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                between(&inner, &of(a, name), &of(b, name))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(index, (a, b))| between(&format!("{key}[{index}]"), a, b))
        }
        (a, b) if a == b => None,
        (a, b) => Some(Difference { key: key.to_owned(), first: a.to_string(), second: b.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_key_that_differs_is_named() {
        let of = |a: Value, b: Value| first_difference(&a, &b).map(|d| (d.key, d.first, d.second));
        let config = json!({ "channels": 8, "levels": [{ "blocks": 1 }, { "blocks": 2 }], "context": null });
        assert_eq!(of(config.clone(), config.clone()), None);
        let mut other = config.clone();
        other["levels"][1]["blocks"] = json!(3);
        let found = ("levels[1].blocks".to_owned(), "2".to_owned(), "3".to_owned());
        assert_eq!(of(config.clone(), other), Some(found));
        assert_eq!(of(config.clone(), json!({ "channels": 8, "levels": [{ "blocks": 1 }, { "blocks": 2 }] })), None);
        let lacks = ("detail".to_owned(), "null".to_owned(), "1".to_owned());
        assert_eq!(of(json!({}), json!({ "detail": 1 })), Some(lacks));
        assert_eq!(of(json!([1]), json!([1, 2])).unwrap().0, "");
    }
}
