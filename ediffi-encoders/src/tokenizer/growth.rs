//! How much longer the rules of a `tokenizer.json` can make a text.

use serde_json::Value;

/// The most times that a text may get longer. Unicode's longest normalised form has 18 characters, and published rules put one character in
/// the place of others.
const MOST: usize = 64;

/// The most rules that may stand in each other. The parser of the file has a limit of its own.
const DEEPEST: usize = 64;

/// Refuses a file whose replacements could fill the memory: a rule that makes a hundred letters of each, ten times over, is short.
pub(super) fn expect_bounded(json: &Value) -> Result<(), String> {
    match json.get("normalizer").map_or(1, |rule| factor(rule, DEEPEST)) {
        ..=MOST => Ok(()),
        _ => Err(format!("its normaliser could make more than {MOST} characters of each")),
    }
}

/// How many times as long a rule can make a text.
fn factor(rule: &Value, deeper: usize) -> usize {
    let Some(deeper) = deeper.checked_sub(1) else { return usize::MAX };
    if let Some(rules) = rule.get("normalizers").and_then(Value::as_array) {
        return rules.iter().fold(1, |factor, rule| factor.saturating_mul(self::factor(rule, deeper)));
    }
    let length = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, |text| text.chars().count());
    let content = length(rule.get("content"));
    match rule.get("pattern") {
        None => 1,
        Some(pattern) => match length(pattern.get("String")) {
            // Nothing at all, which a regular expression can match too, is found between any two characters.
            0 => content.saturating_add(1),
            replaced => content.div_ceil(replaced).max(1),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(rules: &Value) -> bool {
        expect_bounded(&json!({ "normalizer": rules })).is_err()
    }

    #[test]
    fn published_rules_are_taken_and_endless_ones_are_not() {
        let replace =
            |pattern: Value, content: &str| json!({ "type": "Replace", "pattern": pattern, "content": content });
        let space = replace(json!({ "Regex": "\\s+" }), " ");
        let several = |rule: &Value, times: usize| json!({ "type": "Sequence", "normalizers": vec![rule; times] });
        assert!(!refused(&Value::Null) && !refused(&json!({ "type": "NFC" })) && expect_bounded(&json!({})).is_ok());
        assert!(!refused(&several(&space, 5)));
        let doubled = replace(json!({ "String": "a" }), "aa");
        assert!(!refused(&several(&doubled, 6)) && refused(&several(&doubled, 7)));
        assert!(refused(&replace(json!({ "Regex": "" }), &"x".repeat(64))));
        // What gets shorter makes up for nothing: it may not be found.
        let shorter = replace(json!({ "String": "bbbb" }), "");
        assert!(refused(&json!({ "type": "Sequence", "normalizers": [several(&doubled, 6), shorter, doubled] })));
        let deep =
            (0..DEEPEST).fold(json!({ "type": "NFC" }), |rule, _| json!({ "type": "Sequence", "normalizers": [rule] }));
        assert!(refused(&deep));
    }
}
