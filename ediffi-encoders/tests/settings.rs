//! Each key of a published file is read, known to be without effect, or refused by its name and file.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{CPU, TEXTS, close, copy, unpacked};
use ediffi_encoders::{Clip, ClipText, ClipVision, Error, Result, T5, TextTokenizer};
use serde_json::{Value, json};

/// Changes a JSON file; one that is not there yet is `{}`.
fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut file = fs::read_to_string(path).map_or_else(|_| json!({}), |text| serde_json::from_str(&text).unwrap());
    change(&mut file);
    fs::write(path, file.to_string()).unwrap();
}

/// Asserts that the error names file and key, and says `reason`.
fn refuses<T>(opened: Result<T>, file: &str, key: &str, reason: &str) {
    let error = opened.map(drop).unwrap_err();
    assert!(matches!(error, Error::Setting { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("{file}, {key}: ")) && text.contains(reason), "{file}, {key}, {reason}: {text}");
}

/// Opens what a folder of the fixtures becomes by a change of one of its files.
fn opened<T>(fixture: &str, file: &str, edit: impl FnOnce(&mut Value), open: impl Fn(&Path) -> Result<T>) -> Result<T> {
    let folder = copy(fixture);
    change(&folder.path().join(file), edit);
    open(folder.path())
}

fn t5(folder: &Path) -> Result<T5> {
    T5::open(folder, CPU)
}

fn clip(folder: &Path) -> Result<Clip> {
    Clip::open(folder, CPU)
}

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer_config.json";

/// What transformers 4 wrote into a half of CLIP, and into many a file at the top.
fn of_transformers_4() -> Value {
    let keys = r#"{
        "_name_or_path": "", "add_cross_attention": false, "architectures": null, "bad_words_ids": null,
        "begin_suppress_tokens": null, "chunk_size_feed_forward": 0, "cross_attention_hidden_size": null,
        "decoder_start_token_id": null, "diversity_penalty": 0.0, "do_sample": false, "early_stopping": false,
        "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": null, "finetuning_task": null,
        "forced_bos_token_id": null, "forced_eos_token_id": null, "id2label": { "0": "LABEL_0", "1": "LABEL_1" },
        "is_decoder": false, "is_encoder_decoder": false, "label2id": { "LABEL_0": 0, "LABEL_1": 1 },
        "length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0, "num_beam_groups": 1,
        "num_beams": 1, "num_return_sequences": 1, "output_attentions": false, "output_hidden_states": false,
        "output_scores": false, "prefix": null, "problem_type": null, "pruned_heads": {},
        "remove_invalid_values": false, "repetition_penalty": 1.0, "return_dict": true,
        "return_dict_in_generate": false, "sep_token_id": null, "suppress_tokens": null, "task_specific_params": null,
        "temperature": 1.0, "tf_legacy_loss": false, "tie_encoder_decoder": false, "tie_word_embeddings": true,
        "tokenizer_class": null, "top_k": 50, "top_p": 1.0, "torch_dtype": "float32", "torchscript": false,
        "transformers_version": "4.24.0", "typical_p": 1.0, "use_bfloat16": false, "dropout": 0.0
    }"#;
    serde_json::from_str(keys).unwrap()
}

fn extend(file: &mut Value, with: Value) {
    file.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
}

#[test]
fn configurations_of_every_version_are_opened() {
    let published = |file: &mut Value| {
        extend(file, of_transformers_4());
        extend(file, json!({ "output_past": true, "n_positions": 512, "decoder_start_token_id": 0 }));
        file.as_object_mut().unwrap().remove("dropout");
    };
    let expected = t5(&common::fixture("t5")).unwrap().encode(&TEXTS, 16).unwrap().tokens;
    let found = opened("t5", CONFIG, published, t5).unwrap().encode(&TEXTS, 16).unwrap().tokens;
    assert!(close(&found, &expected));
    // A file of mT5 that names no kind of feed-forward layers has those of T5 v1.1.
    let of_mt5 = |file: &mut Value| {
        file["model_type"] = "mt5".into();
        file.as_object_mut()
            .unwrap()
            .retain(|key, _| !["feed_forward_proj", "dense_act_fn", "is_gated_act"].contains(&key.as_str()));
    };
    let found = opened("t5", CONFIG, of_mt5, t5).unwrap().encode(&TEXTS, 16).unwrap().tokens;
    assert!(close(&found, &expected));

    let expected = clip(&common::fixture("clip")).unwrap().encode_text(&TEXTS, 20).unwrap();
    let published = |file: &mut Value| {
        for half in ["text_config", "vision_config"] {
            extend(&mut file[half], of_transformers_4());
        }
        extend(file, json!({ "text_config_dict": null, "vision_config_dict": null, "transformers_version": null }));
        extend(file, json!({ "_commit_hash": "0", "initializer_factor": 1.0, "torch_dtype": "float32" }));
    };
    let found = opened("clip", CONFIG, published, clip).unwrap().encode_text(&TEXTS, 20).unwrap();
    assert!(close(&found.pooled, &expected.pooled));
    // A repetition of a half stands for the half.
    let repeated = |file: &mut Value| {
        file["text_config_dict"] = file["text_config"].clone();
        file["text_config"]["hidden_act"] = "gelu".into();
    };
    let found = opened("clip", CONFIG, repeated, clip).unwrap().encode_text(&TEXTS, 20).unwrap();
    assert!(close(&found.pooled, &expected.pooled));
}

