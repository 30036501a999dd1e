//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used, reason = "each file uses some of these")]

#[path = "../../../ediffi-core/tests/common/mod.rs"]
mod devices;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use devices::devices;
use ediffi_core::runtime::Runtime;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

pub const CPU: Runtime = Runtime { device: Device::Cpu, kind: Kind::Float };
pub const TEXTS: [&str; 3] = ["a red apple left of a cat", "a dog", ""];

/// A file or folder beside these tests; a whole path stays what it is.
pub fn fixture(name: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What `fixtures/generate_networks.py` made, unpacked.
pub fn networks() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = std::fs::File::open(fixture("networks.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(packed)).unpack(folder.path()).unwrap();
    folder
}

/// The `config.json` in a folder of the fixtures.
pub fn config<T: DeserializeOwned>(name: impl AsRef<Path>) -> T {
    serde_json::from_str(&std::fs::read_to_string(fixture(name).join("config.json")).unwrap()).unwrap()
}

/// What the published implementation gave, by name.
pub fn expected(name: impl AsRef<Path>) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name).join("expected.safetensors")).unwrap().into_iter().collect()
}

/// The greatest difference of two tensors, wherever they are.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_device(Device::Cpu) - b.to_device(Device::Cpu)).abs().max().double_value(&[])
}

/// How much an f32 network may differ from the published one. CUDA adds in another order.
pub fn tolerance(device: Device) -> f64 {
    if device == Device::Cpu { 1e-5 } else { 1e-4 }
}

/// A copy of a folder of the fixtures.
pub fn copy(name: impl AsRef<Path>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

/// A copy of a folder of the fixtures with one file changed by `change`.
pub fn changed(name: &str, file: &str, change: impl Fn(String) -> String) -> tempfile::TempDir {
    let folder = copy(name);
    let path = folder.path().join(file);
    std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
    folder
}

/// The weights of a folder of the fixtures.
pub fn tensors(name: impl AsRef<Path>) -> Vec<(String, Tensor)> {
    Tensor::read_safetensors(fixture(name).join("model.safetensors")).unwrap()
}

pub fn close(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.allclose(b, 1e-5, 1e-5, false)
}

/// The uncompressed `tokenizers/NAME.gz` of the fixtures, in `folder`.
pub fn unpacked(folder: &Path, name: &str) -> PathBuf {
    let packed = std::fs::File::open(fixture(format!("tokenizers/{name}.gz"))).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut bytes).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The fields of a message of protocol buffers, by number: bytes, or the four bytes of an f32. Numbers are passed over.
pub fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn number(message: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = message.split_first().unwrap();
            *message = rest;
            (value, shift) = (value | u64::from(byte & 127) << shift, shift + 7);
            if *byte < 128 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message);
        let length = match key & 7 {
            2 => number(&mut message) as usize,
            5 => 4,
            _ => {
                number(&mut message);
                continue;
            }
        };
        let (value, rest) = message.split_at(length);
        (message, _) = (rest, found.push((key >> 3, value)));
    }
    found
}

/// The normalisation table of a SentencePiece model.
pub fn table(spiece: &[u8]) -> &[u8] {
    let find = |message, number| fields(message).into_iter().find(|field| field.0 == number).unwrap().1;
    find(find(spiece, 3), 2)
}

/// T5's `spiece.model` in `folder`, put together of the pieces, their scores, first byte by first byte, and the rest.
pub fn t5_model(folder: &Path) -> PathBuf {
    let [texts, scores, rest] =
        ["t5.pieces.txt", "t5.scores", "t5.rest"].map(|name| std::fs::read(unpacked(folder, name)).unwrap());
    let texts: Vec<&[u8]> = texts.split(|&byte| byte == b'\n').collect();
    let mut model = Vec::new();
    for (id, text) in texts.iter().enumerate() {
        // `<pad>` and `</s>` control, `<unk>` is the unknown.
        let kind: &[u8] = [&[0x18, 3][..], &[0x18, 3], &[0x18, 2]].get(id).copied().unwrap_or_default();
        let length = text.len() as u8;
        model.extend([0x0a, length + 7 + kind.len() as u8, 0x0a, length]);
        model.extend_from_slice(text);
        model.push(0x15);
        model.extend(scores.iter().skip(id).step_by(texts.len()));
        model.extend_from_slice(kind);
    }
    model.extend(rest);
    let path = folder.join("t5.spiece.model");
    std::fs::write(&path, model).unwrap();
    path
}

/// `small.spiece.model` in `folder`. Its normalisation table is T5's: the fixture has a word in its place.
pub fn small_model(folder: &Path) -> PathBuf {
    let t5 = std::fs::read(t5_model(folder)).unwrap();
    let path = unpacked(folder, "small.spiece.model");
    let (small, word) = (std::fs::read(&path).unwrap(), b"TABLE");
    let place = small.windows(word.len()).position(|part| part == word).unwrap();
    let model = [&small[..place], table(&t5), &small[place + word.len()..]].concat();
    std::fs::write(&path, model).unwrap();
    path
}

/// A number of megabytes (10^6) that the system says about this process, such as `VmHWM`; `None` where it says nothing.
pub fn megabytes(key: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0 / 1e6)
}

/// The environment variable that a test's process has where [`child`] started it.
pub const CHILD: &str = "EDIFFI_TEST_CHILD";

/// This program once more, running the test `name` alone, which finds `value` in [`CHILD`].
pub fn child(name: &str, value: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, value);
    command
}

/// What a test that [`child`] started printed after `says: `.
pub fn said(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.split_once("says: ").map(|(_, said)| said.to_owned()));
    assert!(said.is_some(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    said.unwrap()
}
