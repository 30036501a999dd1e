//! Opening models from a hub: against a small server that speaks the hub's protocol.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../common/mod.rs"]
mod common;
mod server;

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use common::{CHILD, CPU, fixture, said, tensors};
use ediffi_core::weights::save;
use ediffi_encoders::T5;
use ediffi_encoders::hub::HubModel;
use server::{FIRST, Files, LARGE, Server, sha256};
use tch::{Device, Kind, Tensor};

const TEXT: &str = "a red apple left of a cat";
const SECOND: &str = "89abcdef0123456789abcdef0123456789abcdef";
const SHARD: &str = "model-00001-of-00002.safetensors";

/// The T5 of the fixtures in two shards, of which the second holds a decoder alone, beside files that nobody needs.
fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.safetensors");
    let mut tensors = tensors("t5");
    // Large, and not wanted by the encoder.
    tensors.push(("lm_head.weight".to_owned(), Tensor::ones([10 << 20], (Kind::Float, Device::Cpu))));
    save(&path, &tensors, HashMap::new()).unwrap();
    let map: HashMap<&str, &str> = tensors.iter().map(|(name, _)| (name.as_str(), SHARD)).collect();
    let mut index = serde_json::json!({ "weight_map": map });
    index["weight_map"]["decoder.final_layer_norm.weight"] = "model-00002-of-00002.safetensors".into();
    let unused = ["model-00002-of-00002.safetensors", "pytorch_model.bin", "README.md", "tf_model.h5"];
    let mut files: Files = unused.map(|name| (name.to_owned(), b"unused".to_vec())).into();
    files.insert(SHARD.to_owned(), std::fs::read(&path).unwrap());
    files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    for name in ["config.json", "tokenizer.json"] {
        files.insert(name.to_owned(), std::fs::read(fixture("t5").join(name)).unwrap());
    }
    files
}

/// How often the shard was sent, or a part of it.
fn sent(requests: &[String]) -> usize {
    requests.iter().filter(|request| request.starts_with("GET /elsewhere") && request.contains("bytes=")).count()
}

/// How many bytes the cache keeps of a download that broke off.
fn incomplete(cache: &Path) -> u64 {
    let blobs = std::fs::read_dir(cache.join("hub/models--org--name/blobs")).unwrap().flatten();
    let part = blobs.filter(|file| file.path().extension().is_some_and(|extension| extension == "incomplete"));
    part.map(|file| file.metadata().unwrap().len()).sum()
}

/// [`child`] with `cache` and the server at `address`. The environment of a process cannot be changed safely while it runs, so
/// it is that of a process of its own.
fn command(cache: &Path, address: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = common::child("child", "main");
    let removed = ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE"];
    for variable in removed {
        command.env_remove(variable);
    }
    command.env("NO_PROXY", "127.0.0.1").env("HF_ENDPOINT", address).env("HF_HOME", cache);
    command.envs(variables.iter().copied());
    command
}

fn open(cache: &Path, address: &str, variables: &[(&str, &str)]) -> String {
    said(&command(cache, address, variables).output().unwrap())
}

/// Opens the revision that the environment names. It is no test of its own: the others start it in a process of its own.
#[test]
fn child() {
    let Ok(revision) = std::env::var(CHILD) else { return };
    let opened = match revision.as_str() {
        "main" => T5::from_hub("org/name", CPU),
        revision => HubModel::new("org/name").revision(revision).t5().and_then(|folder| T5::open(&folder, CPU)),
    };
    writeln!(std::io::stdout(), "says: {}", opened.map_or_else(|error| error.to_string(), |t5| describe(&t5))).unwrap();
}

fn describe(t5: &T5) -> String {
    let sum = t5.encode(&[TEXT], 24).unwrap().tokens.abs().sum(Kind::Float).double_value(&[]);
    format!("{sum:.4} of {}", t5.model().unwrap().name())
}

