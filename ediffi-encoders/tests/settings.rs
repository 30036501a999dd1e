//! Each key of a published file is read, known to be without effect, or refused by its name and file.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{CPU, TEXTS, close, copy, unpacked};
use ediffi_encoders::{Clip, ClipText, ClipVision, Error, Result, T5, TextTokenizer};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

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
    let repeated = |file: &mut Value| {
        file["vision_config_dict"] = file["vision_config"].clone();
        file["vision_config"]["layer_norm_eps"] = 0.5.into();
    };
    let expected = Clip::read_config(&common::fixture("clip")).unwrap();
    assert_eq!(opened("clip", CONFIG, repeated, Clip::read_config).unwrap(), expected);
}

/// Keys that are followed, and have one value in the models of these tests.
#[test]
fn keys_with_another_value_are_followed() {
    let t5 = opened("t5", CONFIG, |file| file["pad_token_id"] = 3.into(), T5::read_config).unwrap();
    assert_eq!(t5.pad_token_id, 3);
    let eps = |file: &mut Value| file["text_config"]["layer_norm_eps"] = 0.25.into();
    assert_eq!(opened("clip", CONFIG, eps, Clip::read_config).unwrap().text_config.layer_norm_eps, 0.25);
}

/// What transformers may write into any configuration.
const OF_ANY_MODEL: &str = "\
     _attn_implementation_autoset _commit_hash _from_model_config _name_or_path architectures attn_implementation bad_words_ids \
     begin_suppress_tokens bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty \
     do_sample dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id \
     forced_eos_token_id gradient_checkpointing id2label initializer_factor initializer_range is_composition is_encoder_decoder \
     label2id length_penalty max_length min_length name_or_path no_repeat_ngram_size num_beam_groups num_beams num_labels \
     num_return_sequences output_attentions output_hidden_states output_past output_scores prefix problem_type remove_invalid_values \
     repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature \
     tf_legacy_loss tie_encoder_decoder tie_last_hidden_states tie_word_embeddings tokenizer_class top_k top_p torch_dtype \
     torchscript transformers_version transformers_weights typical_p use_bfloat16 use_cache use_return_dict xla_device \
     num_decoder_layers scale_decoder_outputs";

/// What it may write beside any tokenizer.
const OF_ANY_TOKENIZER: &str = "\
     _commit_hash _from_auto _name_or_path additional_special_tokens auto_map backend cache_dir chat_control_tokens chat_template \
     clean_up_tokenization_spaces cls_token device device_map errors extra_ids extra_special_tokens fast_tokenizer_files files_loaded \
     from_slow init_inputs is_local legacy local_files_only mask_token max_len max_length merges_file model_input_names \
     model_max_length model_specific_special_tokens model_type name_or_path pad_to_multiple_of pad_token_type_id padding \
     processor_class response_schema response_template return_tensors sep_token slow_tokenizer_class spaces_between_special_tokens \
     special_tokens_map_file split_special_tokens stride tokenizer_file transformers_version truncation truncation_strategy \
     trust_remote_code unk_token use_fast verbose vocab_file vocab_size vocabulary_size";

/// Adds keys with a value that none of them has.
fn add(file: &mut Value, keys: &str) {
    extend(file, keys.split_whitespace().map(|key| (key.to_owned(), json!([7]))).collect::<Map<_, _>>().into());
}

