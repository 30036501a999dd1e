//! Embeddings kept in files, under the fingerprint of the model that made them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{CPU, TEXTS, changed, copy, fixture, tensors};
use ediffi_core::weights::{Fresh, Scope, save};
use ediffi_encoders::{Clip, ClipText, Encoded, EncodedClip, Error, Fingerprint, Padding, T5, T5Config, T5Network};
use tch::{Device, Kind, Tensor};

fn of(folder: &Path) -> Fingerprint {
    T5::fingerprint(folder, None).unwrap()
}

fn rewrite(folder: &Path, tensors: &[(String, Tensor)]) {
    save(&folder.join("model.safetensors"), tensors, HashMap::new()).unwrap();
}

#[test]
fn kept_embeddings_come_back_and_those_of_other_weights_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    let t5 = T5::open(&fixture("t5"), CPU).unwrap();
    let (model, encoded) = (t5.model().unwrap(), t5.encode(&TEXTS, 6).unwrap());
    encoded.save(&path, model, &TEXTS).unwrap();
    let (texts, kept) = Encoded::load(&path, model, Padding::Zeros).unwrap();
    assert_eq!(texts, TEXTS);
    assert!(kept.tokens.equal(&encoded.tokens) && kept.mask.equal(&encoded.mask));
    assert_eq!((&kept.spans, &kept.truncated, kept.padding), (&encoded.spans, &encoded.truncated, Padding::Zeros));
    assert!(matches!(encoded.save(&path, model, &TEXTS[1..]), Err(Error::CacheFile { .. })));

    // One weight of one layer is another.
    let other = copy("t5");
    assert_eq!(&of(other.path()), model, "a copy is the same model");
    let mut tensors = tensors("t5");
    let (_, weight) =
        tensors.iter_mut().find(|(name, _)| name.ends_with("block.1.layer.1.DenseReluDense.wo.weight")).unwrap();
    let _ = weight.get(3).get(5).fill_(9.0);
    rewrite(other.path(), &tensors);
    let error = Encoded::load(&path, &of(other.path()), Padding::Zeros).unwrap_err();
    assert!(matches!(error, Error::OtherModel { .. }));
    let (text, name) = (error.to_string(), other.path().file_name().unwrap().to_string_lossy().into_owned());
    assert!(text.contains("kept.safetensors") && text.contains("`t5`") && text.contains(&name), "{text}");
}

#[test]
fn kept_embeddings_of_clip_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    let clip = ClipText::open(&fixture("clip"), CPU).unwrap();
    let (model, encoded) = (clip.model().unwrap(), clip.encode(&TEXTS, 8).unwrap());
    encoded.save(&path, model, &TEXTS).unwrap();
    let (_, kept) = EncodedClip::load(&path, model).unwrap();
    assert!(kept.tokens.equal(&encoded.tokens) && kept.pooled.equal(&encoded.pooled));
    assert!(kept.penultimate.equal(&encoded.penultimate));
    let error = Encoded::load(&path, model, Padding::Zeros).unwrap_err();
    assert!(matches!(error, Error::OtherEncoding { .. }) && error.to_string().contains("CLIP"), "{error}");
    let EncodedClip { pooled: tokens, mask, spans, truncated, .. } = kept;
    let damaged = Encoded { tokens, padding: Padding::Zeros, mask, spans, truncated };
    damaged.save(&path, model, &TEXTS).unwrap();
    assert!(matches!(Encoded::load(&path, model, Padding::Zeros), Err(Error::CacheFile { .. })));
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(Encoded::load(&path, model, Padding::Zeros), Err(Error::CacheFile { .. })));
}

#[test]
fn embeddings_with_another_padding_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    let t5 = T5::open(&fixture("t5"), CPU).unwrap();
    for (encoded, padding, other) in [
        (t5.encode(&TEXTS, 16).unwrap(), Padding::Zeros, Padding::Embedded),
        (t5.encode_with_padding(&TEXTS, 16).unwrap(), Padding::Embedded, Padding::Zeros),
    ] {
        encoded.save(&path, t5.model().unwrap(), &TEXTS).unwrap();
        let (_, kept) = Encoded::load(&path, t5.model().unwrap(), padding).unwrap();
        assert!(kept.tokens.equal(&encoded.tokens) && kept.padding == padding);
        let error = Encoded::load(&path, t5.model().unwrap(), other).unwrap_err();
        assert!(matches!(error, Error::OtherEncoding { .. }), "{error}");
        let text = error.to_string();
        let (zeros, embedded) = (text.find("tokens with zeros").unwrap(), text.find("tokens with embedded").unwrap());
        assert!(text.contains("kept.safetensors") && (zeros < embedded) == (padding == Padding::Zeros), "{text}");
    }
}

#[test]
fn an_open_model_knows_its_fingerprint() {
    let folder = copy("t5");
    let half: Vec<_> = tensors("t5").into_iter().map(|(name, tensor)| (name, tensor.to_kind(Kind::Half))).collect();
    save(&folder.path().join("model.fp16.safetensors"), &half, HashMap::new()).unwrap();
    let half = T5::open_variant(folder.path(), Some("fp16"), CPU).unwrap();
    let t5 = T5::open(folder.path(), CPU).unwrap();
    let (whole, variant) = (t5.model().unwrap(), half.model().unwrap());
    assert_eq!(whole, &of(folder.path()));
    assert_eq!(variant, &T5::fingerprint(folder.path(), Some("fp16")).unwrap());
    assert_ne!(whole, variant);
    assert_eq!((whole.variant(), variant.variant()), (None, Some("fp16")));
    assert!(variant.to_string().contains("variant fp16"), "{variant}");
    // The name of the variant comes back from the file.
    let path = folder.path().join("kept.safetensors");
    half.encode(&TEXTS, 6).unwrap().save(&path, variant, &TEXTS).unwrap();
    let error = Encoded::load(&path, whole, Padding::Zeros).unwrap_err().to_string();
    assert!(error.contains("variant fp16"), "{error}");
    let clip = Clip::open(&fixture("clip"), CPU).unwrap();
    assert_eq!(clip.model().unwrap(), &ClipText::fingerprint(&fixture("clip"), None).unwrap());
    assert_eq!(clip.model().unwrap(), &Clip::fingerprint(&fixture("clip"), None).unwrap());
}

