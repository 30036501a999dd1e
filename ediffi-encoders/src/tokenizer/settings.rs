//! The settings of a tokenizer that lie beside it, and what a `tokenizer.json` says besides cutting texts.
//!
//! The special tokens, the length of a text and its padding are this library's business. Where a file says the same, or what has no
//! effect on tokens, it is right; anything else is refused by name.

use std::path::Path;

use ediffi_core::files::read_json;
use ediffi_core::published::unknown_key;
use serde_json::{Map, Value, json};

use crate::settings::{other_value, unknown};
use crate::{Error, Result};

/// The files beside a tokenizer that have settings of it.
pub(crate) const FILES: [&str; 3] = [CONFIG, MAP, ADDED];

const CONFIG: &str = "tokenizer_config.json";

/// Special tokens, which newer versions write into the settings.
const MAP: &str = "special_tokens_map.json";

/// Of early versions: tokens that are not in the vocabulary, with their ids.
const ADDED: &str = "added_tokens.json";

/// Keys that change no token of a text: where the file came from; how Python hands tokens on, cuts and decodes them; tokens that no text
/// can reach; and what `legacy` means for text after such a token.
const WITHOUT_EFFECT: [&str; 56] = [
    "_commit_hash",
    "_from_auto",
    "_name_or_path",
    "additional_special_tokens",
    "auto_map",
    "backend",
    "cache_dir",
    "chat_control_tokens",
    "chat_template",
    "clean_up_tokenization_spaces",
    "cls_token",
    "device",
    "device_map",
    "errors",
    "extra_ids",
    "extra_special_tokens",
    "fast_tokenizer_files",
    "files_loaded",
    "from_slow",
    "init_inputs",
    "is_local",
    "legacy",
    "local_files_only",
    "mask_token",
    "max_len",
    "max_length",
    "merges_file",
    "model_input_names",
    "model_max_length",
    "model_specific_special_tokens",
    "model_type",
    "name_or_path",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding",
    "processor_class",
    "response_schema",
    "response_template",
    "return_tensors",
    "sep_token",
    "slow_tokenizer_class",
    "spaces_between_special_tokens",
    "special_tokens_map_file",
    "split_special_tokens",
    "stride",
    "tokenizer_file",
    "transformers_version",
    "truncation",
    "truncation_strategy",
    "trust_remote_code",
    "unk_token",
    "use_fast",
    "verbose",
    "vocab_file",
    "vocab_size",
    "vocabulary_size",
];

/// What a family's tokenizer does, and its files may say.
pub(super) struct Family<'a> {
    /// The classes of Python that do it.
    pub(super) classes: &'static [&'static str],
    /// The token that begins a text; `None` where none does.
    pub(super) start: Option<&'static str>,
    /// The token that ends one.
    pub(super) end: &'static str,
    /// The token of the padding, where the network sees it.
    pub(super) padding: Option<String>,
    /// Whether capitals are as small letters.
    pub(super) lowercase: bool,
    /// The id of a token of the vocabulary.
    pub(super) id: &'a dyn Fn(&str) -> Option<i64>,
}

/// Classes of tokenizers that do what their `tokenizer.json` says.
const ANY: [&str; 3] = ["PreTrainedTokenizerFast", "TokenizersBackend", "PythonBackend"];

/// Checks the settings in the folder of the tokenizer at `path`.
///
/// # Errors
/// A file that is unreadable, or [`Error::Setting`].
pub(super) fn check(path: &Path, family: &Family<'_>) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let mut special = Vec::new();
    for name in FILES {
        let path = folder.join(name);
        if !path.is_file() {
            continue;
        }
        let keys: Map<String, Value> = read_json(&path)?;
        if name == ADDED {
            added(&path, &keys, &special, family)?;
        } else {
            let more = keys.get("additional_special_tokens").and_then(Value::as_array).into_iter().flatten();
            special.extend(more.filter_map(token).map(str::to_owned));
            keys_of(&path, keys, family)?;
        }
    }
    Ok(())
}

/// The token of the padding that the files in the folder of the tokenizer at `path` name. Settings that list the tokens that were added
/// (`added_tokens_decoder`) are the newer ones, and stand alone; above others stands the map of special tokens (transformers'
/// `_from_pretrained`).
///
/// # Errors
/// A file that is unreadable.
pub(super) fn padding(path: &Path) -> Result<Option<String>> {
    let Some(folder) = path.parent() else { return Ok(None) };
    let read = |name: &str| -> Result<Map<String, Value>> {
        let path = folder.join(name);
        if path.is_file() { Ok(read_json(&path)?) } else { Ok(Map::new()) }
    };
    let own = read(CONFIG)?;
    let map = if own.contains_key("added_tokens_decoder") { Map::new() } else { read(MAP)? };
    let named = [&map, &own].into_iter().find_map(|keys| keys.get("pad_token").and_then(token));
    Ok(named.map(str::to_owned))
}

