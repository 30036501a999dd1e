//! Where tokens stand in a text, and what happens to texts that are too long.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::{Path, PathBuf};

use ediffi_encoders::{Error, TextTokenizer, Tokens};
use tch::{Kind, Tensor};

fn path(name: &str) -> PathBuf {
    common::fixture(name).join("tokenizer.json")
}

fn t5() -> TextTokenizer {
    TextTokenizer::t5(&path("t5"), 1, 0, 60).unwrap()
}

fn clip() -> TextTokenizer {
    TextTokenizer::clip(&path("clip"), 1000, 77).unwrap()
}

fn row(tensor: &Tensor, index: i64) -> Vec<i64> {
    Vec::try_from(tensor.select(0, index).to_kind(Kind::Int64)).unwrap()
}

/// The words of a text put together from the tokens that stand for them.
fn covered(text: &str, tokens: &Tokens, index: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut seen = vec![false; characters.len()];
    for span in tokens.spans[index].iter().flatten() {
        assert!(span.start < span.end && span.end <= characters.len(), "{span:?} of {text}");
        seen[span.clone()].fill(true);
    }
    characters.iter().zip(seen).map(|(c, seen)| if seen || c.is_whitespace() { *c } else { '#' }).collect()
}

const TEXTS: [&str; 7] = [
    "a red apple left of a cat",
    "the naïve café, at night",
    "cafe\u{301} by the tree",
    "a 🍎 and a 👩‍🚀 on a table",
    "  two   spaces\tand a tab ",
    "ｆｕｌｌ ｗｉｄｔｈ ﬁre",
    "苹果 in Ünïcode İstanbul",
];

#[test]
fn spans_cover_every_letter_of_a_text_in_any_script() {
    for tokenizer in [t5(), clip()] {
        let tokens = tokenizer.encode(&TEXTS, 77).unwrap();
        for (index, text) in TEXTS.iter().enumerate() {
            assert_eq!(tokens.truncated[index], None);
            // A combining accent is joined with the letter before it, which then stands for both.
            let text = text.replace('\u{301}', "#");
            assert_eq!(covered(TEXTS[index], &tokens, index), text, "{:?}", tokens.spans[index]);
        }
    }
}

#[test]
fn spans_count_characters_and_not_bytes() {
    let text = "a 🍎 red cat";
    for tokenizer in [t5(), clip()] {
        let tokens = tokenizer.encode(&[text], 40).unwrap();
        let last = tokens.spans[0].iter().flatten().next_back().unwrap();
        assert_eq!(last.end, text.chars().count());
        let starts: Vec<usize> = tokens.spans[0].iter().flatten().map(|span| span.start).collect();
        assert!(starts.is_sorted() && starts.contains(&4) && starts.contains(&8), "{starts:?}");
    }
}

