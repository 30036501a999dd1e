//! The encoders opened from folders: batches, padding, errors; and the networks as something to train.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{CPU, TEXTS, changed, close, copy, fixture, tensors};
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{Fresh, Scope, save};
use ediffi_encoders::t5::FeedForwardKind;
use ediffi_encoders::{
    Clip, ClipConfig, ClipTextConfig, ClipTextNetwork, ClipVisionConfig, ClipVisionNetwork, Error, T5, T5Config,
    T5Network,
};
use tch::{Device, Kind, Tensor};

#[test]
fn a_batch_is_its_texts_one_by_one() {
    let (t5, clip) = (T5::open(&fixture("t5"), CPU).unwrap(), Clip::open(&fixture("clip"), CPU).unwrap());
    let batch = t5.encode(&TEXTS, 30).unwrap();
    let clip_batch = clip.encode_text(&TEXTS, 20).unwrap();
    for (index, text) in TEXTS.iter().enumerate() {
        let row = index as i64;
        let single = t5.encode(&[text], 30).unwrap();
        assert!(close(&batch.tokens.narrow(0, row, 1), &single.tokens));
        assert_eq!(batch.spans[index], single.spans[0]);
        let single = clip.encode_text(&[text], 20).unwrap();
        assert!(close(&clip_batch.tokens.narrow(0, row, 1), &single.tokens));
        assert!(close(&clip_batch.pooled.narrow(0, row, 1), &single.pooled));
    }
}

#[test]
fn the_length_filled_up_to_does_not_change_a_text() {
    let (t5, clip) = (T5::open(&fixture("t5"), CPU).unwrap(), Clip::open(&fixture("clip"), CPU).unwrap());
    let (short, long) = (t5.encode(&["a cat"], 8).unwrap(), t5.encode(&["a cat"], 50).unwrap());
    assert!(close(&short.tokens, &long.tokens.narrow(1, 0, 8)));
    let (short, long) = (clip.encode_text(&["a cat"], 8).unwrap(), clip.encode_text(&["a cat"], 24).unwrap());
    assert!(close(&short.tokens, &long.tokens.narrow(1, 0, 8)));
    assert!(close(&short.pooled, &long.pooled));
}

#[test]
fn embeddings_are_zero_after_the_end_of_a_text_only() {
    let (t5, clip) = (T5::open(&fixture("t5"), CPU).unwrap(), Clip::open(&fixture("clip"), CPU).unwrap());
    let cut = t5.tokenizer().encode(&TEXTS, 30).unwrap();
    let size = |x: &Tensor| x.abs().sum_dim_intlist(-1, false, Kind::Float).gt(0.0);
    assert_eq!(size(&t5.encode(&TEXTS, 30).unwrap().tokens), cut.mask);
    let cut = clip.tokenizer().encode(&TEXTS, 20).unwrap();
    assert_eq!(size(&clip.encode_text(&TEXTS, 20).unwrap().tokens), cut.mask);
}

#[test]
fn embeddings_are_f32_in_every_precision() {
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        let runtime = Runtime { device: Device::Cpu, kind };
        let encoded = T5::open(&fixture("t5"), runtime).unwrap().encode(&TEXTS, 16).unwrap();
        assert_eq!(encoded.tokens.kind(), Kind::Float);
        let clip = Clip::open(&fixture("clip"), runtime).unwrap();
        let encoded = clip.encode_text(&TEXTS, 16).unwrap();
        assert_eq!((encoded.tokens.kind(), encoded.pooled.kind()), (Kind::Float, Kind::Float));
        let picture = Tensor::zeros([3, 20, 30], (Kind::Uint8, Device::Cpu));
        assert_eq!(clip.encode_image(&[picture]).unwrap().kind(), Kind::Float);
    }
}