#[test]
fn what_a_configuration_asks_for_and_is_not_done_is_refused() {
    for (key, value, reason) in [
        ("zeal", json!(1), "does not know it"),
        ("quantization_config", json!({ "load_in_8bit": true }), "does not know it"),
        ("per_layer_config", json!({ "0": { "d_ff": 3 } }), "does not know it"),
        ("dense_act_fn", json!("gelu"), "`\"gelu\"` is not supported, only \"gelu_new\""),
        ("is_gated_act", json!(false), "only true"),
        ("is_decoder", json!(true), "only false"),
        ("hidden_size", json!(5), "only 16"),
        ("num_hidden_layers", json!(5), "only 2"),
        ("pruned_heads", json!({ "0": [1] }), "only {}"),
    ] {
        refuses(opened("t5", CONFIG, |file| file[key] = value, t5), CONFIG, key, reason);
    }
    let text = |folder: &Path| ClipText::open(folder, CPU).map(drop);
    let vision = |folder: &Path| ClipVision::open(folder, CPU).map(drop);
    type Open = dyn Fn(&Path) -> Result<()>;
    let both = |folder: &Path| clip(folder).map(drop);
    for (half, key, value, opens) in [
        ("text_config", "use_rope", json!(true), [&text as &Open, &both]),
        ("text_config", "is_decoder", json!(true), [&text, &both]),
        ("vision_config", "num_channels", json!(4), [&vision, &both]),
        ("vision_config", "use_registers", json!(2), [&vision, &both]),
    ] {
        for open in opens {
            refuses(opened("clip", CONFIG, |file| file[half][key] = value.clone(), open), CONFIG, key, "");
        }
    }
    for open in [&text as &Open, &vision, &both] {
        refuses(opened("clip", CONFIG, |file| file["zeal"] = 1.into(), open), CONFIG, "zeal", "does not know it");
    }
}