fn expected() -> String {
    describe(&T5::open(&fixture("t5"), CPU).unwrap()).replace("of t5", "of org/name")
}

#[test]
fn only_the_files_that_are_needed_are_downloaded_and_only_once() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let requests = server.requests();
    for unused in ["00002-of-00002", ".bin", ".h5", "README"] {
        assert!(!requests.iter().any(|request| request.contains(unused)), "{unused}: {requests:?}");
    }
    assert_eq!(sent(&requests), 1, "{requests:?}");
    assert!(!requests.iter().any(|request| request.starts_with("GET /elsewhere") && !request.contains("bytes=")));
    // From the cache, after asking which state is the newest; then without asking.
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let requests = server.requests();
    assert!(
        !requests.iter().any(|request| request.contains("/resolve/") || request.contains("/elsewhere/")),
        "{requests:?}"
    );
    assert_eq!(open(cache.path(), &address, &[("HF_HUB_OFFLINE", "1")]), expected());
    assert!(server.requests().is_empty());
}

#[test]
fn a_complete_cache_needs_no_connection() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    let nowhere = "http://127.0.0.1:9";
    let empty = open(cache.path(), nowhere, &[("HF_HUB_OFFLINE", "1")]);
    assert!(empty.contains("org/name") && empty.contains("cache"), "{empty}");
    assert_eq!(open(cache.path(), &address, &[]), expected());
    server.requests();
    assert_eq!(open(cache.path(), nowhere, &[("HF_HUB_OFFLINE", "1")]), expected());
    assert_eq!(open(cache.path(), nowhere, &[("HF_HUB_OFFLINE", "1"), (CHILD, FIRST)]), expected());
    // Not told to stay offline, but nobody answers.
    assert_eq!(open(cache.path(), nowhere, &[]), expected());
    assert!(server.requests().is_empty());
    // What is missing is named; without being told to stay offline, what went wrong with the connection.
    let shard = cache.path().join("hub/models--org--name/snapshots").join(FIRST).join(SHARD);
    std::fs::remove_file(shard).unwrap();
    let missing = open(cache.path(), nowhere, &[("HF_HUB_OFFLINE", "1")]);
    assert!(missing.contains(SHARD), "{missing}");
    let unreachable = open(cache.path(), nowhere, &[]);
    assert!(unreachable.contains("HTTP request error"), "{unreachable}");
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    *server.patience.lock().unwrap() = Some(20 << 20);
    let said = open(cache.path(), &address, &[]);
    assert!(said.contains("org/name"), "{said}");
    let kept = incomplete(cache.path());
    assert!(kept > 10 << 20, "{kept}");
    *server.patience.lock().unwrap() = None;
    server.requests();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let ranges: Vec<String> = server.requests().into_iter().filter(|request| request.contains("bytes=")).collect();
    let goes_on = |request: &String| request.ends_with(&format!("bytes={kept}-"));
    assert!(!ranges.is_empty() && ranges.iter().all(goes_on), "{kept}: {ranges:?}");
}

#[test]
fn a_server_that_sends_the_whole_file_whatever_is_asked_for_is_understood() {
    let (server, address) = Server { ignores_ranges: true, ..Server::of(files()) }.start();
    let cache = tempfile::tempdir().unwrap();
    *server.patience.lock().unwrap() = Some(20 << 20);
    assert!(open(cache.path(), &address, &[]).contains("org/name"));
    assert!(incomplete(cache.path()) > 10 << 20);
    *server.patience.lock().unwrap() = None;
    assert_eq!(open(cache.path(), &address, &[]), expected());
}