#[test]
fn pictures_of_different_sizes_make_one_batch() {
    let clip = Clip::open(&fixture("clip"), CPU).unwrap();
    let picture = |height: i64, width: i64| {
        Tensor::arange(3 * height * width, (Kind::Int64, Device::Cpu)).remainder(251).reshape([3, height, width])
    };
    let pictures = [picture(20, 30).to_kind(Kind::Uint8), picture(64, 17).to_kind(Kind::Uint8)];
    let batch = clip.encode_image(&pictures).unwrap();
    assert_eq!(batch.size(), [2, 12]);
    for (row, picture) in pictures.into_iter().enumerate() {
        assert!(close(&batch.narrow(0, row as i64, 1), &clip.encode_image(&[picture]).unwrap()));
    }
    assert!(!close(&batch.get(0), &batch.get(1)));
    assert!(matches!(clip.encode_image(&[]), Err(Error::EmptyBatch("pictures"))));
}

#[test]
fn a_model_without_a_picture_half_says_so() {
    let folder = changed("clip", "config.json", |json| json.replace("\"vision_config\"", "\"task_specific_params\""));
    let clip = Clip::open(folder.path(), CPU).unwrap();
    assert!(clip.config().vision_config.is_none());
    assert!(clip.encode_text(&TEXTS, 16).is_ok());
    let picture = Tensor::zeros([3, 20, 30], (Kind::Uint8, Device::Cpu));
    assert!(matches!(clip.encode_image(&[picture]), Err(Error::NoVision { .. })));
}

