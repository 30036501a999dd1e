//! Finding and reading the files of a tokenizer.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use ediffi_core::brief::told;
use ediffi_core::files::{read_bytes, read_json};
use ediffi_core::published::unknown_key;
use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use super::charsmap::Charsmap;
use super::growth::expect_bounded;
use super::sentencepiece::{Piece, PieceKind, SentencePiece};
use super::settings::check_pipeline;
use super::spiece;
use crate::{Error, Result};

/// The token that ends a text of T5.
pub(super) const T5_END: &str = "</s>";
/// The token that begins a text of CLIP.
pub(super) const CLIP_START: &str = "<|startoftext|>";
/// The token that ends one.
pub(super) const CLIP_END: &str = "<|endoftext|>";

/// What cuts texts.
#[derive(Debug)]
pub(super) enum Cutter {
    /// A SentencePiece model.
    Pieces(Box<SentencePiece>),
    /// A pipeline of the crate `tokenizers`.
    Pipeline(Box<Tokenizer>),
}

impl Cutter {
    /// The id of a token of the vocabulary.
    pub(super) fn id(&self, token: &str) -> Option<i64> {
        match self {
            Self::Pieces(pieces) => pieces.id(token).map(i64::from),
            Self::Pipeline(tokenizer) => tokenizer.token_to_id(token).map(i64::from),
        }
    }
}

/// The first of `names` in `folder`, or beside it where pipelines of `diffusers` keep it: `tokenizer_2` for `text_encoder_2`,
/// else `tokenizer`; `folder` itself where it is a file.
pub(super) fn find(folder: &Path, names: &[&str]) -> Result<PathBuf> {
    if folder.is_file() {
        return Ok(folder.to_owned());
    }
    let beside = folder.parent().map(|parent| parent.join(beside(folder)));
    let folders = [Some(folder.to_owned()), beside].into_iter().flatten();
    let found = folders.flat_map(|folder| names.iter().map(move |name| folder.join(name))).find(|path| path.is_file());
    found.ok_or_else(|| Error::NoTokenizer { folder: folder.to_owned(), names: names.join(", ") })
}

/// The name of the folder that keeps the tokenizer of the encoder in `folder`, in a pipeline of `diffusers`.
pub(crate) fn beside(folder: &Path) -> String {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    format!("tokenizer{}", name.strip_prefix("text_encoder").unwrap_or_default())
}

/// T5's tokenizer: a `tokenizer.json`, or a `spiece.model`.
pub(super) fn t5(path: &Path) -> Result<Cutter> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return Ok(Cutter::Pieces(Box::new(spiece::read(path)?)));
    }
    let json: Value = read_json(path)?;
    check_pipeline(path, &json, None, T5_END)?;
    match pieces_of(&json) {
        Some(model) => {
            let model = model.map_err(|reason| Error::SentencePiece { path: path.to_owned(), reason })?;
            Ok(Cutter::Pieces(Box::new(model)))
        }
        None => pipeline(path),
    }
}

/// The SentencePiece model that a `tokenizer.json` was made from: a Unigram model behind a compiled normalisation. `None`
/// where it is another pipeline.
///
/// The pipeline itself would give other ids than the model for some texts: it keeps white space at the end of a text,
/// normalises some accents in another way, and adds up scores in another precision.
fn pieces_of(json: &Value) -> Option<std::result::Result<SentencePiece, String>> {
    let model = json.get("model").filter(|model| model.get("type").is_none_or(|kind| kind == "Unigram"))?;
    let vocabulary = model.get("vocab")?.as_array()?;
    let normalizer = json.get("normalizer")?;
    let steps = normalizer.get("normalizers").and_then(Value::as_array);
    let steps = steps.map_or(std::slice::from_ref(normalizer), Vec::as_slice);
    let is = |step: &Value, kind: &str| step.get("type").is_some_and(|is| is == kind);
    // Only white space may be changed besides.
    let other = |step: &Value| !is(step, "Precompiled") && !is(step, "Strip") && !is(step, "Replace");
    let compiled = steps.iter().find(|step| is(step, "Precompiled")).filter(|_| !steps.iter().any(other))?;
    let table = compiled.get("precompiled_charsmap")?.as_str()?;
    let added = || json.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    // Tokens that were added for text to be found in have no place in such a model.
    if added().any(|token| token.get("special") == Some(&Value::Bool(false))) {
        return None;
    }
    let special: HashSet<u64> = added().filter_map(|token| token.get("id")?.as_u64()).collect();
    let byte_fallback = model.get("byte_fallback").and_then(Value::as_bool).unwrap_or(false);
    let unknown = model.get("unk_id").and_then(Value::as_u64);
    let prefixed = prefixed(json, steps);
    let build = || {
        let prefixed = prefixed?;
        let known = ["type", "vocab", "unk_id", "byte_fallback"];
        if let Some(key) = model.as_object().and_then(|keys| unknown_key(keys, &known)) {
            return Err(format!("its model has the key `{key}`, which this library does not know"));
        }
        let table = base64::engine::general_purpose::STANDARD.decode(table).map_err(|error| error.to_string())?;
        let piece = |(id, entry): (usize, &Value)| {
            let text = entry.get(0).and_then(Value::as_str).map(str::to_owned);
            let kind = match id as u64 {
                id if Some(id) == unknown => PieceKind::Unknown,
                id if special.contains(&id) => PieceKind::Unreachable,
                _ if byte_fallback && text.as_deref().is_some_and(is_byte) => PieceKind::Byte,
                _ => PieceKind::Normal,
            };
            let score = entry.get(1).and_then(Value::as_f64).map(|score| score as f32);
            text.zip(score)
                .map(|(text, score)| Piece { text, score, kind })
                .ok_or_else(|| format!("entry {id} of its vocabulary is no piece with a score"))
        };
        let pieces = vocabulary.iter().enumerate().map(piece).collect::<std::result::Result<Vec<_>, _>>()?;
        SentencePiece::new(pieces, Charsmap::parse(&table)?, byte_fallback, prefixed)
    };
    Some(build())
}