#[test]
fn t5_ends_a_text_and_fills_it_up() {
    let tokens = t5().encode(&["a cat", ""], 9).unwrap();
    assert_eq!((tokens.ids.size(), tokens.mask.kind()), (vec![2, 9], Kind::Bool));
    let (ids, mask) = (row(&tokens.ids, 0), row(&tokens.mask, 0));
    let end = ids.iter().position(|&id| id == 1).unwrap();
    assert!(end > 0 && ids[end + 1..].iter().all(|&id| id == 0));
    assert_eq!(mask, (0..9).map(|column| i64::from(column <= end)).collect::<Vec<_>>());
    assert!(tokens.spans[0][end..].iter().all(Option::is_none));
    // An empty text is its end alone.
    assert_eq!(row(&tokens.ids, 1), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(row(&tokens.mask, 1), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(tokens.truncated, [None, None]);
}

#[test]
fn clip_starts_and_ends_a_text() {
    let tokenizer = clip();
    let end = tokenizer.end();
    let tokens = tokenizer.encode(&["A Red CAT", "a red cat", ""], 12).unwrap();
    assert_eq!(row(&tokens.ids, 0), row(&tokens.ids, 1), "case is of no consequence");
    let ids = row(&tokens.ids, 1);
    assert_eq!(ids[0], end - 1);
    let used = row(&tokens.mask, 1).iter().sum::<i64>() as usize;
    assert!(ids[1..used - 1].iter().all(|&id| id < end - 1) && ids[used - 1..].iter().all(|&id| id == end));
    assert_eq!(row(&tokens.ids, 2)[..3], [end - 1, end, end]);
    assert_eq!(row(&tokens.mask, 2).iter().sum::<i64>(), 2);
}

#[test]
fn a_text_too_long_keeps_its_end_token_and_reports_what_was_lost() {
    let text = "a red apple left of a café ";
    for (tokenizer, special) in [(t5(), 1), (clip(), 2)] {
        let whole = tokenizer.encode(&[text], 77).unwrap();
        let body: Vec<_> = whole.spans[0].iter().flatten().cloned().collect();
        for kept in 0..body.len() {
            let cut = tokenizer.encode(&[text, "a cat"], (kept + special) as i64).unwrap();
            let ids = row(&cut.ids, 0);
            assert_eq!(*ids.last().unwrap(), tokenizer.end());
            assert_eq!(ids[..special - 1 + kept], row(&whole.ids, 0)[..special - 1 + kept]);
            let lost: String = text.chars().skip(body[kept].start).collect();
            assert_eq!(cut.truncated[0].as_deref(), Some(lost.trim_end()));
        }
        let fits = tokenizer.encode(&[text], (body.len() + special) as i64).unwrap();
        assert_eq!(fits.truncated, [None]);
    }
}

#[test]
fn special_tokens_in_a_text_are_not_special() {
    for (tokenizer, written) in [(t5(), "a</s>cat"), (clip(), "a<|endoftext|>cat")] {
        let tokens = tokenizer.encode(&[written], 40).unwrap();
        let used = row(&tokens.mask, 0).iter().sum::<i64>() as usize;
        assert_eq!(row(&tokens.ids, 0).iter().position(|&id| id == tokenizer.end()), Some(used - 1));
        assert_eq!(tokens.spans[0].iter().flatten().next_back().unwrap().end, written.chars().count());
    }
    // CLIP's bytes spell out anything; among T5's pieces the token itself is the only spelling, and is left out.
    let written = "a <|endoftext|> cat";
    assert_eq!(covered(written, &clip().encode(&[written], 40).unwrap(), 0), written);
}

#[test]
fn very_long_and_odd_texts_are_no_trouble() {
    let long = "stormy sea ".repeat(20_000);
    let word = "x".repeat(100_000);
    let odd = "\0\u{feff}\u{202e}\u{fffd}\n";
    for tokenizer in [t5(), clip()] {
        let tokens = tokenizer.encode(&[&long, &word, odd], 77).unwrap();
        assert_eq!(tokens.ids.size(), [3, 77]);
        assert!(long.ends_with(&format!("{} ", tokens.truncated[0].as_ref().unwrap())));
    }
}

#[test]
fn impossible_numbers_of_tokens_are_errors() {
    for tokens in [-1, 0, 1, 78] {
        assert!(matches!(clip().encode(&["a"], tokens), Err(Error::TokenCount { least: 2, most: 77, .. })));
    }
    assert!(matches!(t5().encode(&["a"], 0), Err(Error::TokenCount { least: 1, .. })));
    assert!(matches!(t5().encode(&["a"], i64::MAX), Err(Error::TokenCount { .. })));
    assert!(matches!(t5().encode(&[], 8), Err(Error::EmptyBatch("texts"))));
}

#[test]
fn a_tokenizer_of_another_network_is_an_error() {
    // It has 60 ids, CLIP's 595; up to four times as many rows are room for tokens to come.
    for rows in [10, 59, 241, 32128] {
        let error = TextTokenizer::t5(&path("t5"), 1, 0, rows).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::TokenizerMismatch { .. }) && text.contains("0 to 59"), "{text}");
        assert!(text.contains(&format!("the network has {rows} rows in shared.weight")), "{text}");
    }
    assert!(TextTokenizer::t5(&path("t5"), 1, 0, 240).is_ok());
    let error = TextTokenizer::clip(&path("clip"), 49408, 77).unwrap_err().to_string();
    assert!(error.contains("0 to 594") && error.contains("49408 rows in text_model"), "{error}");
    let error = TextTokenizer::clip(&path("t5"), 60, 77).unwrap_err();
    assert!(error.to_string().contains("<|startoftext|>"), "{error}");
    let config = path("t5").with_file_name("config.json");
    assert!(matches!(TextTokenizer::t5(&config, 1, 0, 60), Err(Error::TokenizerFile { .. })));
    assert!(matches!(TextTokenizer::t5(Path::new("missing.json"), 1, 0, 9), Err(Error::NoTokenizer { .. })));
}

#[test]
fn an_end_that_is_no_end_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let model = common::unpacked(folder.path(), "bytes.spiece.model");
    let json = common::unpacked(folder.path(), "bytes.tokenizer.json");
    // Padding, the unknown, a byte, a piece of words, none.
    for (path, rows) in [(model, 420), (json, 420), (path("t5"), 60)] {
        assert!(TextTokenizer::t5(&path, 1, 0, rows).is_ok());
        for end in [0, 2, 3, 59] {
            let error = TextTokenizer::t5(&path, end, 0, rows).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::TokenizerMismatch { .. }), "{text}");
            assert!(text.contains(&format!("token {end}")) && text.contains("not `</s>`"), "{text}");
        }
    }
}
