//! Opening models from a hub: against a small server that speaks the hub's protocol.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::save;
use ediffi_encoders::T5;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

const CPU: Runtime = Runtime { device: Device::Cpu, kind: Kind::Float };
const TEXT: &str = "a red apple left of a cat";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Files from this size on are kept outside git, and lie behind a redirection.
const LARGE: usize = 1 << 20;

#[derive(Default)]
struct Server {
    files: HashMap<String, Vec<u8>>,
    requests: Mutex<Vec<String>>,
    /// How many bytes of large files may be sent before connections break.
    patience: Mutex<Option<usize>>,
    token: Option<String>,
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    /// Serves `org/name` on a port of this machine.
    fn start(self) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (server, own) = (Arc::new(self), address.clone());
        let shared = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, address) = (Arc::clone(&shared), own.clone());
                // A connection that the client gives up is no fault of the server.
                std::thread::spawn(move || drop(server.answer(stream, &address)));
            }
        });
        (server, address)
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn answer(&self, mut stream: TcpStream, address: &str) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let header = |name: &str| {
                lines.iter().find_map(|line| {
                    let (key, value) = line.split_once(": ")?;
                    key.eq_ignore_ascii_case(name).then(|| value.to_owned())
                })
            };
            let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body)?;
            let mut first = lines[0].split(' ');
            let (method, path) = (first.next().unwrap(), first.next().unwrap());
            let range = header("range");
            self.requests.lock().unwrap().push(format!("{method} {path} {}", range.clone().unwrap_or_default()));
            if self.token.as_ref().is_some_and(|token| header("authorization") != Some(format!("Bearer {token}"))) {
                respond(&mut stream, "401 Unauthorized", &[], Some(b"{}"))?;
            } else if path == "/api/models/org/name/paths-info/main" {
                let asked: HashMap<String, Vec<String>> = serde_json::from_slice(&body)?;
                let found: Vec<_> = asked["paths"].iter().filter_map(|path| self.listed(path)).collect();
                respond(&mut stream, "200 OK", &[], Some(serde_json::to_string(&found)?.as_bytes()))?;
            } else if let Some(bytes) = path.strip_prefix("/org/name/resolve/main/").and_then(|f| self.files.get(f)) {
                let file = path.rsplit('/').next().unwrap();
                let tag = if bytes.len() < LARGE { object(file) } else { sha256(bytes) };
                let facts = [
                    format!("X-Repo-Commit: {COMMIT}"),
                    format!("X-Linked-Size: {}", bytes.len()),
                    format!("{}: \"{tag}\"", if bytes.len() < LARGE { "ETag" } else { "X-Linked-Etag" }),
                ];
                if bytes.len() < LARGE {
                    respond(&mut stream, "200 OK", &facts, (method == "GET").then_some(bytes))?;
                } else {
                    let facts = [&facts[..], &[format!("Location: {address}/elsewhere/{file}")]].concat();
                    respond(&mut stream, "302 Found", &facts, Some(b""))?;
                }
            } else if let Some(bytes) = path.strip_prefix("/elsewhere/").and_then(|file| self.files.get(file)) {
                self.send_part(&mut stream, method, bytes, range.as_deref())?;
            } else {
                respond(&mut stream, "404 Not Found", &["X-Error-Code: EntryNotFound".to_owned()], Some(b"{}"))?;
            }
        }
    }

    fn listed(&self, path: &str) -> Option<serde_json::Value> {
        let bytes = self.files.get(path)?;
        let lfs = (bytes.len() >= LARGE)
            .then(|| serde_json::json!({ "oid": sha256(bytes), "size": bytes.len(), "pointerSize": 130 }));
        let mut entry = serde_json::json!({ "type": "file", "path": path, "size": bytes.len(), "oid": object(path) });
        if let Some(lfs) = lfs {
            entry["lfs"] = lfs;
        }
        Some(entry)
    }

    /// Sends a range, or breaks off when the patience is at its end.
    fn send_part(
        &self,
        stream: &mut TcpStream,
        method: &str,
        bytes: &[u8],
        range: Option<&str>,
    ) -> std::io::Result<()> {
        let ends = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let (start, end) =
            ends.map_or((0, bytes.len()), |(a, b)| (a.parse().unwrap(), b.parse::<usize>().unwrap() + 1));
        let part = &bytes[start..end];
        if method == "HEAD" {
            return respond(stream, "200 OK", &[format!("X-Linked-Size: {}", bytes.len())], None);
        }
        let mut patience = self.patience.lock().unwrap();
        match patience.as_mut() {
            Some(left) if *left < part.len() => {
                write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\n\r\n", part.len())?;
                stream.write_all(&part[..*left])?;
                *left = 0;
                stream.shutdown(std::net::Shutdown::Both)
            }
            left => {
                if let Some(left) = left {
                    *left -= part.len();
                }
                let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
                let facts = [format!("Content-Range: bytes {start}-{}/{}", end - 1, bytes.len())];
                respond(stream, status, &facts, Some(part))
            }
        }
    }
}

/// A name for a small file's content.
fn object(path: &str) -> String {
    sha256(path.rsplit('/').next().unwrap().as_bytes())[..40].to_owned()
}