#[test]
fn every_tensor_that_does_not_fit_is_in_one_error() {
    let folder = changed("t5", "config.json", |json| {
        json.replace("\"num_layers\": 2", "\"num_layers\": 3").replace("\"d_ff\": 24", "\"d_ff\": 25")
    });
    match T5::open(folder.path(), CPU).unwrap_err() {
        Error::Core(ediffi_core::Error::Weights { missing, unexpected, mismatched, .. }) => {
            assert_eq!((missing.len(), unexpected.len(), mismatched.len()), (9, 0, 6));
            assert!(missing.contains(&"encoder.block.2.layer.0.SelfAttention.q.weight".to_owned()));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_key_and_a_missing_file_are_named() {
    let folder = changed("t5", "config.json", |json| json.replace("d_model", "d_muddle"));
    let error = T5::open(folder.path(), CPU).unwrap_err().to_string();
    assert!(error.contains("d_model") && error.contains("config.json"), "{error}");
    let folder = changed("clip", "config.json", |json| json.replace("text_config", "texts"));
    let error = Clip::open(folder.path(), CPU).unwrap_err().to_string();
    assert!(error.contains("text_config"), "{error}");
    let error = T5::open(Path::new("no/such/folder"), CPU).unwrap_err().to_string();
    assert!(error.contains("no/such/folder/config.json"), "{error}");
}

#[test]
fn an_end_that_network_and_tokenizer_put_at_different_places_is_an_error() {
    let eos = ClipTextConfig::default().eos_token_id;
    assert_eq!(eos, 49407);
    let wrong = changed("clip", "config.json", |json| json.replace("\"eos_token_id\": ", "\"eos_token_id\": 1"));
    assert!(matches!(Clip::open(wrong.path(), CPU), Err(Error::TokenizerMismatch { .. })));
    // OpenAI's wrong 2 works: the tokenizer's end is its greatest id.
    let own = std::fs::read_to_string(fixture("clip").join("config.json")).unwrap();
    let config: ClipConfig = serde_json::from_str(&own).unwrap();
    let id = format!("\"eos_token_id\": {}", config.text_config.eos_token_id);
    let openai = changed("clip", "config.json", |json| json.replace(&id, "\"eos_token_id\": 2"));
    let (a, b) = (Clip::open(&fixture("clip"), CPU).unwrap(), Clip::open(openai.path(), CPU).unwrap());
    assert!(close(&a.encode_text(&TEXTS, 20).unwrap().pooled, &b.encode_text(&TEXTS, 20).unwrap().pooled));
}

#[test]
fn dimensions_that_make_no_network_name_the_field() {
    for (old, new, field) in [
        ("\"d_model\": 16", "\"d_model\": 0", "d_model"),
        ("\"num_layers\": 2", "\"num_layers\": 0", "num_layers"),
        ("num_buckets\": 32", "num_buckets\": 3", "relative_attention_num_buckets"),
        ("max_distance\": 128", "max_distance\": 8", "relative_attention_max_distance"),
        ("epsilon\": 1e-06", "epsilon\": 0", "layer_norm_epsilon"),
    ] {
        let folder = changed("t5", "config.json", |json| json.replace(old, new));
        match T5::open(folder.path(), CPU).unwrap_err() {
            Error::Core(ediffi_core::Error::NetworkConfig { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other}"),
        }
    }
    for (old, new, culprit) in [
        ("num_attention_heads\": 2", "num_attention_heads\": 3", "text_config.num_attention_heads"),
        ("patch_size\": 8", "patch_size\": 17", "vision_config.patch_size"),
        ("projection_dim\": 12", "projection_dim\": -1", "projection_dim"),
        ("quick_gelu", "swish", "swish"),
    ] {
        let folder = changed("clip", "config.json", |json| json.replace(old, new));
        let error = Clip::open(folder.path(), CPU).unwrap_err().to_string();
        assert!(error.contains(culprit), "{error}");
    }
}

/// A copy of a fixture with its tensors changed by `change`.
fn reweighted(name: &str, change: impl Fn(Vec<(String, Tensor)>) -> Vec<(String, Tensor)>) -> tempfile::TempDir {
    let folder = copy(name);
    save(&folder.path().join("model.safetensors"), &change(tensors(name)), HashMap::new()).unwrap();
    folder
}

#[test]
fn a_whole_t5_and_either_name_of_its_table_are_read() {
    let expected = T5::open(&fixture("t5"), CPU).unwrap().encode(&TEXTS, 16).unwrap();
    for table in ["shared.weight", "encoder.embed_tokens.weight"] {
        let folder = reweighted("t5", |tensors| {
            let mut tensors: Vec<_> = tensors
                .into_iter()
                .filter(|(name, _)| name != "encoder.embed_tokens.weight")
                .map(|(name, tensor)| (if name == "shared.weight" { table.to_owned() } else { name }, tensor))
                .collect();
            for unused in ["lm_head.weight", "decoder.final_layer_norm.weight"] {
                tensors.push((unused.to_owned(), Tensor::zeros([4], (Kind::Float, Device::Cpu))));
            }
            tensors
        });
        let encoded = T5::open(folder.path(), CPU).unwrap().encode(&TEXTS, 16).unwrap();
        assert_eq!(encoded.tokens, expected.tokens);
    }
}

#[test]
fn a_text_half_without_prefix_and_with_old_buffers_is_read() {
    let expected = Clip::open(&fixture("clip"), CPU).unwrap().encode_text(&TEXTS, 16).unwrap();
    let folder = reweighted("clip", |tensors| {
        let mut tensors: Vec<_> = tensors
            .into_iter()
            .filter(|(name, _)| name.starts_with("text_"))
            .map(|(name, tensor)| (name.trim_start_matches("text_model.").to_owned(), tensor))
            .collect();
        let positions = Tensor::arange(24, (Kind::Int64, Device::Cpu));
        tensors.push(("embeddings.position_ids".to_owned(), positions));
        tensors
    });
    let config = folder.path().join("config.json");
    let json = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, json.replace("\"vision_config\"", "\"task_specific_params\"")).unwrap();
    let encoded = Clip::open(folder.path(), CPU).unwrap().encode_text(&TEXTS, 16).unwrap();
    assert_eq!(encoded.pooled, expected.pooled);
}

#[test]
fn an_embedding_that_is_not_finite_is_an_error() {
    for (name, norm) in [("t5", "encoder.final_layer_norm.weight"), ("clip", "text_model.final_layer_norm.weight")] {
        let folder = reweighted(name, |mut tensors| {
            tensors.iter_mut().filter(|(name, _)| name == norm).for_each(|(_, x)| drop(x.fill_(f64::INFINITY)));
            tensors
        });
        let error = match name {
            "t5" => T5::open(folder.path(), CPU).unwrap().encode(&TEXTS, 16).unwrap_err(),
            _ => Clip::open(folder.path(), CPU).unwrap().encode_text(&TEXTS, 16).unwrap_err(),
        };
        assert!(matches!(error, Error::Core(ediffi_core::Error::NotFinite { .. })), "{error}");
    }
}

#[test]
fn published_configurations_are_read() {
    // google/t5-v1_1-xxl, which leaves the maximal distance out.
    let xxl: T5Config = serde_json::from_str(
        r#"{ "architectures": ["T5ForConditionalGeneration"], "d_ff": 10240, "d_kv": 64, "d_model": 4096,
            "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
            "initializer_factor": 1.0, "is_encoder_decoder": true, "layer_norm_epsilon": 1e-06, "model_type": "t5",
            "num_decoder_layers": 24, "num_heads": 64, "num_layers": 24, "output_past": true, "pad_token_id": 0,
            "relative_attention_num_buckets": 32, "tie_word_embeddings": false, "use_cache": true, "vocab_size": 32128 }"#,
    )
    .unwrap();
    assert_eq!((xxl.relative_attention_max_distance, xxl.feed_forward_proj), (128, FeedForwardKind::GatedGelu));
    let table = ediffi_core::weights::Table::of(|scope| T5Network::new(scope, &xxl, Kind::Float)).unwrap();
    assert_eq!(table.elements(), 4_762_310_656);
    // Newer files hold only what differs from ViT-B/32.
    let clip: ClipConfig =
        serde_json::from_str(r#"{ "text_config": {}, "vision_config": { "patch_size": 16 } }"#).unwrap();
    assert_eq!((clip.projection_dim, clip.text_config.hidden_size), (512, 512));
    assert_eq!(clip.vision_config.unwrap().patch_size, 16);
}

fn small_t5(feed_forward_proj: FeedForwardKind) -> T5Config {
    T5Config {
        vocab_size: 50,
        d_model: 16,
        d_kv: 8,
        d_ff: 24,
        num_layers: 2,
        num_heads: 2,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj,
        pad_token_id: 0,
        eos_token_id: 1,
    }
}

/// Whether a sum of squares of the output has a gradient for every one of the parameters.
fn all_trained(named: &[(String, Tensor)], loss: &Tensor) {
    loss.backward();
    for (name, parameter) in named {
        let gradient = parameter.grad();
        assert!(gradient.defined() && gradient.abs().sum(Kind::Float).double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn networks_with_f32_masters_train_in_every_precision() {
    let options = (Kind::Int64, Device::Cpu);
    let ids = Tensor::arange(10, options).reshape([2, 5]);
    for kind in [Kind::Float, Kind::BFloat16] {
        for proj in [FeedForwardKind::GatedGelu, FeedForwardKind::Relu] {
            let mut fresh = Fresh::new(1, Device::Cpu);
            let network = T5Network::new(Scope::root(&mut fresh), &small_t5(proj), kind).unwrap();
            let named = fresh.into_named();
            named.iter().for_each(|(_, p)| drop(p.set_requires_grad(true)));
            let out = network.forward(&ids, &ids.ge(0)).unwrap();
            all_trained(&named, &(&out * &out * Tensor::rand_like(&out)).sum(Kind::Float));
        }
        let text = ClipTextConfig {
            vocab_size: 50,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 5,
            eos_token_id: 49,
            ..ClipTextConfig::default()
        };
        let vision = ClipVisionConfig {
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            image_size: 8,
            patch_size: 4,
            ..ClipVisionConfig::default()
        };
        let mut fresh = Fresh::new(1, Device::Cpu);
        let network = ClipTextNetwork::new(Scope::root(&mut fresh), &text, Some(12), kind).unwrap();
        let vision = ClipVisionNetwork::new(Scope::root(&mut fresh), &vision, Some(12), kind).unwrap();
        let named = fresh.into_named();
        named.iter().for_each(|(_, p)| drop(p.set_requires_grad(true)));
        let out = network.forward(&ids).unwrap().pooled;
        let image =
            vision.forward(&Tensor::linspace(-1, 1, 2 * 3 * 64, (Kind::Float, Device::Cpu)).reshape([2, 3, 8, 8]));
        all_trained(&named, &(&out * image.unwrap()).sum(Kind::Float));
        assert!(network.forward(&Tensor::zeros([1, 6], options)).is_err(), "more tokens than positions");
        assert!(vision.forward(&Tensor::zeros([1, 3, 8, 9], (Kind::Float, Device::Cpu))).is_err());
    }
}
