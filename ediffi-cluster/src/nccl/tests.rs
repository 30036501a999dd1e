//! NCCL's interface against a library that checks every call, `tests/fake_nccl.c`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tch::{Device, Kind, Tensor};

use super::library::{Communicator, ID_BYTES, Library, UniqueId};
use crate::Error;

/// The library, compiled with `defines`.
fn fake(folder: &Path, defines: &[&str]) -> PathBuf {
    let (source, library) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nccl.c"), folder.join("libnccl.so.2"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library).arg(&source);
    let log = folder.join("calls");
    compiler.arg(format!("-DLOG=\"{}\"", log.display())).args(defines);
    assert!(compiler.status().unwrap().success(), "cc does not compile tests/fake_nccl.c");
    library
}

fn calls(folder: &Path) -> Vec<String> {
    std::fs::read_to_string(folder.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn row(numbers: &[f32]) -> Tensor {
    Tensor::from_slice(numbers)
}

#[test]
fn every_call_has_the_arguments_of_the_interface() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::load(&fake(folder.path(), &[])).unwrap();
    let id = library.unique_id().unwrap();
    assert_eq!(id.0, std::array::from_fn(|byte| byte as u8));
    let communicator = Communicator::join(&library, id, 2, 3).unwrap();
    let mut single = row(&[1.0, -2.0, 0.5]);
    communicator.sum(&mut single).unwrap();
    assert_eq!(single, row(&[3.0, -6.0, 1.5]), "the fake's sum over three processes that have the same");
    let mut double = single.to_kind(Kind::Double);
    communicator.sum(&mut double).unwrap();
    assert_eq!(double, row(&[9.0, -18.0, 4.5]).to_kind(Kind::Double));
    communicator.broadcast(&mut single).unwrap();
    assert_eq!(single, Tensor::full([3], 7.0, (Kind::Float, Device::Cpu)), "what the fake's rank 0 has");
    drop(communicator);
    let expected = [
        "ncclGetVersion",
        "ncclGetUniqueId",
        "ncclCommInitRank 2 of 3",
        "ncclAllReduce 3 float32 sum, stream 0",
        "ncclCommGetAsyncError",
        "ncclAllReduce 3 float64 sum, stream 0",
        "ncclCommGetAsyncError",
        "ncclBroadcast 3 float32 from 0, stream 0",
        "ncclCommGetAsyncError",
        "ncclCommDestroy",
    ];
    assert_eq!(calls(folder.path()), expected);
}

#[test]
fn what_a_call_fails_with_is_said_in_nccl_s_words() {
    let cases = [
        ("ncclGetUniqueId", "-DFAIL_ID"),
        ("ncclCommInitRank", "-DFAIL_INIT"),
        ("ncclAllReduce", "-DFAIL_SUM"),
        ("ncclBroadcast", "-DFAIL_BROADCAST"),
        ("an earlier call", "-DFAIL_LATER"),
    ];
    for (function, define) in cases {
        let folder = tempfile::tempdir().unwrap();
        let library = Library::load(&fake(folder.path(), &[define])).unwrap();
        let all = || {
            let communicator = Communicator::join(&library, library.unique_id()?, 0, 2)?;
            communicator.sum(&mut row(&[1.0]))?;
            communicator.broadcast(&mut row(&[1.0]))
        };
        let error = all().unwrap_err();
        assert_eq!(error.to_string(), format!("{function} of NCCL failed: the fake's own error 3"));
        let is_joined = !["ncclGetUniqueId", "ncclCommInitRank"].contains(&function);
        assert_eq!(calls(folder.path()).iter().any(|call| call == "ncclCommDestroy"), is_joined, "{function}");
    }
}

#[test]
fn a_library_that_is_none_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let absent = Library::load(&folder.path().join("absent.so")).unwrap_err();
    assert!(absent.to_string().contains("absent.so"), "{absent}");
    let lacking = Library::load(&fake(folder.path(), &["-DNO_BROADCAST"])).unwrap_err();
    assert!(matches!(&lacking, Error::Library { reason, .. } if reason.contains("ncclBroadcast")), "{lacking}");
    for version in ["1800", "30100"] {
        let folder = tempfile::tempdir().unwrap();
        let other = Library::load(&fake(folder.path(), &[&format!("-DVERSION={version}")])).unwrap_err();
        assert!(other.to_string().contains(&format!("of version {version}")), "{other}");
    }
    let folder = tempfile::tempdir().unwrap();
    Library::load(&fake(folder.path(), &["-DVERSION=2408"])).unwrap();
}

/// An id is handed over by value, all of its bytes.
#[test]
fn another_id_is_seen_by_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let library = Library::load(&fake(folder.path(), &[])).unwrap();
    for broken in [0, ID_BYTES - 1] {
        let mut id = library.unique_id().unwrap();
        id.0[broken] ^= 1;
        let error = Communicator::join(&library, UniqueId(id.0), 0, 2).unwrap_err();
        assert!(error.to_string().contains("ncclCommInitRank"), "{error}");
    }
}

#[test]
fn a_process_has_one_gpu_and_not_those_of_others() {
    for count in [0, 1] {
        super::expect_one_device(count, "rank 1").unwrap();
    }
    let error = super::expect_one_device(8, "rank 1").unwrap_err();
    assert!(matches!(error, Error::Devices { count: 8, .. }) && error.to_string().starts_with("rank 1 sees 8 GPUs"));
}
