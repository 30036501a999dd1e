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

/// A file or folder beside these tests.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The `config.json` in a folder of the fixtures.
pub fn config<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(fixture(name).join("config.json")).unwrap()).unwrap()
}

/// What the published implementation gave, by name.
pub fn expected(name: &str) -> HashMap<String, Tensor> {
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
pub fn copy(name: &str) -> tempfile::TempDir {
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
pub fn tensors(name: &str) -> Vec<(String, Tensor)> {
    Tensor::read_safetensors(fixture(name).join("model.safetensors")).unwrap()
}

pub fn close(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.allclose(b, 1e-5, 1e-5, false)
}

/// The uncompressed `tokenizers/NAME.gz` of the fixtures, in `folder`.
pub fn unpacked(folder: &Path, name: &str) -> PathBuf {
    let packed = std::fs::File::open(fixture(&format!("tokenizers/{name}.gz"))).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut bytes).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
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