#[test]
fn keys_without_effect_may_have_any_value() {
    let of_t5 = |file: &mut Value| {
        add(file, OF_ANY_MODEL);
        add(file, "classifier_dropout dropout_rate n_positions");
    };
    assert_eq!(opened("t5", CONFIG, of_t5, T5::read_config).unwrap(), T5::read_config(&common::fixture("t5")).unwrap());
    let of_clip = |file: &mut Value| {
        add(file, OF_ANY_MODEL);
        add(file, "attention_dropout dropout logit_scale_init_value");
        for half in ["text_config", "vision_config"] {
            add(&mut file[half], OF_ANY_MODEL);
            add(&mut file[half], "attention_dropout dropout pad_token_id projection_dim");
        }
    };
    let expected = Clip::read_config(&common::fixture("clip")).unwrap();
    assert_eq!(opened("clip", CONFIG, of_clip, Clip::read_config).unwrap(), expected);
    opened("t5", TOKENIZER, |file| add(file, OF_ANY_TOKENIZER), t5).unwrap();
    opened("clip", TOKENIZER, |file| add(file, OF_ANY_TOKENIZER), clip).unwrap();
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
        ("add_cross_attention", json!(true), "only false"),
        ("head_dim", json!(5), "only"),
        ("num_attention_heads", json!(5), "only"),
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

/// A token that was added is one that no text can reach, or one that the vocabulary has.
#[test]
fn tokens_that_were_added_and_change_nothing_are_right() {
    let added = "added_tokens.json";
    let ids = |folder: &Path| -> Result<Value> {
        let file = fs::read_to_string(folder.join("tokenizer.json")).unwrap();
        Ok(serde_json::from_str::<Value>(&file).unwrap()["model"]["vocab"].clone())
    };
    let vocabulary = ids(&common::fixture("clip")).unwrap();
    let (own, id) = vocabulary.as_object().unwrap().iter().find(|(token, _)| token.len() > 3).unwrap();
    // Special ones by their names, by the list of special tokens, and one of the vocabulary with its number.
    opened("t5", added, |file| file["<extra_id_7>"] = 9_000.into(), t5).unwrap();
    opened("clip", added, |file| file[own] = id.clone(), clip).unwrap();
    refuses(opened("clip", added, |file| file[own] = 9_000.into(), clip), added, own, "cut into");
    let decoder = |id: &Value| json!({ id.to_string(): { "content": own, "special": false } });
    opened("clip", TOKENIZER, |file| file["added_tokens_decoder"] = decoder(id), clip).unwrap();
    let other = opened("clip", TOKENIZER, |file| file["added_tokens_decoder"] = decoder(&9_000.into()), clip);
    refuses(other, TOKENIZER, "added_tokens_decoder.9000", "cut into");
    let folder = copy("clip");
    change(&folder.path().join(added), |file| file["<my-cat>"] = 9_000.into());
    assert!(clip(folder.path()).is_err());
    let special = json!({ "additional_special_tokens": ["<my-cat>"] });
    change(&folder.path().join("special_tokens_map.json"), |file| *file = special);
    clip(folder.path()).unwrap();
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
    // Steps that see characters alone, and settings of length, which is this library's business.
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let steps = json!({ "type": "Sequence", "processors": [bytes, template("</s>")] });
    opened("t5", file, |json| json["post_processor"] = steps, t5).unwrap();
    let length = |json: &mut Value| {
        json["truncation"] = json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
        json["padding"] = json!({ "strategy": { "Fixed": 20 }, "direction": "Left", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>" });
    };
    let expected = clip(&common::fixture("clip")).unwrap().encode_text(&TEXTS, 20).unwrap();
    let found = opened("clip", file, length, clip).unwrap().encode_text(&TEXTS, 20).unwrap();
    assert!(close(&found.tokens, &expected.tokens));
    refuses(
        opened("clip", file, |json| json["post_processor"] = template("<|endoftext|>"), clip),
        file,
        "post_processor",
        "",
    );
    refuses(opened("clip", file, |json| json["model"]["dropout"] = 0.1.into(), clip), file, "model.dropout", "only 0");
    refuses(opened("clip", file, |json| json["zeal"] = 1.into(), clip), file, "zeal", "does not know it");
}

/// As transformers 5 saves a CLIPProcessor: the mean is not that of OpenAI, and pictures come out otherwise.
#[test]
fn a_processor_s_file_is_read_by_whoever_opens_the_model() {
    let processor = json!({ "image_processor": { "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5] } });
    let picture = [Tensor::full([3, 16, 16], 254, (Kind::Uint8, Device::Cpu))];
    let vision = |folder: &Path| ClipVision::open(folder, CPU)?.encode(&picture);
    let both = |folder: &Path| clip(folder)?.encode_image(&picture);
    let without = vision(&common::fixture("clip")).unwrap();
    let found = opened("clip", "processor_config.json", |file| *file = processor.clone(), vision).unwrap();
    assert!(!close(&found, &without));
    assert!(close(&opened("clip", "processor_config.json", |file| *file = processor.clone(), both).unwrap(), &found));
    // The same in a file of its own.
    let own = |file: &mut Value| *file = processor["image_processor"].clone();
    assert!(close(&opened("clip", "preprocessor_config.json", own, vision).unwrap(), &found));
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