#[test]
fn a_server_that_lies_about_a_size_is_refused_by_name() {
    for (ignores_ranges, longer, length) in [
        (false, 7, None),
        (false, -7, None),
        (true, 7, None),
        (true, -7, None),
        (true, 0, Some(1 << 62)),
        (true, 0, Some(7)),
    ] {
        let (_server, address) = Server { ignores_ranges, longer, length, ..Server::of(files()) }.start();
        let cache = tempfile::tempdir().unwrap();
        let refused = open(cache.path(), &address, &[]);
        assert!(refused.contains("org/name") && refused.contains(SHARD), "{refused}");
        assert!(refused.contains("was asked for"), "{refused}");
        assert_eq!(incomplete(cache.path()), 0);
    }
    // More than the part that it says it sends.
    let (_server, address) = Server { length: Some(1 << 62), ..Server::of(files()) }.start();
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(open(cache.path(), &address, &[]), expected());
}

#[test]
fn a_file_of_another_size_in_the_cache_is_downloaded_again() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let snapshot = cache.path().join("hub/models--org--name/snapshots").join(FIRST);
    for name in ["config.json", "tokenizer.json", SHARD] {
        let kept = snapshot.join(name);
        // A copy instead of a link, as where there are no links; then the file that the link leads to.
        std::fs::remove_file(&kept).unwrap();
        std::fs::write(&kept, &files()[name][..100]).unwrap();
        assert_eq!(open(cache.path(), &address, &[]), expected(), "{name}");
        std::fs::OpenOptions::new().write(true).open(&kept).unwrap().set_len(100).unwrap();
        assert_eq!(open(cache.path(), &address, &[]), expected(), "{name}");
        assert_eq!(kept.metadata().unwrap().len(), files()[name].len() as u64);
    }
    // At the beginning, and when what the link leads to was damaged.
    assert_eq!(sent(&server.requests()), 2);
}

#[test]
fn a_hub_that_is_too_busy_to_list_files_does_not_stop_a_complete_cache() {
    let (server, address) = Server::of(files()).start();
    let (cache, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(open(cache.path(), &address, &[]), expected());
    for status in ["503 Service Unavailable", "429 Too Many Requests"] {
        *server.busy.lock().unwrap() = Some((status, 0));
        assert_eq!(open(cache.path(), &address, &[]), expected(), "{status}");
        let said = open(empty.path(), &address, &[]);
        assert!(said.contains("org/name") && said.contains(&status[..3]), "{said}");
    }
    // An answer, though not the one hoped for; and one that has no end.
    for (status, length, reason) in [("403 Forbidden", 0, "403"), ("200 OK", 5 << 20, "longer than")] {
        *server.busy.lock().unwrap() = Some((status, length));
        let said = open(cache.path(), &address, &[]);
        assert!(said.contains("org/name") && said.contains(reason), "{said}");
    }
}

#[test]
fn a_byte_that_arrives_changed_is_refused_by_name() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    *server.flipped.lock().unwrap() = Some(20_000_000);
    let refused = open(cache.path(), &address, &[]);
    for part in ["org/name", SHARD, "SHA-256", &sha256(&files()[SHARD])] {
        assert!(refused.contains(part), "{refused}");
    }
    // Nothing of it is left to be taken for the file, or to go on from.
    let blobs = cache.path().join("hub/models--org--name/blobs");
    let left = std::fs::read_dir(blobs).unwrap().flatten().filter(|file| file.metadata().unwrap().len() > LARGE as u64);
    assert_eq!(left.count(), 0);
    *server.flipped.lock().unwrap() = None;
    server.requests();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    assert_eq!(sent(&server.requests()), 1);
}

#[test]
fn weights_that_another_commit_has_too_are_not_downloaded_again() {
    let mut second = files();
    second.insert("config.json".to_owned(), std::fs::read(fixture("t5").join("config.json")).unwrap());
    second.get_mut("config.json").unwrap().push(b' ');
    let commits = HashMap::from([(FIRST, files()), (SECOND, second)]);
    let (server, address) = Server { commits, ..Server::of(Files::new()) }.start();
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    *server.main.lock().unwrap() = SECOND;
    server.requests();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.contains(SECOND)), "{requests:?}");
    assert_eq!(sent(&requests), 0, "{requests:?}");
    // The name in the cache has moved with the one on the hub.
    let main = std::fs::read_to_string(cache.path().join("hub/models--org--name/refs/main")).unwrap();
    assert_eq!(main, SECOND);
}