#[test]
fn settings_of_tokenizers_as_they_are_published_are_right() {
    let token = |content: &str| json!({ "__type": "AddedToken", "content": content, "lstrip": false, "special": true });
    let of_t5 = json!({
        "add_prefix_space": true, "added_tokens_decoder": { "0": token("<pad>"), "60": token("<extra_id_99>") },
        "additional_special_tokens": ["<extra_id_99>"], "clean_up_tokenization_spaces": true, "eos_token": "</s>",
        "extra_ids": 100, "legacy": true, "model_max_length": 512, "name_or_path": "t5", "pad_token": "<pad>",
        "sp_model_kwargs": {}, "special_tokens_map_file": "/x", "tokenizer_class": "T5Tokenizer", "unk_token": "<unk>"
    });
    let of_clip = json!({
        "add_prefix_space": false, "added_tokens_decoder": { "593": token("<|startoftext|>") }, "errors": "replace",
        "bos_token": token("<|startoftext|>"), "eos_token": token("<|endoftext|>"), "pad_token": "!",
        "do_lower_case": true, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>"
    });
    let map =
        json!({ "eos_token": token("</s>"), "pad_token": "<pad>", "additional_special_tokens": ["<extra_id_99>"] });
    let folder = copy("t5");
    fs::write(folder.path().join(TOKENIZER), of_t5.to_string()).unwrap();
    fs::write(folder.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    fs::write(folder.path().join("added_tokens.json"), json!({ "<extra_id_99>": 60 }).to_string()).unwrap();
    t5(folder.path()).unwrap();
    opened("clip", TOKENIZER, |file| *file = of_clip, clip).unwrap();
}

#[test]
fn settings_that_would_give_other_tokens_are_refused() {
    let texts = json!({ "60": { "content": "<my-cat>", "special": false } });
    for (key, value, named) in [
        ("zeal", json!(true), "zeal"),
        ("eos_token", json!("<end>"), "eos_token"),
        ("pad_token", json!({ "content": "<unk>" }), "pad_token"),
        ("do_lower_case", json!(true), "do_lower_case"),
        ("add_prefix_space", json!(false), "add_prefix_space"),
        ("padding_side", json!("left"), "padding_side"),
        ("truncation_side", json!("left"), "truncation_side"),
        ("sp_model_kwargs", json!({ "enable_sampling": true }), "sp_model_kwargs"),
        ("tokenizer_class", json!("BertTokenizer"), "tokenizer_class"),
        ("add_eos_token", json!(false), "add_eos_token"),
        ("added_tokens_decoder", texts, "added_tokens_decoder.60"),
    ] {
        refuses(opened("t5", TOKENIZER, |file| file[key] = value, t5), TOKENIZER, named, "");
    }
    for (key, value) in [("bos_token", json!("<s>")), ("do_lower_case", json!(false)), ("add_bos_token", json!(false))]
    {
        refuses(opened("clip", TOKENIZER, |file| file[key] = value, clip), TOKENIZER, key, "");
    }
    let map = "special_tokens_map.json";
    refuses(opened("t5", map, |file| file["eos_token"] = "<end>".into(), t5), map, "eos_token", "only \"</s>\"");
    let added = "added_tokens.json";
    refuses(opened("clip", added, |file| file["<my-cat>"] = 595.into(), clip), added, "<my-cat>", "cut into");
}

#[test]
fn what_a_pipeline_says_besides_cutting_is_checked() {
    let file = "tokenizer.json";
    let template = |end: &str| {
        json!({ "type": "TemplateProcessing", "pair": [], "special_tokens": {},
            "single": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "SpecialToken": { "id": end, "type_id": 0 } }] })
    };
    opened("t5", file, |json| json["post_processor"] = template("</s>"), t5).unwrap();
    refuses(opened("t5", file, |json| json["post_processor"] = template("<unk>"), t5), file, "post_processor", "");
    refuses(
        opened("clip", file, |json| json["post_processor"] = template("<|endoftext|>"), clip),
        file,
        "post_processor",
        "",
    );
    refuses(opened("clip", file, |json| json["model"]["dropout"] = 0.1.into(), clip), file, "model.dropout", "only 0");
    refuses(opened("clip", file, |json| json["zeal"] = 1.into(), clip), file, "zeal", "does not know it");
}

/// A pipeline that is read as the SentencePiece model it was made from.
#[test]
fn steps_that_sentencepiece_does_not_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = unpacked(folder.path(), "bytes.tokenizer.json");
    let whole = fs::read(&path).unwrap();
    let open = |edit: &dyn Fn(&mut Value)| {
        fs::write(&path, &whole).unwrap();
        change(&path, edit);
        TextTokenizer::t5(&path, 1, 0, 420)
    };
    let ids =
        |tokenizer: TextTokenizer| Vec::<i64>::try_from(tokenizer.encode(&["cat"], 12).unwrap().ids.flatten(0, -1));
    let metaspace = |key: &str, value: Value| json!({ "type": "Metaspace", "replacement": "▁", key: value });
    let published = ids(open(&|_| {}).unwrap()).unwrap();
    for step in [metaspace("add_prefix_space", json!(true)), metaspace("prepend_scheme", json!("first"))] {
        assert_eq!(ids(open(&|json| json["pre_tokenizer"] = step.clone()).unwrap()).unwrap(), published);
    }
    let bare = ids(open(&|json| json["pre_tokenizer"] = metaspace("prepend_scheme", json!("never"))).unwrap()).unwrap();
    assert_ne!(bare, published);
    let says = |edit: &dyn Fn(&mut Value), part: &str| {
        let text = open(edit).map(drop).unwrap_err().to_string();
        assert!(text.contains("tokenizer.json") && text.contains(part), "{text}");
    };
    says(&|json| json["pre_tokenizer"] = json!({ "type": "Whitespace" }), "pre_tokenizer");
    says(&|json| json["pre_tokenizer"] = metaspace("replacement", json!("_")), "pre_tokenizer");
    says(&|json| json["model"]["alpha"] = 0.1.into(), "alpha");
    let word = json!({ "type": "Replace", "pattern": { "String": "cat" }, "content": "dog" });
    says(&|json| json["normalizer"]["normalizers"].as_array_mut().unwrap().push(word.clone()), "String");
}
