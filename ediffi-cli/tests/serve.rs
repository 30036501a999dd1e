//! `ediffi serve`, started and killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A server in a process of its own, which ends with it.
struct Server {
    process: Child,
    address: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ediffi"));
    command.args(["serve", "--model", concat!(env!("CARGO_MANIFEST_DIR"), "/../models/icons"), "--device", "cpu"]);
    command.args(arguments).env("RUST_LOG", "warn");
    command
}

/// Where a server that was started listens, as it says on standard output.
fn address(process: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut process = command(arguments).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let address = address(&mut process);
        Self { process, address }
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer") + 4;
        let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
        (status, answer.split_off(head))
    }

    fn submit(&self, seed: u64) -> String {
        let request =
            json!({"prompt": "a red apple", "seed": seed, "last_stage": "base", "stages": {"base": {"steps": 12}}});
        let (status, body) = self.ask("POST", "/api/v1/jobs", &json!({"request": request}).to_string());
        assert_eq!(status, 202, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice::<Value>(&body).unwrap()["id"].as_str().unwrap().to_owned()
    }

    fn job(&self, id: &str) -> Value {
        let (_, body) = self.ask("GET", &format!("/api/v1/jobs/{id}"), "");
        serde_json::from_slice(&body).unwrap()
    }

    fn state(&self, id: &str) -> String {
        self.job(id)["state"].as_str().unwrap_or("unknown").to_owned()
    }

    fn wait_for(&self, id: &str, state: &str) {
        let ends = Instant::now() + Duration::from_secs(300);
        while self.state(id) != state {
            assert!(Instant::now() < ends, "{id} is {}", self.state(id));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn picture(&self, id: &str) -> Vec<u8> {
        let (status, body) = self.ask("GET", &format!("/api/v1/jobs/{id}/images/0"), "");
        assert_eq!(status, 200);
        body
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_killed_server_has_lost_nothing_that_was_finished_and_draws_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let keep = ["--keep", folder.path().to_str().unwrap()];
    let mut server = Server::start(&keep);
    let jobs: Vec<String> = (0..6).map(|seed| server.submit(seed)).collect();
    server.wait_for(&jobs[1], "finished");
    let (first, told) = (server.picture(&jobs[0]), server.job(&jobs[0]));
    server.kill();
    let server = Server::start(&keep);
    for id in &jobs {
        server.wait_for(id, "finished");
    }
    assert!(server.picture(&jobs[0]) == first);
    let again = server.job(&jobs[0]);
    for key in ["started", "ended", "images"] {
        assert_eq!(again[key], told[key], "not drawn again");
    }
    let (_, body) = server.ask("GET", "/api/v1/jobs", "");
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["jobs"].as_array().unwrap().len(), 6);
}

/// Exit code and what was said.
fn refused(arguments: &[&str]) -> (i32, String) {
    let output = command(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn other_machines_are_let_in_with_a_token_alone() {
    let (code, said) = refused(&["--listen", "0.0.0.0:0"]);
    assert!(code == 2 && said.contains("set a token"), "{code} {said}");
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = folder.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for text in ["", "# none\n", "anna\n", "anna secret more\n"] {
        let (code, said) = refused(&["--tokens", &file(text)]);
        assert!(code == 2 && said.contains("tokens: "), "{text:?}: {code} {said}");
    }
    let server = Server::start(&["--tokens", &file("# who\nanna secret\n\n")]);
    assert_eq!(server.ask("GET", "/api/v1/capabilities", "").0, 401);
}

/// Before models are opened.
#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = refused(&["--model", "nowhere", "--listen", &address]);
    assert!(code == 1 && said.contains(&format!("--listen {address}: ")), "{code} {said}");
}

#[test]
fn limits_of_the_command_line_hold() {
    let server = Server::start(&["--limit", "pixels=1048576"]);
    // What was said, and what a server allows by itself.
    for (key, value, limit) in [
        ("width", 2048, "the limit is 1048576 (`Limits::pixels`)"),
        ("images", 17, "the limit is 16 (`Limits::images`)"),
    ] {
        let mut request = json!({"prompt": "a red apple"});
        request[key] = value.into();
        let (status, body) = server.ask("POST", "/api/v1/jobs", &json!({"request": request}).to_string());
        let said = String::from_utf8_lossy(&body);
        assert!((400..500).contains(&status) && said.contains(limit), "{key}: {status} {said}");
    }
}

/// What a server tells of each job is lost, and nothing else.
#[test]
fn a_server_that_nobody_listens_to_draws() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    let mut process = command.env("RUST_LOG", "info").stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    let address = address(&mut process);
    let server = Server { process, address };
    for seed in 0..2 {
        let id = server.submit(seed);
        server.wait_for(&id, "finished");
        server.picture(&id);
    }
}

/// A terminated server finishes what it draws, and its exit code is 0.
#[test]
#[cfg(unix)]
fn a_server_that_is_asked_to_end_finishes_its_job() {
    let folder = tempfile::tempdir().unwrap();
    let keep = ["--keep", folder.path().to_str().unwrap()];
    let mut server = Server::start(&keep);
    let id = server.submit(1);
    server.wait_for(&id, "running");
    let told = Command::new("kill").args(["-TERM", &server.process.id().to_string()]).status().unwrap();
    assert!(told.success() && server.process.wait().unwrap().success());
    assert!(Path::new(keep[1]).join("pictures").join(format!("{id}-0.png")).is_file());
    // The folder is free again.
    let server = Server::start(&keep);
    assert_eq!(server.state(&id), "finished");
}
