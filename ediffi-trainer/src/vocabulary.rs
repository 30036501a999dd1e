//! A T5's tokenizer made of captions: the frequent words are tokens, all others are spelt.
//!
//! It is a model of unigrams, as T5's are, in the published file format. Nothing is estimated: the score of a word is its share of the words,
//! and a character's is below that of any word, so that a word that is a token is never spelt. The same captions give the same file.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use unicode_normalization::UnicodeNormalization;

/// What begins a word.
const SPACE: char = '▁';

/// The ids of what fills, what ends and what is unknown.
pub(crate) const PADDING: i64 = 0;
/// See [`PADDING`].
pub(crate) const END: i64 = 1;
/// See [`PADDING`].
pub(crate) const UNKNOWN: i64 = 2;

/// A tokenizer whose tokens are the most frequent `most` words of captions, and every character of them.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pieces: Vec<(String, f64)>,
}

impl Vocabulary {
    pub(crate) fn of<'a>(captions: impl IntoIterator<Item = &'a str>, most: usize) -> Self {
        let mut words: BTreeMap<String, u64> = BTreeMap::new();
        for caption in captions {
            for word in parts(caption) {
                *words.entry(word).or_default() += 1;
            }
        }
        let all: u64 = words.values().sum();
        let mut characters: Vec<char> = words.keys().flat_map(|word| word.chars()).chain([SPACE]).collect();
        characters.sort_unstable();
        characters.dedup();
        let mut words: Vec<(String, u64)> = words.into_iter().collect();
        // The most frequent first; of the same number in the order of the alphabet.
        words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words.truncate(most);
        let score = |count: u64| (count as f64 / all.max(1) as f64).ln();
        let lowest = words.last().map_or(0.0, |(_, count)| score(*count));
        let mut pieces: Vec<(String, f64)> =
            ["<pad>", "</s>", "<unk>"].map(|special| (special.to_owned(), 0.0)).to_vec();
        pieces.extend(words.into_iter().map(|(word, count)| (word, score(count))));
        let new = |character: &char| !pieces.iter().any(|(piece, _)| piece.chars().eq([*character]));
        let spelling: Vec<String> = characters.iter().filter(|character| new(character)).map(char::to_string).collect();
        pieces.extend(spelling.into_iter().map(|character| (character, lowest - 1.0)));
        Self { pieces }
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> i64 {
        i64::try_from(self.pieces.len()).unwrap_or(i64::MAX)
    }

    /// The file `tokenizer.json`.
    pub(crate) fn to_json(&self) -> Value {
        let special = |(id, content): (usize, &str)| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true })
        };
        let special: Vec<Value> = ["<pad>", "</s>", "<unk>"].into_iter().enumerate().map(special).collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": special,
            "normalizer": { "type": "Sequence", "normalizers": [{ "type": "NFKC" }, { "type": "Lowercase" }] },
            "pre_tokenizer": { "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true },
            "post_processor": null,
            "decoder": null,
            "model": { "type": "Unigram", "unk_id": UNKNOWN, "vocab": self.pieces, "byte_fallback": false },
        })
    }
}

/// Words and what stands between them, in small letters. What follows a space begins with a mark.
fn parts(caption: &str) -> Vec<String> {
    let small: String = caption.nfkc().flat_map(char::to_lowercase).collect();
    let mut parts = Vec::new();
    for word in small.split(' ').filter(|word| !word.is_empty()) {
        let mut part = String::from(SPACE);
        let mut letters = None;
        for character in word.chars() {
            let letter = character.is_alphanumeric();
            if letters.is_some_and(|before| before != letter) {
                parts.push(std::mem::take(&mut part));
            }
            part.push(character);
            letters = Some(letter);
        }
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use ediffi_core::files::write_json;
    use ediffi_encoders::TextTokenizer;

    use super::*;

    const CAPTIONS: [&str; 3] = ["A red apple, left of (a) cat", "a blue cat", "ein grüner Äpfel"];

    #[test]
    fn captions_are_words_and_marks() {
        assert_eq!(parts("A red-ish  (apple),"), ["▁a", "▁red", "-", "ish", "▁(", "apple", "),"]);
        assert!(parts("").is_empty());
    }

    #[test]
    fn frequent_words_are_tokens_and_others_are_spelt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        // "▁a" stands twice, "▁cat" twice; all others once, in the order of the alphabet.
        let vocabulary = Vocabulary::of(CAPTIONS, 4);
        let pieces: Vec<&str> = vocabulary.pieces.iter().map(|(piece, _)| piece.as_str()).collect();
        assert_eq!(pieces[3..7], ["▁a", "▁cat", ")", ","]);
        write_json(&path, &vocabulary.to_json()).unwrap();
        let tokenizer = TextTokenizer::t5(&path, END, PADDING, vocabulary.len()).unwrap();
        let ids = |text: &str| {
            let tokens = tokenizer.encode(&[text], 24).unwrap();
            Vec::<i64>::try_from(tokens.ids.get(0)).unwrap().into_iter().take_while(|id| *id != END).collect::<Vec<_>>()
        };
        assert_eq!(ids("a CAT"), [3, 4]);
        assert_eq!(ids("a red").len(), 1 + 4, "a space and three letters");
        assert!(!CAPTIONS.iter().any(|caption| ids(caption).contains(&UNKNOWN)), "a character of the captions");
        assert!(ids("東").contains(&UNKNOWN));
        assert_eq!(Vocabulary::of(CAPTIONS, 4).to_json(), vocabulary.to_json());
    }

    #[test]
    fn captions_of_nothing_still_make_a_tokenizer() {
        assert_eq!(Vocabulary::of([""; 2], 10).len(), 4);
    }
}
