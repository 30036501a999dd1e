//! How much longer the rules of a `tokenizer.json` can make a text.

use base64::Engine as _;
use serde_json::Value;

/// The most times that a text may get longer. Unicode's longest normalised form has 18 characters, and published rules put one character in
/// the place of others.
const MOST: usize = 64;

/// The most rules that may stand in each other. The parser of the file has a limit of its own.
const DEEPEST: usize = 64;

/// The most characters that rules of these types make of one: byte-level ones one for each of its bytes, BERT's spaces around a Chinese
/// one, Unicode's compatible forms 18 (U+FDFA) and its other decomposed forms 4, small letters 2.
const BY_TYPE: [(&str, usize); 7] =
    [("ByteLevel", 4), ("BertNormalizer", 3), ("NFKC", 18), ("NFKD", 18), ("NFD", 4), ("NFC", 3), ("Lowercase", 2)];

/// Refuses a file whose rules could fill the memory: one that makes a hundred letters of each, ten times over, is short.
pub(super) fn expect_bounded(json: &Value) -> Result<(), String> {
    let of = |rules: &str| json.get(rules).map_or(Ok(1), |rule| factor(rule, DEEPEST));
    match of("normalizer")?.saturating_mul(of("pre_tokenizer")?) {
        ..=MOST => Ok(()),
        _ => Err(format!("its rules could make more than {MOST} characters of each")),
    }
}

/// How many times as long a rule can make a text.
fn factor(rule: &Value, deeper: usize) -> Result<usize, String> {
    let Some(deeper) = deeper.checked_sub(1) else { return Ok(usize::MAX) };
    if let Some(rules) = ["normalizers", "pretokenizers"].iter().find_map(|list| rule.get(list)?.as_array()) {
        return rules.iter().try_fold(1, |factor: usize, rule| Ok(factor.saturating_mul(self::factor(rule, deeper)?)));
    }
    if let Some(table) = rule.get("precompiled_charsmap").and_then(Value::as_str) {
        return longest(table);
    }
    let kind = rule.get("type").and_then(Value::as_str).unwrap_or_default();
    if let Some((_, most)) = BY_TYPE.iter().find(|(name, _)| *name == kind) {
        return Ok(*most);
    }
    let length = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, |text| text.chars().count());
    if kind == "Prepend" {
        // Before a text, which may be one character.
        return Ok(length(rule.get("prepend")).saturating_add(1));
    }
    let content = length(rule.get("content"));
    Ok(match rule.get("pattern") {
        None => 1,
        Some(pattern) => match length(pattern.get("String")) {
            // Nothing at all, which a regular expression can match too, is found between any two characters.
            0 => content.saturating_add(1),
            replaced => content.div_ceil(replaced).max(1),
        },
    })
}

/// The most characters that a compiled table of rewritings, in base64, has for one match, which is a character at least: the length of a
/// trie in bytes, the trie, and the replacements, each ended by a zero byte. What is no such table the parser of the file refuses; but it
/// makes room for as long a trie as the table says.
fn longest(table: &str) -> Result<usize, String> {
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(table) else { return Ok(1) };
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(1) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > rest.len() {
        return Err("its normalisation table is shorter than it says".to_owned());
    }
    // That parser reads whole units of the trie alone.
    let replacements = rest.get(length / 4 * 4..).unwrap_or_default();
    let characters = |replacement: &[u8]| String::from_utf8_lossy(replacement).chars().count();
    Ok(replacements.split(|byte| *byte == 0).map(characters).max().unwrap_or_default().max(1))
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
        // CLIP's own, in whole: 3 · 2 · 2 · 4.
        let clip = json!({
            "normalizer": { "type": "Sequence", "normalizers": [{ "type": "NFC" }, space, { "type": "Lowercase" }] },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [{ "type": "Split" }, { "type": "ByteLevel" }] },
        });
        assert!(expect_bounded(&clip).is_ok());
        // Spaces around each Chinese character, again and again, and forms of forms.
        for (rule, taken) in [("BertNormalizer", 3), ("NFKD", 1), ("NFD", 3)] {
            let rule = json!({ "type": rule });
            assert!(!refused(&several(&rule, taken)) && refused(&several(&rule, taken + 1)), "{rule}");
        }
        assert!(refused(&json!({ "type": "Prepend", "prepend": "x".repeat(64) })));
        let deep =
            (0..DEEPEST).fold(json!({ "type": "NFC" }), |rule, _| json!({ "type": "Sequence", "normalizers": [rule] }));
        assert!(refused(&deep));
    }

    /// A table without a trie, whose replacements are these.
    fn table(replacements: &str) -> Value {
        let bytes = [&0_u32.to_le_bytes(), replacements.as_bytes()].concat();
        let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
        json!({ "type": "Precompiled", "precompiled_charsmap": base64 })
    }

    #[test]
    fn a_compiled_table_is_measured_by_its_longest_replacement() {
        // Characters, not bytes.
        let most = format!("a\0{}\0b\0", "\u{732b}".repeat(MOST));
        assert!(!refused(&table(&most)) && refused(&table(&most.replace("a\0", "a"))));
        // One that nothing ends goes on to the end of the table.
        assert!(refused(&table(&"x".repeat(MOST + 1))));
        // In a sequence, as published: with one replacement for runs of spaces.
        let published = |table: Value| {
            let spaces = json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " });
            json!({ "type": "Sequence", "normalizers": [table, { "type": "Strip" }, spaces] })
        };
        assert!(!refused(&published(table(&"x".repeat(18)))) && refused(&published(table(&"x".repeat(33)))));
        // What is no table is the parser's to refuse, but for the room that it would make: this one says 2^32 - 1 bytes.
        for (broken, too_short) in [("", false), ("AAAA", false), ("AAAAAA==", false), ("!", false), ("/////w==", true)]
        {
            let broken = json!({ "type": "Precompiled", "precompiled_charsmap": broken });
            assert_eq!(refused(&broken), too_short, "{broken}");
        }
    }

    /// The characters of bytes above 127 have two bytes each: a rule of bytes can be applied to what it made.
    #[test]
    fn bytes_of_bytes_are_counted_wherever_they_are_made() {
        let bytes = |times: usize| vec![json!({ "type": "ByteLevel" }); times];
        let of = |normalizers: usize, pieces: usize| {
            expect_bounded(&json!({
                "normalizer": { "type": "Sequence", "normalizers": bytes(normalizers) },
                "pre_tokenizer": { "type": "Sequence", "pretokenizers": bytes(pieces) },
            }))
        };
        assert!([(0, 1), (1, 0), (1, 2), (3, 0), (0, 3)].iter().all(|&(a, b)| of(a, b).is_ok()));
        assert!([(0, 4), (4, 0), (2, 2)].iter().all(|&(a, b)| of(a, b).is_err()));
    }
}