/// Checks the keys of one file.
fn keys_of(path: &Path, mut keys: Map<String, Value>, family: &Family<'_>) -> Result<()> {
    if let Some(class) = keys.remove("tokenizer_class").filter(|class| !class.is_null()) {
        let known = class.as_str().is_some_and(|class| family.classes.contains(&class) || ANY.contains(&class));
        if !known {
            return Err(other_value(path, "tokenizer_class", &class, &json!(family.classes)));
        }
    }
    for (key, wanted) in
        [("bos_token", family.start), ("eos_token", Some(family.end)), ("pad_token", family.padding.as_deref())]
    {
        let found = keys.remove(key).filter(|found| !found.is_null());
        // A token that stands nowhere may be any.
        if let (Some(found), Some(wanted)) = (found, wanted)
            && token(&found) != Some(wanted)
        {
            return Err(other_value(path, key, &found, &json!(wanted)));
        }
    }
    for (key, followed) in [
        ("add_bos_token", json!(family.start.is_some())),
        ("add_eos_token", json!(true)),
        ("add_prefix_space", json!(family.start.is_none())),
        ("do_lower_case", json!(family.lowercase)),
        ("padding_side", json!("right")),
        ("sp_model_kwargs", json!({})),
        ("truncation_side", json!("right")),
    ] {
        if let Some(found) = keys.remove(key).filter(|found| !found.is_null() && *found != followed) {
            return Err(other_value(path, key, &found, &followed));
        }
    }
    if let Some(Value::Object(tokens)) = keys.remove("added_tokens_decoder") {
        for (id, entry) in &tokens {
            let special = entry.get("special") == Some(&Value::Bool(true));
            let own = token(entry).and_then(family.id).is_some_and(|own| own.to_string() == *id);
            if !special && !own {
                return Err(in_texts(path, &format!("added_tokens_decoder.{id}")));
            }
        }
    }
    unknown_key(&keys, &WITHOUT_EFFECT).map_or(Ok(()), |key| Err(unknown(path, key)))
}

/// Checks that texts hold none of the tokens of an `added_tokens.json`, except where the vocabulary has it.
fn added(path: &Path, tokens: &Map<String, Value>, special: &[String], family: &Family<'_>) -> Result<()> {
    let reaches = |(text, id): &(&String, &Value)| {
        let own = (family.id)(text).is_some_and(|own| id.as_i64() == Some(own));
        !own && !text.starts_with("<extra_id_") && !special.contains(text)
    };
    tokens.iter().find(reaches).map_or(Ok(()), |(text, _)| Err(in_texts(path, text)))
}

/// The error of a token that was added for texts to be cut into.
fn in_texts(path: &Path, key: &str) -> Error {
    let reason = "a token that texts are cut into and the vocabulary does not have".to_owned();
    Error::Setting { path: path.to_owned(), key: ediffi_core::brief::brief(key).into_owned(), reason }
}

/// The text of a token, which is a string or has its text as `content`.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// Checks what a `tokenizer.json` says besides its normalisation, its vocabulary and the tokens that were added: that the tokens around
/// a text are `start` and `end`, and that it is cut without dice.
///
/// # Errors
/// [`Error::Setting`].
pub(super) fn check_pipeline(path: &Path, file: &Value, start: Option<&str>, end: &str) -> Result<()> {
    /// What is read, and what is not as length and padding are this library's business and nothing is decoded.
    const KNOWN: [&str; 9] = [
        "added_tokens",
        "decoder",
        "model",
        "normalizer",
        "padding",
        "post_processor",
        "pre_tokenizer",
        "truncation",
        "version",
    ];
    // What has no model is no tokenizer: its reader says so.
    let Some(keys) = file.as_object().filter(|keys| keys.contains_key("model")) else { return Ok(()) };
    if let Some(key) = unknown_key(keys, &KNOWN) {
        return Err(unknown(path, key));
    }
    let dice = file.pointer("/model/dropout").filter(|dice| !dice.is_null() && dice.as_f64() != Some(0.0));
    if let Some(dice) = dice {
        return Err(other_value(path, "model.dropout", dice, &json!(0)));
    }
    let wanted: Vec<&str> = start.into_iter().chain(["A", end]).collect();
    let Some(around) = file.get("post_processor").filter(|around| !around.is_null()) else { return Ok(()) };
    let steps = around.get("processors").and_then(Value::as_array);
    for step in steps.map_or(std::slice::from_ref(around), Vec::as_slice) {
        let name = |at: &str| step.pointer(at).and_then(Value::as_str);
        let tokens: Vec<&str> = match name("/type") {
            // Of characters alone.
            Some("ByteLevel") => continue,
            Some("TemplateProcessing") => {
                let single = step.get("single").and_then(Value::as_array).into_iter().flatten();
                single.filter_map(|piece| piece.as_object()?.values().next()?.get("id")?.as_str()).collect()
            }
            Some("RobertaProcessing" | "BertProcessing") => {
                name("/cls/0").into_iter().chain(["A"]).chain(name("/sep/0")).collect()
            }
            _ => Vec::new(),
        };
        if tokens != wanted {
            let found = step.get("single").or(step.get("type")).unwrap_or(step);
            return Err(other_value(path, "post_processor", found, &json!(wanted)));
        }
    }
    Ok(())
}
