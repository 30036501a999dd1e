//! The ids of the real vocabularies of T5 and CLIP against the original tokenizers: see `fixtures/generate_tokenizers.py`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{fields, small_model, t5_model, table, unpacked};
use ediffi_encoders::{TextTokenizer, Tokens};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tch::{Kind, Tensor};

#[derive(Deserialize)]
struct Row {
    text: String,
    t5: Vec<i64>,
    small: Vec<i64>,
    clip: Vec<i64>,
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let folder = tempfile::tempdir().unwrap();
    serde_json::from_slice(&std::fs::read(unpacked(folder.path(), name)).unwrap()).unwrap()
}

fn rows() -> Vec<Row> {
    let rows: Vec<Row> = read("expected.json");
    assert!(rows.len() >= 60);
    rows
}

/// As many tokens as a text is cut to here.
const MOST: usize = 4096;

/// The ids of the text itself, of which `special` ones more are around it, and whether that is all of it.
fn ids(tokenizer: &TextTokenizer, text: &str, special: usize) -> (Vec<i64>, bool) {
    let tokens = tokenizer.encode(&[text], MOST as i64).unwrap();
    let used = tokens.mask.sum(Kind::Int64).int64_value(&[]) as usize;
    let ids = Vec::<i64>::try_from(tokens.ids.flatten(0, -1)).unwrap();
    (ids[special - 1..used - 1].to_vec(), tokens.truncated[0].is_none())
}

/// Asserts the ids of every text; of one with more tokens than fit, those that do, and that the rest is reported as cut.
/// `cut` is how many texts are so long.
fn assert_same(tokenizer: &TextTokenizer, special: usize, cut: usize, expected: fn(&Row) -> &Vec<i64>) {
    let room = MOST - special;
    for row in rows() {
        let (got, whole) = ids(tokenizer, &row.text, special);
        let expected = expected(&row);
        assert_eq!(got, expected[..expected.len().min(room)], "{:?} by {}", row.text, tokenizer.path().display());
        assert_eq!(whole, expected.len() <= room, "{:?} by {}", row.text, tokenizer.path().display());
    }
    assert_eq!(rows().iter().filter(|row| expected(row).len() > room).count(), cut);
}

/// T5's published `tokenizer.json`: its frame, with pieces, scores and the table of the normalisation from `spiece.model`.
fn t5_tokenizer_json(spiece: &[u8]) -> String {
    let find = |fields: &[(u64, &[u8])], number| fields.iter().find(|field| field.0 == number).unwrap().1.to_vec();
    let model = fields(spiece);
    let piece = |&(number, piece): &(u64, &[u8])| {
        let piece = (number == 1).then(|| fields(piece))?;
        let text = String::from_utf8(find(&piece, 1)).unwrap();
        Some(json!([text, f32::from_le_bytes(find(&piece, 2).try_into().unwrap())]))
    };
    let spans = (0..100).rev().map(|index| json!([format!("<extra_id_{index}>"), 0.0]));
    let mut json: serde_json::Value = read("t5.frame.json");
    json["model"]["vocab"] = model.iter().filter_map(piece).chain(spans).collect();
    let table = STANDARD.encode(table(spiece));
    let normalizers = json["normalizer"]["normalizers"].as_array_mut().unwrap();
    let compiled = normalizers.iter_mut().find(|normalizer| normalizer["type"] == "Precompiled").unwrap();
    compiled["precompiled_charsmap"] = table.into();
    json.to_string()
}

#[test]
fn t5_gives_the_ids_of_sentencepiece_from_either_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let pieces = t5_model(folder.path());
    let json = folder.path().join("t5.tokenizer.json");
    std::fs::write(&json, t5_tokenizer_json(&std::fs::read(&pieces).unwrap())).unwrap();
    for path in [&json, &pieces] {
        let tokenizer = TextTokenizer::t5(path, 1, 0, 32128).unwrap();
        assert_same(&tokenizer, 1, 0, |row| &row.t5);
    }
    // The best known ids of T5, its end included.
    let tokenizer = TextTokenizer::t5(&pieces, 1, 0, 32128).unwrap();
    let tokens = tokenizer.encode(&["translate English to German: The house is wonderful."], 11).unwrap();
    let ids = Vec::<i64>::try_from(tokens.ids.flatten(0, -1)).unwrap();
    assert_eq!(ids, [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1]);
}

#[test]
fn a_small_model_gives_the_ids_of_sentencepiece() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = TextTokenizer::t5(&small_model(folder.path()), 1, 0, 26).unwrap();
    assert_same(&tokenizer, 1, 1, |row| &row.small);
}

#[test]
fn unknown_characters_are_spelled_in_bytes_from_either_file() {
    #[derive(Deserialize)]
    struct Bytes {
        text: String,
        bytes: Vec<i64>,
    }
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| TextTokenizer::t5(&unpacked(folder.path(), name), 1, 0, 420).unwrap();
    let (model, json) = (open("bytes.spiece.model"), open("bytes.tokenizer.json"));
    let rows: Vec<Bytes> = read("bytes.json");
    assert!(rows.len() >= 60);
    // Ids 3 to 258 are the bytes.
    assert!(rows.iter().filter(|row| row.bytes.iter().any(|id| (3..259).contains(id))).count() > 30);
    for row in rows {
        let tokens = [&model, &json].map(|tokenizer| {
            assert_eq!(ids(tokenizer, &row.text, 1), (row.bytes.clone(), true), "{:?}", row.text);
            tokenizer.encode(&[&row.text], MOST as i64).unwrap()
        });
        assert_eq!(tokens[0].spans, tokens[1].spans, "{:?}", row.text);
    }
}