/// Whether a text is treated as if it began with a space, if the steps around the model do what SentencePiece does by itself: runs of
/// spaces are one, and a space is part of the word behind it.
fn prefixed(json: &Value, normalizers: &[Value]) -> std::result::Result<bool, String> {
    let text = |step: &Value, at: &str| step.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let spaces = |step: &&Value| {
        text(step, "/type").as_deref() == Some("Replace")
            && !(text(step, "/pattern/Regex").as_deref() == Some(" {2,}")
                && matches!(text(step, "/content").as_deref(), Some(" " | "▁")))
    };
    if let Some(step) = normalizers.iter().find(spaces) {
        return Err(format!("its normalizer replaces {}, which is not supported", step.get("pattern").unwrap_or(step)));
    }
    let step = json.get("pre_tokenizer").unwrap_or(&Value::Null);
    let steps = step.get("pretokenizers").and_then(Value::as_array).map_or(std::slice::from_ref(step), Vec::as_slice);
    let (words, last) = match steps {
        [last] => (false, last),
        [first, last] if text(first, "/type").as_deref() == Some("WhitespaceSplit") => (true, last),
        _ => (false, &Value::Null),
    };
    let is_space = text(last, "/replacement").is_none_or(|character| character == "▁");
    if text(last, "/type").as_deref() != Some("Metaspace") || !is_space {
        return Err(
            "its pre_tokenizer is not that of SentencePiece: Metaspace, with WhitespaceSplit or without".to_owned()
        );
    }
    match text(last, "/prepend_scheme").as_deref() {
        Some("always") => Ok(true),
        Some("never") if !words => Ok(false),
        Some("first") if !words => Ok(true),
        None => match last.get("add_prefix_space").and_then(Value::as_bool) {
            Some(false) if !words => Ok(false),
            Some(true) | None => Ok(true),
            Some(false) => Err("its words begin without a space, which is not supported".to_owned()),
        },
        Some(scheme) => Err(format!("its prepend_scheme `{scheme}` is not supported")),
    }
}

/// Whether a piece is the spelling of a byte: `<0x41>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// CLIP's tokenizer: a `tokenizer.json`, or a `vocab.json` with `merges.txt` beside it.
pub(super) fn clip(path: &Path) -> Result<Cutter> {
    if path.file_name().is_none_or(|name| name != "vocab.json") {
        check_pipeline(path, &read_json(path)?, Some(CLIP_START), CLIP_END)?;
        return pipeline(path);
    }
    let merges = path.with_file_name("merges.txt");
    if !merges.is_file() {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(ediffi_core::Error::ReadFile { path: merges, source }.into());
    }
    let failed = |source| refused(path, source);
    byte_pairs(path, &merges).map_err(failed).map(|tokenizer| Cutter::Pipeline(Box::new(tokenizer)))
}

/// CLIP's pipeline (Radford et al. 2021, released code) as `transformers` has it.
fn byte_pairs(vocabulary: &Path, merges: &Path) -> tokenizers::Result<Tokenizer> {
    const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("its path is not UTF-8");
    let model = BPE::from_file(&text(vocabulary)?, &text(merges)?)
        .unk_token("<|endoftext|>".to_owned())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    let space = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), space.into(), Lowercase.into()])))?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

/// The refusal of a file, with a message that does not grow with what it quotes.
fn refused(path: &Path, source: tokenizers::Error) -> Error {
    let said = source.to_string();
    let source = match told(&said) {
        Cow::Borrowed(_) => source,
        Cow::Owned(short) => short.into(),
    };
    Error::TokenizerFile { path: path.to_owned(), source }
}

fn pipeline(path: &Path) -> Result<Cutter> {
    let bytes = read_bytes(path)?;
    let failed = |source| refused(path, source);
    // What is no JSON is the parser's to say.
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    expect_bounded(&json).map_err(|reason| failed(reason.into()))?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(failed)?;
    // Length is this module's business, whatever the file says.
    tokenizer.with_truncation(None).map_err(failed)?;
    tokenizer.with_padding(None);
    tokenizer.set_encode_special_tokens(true);
    Ok(Cutter::Pipeline(Box::new(tokenizer)))
}
