//! Folders as they are published: halves, variants, shards, tokenizers beside; what is kept of embeddings; wrong folders.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{CPU, TEXTS, close, copy, fixture, tensors};
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::save;
use ediffi_encoders::{Clip, ClipText, ClipVision, Error, T5, T5Weights};
use tch::{Device, Kind, Tensor};

#[test]
fn variants_and_shards_of_t5_are_opened() {
    let expected = T5::open(&fixture("t5"), CPU).unwrap().encode(&TEXTS, 16).unwrap().tokens;
    let folder = copy("t5");
    let path = |name: &str| folder.path().join(name);
    std::fs::rename(path("model.safetensors"), path("model.fp32.safetensors")).unwrap();
    assert!(close(&T5::open(folder.path(), CPU).unwrap().encode(&TEXTS, 16).unwrap().tokens, &expected));
    let half = tensors("t5").into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Half))).collect::<Vec<_>>();
    save(&path("model.fp16.safetensors"), &half, HashMap::new()).unwrap();
    let error = T5::open(folder.path(), CPU).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert!(source.unwrap().contains("fp16, fp32"));
    let half = T5::open_variant(folder.path(), Some("fp16"), CPU).unwrap().encode(&TEXTS, 16).unwrap().tokens;
    assert!(!close(&half, &expected) && half.allclose(&expected, 0.0, 0.02, false));

    // Two shards of the encoder, and one of a decoder that is not there.
    let all = tensors("t5");
    let (first, second) = all.split_at(5);
    let mut map = serde_json::Map::new();
    for (name, part) in [("1.safetensors", first), ("2.safetensors", second)] {
        save(&path(name), part, HashMap::new()).unwrap();
        part.iter().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.into())));
    }
    map.insert("decoder.block.0".to_owned(), "3.safetensors".into());
    std::fs::write(path("model.safetensors.index.json"), serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    assert!(close(&T5::open(folder.path(), CPU).unwrap().encode(&TEXTS, 16).unwrap().tokens, &expected));
    std::fs::remove_file(path("2.safetensors")).unwrap();
    let error = T5::open(folder.path(), CPU).unwrap_err().to_string();
    assert!(error.contains("2.safetensors"), "{error}");
}

#[test]
fn halves_of_clip_are_opened_from_either_kind_of_folder() {
    let clip = Clip::open(&fixture("clip"), CPU).unwrap();
    let expected = clip.encode_text(&TEXTS, 20).unwrap();
    let picture =
        [Tensor::arange(1200, (Kind::Int64, Device::Cpu)).remainder(251).reshape([3, 20, 20]).to_kind(Kind::Uint8)];
    let seen = clip.encode_image(&picture).unwrap();
    assert!(close(
        &ClipText::open(&fixture("clip"), CPU).unwrap().encode(&TEXTS, 20).unwrap().pooled,
        &expected.pooled
    ));
    assert!(close(&ClipVision::open(&fixture("clip"), CPU).unwrap().encode(&picture).unwrap(), &seen));

    // Each half alone, without prefix, its configuration at the top, the tokenizer in the folder beside.
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixture("clip/config.json")).unwrap()).unwrap();
    for (half, kind, projected) in
        [("text", "clip_text_model", true), ("text", "clip_text_model", false), ("vision", "clip_vision_model", true)]
    {
        let pipeline = tempfile::tempdir().unwrap();
        let (folder, beside) = (pipeline.path().join("encoder"), pipeline.path().join("tokenizer"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&beside).unwrap();
        let mut config = json[format!("{half}_config")].clone();
        config["model_type"] = kind.into();
        config["projection_dim"] = json["projection_dim"].clone();
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        std::fs::copy(fixture("clip/tokenizer.json"), beside.join("tokenizer.json")).unwrap();
        std::fs::copy(fixture("clip/preprocessor_config.json"), folder.join("preprocessor_config.json")).unwrap();
        let own = tensors("clip").into_iter().filter(|(name, _)| {
            name.starts_with(half) && (projected || !name.contains("projection"))
                || name.starts_with("visual") && half == "vision"
        });
        let bare = own.map(|(name, tensor)| (name.replace(&format!("{half}_model."), ""), tensor)).collect::<Vec<_>>();
        save(&folder.join("model.safetensors"), &bare, HashMap::new()).unwrap();
        if half == "vision" {
            assert!(close(&ClipVision::open(&folder, CPU).unwrap().encode(&picture).unwrap(), &seen));
            continue;
        }
        let encoded = ClipText::open(&folder, CPU).unwrap().encode(&TEXTS, 20).unwrap();
        assert!(close(&encoded.tokens, &expected.tokens));
        assert!(close(&encoded.penultimate, &expected.penultimate));
        // Without projection: the token that ends the text.
        let end = encoded.mask.sum_dim_intlist(-1, true, Kind::Int64) - 1;
        let end = encoded.tokens.gather(1, &end.unsqueeze(-1).expand([3, 1, 16], false), false).squeeze_dim(1);
        assert!(close(&encoded.pooled, if projected { &expected.pooled } else { &end }));
        assert!(matches!(Clip::open(&folder, CPU), Err(Error::Architecture { .. })));
    }
}

