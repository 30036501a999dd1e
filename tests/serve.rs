//! The example of a server, spoken to by clients that are not polite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "the program is started by this test in its own way")]
#[path = "../examples/serve.rs"]
mod server;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use ediffi::{Pipeline, Worker};
use tokio::net::TcpListener;

const BODY: &str = r#"{"prompt": "a red apple", "last_stage": "base", "stages": {"base": {"steps": 1}}}"#;

/// Serves the shipped model on a thread of its own.
fn start() -> SocketAddr {
    let (say, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            let worker = Worker::new(Pipeline::open("models/icons").unwrap()).unwrap();
            server::serve(listener, worker).await;
        });
    });
    hear.recv().unwrap()
}

/// Sends these bytes, and reads the answer to its end.
fn ask(address: SocketAddr, sent: &str, half_close: bool) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    if half_close {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("there is an answer");
    let body = answer.split_off(head + 4);
    (String::from_utf8(answer).unwrap(), body)
}

#[test]
fn every_client_gets_its_answer() {
    let address = start();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let whole = format!("{head}Content-Length: {}\r\n\r\n{BODY}", BODY.len());
    let (first, rest) = BODY.split_at(20);
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        first.len(),
        rest.len()
    );
    let mut pictures = Vec::new();
    for (sent, half_close) in [(&whole, false), (&chunked, false), (&whole, true)] {
        let (head, body) = ask(address, sent, half_close);
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("content-type: image/png"), "{head}");
        assert_eq!(body[..4], *b"\x89PNG");
        pictures.push(body);
    }
    assert!(pictures.iter().all(|picture| *picture == pictures[0]));
    let unknown = whole.replace("prompt", "promtp");
    for (sent, status, says) in [
        (unknown.as_str(), "400", "promtp"),
        (whole.replace("steps\": 1", "steps\": 0").as_str(), "400", "steps"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "405", ""),
    ] {
        let (head, body) = ask(address, sent, false);
        let body = String::from_utf8(body).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")) && body.contains(says), "{head}{body}");
    }
}
