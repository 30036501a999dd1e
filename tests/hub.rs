//! Opening a model by name from a hub: against a small server that speaks the hub's protocol.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../ediffi-encoders/tests/hub/server.rs"]
#[allow(dead_code, reason = "the encoders' tests ask more of it")]
mod server;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use ediffi::{Pipeline, Request, icons};
use server::{FIRST, Files, Server};

/// Set in the process of [`child`]: the way by which it opens the model.
const CHILD: &str = "EDIFFI_TEST_OPEN_BY";
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/icons");

/// The shipped model, and files that nobody needs.
fn files() -> Files {
    let mut files = Files::from([
        ("README.md".to_owned(), b"unused".to_vec()),
        ("base/pickled.bin".to_owned(), b"unused".to_vec()),
    ]);
    for folder in ["", "base", "sr256", "sr1024", "t5", "clip"] {
        for file in
            std::fs::read_dir(Path::new(MODEL).join(folder)).unwrap().flatten().filter(|file| file.path().is_file())
        {
            let name = Path::new(folder).join(file.file_name()).to_string_lossy().into_owned();
            if ["json", "safetensors"].iter().any(|ending| name.ends_with(ending)) {
                files.insert(name, std::fs::read(file.path()).unwrap());
            }
        }
    }
    // Paths that the shipped model leaves out: an expert's own dimensions, and a weaker network that nothing leans away from.
    let mut manifest: serde_json::Value = serde_json::from_slice(&files["pipeline.json"]).unwrap();
    manifest["stages"][0]["experts"][0]["network"] = "base/own.json".into();
    manifest["stages"][0]["weaker"] = serde_json::json!({ "weights": "base/early.safetensors" });
    for (copy, of) in [("base/own.json", "base/config.json"), ("base/early.safetensors", "base/middle.safetensors")] {
        files.insert(copy.to_owned(), files[of].clone());
    }
    files.insert("pipeline.json".to_owned(), manifest.to_string().into_bytes());
    files
}

fn request() -> Request {
    Request::new("a red apple").seed(7).last_stage("base").steps("base", 2)
}

fn drawn(pipeline: ediffi::Result<Pipeline>) -> String {
    let generation = pipeline.and_then(|pipeline| pipeline.generate(&request()));
    generation.map_or_else(|error| error.to_string(), |generation| server::sha256(generation.images[0].rgb().as_raw()))
}

/// Opens the model as the environment says. It is no test of its own: the others start it in a process of its own, since the
/// environment of a process cannot be changed safely while it runs.
#[test]
fn child() {
    let Ok(way) = std::env::var(CHILD) else { return };
    let pipeline = if way == "icons" { icons().and_then(Pipeline::open) } else { Pipeline::from_hub("org/name") };
    writeln!(std::io::stdout(), "says: {}", drawn(pipeline)).unwrap();
}

fn open(way: &str, cache: &Path, address: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for variable in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "EDIFFI_MODEL"] {
        command.env_remove(variable);
    }
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, way);
    command.env("NO_PROXY", "127.0.0.1").env("HF_ENDPOINT", address).env("HF_HOME", cache);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| Some(line.split_once("says: ")?.1.to_owned())).unwrap_or(text)
}

#[test]
fn a_model_is_opened_by_name_and_draws_what_its_folder_draws() {
    let (server, address) = Server::of(files()).start();
    let cache = tempfile::tempdir().unwrap();
    let expected = drawn(Pipeline::open(MODEL));
    assert_eq!(expected.len(), 64, "{expected}");
    assert_eq!(open("from_hub", cache.path(), &address, &[]), expected);
    let requests = server.requests();
    let named = |request: &&String| request.contains("/revision/");
    assert_eq!(requests.iter().filter(named).count(), 1, "{requests:?}");
    for unused in ["README", ".bin"] {
        assert!(!requests.iter().any(|request| request.contains(unused)), "{unused}: {requests:?}");
    }
    // The variable names the same; all is there already.
    let variable = ("EDIFFI_MODEL", "hub:org/name");
    assert_eq!(open("icons", cache.path(), &address, &[variable]), expected);
    assert!(!server.requests().iter().any(|request| request.contains("/resolve/")));
    assert_eq!(open("icons", cache.path(), "http://127.0.0.1:9", &[variable, ("HF_HUB_OFFLINE", "1")]), expected);
    // All of it is of one commit.
    let snapshots = std::fs::read_dir(cache.path().join("hub/models--org--name/snapshots")).unwrap().flatten();
    assert_eq!(snapshots.map(|folder| folder.file_name()).collect::<Vec<_>>(), [FIRST]);
}

#[test]
fn the_variable_may_name_a_folder_and_without_it_the_checkout_is_taken() {
    let cache = tempfile::tempdir().unwrap();
    let icons = |variables: &[(&str, &str)]| open("icons", cache.path(), "http://127.0.0.1:9", variables);
    assert_eq!(icons(&[("EDIFFI_MODEL", MODEL)]), icons(&[]));
    let missing = icons(&[("EDIFFI_MODEL", "/nowhere/at/all")]);
    assert!(missing.contains("EDIFFI_MODEL=/nowhere/at/all"), "{missing}");
}

#[test]
fn a_file_that_the_repository_lacks_is_named_before_weights_come() {
    for missing in ["pipeline.json", "base/config.json", "sr1024/shared.safetensors"] {
        let mut files = files();
        files.remove(missing).unwrap();
        let (server, address) = Server::of(files).start();
        let cache = tempfile::tempdir().unwrap();
        let refused = open("from_hub", cache.path(), &address, &[]);
        assert!(refused.contains("org/name") && refused.contains(missing), "{refused}");
        let weights = |request: &String| request.contains("/base/") && request.contains("safetensors");
        assert!(!server.requests().iter().any(weights), "{missing}");
    }
}