fn respond(stream: &mut TcpStream, status: &str, facts: &[String], body: Option<&[u8]>) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for fact in facts {
        head += &format!("{fact}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    } else if let Some(size) = facts.iter().find_map(|fact| fact.strip_prefix("X-Linked-Size: ")) {
        head += &format!("Content-Length: {size}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body.unwrap_or_default())
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/t5").join(name)
}

/// The T5 of the fixtures in two shards, of which the second holds a decoder alone, beside files that nobody needs.
fn files() -> HashMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard.safetensors");
    let mut tensors = Tensor::read_safetensors(fixture("model.safetensors")).unwrap();
    // Read in three parts, and not wanted by the encoder.
    tensors.push(("lm_head.weight".to_owned(), Tensor::ones([10 << 20], (Kind::Float, Device::Cpu))));
    save(&path, &tensors, HashMap::new()).unwrap();
    let shard = "model-00001-of-00002.safetensors";
    let map: HashMap<&str, &str> = tensors.iter().map(|(name, _)| (name.as_str(), shard)).collect();
    let mut index = serde_json::json!({ "weight_map": map });
    index["weight_map"]["decoder.final_layer_norm.weight"] = "model-00002-of-00002.safetensors".into();
    let unused = ["model-00002-of-00002.safetensors", "pytorch_model.bin", "README.md", "tf_model.h5"];
    let mut files: HashMap<String, Vec<u8>> = unused.map(|name| (name.to_owned(), b"unused".to_vec())).into();
    files.insert(shard.to_owned(), std::fs::read(&path).unwrap());
    files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    for name in ["config.json", "tokenizer.json"] {
        files.insert(name.to_owned(), std::fs::read(fixture(name)).unwrap());
    }
    files
}

/// What [`child`] says with `cache` and the server at `address`. The environment of a process cannot be changed safely while
/// it runs, so it is that of a process of its own.
fn open(cache: &Path, address: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env("HUB_TEST_CHILD", "1").env("NO_PROXY", "127.0.0.1");
    for variable in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"] {
        command.env_remove(variable);
    }
    command.env("HF_ENDPOINT", address).env("HF_HOME", cache).envs(variables.iter().copied());
    let output = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    let said = output.lines().find_map(|line| line.split_once("child says: "));
    assert!(said.is_some(), "{output}");
    said.unwrap().1.to_owned()
}

/// Opens the model as the environment says. It is no test of its own: the others start it in a process of its own.
#[test]
fn child() {
    if std::env::var_os("HUB_TEST_CHILD").is_none() {
        return;
    }
    let says = match T5::from_hub("org/name", CPU) {
        Ok(t5) => format!("{:.4}", t5.encode(&[TEXT], 24).unwrap().tokens.abs().sum(Kind::Float).double_value(&[])),
        Err(error) => error.to_string(),
    };
    writeln!(std::io::stdout(), "child says: {says}").unwrap();
}

fn expected() -> String {
    let t5 = T5::open(&fixture(""), CPU).unwrap();
    format!("{:.4}", t5.encode(&[TEXT], 24).unwrap().tokens.abs().sum(Kind::Float).double_value(&[]))
}

#[test]
fn only_the_files_that_are_needed_are_downloaded_and_only_once() {
    let (server, address) = Server { files: files(), ..Server::default() }.start();
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let requests = server.requests();
    for unused in ["00002-of-00002", ".bin", ".h5", "README"] {
        assert!(!requests.iter().any(|request| request.contains(unused)), "{unused}: {requests:?}");
    }
    let ranges = |requests: &[String]| {
        requests.iter().filter(|r| r.starts_with("GET /elsewhere") && r.contains("bytes=")).count()
    };
    assert_eq!(ranges(&requests), 3, "{requests:?}");
    assert!(!requests.iter().any(|request| request == "GET /elsewhere/model-00001-of-00002.safetensors "));
    // From the cache, after asking whether it is up to date; then without asking.
    assert_eq!(open(cache.path(), &address, &[]), expected());
    assert!(!server.requests().iter().any(|request| request.starts_with("GET")));
    assert_eq!(open(cache.path(), &address, &[("HF_HUB_OFFLINE", "1")]), expected());
    assert!(server.requests().is_empty());
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let (server, address) = Server { files: files(), ..Server::default() }.start();
    let cache = tempfile::tempdir().unwrap();
    *server.patience.lock().unwrap() = Some(20 << 20);
    let said = open(cache.path(), &address, &[]);
    assert!(said.contains("org/name"), "{said}");
    *server.patience.lock().unwrap() = None;
    server.requests();
    assert_eq!(open(cache.path(), &address, &[]), expected());
    let ranges: Vec<String> = server.requests().into_iter().filter(|request| request.contains("bytes=")).collect();
    assert_eq!(ranges.iter().filter(|request| request.contains("bytes=0-")).count(), 0, "{ranges:?}");
    assert!(ranges[0].contains(&format!("bytes={}-", 16 << 20)), "{ranges:?}");
}

#[test]
fn tokens_are_sent_and_a_missing_one_is_named() {
    let (_server, address) = Server { files: files(), token: Some("secret".to_owned()), ..Server::default() }.start();
    let cache = tempfile::tempdir().unwrap();
    let refused = open(cache.path(), &address, &[]);
    assert!(refused.contains("org/name") && refused.contains("uthenti"), "{refused}");
    assert_eq!(open(cache.path(), &address, &[("HF_TOKEN", "secret")]), expected());
}

#[test]
fn a_repository_with_pickled_weights_alone_is_an_error() {
    let mut files = files();
    files.retain(|name, _| !name.contains("safetensors"));
    let (server, address) = Server { files, ..Server::default() }.start();
    let cache = tempfile::tempdir().unwrap();
    let said = open(cache.path(), &address, &[]);
    assert!(said.contains("org/name") && said.contains("model.safetensors"), "{said}");
    assert!(!server.requests().iter().any(|request| request.contains(".bin")));
}

#[test]
fn without_a_connection_the_repository_is_named() {
    let cache = tempfile::tempdir().unwrap();
    let said = open(cache.path(), "http://127.0.0.1:9", &[]);
    assert!(said.contains("org/name"), "{said}");
}