#[test]
fn a_configuration_of_another_architecture_is_an_error() {
    for (name, open) in [
        ("t5", (|folder: &Path| T5::open(folder, CPU).map(drop)) as fn(&Path) -> Result<(), Error>),
        ("clip", |folder| Clip::open(folder, CPU).map(drop)),
        ("clip", |folder| ClipText::open(folder, CPU).map(drop)),
        ("clip", |folder| ClipVision::open(folder, CPU).map(drop)),
    ] {
        let folder = copy(name);
        let path = folder.path().join("config.json");
        let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        json["model_type"] = "umt5".into();
        std::fs::write(&path, json.to_string()).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::Architecture { found, .. } if found == "umt5"), "{error}");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}

#[test]
fn a_vocabulary_larger_than_the_table_names_file_tensor_and_sizes() {
    let folder = copy("t5");
    let path = folder.path().join("config.json");
    let json = std::fs::read_to_string(&path).unwrap();
    let rows: serde_json::Value = serde_json::from_str(&json).unwrap();
    let json = json.replace(&format!("\"vocab_size\": {}", rows["vocab_size"]), "\"vocab_size\": 17");
    std::fs::write(&path, json).unwrap();
    let error = T5::open(folder.path(), CPU).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json") && error.contains("17 rows in shared.weight"), "{error}");
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let error = T5::open(folder.path(), CPU).unwrap_err();
    assert!(matches!(&error, Error::NoTokenizer { .. }) && error.to_string().contains("spiece.model"), "{error}");
}

#[test]
fn padding_is_as_the_network_makes_it_where_that_is_asked_for() {
    let t5 = T5::open(&fixture("t5"), CPU).unwrap();
    let (zeros, filled) = (t5.encode(&TEXTS, 24).unwrap(), t5.encode_with_padding(&TEXTS, 24).unwrap());
    assert_eq!((zeros.spans, zeros.mask.equal(&filled.mask)), (filled.spans, true));
    let mask = filled.mask.unsqueeze(-1);
    assert!(close(&zeros.tokens, &(&filled.tokens * &mask)));
    assert!(filled.tokens.abs().sum_dim_intlist(-1, false, Kind::Float).min().double_value(&[]) > 0.0);
}

#[test]
fn a_text_does_not_depend_on_its_neighbours() {
    let words = ["a", "red", "apple", "left", "of", "the", "small", "cat", "dog", "tree"];
    let texts: Vec<String> =
        (0..40).map(|n| (0..n % 11).map(|k| words[(n * 7 + k) % 10]).collect::<Vec<_>>().join(" ")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (t5, clip) = (T5::open(&fixture("t5"), CPU).unwrap(), ClipText::open(&fixture("clip"), CPU).unwrap());
    let (batch, clip_batch) = (t5.encode(&texts, 40).unwrap(), clip.encode(&texts, 24).unwrap());
    for (row, text) in texts.iter().enumerate() {
        let (single, index) = (t5.encode(&[text], 40).unwrap(), row as i64);
        assert!(close(&batch.tokens.narrow(0, index, 1), &single.tokens), "{text}");
        assert!(batch.mask.narrow(0, index, 1).equal(&single.mask));
        assert_eq!((&batch.spans[row], &batch.truncated[row]), (&single.spans[0], &single.truncated[0]));
        let single = clip.encode(&[text], 24).unwrap();
        assert!(close(&clip_batch.tokens.narrow(0, index, 1), &single.tokens), "{text}");
        assert!(close(&clip_batch.pooled.narrow(0, index, 1), &single.pooled), "{text}");
    }
}

#[test]
fn weights_of_eight_bits_are_for_the_cpu() {
    let runtime = Runtime { device: Device::Cuda(0), kind: Kind::BFloat16 };
    let refused = T5::open_with(&fixture("t5"), None, T5Weights::Int8, runtime).unwrap_err();
    assert!(matches!(refused, Error::Int8Device(Device::Cuda(0))), "{refused}");
}