#[test]
fn two_programs_at_once_download_once() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = command(cache.path(), &address, &[]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    for program in [start(), start()] {
        assert_eq!(said(&program.wait_with_output().unwrap()), expected());
    }
    assert_eq!(sent(&server.requests()), 1);
}

#[test]
fn all_files_are_of_one_commit_though_the_repository_moves_on() {
    let mut second = files();
    second.insert(SHARD.to_owned(), vec![0; 3 * LARGE]);
    second.insert("model.safetensors.index.json".to_owned(), b"{}".to_vec());
    let commits = HashMap::from([(FIRST, files()), (SECOND, second)]);
    let server = Server { commits, then: Mutex::new(Some(SECOND)), ..Server::of(Files::new()) };
    let (server, address) = server.start();
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let requests = server.requests();
    assert_eq!(*server.main.lock().unwrap(), SECOND);
    assert_eq!(requests.iter().filter(|request| request.contains("main")).count(), 1, "{requests:?}");
    assert!(!requests.iter().any(|request| request.contains(SECOND)), "{requests:?}");
}

#[test]
fn tokens_are_sent_and_a_missing_one_is_named() {
    let (_server, address) = Server { token: Some("secret".to_owned()), ..Server::of(files()) }.start();
    let cache = tempfile::tempdir().unwrap();
    let refused = open(cache.path(), &address, &[]);
    assert!(refused.contains("org/name") && refused.contains("uthenti"), "{refused}");
    assert_eq!(open(cache.path(), &address, &[("HF_TOKEN", "secret")]), expected());
    // Where the tool of the hub keeps it.
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("token"), "secret\n").unwrap();
    assert_eq!(open(other.path(), &address, &[]), expected());
}

#[test]
fn what_cannot_be_opened_is_refused_before_its_weights_are_downloaded() {
    let config = String::from_utf8(files()["config.json"].clone()).unwrap();
    let bert = config.replace("\"model_type\": \"t5\"", "\"model_type\": \"bert\"");
    let cases = [("tokenizer.json", None, "spiece.model"), ("config.json", Some(bert), "`bert`")];
    for (name, content, reason) in cases {
        let mut files = files();
        files.remove(name);
        files.extend(content.map(|content| (name.to_owned(), content.into_bytes())));
        let (server, address) = Server::of(files).start();
        let cache = tempfile::tempdir().unwrap();
        let said = open(cache.path(), &address, &[]);
        assert!(said.contains(reason), "{said}");
        let requests = server.requests();
        assert!(!requests.iter().any(|request| request.contains("model-0000")), "{name}: {requests:?}");
    }
}

#[test]
fn a_repository_with_pickled_weights_alone_is_an_error() {
    let mut files = files();
    files.retain(|name, _| !name.contains("safetensors"));
    let (server, address) = Server::of(files).start();
    let cache = tempfile::tempdir().unwrap();
    let said = open(cache.path(), &address, &[]);
    assert!(said.contains("org/name") && said.contains("model.safetensors"), "{said}");
    assert!(!server.requests().iter().any(|request| request.contains(".bin")));
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    for outside in ["../../elsewhere", "/elsewhere", ""] {
        let model = || HubModel::new("org/name");
        for (model, what) in [
            (model().revision(outside), "revision"),
            (model().subfolder(outside), "subfolder"),
            (model().variant(outside), "variant"),
        ] {
            let error = model.t5().unwrap_err().to_string();
            assert!(error.contains(&format!("`{outside}` is no {what}")), "{error}");
        }
    }
}

#[test]
fn without_a_connection_the_repository_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let said = open(cache.path(), "http://127.0.0.1:9", &[]);
    assert!(said.contains("org/name"), "{said}");
}
