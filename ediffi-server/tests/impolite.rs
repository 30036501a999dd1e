//! Clients that are not polite, over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod clients;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;

const PATH: &str = "/v1/images/generations";

/// Serves on a thread of its own.
fn start() -> SocketAddr {
    let (say, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            clients::builder().start().unwrap().serve(listener, std::future::pending()).await.unwrap();
        });
    });
    hear.recv().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    stream
}

/// Reads the answer to its end: head and body.
fn answer(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("there is an answer");
    let body = answer.split_off(head + 4);
    (String::from_utf8(answer).unwrap(), body)
}

fn ask(address: SocketAddr, sent: &str) -> (String, Value) {
    let mut stream = connect(address);
    stream.write_all(sent.as_bytes()).unwrap();
    let (head, body) = answer(stream);
    (head, serde_json::from_slice(&body).unwrap_or_default())
}

fn body(steps: usize) -> String {
    json!({ "prompt": "a red apple", "ediffi": { "seed": 7, "last_stage": "base", "stages": { "base": { "steps": steps } } } }).to_string()
}

fn whole(body: &str) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The states of all jobs, newest first.
fn states(address: SocketAddr) -> Vec<String> {
    let (_, jobs) = ask(address, "GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let jobs = jobs["jobs"].as_array().expect("jobs").iter();
    jobs.map(|job| job["state"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Waits until there are so many jobs, and the newest, which is a long one, is in this state.
fn until(address: SocketAddr, number: usize, state: &str) {
    let ends = Instant::now() + Duration::from_secs(300);
    loop {
        let states = states(address);
        // Until the new one is there, the newest is one of before.
        if let Some(newest) = states.first().filter(|_| states.len() == number) {
            if newest == state {
                return;
            }
            assert_ne!(newest, "finished", "drawn for nobody");
        }
        assert!(Instant::now() < ends, "{states:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_client_gets_its_answer_and_who_is_gone_takes_the_job_along() {
    let address = start();
    let quick = body(1);
    let (first, rest) = quick.split_at(20);
    let chunked = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n",
        first.len(),
        rest.len()
    );
    let (head, plain) = ask(address, &whole(&quick));
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}{plain}");
    let (_, of_chunks) = ask(address, &chunked);
    assert!(plain["data"][0]["b64_json"].is_string() && plain["data"] == of_chunks["data"]);

    // One letter at a time.
    let mut slow = connect(address);
    for byte in whole(&quick).bytes() {
        slow.write_all(&[byte]).unwrap();
        slow.flush().unwrap();
        std::thread::sleep(Duration::from_micros(300));
    }
    assert!(answer(slow).0.starts_with("HTTP/1.1 200 OK"));

    // No HTTP at all, and half a request: the others are served, and nothing is drawn.
    let (nonsense, _) = ask(address, "hello\r\n\r\n");
    assert!(nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
    let mut half = connect(address);
    half.write_all(whole(&quick).split_at(150).0.as_bytes()).unwrap();
    assert_eq!(states(address).len(), 3);
    drop(half);

    // Gone, or with a sending half that is closed, which looks the same: nobody computes for nobody.
    let closings: [fn(TcpStream); 2] = [drop, |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        std::mem::forget(stream);
    }];
    for (number, gone) in (4..).zip(closings) {
        let mut stream = connect(address);
        stream.write_all(whole(&body(1000)).as_bytes()).unwrap();
        until(address, number, "running");
        gone(stream);
        until(address, number, "cancelled");
    }

    // So does who no longer reads a stream.
    let mut stream = connect(address);
    let streamed = body(1000).replacen('{', r#"{"stream": true, "partial_images": 3, "#, 1);
    stream.write_all(whole(&streamed).as_bytes()).unwrap();
    until(address, 6, "running");
    drop(stream);
    until(address, 6, "cancelled");
}