/// The vocabulary that belongs to CLIP's merges (Radford et al. 2021, released code): all bytes, all bytes at the end of a
/// word, what the merges make, the two special tokens.
fn clip_vocabulary(merges: &str) -> HashMap<String, usize> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256_u32).filter(|byte| !printable(byte)).count() as u32;
    let letters =
        (0..256).filter(printable).chain(256..256 + others).map(|code| char::from_u32(code).unwrap().to_string());
    let letters: Vec<String> = letters.collect();
    let ends = letters.iter().map(|letter| format!("{letter}</w>"));
    let merged = merges.lines().skip(1).filter(|line| !line.is_empty()).map(|line| line.replace(' ', ""));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(str::to_owned);
    let words = letters.iter().cloned().chain(ends).chain(merged).chain(special);
    words.enumerate().map(|(id, word)| (word, id)).collect()
}

#[test]
fn clip_gives_the_ids_of_transformers_from_either_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let merges = std::fs::read_to_string(unpacked(folder.path(), "clip.merges.txt")).unwrap();
    let vocabulary = clip_vocabulary(&merges);
    assert_eq!(vocabulary.len(), 49408);
    std::fs::write(folder.path().join("merges.txt"), &merges).unwrap();
    std::fs::write(folder.path().join("vocab.json"), serde_json::to_string(&vocabulary).unwrap()).unwrap();
    let tokenizer = TextTokenizer::clip(folder.path(), 49408, 4096).unwrap();
    assert!(tokenizer.path().ends_with("vocab.json"));
    assert_same(&tokenizer, 2, 0, |row| &row.clip);

    // The pipeline as published in CLIP's tokenizer.json.
    let special = |id: usize, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let whole = json!({
        "version": "1.0",
        "added_tokens": [special(49406, "<|startoftext|>"), special(49407, "<|endoftext|>")],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "NFC" }, { "type": "Replace", "pattern": { "Regex": "\\s+" }, "content": " " },
            { "type": "Lowercase" } ] },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": words }, "behavior": "Removed", "invert": true },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true } ] },
        "post_processor": { "type": "RobertaProcessing", "sep": ["<|endoftext|>", 49407],
            "cls": ["<|startoftext|>", 49406], "trim_offsets": false, "add_prefix_space": false },
        "decoder": null,
        "model": { "type": "BPE", "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": vocabulary,
            "merges": merges.lines().skip(1).filter(|line| !line.is_empty()).collect::<Vec<_>>() },
    });
    std::fs::write(folder.path().join("tokenizer.json"), whole.to_string()).unwrap();
    let tokenizer = TextTokenizer::clip(folder.path(), 49408, 4096).unwrap();
    assert!(tokenizer.path().ends_with("tokenizer.json"));
    assert_same(&tokenizer, 2, 0, |row| &row.clip);
}

/// Characters of `text` that no token stands for.
fn uncovered(text: &str, tokens: &Tokens) -> Vec<char> {
    let characters: Vec<char> = text.chars().collect();
    let mut seen = vec![false; characters.len()];
    let mut last = 0;
    for span in tokens.spans[0].iter().flatten() {
        assert!(span.start < span.end && span.end <= characters.len(), "{span:?} of {text:?}");
        assert!(span.start >= last, "{span:?} of {text:?} is before {last}");
        last = span.start;
        seen[span.clone()].fill(true);
    }
    characters.iter().zip(seen).filter(|(c, seen)| !seen && !c.is_whitespace()).map(|(c, _)| *c).collect()
}

#[test]
fn every_visible_character_of_the_original_text_belongs_to_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let t5 = TextTokenizer::t5(&t5_model(folder.path()), 1, 0, 32128).unwrap();
    let merges = std::fs::read_to_string(unpacked(folder.path(), "clip.merges.txt")).unwrap();
    std::fs::write(folder.path().join("merges.txt"), &merges).unwrap();
    let vocabulary = serde_json::to_string(&clip_vocabulary(&merges)).unwrap();
    std::fs::write(folder.path().join("vocab.json"), vocabulary).unwrap();
    let clip = TextTokenizer::clip(folder.path(), 49408, 4096).unwrap();
    for row in rows() {
        // SentencePiece drops what has no width and what controls the direction; NFC joins an accent to its letter.
        let invisible = |c: &char| {
            c.is_control() || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}')
        };
        let left = uncovered(&row.text, &t5.encode(&[&row.text], 4096).unwrap());
        assert!(left.iter().all(invisible), "t5: {left:?} of {:?}", row.text);
        let left = uncovered(&row.text, &clip.encode(&[&row.text], 4096).unwrap());
        let joined = |c: &char| matches!(c, '\u{300}'..='\u{36f}' | '\u{1161}'..='\u{11ff}');
        assert!(left.iter().all(joined), "clip: {left:?} of {:?}", row.text);
    }
}

#[test]
fn spans_are_of_the_text_before_it_is_normalised() {
    let folder = tempfile::tempdir().unwrap();
    let t5 = TextTokenizer::t5(&t5_model(folder.path()), 1, 0, 32128).unwrap();
    // The ligature is one character of the text, two of its normal form; the spaces are folded.
    let text = "\u{feff}a   ﬁre \n ｃａｔ";
    let tokens = t5.encode(&[text], 20).unwrap();
    let of = |id: i64| -> Vec<String> {
        let ids = Vec::<i64>::try_from(Tensor::flatten(&tokens.ids, 0, -1)).unwrap();
        let spans = ids.iter().zip(&tokens.spans[0]).filter(|(other, _)| **other == id);
        spans
            .map(|(_, span)| text.chars().skip(span.clone().unwrap().start).take(span.clone().unwrap().len()).collect())
            .collect()
    };
    // "▁fire" and "▁cat".
    assert_eq!((of(1472), of(1712)), (vec!["ﬁre".to_owned()], vec!["ｃａｔ".to_owned()]));
}
