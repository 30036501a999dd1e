//! Damaged and hostile files: errors, never a panic, and no memory beyond what the files justify.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;

use common::{CPU, copy, fixture, megabytes, small_model};
use ediffi_encoders::{Clip, Encoded, Error, Padding, T5, TextTokenizer};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tch::{Device, Kind};

/// One change of a file.
#[derive(Debug, Clone)]
enum Change {
    /// These bytes at this place (of the whole, in 2^16ths).
    Overwrite(u16, Vec<u8>),
    /// Everything from this place on is gone.
    Cut(u16),
    /// The number at or after this place becomes another.
    Number(u16, i64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, within: usize) {
        let place = |at: u16| usize::from(at) * within / (1 << 16);
        match self {
            Self::Overwrite(at, new) => {
                let at = place(*at);
                let end = (at + new.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
            Self::Cut(at) => bytes.truncate(usize::from(*at) * bytes.len() / (1 << 16)),
            Self::Number(at, number) => {
                let at = place(*at);
                let Some(start) = bytes[at..within].iter().position(u8::is_ascii_digit) else { return };
                let digits = bytes[at + start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(at + start..at + start + digits, number.to_string().into_bytes());
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![any::<i64>(), 0..20_i64, Just(1 << 20), Just(1 << 40)];
    let junk =
        prop_oneof![prop::collection::vec(any::<u8>(), 1..9), "[\\[\\]{}\",:0-9a-z]{1,6}".prop_map(String::into_bytes)];
    prop_oneof![
        3 => (any::<u16>(), junk).prop_map(|(at, new)| Change::Overwrite(at, new)),
        1 => any::<u16>().prop_map(Change::Cut),
        3 => (any::<u16>(), number).prop_map(|(at, number)| Change::Number(at, number)),
    ]
}

/// Opens copies of a fixture with `file` changed again and again. `within` is how much of the file is changed.
fn damage(
    name: &str,
    file: &str,
    cases: u32,
    within: impl Fn(&[u8]) -> usize,
    open: impl Fn(&Path) -> Result<(), Error>,
) {
    let folder = copy(name);
    let path = folder.path().join(file);
    let whole = std::fs::read(&path).unwrap();
    // What the libraries take for themselves at first use is not counted.
    open(folder.path()).unwrap();
    let before = megabytes("VmPeak");
    let mut runner = TestRunner::new_with_rng(
        Config { cases, failure_persistence: None, ..Config::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]),
    );
    let mut refused = 0;
    let outcome = runner.run(&prop::collection::vec(change(), 1..4), |changes| {
        let mut bytes = whole.clone();
        for change in &changes {
            let within = within(&bytes).min(bytes.len());
            change.apply(&mut bytes, within);
        }
        std::fs::write(&path, bytes).unwrap();
        // An error is as good as a model: a change may be harmless.
        let _ = open(folder.path());
        Ok(())
    });
    outcome.unwrap();
    for cut in [0, 1, whole.len() / 2] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        refused += usize::from(open(folder.path()).is_err());
    }
    assert_eq!(refused, 3, "{file}");
    if let (Some(before), Some(after)) = (before, megabytes("VmPeak")) {
        assert!(after - before < 512.0, "{file}: {before} MB of address space became {after}");
    }
}

fn open_t5(folder: &Path) -> Result<(), Error> {
    T5::open(folder, CPU)?.encode(&["a red apple"], 12).map(drop)
}

fn open_clip(folder: &Path) -> Result<(), Error> {
    let clip = Clip::open(folder, CPU)?;
    clip.encode_text(&["a red apple"], 12)?;
    clip.encode_image(&[tch::Tensor::zeros([3, 20, 20], (Kind::Uint8, Device::Cpu))]).map(drop)
}

/// The header of a safetensors file, its length included.
fn header(bytes: &[u8]) -> usize {
    bytes.first_chunk::<8>().map_or(bytes.len(), |length| (u64::from_le_bytes(*length) as usize).saturating_add(8))
}

#[test]
fn damaged_configurations_are_errors() {
    damage("t5", "config.json", 300, <[u8]>::len, open_t5);
    damage("clip", "config.json", 300, <[u8]>::len, open_clip);
    damage("clip", "preprocessor_config.json", 200, <[u8]>::len, open_clip);
}

#[test]
fn damaged_weights_are_errors() {
    damage("t5", "model.safetensors", 300, header, open_t5);
    damage("clip", "model.safetensors", 300, header, open_clip);
}

#[test]
fn damaged_tokenizers_are_errors() {
    damage("t5", "tokenizer.json", 200, <[u8]>::len, open_t5);
    damage("clip", "tokenizer.json", 200, <[u8]>::len, open_clip);
}

#[test]
fn damaged_sentencepiece_models_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(small_model(folder.path())).unwrap();
    let path = folder.path().join("spiece.model");
    let open = || TextTokenizer::t5(&path, 1, 0, 26)?.encode(&["a réd ａｐｐｌｅ"], 30).map(drop);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 300, failure_persistence: None, ..Config::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]),
    );
    // The pieces and the beginning of the normalisation table are in the first and last bytes.
    let outcome = runner.run(&(prop::collection::vec(change(), 1..4), any::<bool>()), |(changes, start)| {
        let mut damaged = bytes.clone();
        if start {
            for change in &changes {
                change.apply(&mut damaged, 600);
            }
        } else {
            for change in &changes {
                let within = damaged.len();
                change.apply(&mut damaged, within);
            }
        }
        std::fs::write(&path, damaged).unwrap();
        let _ = open();
        Ok(())
    });
    outcome.unwrap();
    for (contents, reason) in [(&b""[..], "unknown"), (b"\x0a\xff", "cut short"), (b"not a model", "")] {
        std::fs::write(&path, contents).unwrap();
        let error = open().unwrap_err();
        assert!(matches!(error, Error::SentencePiece { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("spiece.model") && (text.contains(reason) || text.contains("does not know")), "{text}");
    }
    // Another kind of model: field 3 of the trainer is 2, byte pairs.
    std::fs::write(&path, b"\x12\x02\x18\x02").unwrap();
    assert!(open().unwrap_err().to_string().contains("only Unigram"));
}

#[test]
fn a_kept_embedding_that_is_damaged_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.safetensors");
    let model = T5::fingerprint(&fixture("t5"), None).unwrap();
    T5::open(&fixture("t5"), CPU).unwrap().encode(&["a cat"], 9).unwrap().save(&path, &model, &["a cat"]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 400, failure_persistence: None, ..Config::default() },
        TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]),
    );
    let outcome = runner.run(&prop::collection::vec(change(), 1..4), |changes| {
        let mut bytes = whole.clone();
        for change in &changes {
            let within = header(&bytes).min(bytes.len());
            change.apply(&mut bytes, within);
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok((texts, encoded)) = Encoded::load(&path, &model, Padding::Zeros) {
            assert_eq!((texts.len(), encoded.tokens.size().len()), (1, 3));
            assert_eq!(encoded.mask.size(), encoded.tokens.size()[..2]);
        }
        Ok(())
    });
    outcome.unwrap();
}