#[test]
fn the_fingerprint_of_an_open_model_is_that_of_the_weights_it_was_opened_with() {
    let folder = copy("t5");
    let t5 = T5::open(folder.path(), CPU).unwrap();
    let mut tensors = tensors("t5");
    tensors.iter_mut().for_each(|(_, tensor)| drop(tensor.g_mul_scalar_(2.0)));
    rewrite(folder.path(), &tensors);
    assert_ne!(t5.model().unwrap(), &of(folder.path()));
    assert_eq!(t5.model().unwrap(), &of(&fixture("t5")));
}

#[test]
fn weights_written_to_in_their_place_have_no_fingerprint_any_more() {
    let bytes = std::fs::read(fixture("t5").join("model.safetensors")).unwrap();
    let other: Vec<u8> = bytes.iter().rev().copied().collect();
    for content in [&other[..], &bytes[..bytes.len() / 2], &[]] {
        let folder = copy("t5");
        let path = folder.path().join("model.safetensors");
        // Not to depend on how finely the system counts time.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let (asked, late) = (T5::open(folder.path(), CPU).unwrap(), T5::open(folder.path(), CPU).unwrap());
        assert_eq!(asked.model().unwrap(), &of(&fixture("t5")));
        std::fs::write(&path, content).unwrap();
        let error = late.model().unwrap_err();
        assert!(matches!(&error, Error::WeightsChanged(named) if *named == path), "{error}");
        // What was asked for in time is known.
        assert_eq!(asked.model().unwrap(), &of(&fixture("t5")));
    }
    let folder = copy("clip");
    let clip = ClipText::open(folder.path(), CPU).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), "").unwrap();
    assert!(matches!(clip.model(), Err(Error::WeightsChanged { .. })));
}

#[test]
fn a_sharded_model_has_the_fingerprint_of_the_whole_file() {
    let folder = copy("t5");
    let path = |name: &str| folder.path().join(name);
    let whole = of(folder.path());
    let all = tensors("t5");
    let mut map = serde_json::Map::new();
    for (name, part) in [("1.safetensors", &all[..4]), ("2.safetensors", &all[4..])] {
        save(&path(name), part, HashMap::new()).unwrap();
        part.iter().for_each(|(tensor, _)| drop(map.insert(tensor.clone(), name.into())));
    }
    std::fs::remove_file(path("model.safetensors")).unwrap();
    std::fs::write(path("model.safetensors.index.json"), serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    assert_eq!(of(folder.path()), whole);
}

#[test]
fn a_changed_row_of_words_or_a_retrained_matrix_is_noticed_however_large_it_is() {
    let folder = changed("t5", "config.json", |json| {
        json.replace("\"d_model\": 16", "\"d_model\": 128").replace("\"vocab_size\": 60", "\"vocab_size\": 119")
    });
    let json = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let config: T5Config = serde_json::from_str(&json).unwrap();
    let mut fresh = Fresh::new(3, Device::Cpu);
    let _ = T5Network::new(Scope::root(&mut fresh), &config, Kind::Float).unwrap();
    let tensors = fresh.into_named();
    rewrite(folder.path(), &tensors);
    let whole = of(folder.path());
    let named = |end: &str| &tensors.iter().find(|(name, _)| name.ends_with(end)).unwrap().1;
    // Both are beyond what is read whole for being small.
    let (table, matrix) = (named("shared.weight"), named("block.1.layer.1.DenseReluDense.wi_1.weight"));
    assert!(table.numel() * 4 > 17 * 256 && matrix.numel() * 4 > 2 * 17 * 256);

    // Any one number of a table.
    for row in [0, 1, 37, 60, 101, 117, 118] {
        for column in [0, 31, 64, 126, 127] {
            let place = table.get(row).get(column);
            let kept = place.double_value(&[]);
            let _ = place.shallow_clone().fill_(kept + 1e-3);
            rewrite(folder.path(), &tensors);
            assert_ne!(of(folder.path()), whole, "row {row}, column {column}");
            let _ = place.shallow_clone().fill_(kept);
        }
    }
    // A matrix as a whole, a sixteenth of it anywhere, its ends.
    let flat = matrix.view(-1);
    let numbers = flat.size()[0];
    let sixteenth = numbers / 16 + 64;
    let stretches = (0..numbers - sixteenth).step_by(111).map(|start| (start, sixteenth));
    for (start, length) in stretches.chain([(0, numbers), (0, 1), (numbers - 1, 1)]) {
        let part = flat.narrow(0, start, length);
        let kept = part.copy();
        let _ = part.shallow_clone().g_mul_scalar_(1.001);
        rewrite(folder.path(), &tensors);
        assert_ne!(of(folder.path()), whole, "{length} numbers from {start}");
        part.shallow_clone().copy_(&kept);
    }
    rewrite(folder.path(), &tensors);
    assert_eq!(of(folder.path()), whole);
}
