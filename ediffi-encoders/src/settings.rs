//! The keys of published `config.json` files that the networks do not read.
//!
//! The files are written by Python, with keys of many versions. Each key is read, or has one value that is followed, or is known to
//! change nothing; any other is refused by name.

use std::path::Path;

use ediffi_core::brief::{brief, told_json};
use ediffi_core::published::unknown_key;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Keys that transformers may write for any model and that change no embedding: where the file came from, what the generation of text,
/// training, classification or Python's own bookkeeping sees.
const WITHOUT_EFFECT: [&str; 70] = [
    "_attn_implementation_autoset",
    "_commit_hash",
    "_from_model_config",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_composition",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_last_hidden_states",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "transformers_weights",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    "xla_device",
    // An encoder has no other.
    "num_decoder_layers",
    "scale_decoder_outputs",
];

/// A configuration that was read, and the keys of its file that it left over.
#[derive(Deserialize)]
struct Read<T> {
    #[serde(flatten)]
    config: T,
    #[serde(flatten)]
    left: Map<String, Value>,
}

/// Reads the keys of a configuration that `T` has, and [checks](check) the others.
///
/// # Errors
/// Values of another type, or [`Error::Setting`].
pub(crate) fn parse<T: DeserializeOwned>(
    path: &Path,
    json: Value,
    without_effect: &[&str],
    fixed: impl Fn(&T) -> Vec<(&'static str, Value)>,
) -> Result<T> {
    let read = serde_json::from_value(json);
    let Read { config, left } =
        read.map_err(|source| ediffi_core::Error::Json { path: path.to_owned(), source: told_json(source) })?;
    check(path, left, without_effect, fixed(&config))?;
    Ok(config)
}

/// Checks the keys that a reader `left` over: each has to be one of those `without_effect`, of those that no model sees, or of those
/// `fixed` for this one, which have one value that is followed.
///
/// # Errors
/// [`Error::Setting`].
pub(crate) fn check(
    path: &Path,
    mut left: Map<String, Value>,
    without_effect: &[&str],
    fixed: Vec<(&'static str, Value)>,
) -> Result<()> {
    left.retain(|key, _| !without_effect.contains(&key.as_str()));
    // As in a network that attends to its own texts alone, with all its heads.
    let all = [("add_cross_attention", json!(false)), ("is_decoder", json!(false)), ("pruned_heads", json!({}))];
    for (key, followed) in fixed.into_iter().chain(all) {
        if let Some(found) = left.remove(key).filter(|found| !found.is_null() && *found != followed) {
            return Err(other_value(path, key, &found, &followed));
        }
    }
    unknown_key(&left, &WITHOUT_EFFECT).map_or(Ok(()), |key| Err(unknown(path, key)))
}

/// The error of a key that nobody knows.
pub(crate) fn unknown(path: &Path, key: &str) -> Error {
    let reason = "this library does not know it".to_owned();
    Error::Setting { path: path.to_owned(), key: key.to_owned(), reason }
}

/// The error of a value that is not followed.
pub(crate) fn other_value(path: &Path, key: &str, found: &Value, followed: &Value) -> Error {
    let found = found.to_string();
    let reason = format!("`{}` is not supported, only {followed}", brief(&found));
    Error::Setting { path: path.to_owned(), key: key.to_owned(), reason }
}
