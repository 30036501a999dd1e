//! The native interface over real connections, with the shipped model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ediffi::{DeviceChoice, Pipeline, Request};
use ediffi_server::{Keep, Server, ServerBuilder};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A server on a thread of its own; it is stopped when this is dropped.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn builder() -> ServerBuilder {
    Server::builder().model("icons", Pipeline::builder("../models/icons")).devices([DeviceChoice::Cpu])
}

fn start(builder: ServerBuilder) -> Running {
    let (say, hear) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let server = builder.start().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say.send(listener.local_addr().unwrap()).unwrap();
            let stopped = async { stopped.await.unwrap_or(()) };
            server.serve(listener, stopped).await.unwrap();
        });
    });
    Running { address: hear.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }
}

/// An answer: status, head, body.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Running {
    fn connect(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        stream
    }

    fn ask_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut answer = Vec::new();
        self.connect(method, path, headers, body).read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("there is an answer") + 4;
        let body = answer.split_off(head);
        let head = String::from_utf8(answer).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask_with("GET", path, "", b"")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask_with("POST", path, "", body.to_string().as_bytes())
    }

    fn submit(&self, request: &Value, previews: usize) -> String {
        let answer = self.post("/api/v1/jobs", &json!({"request": request, "previews": previews}));
        assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        assert!(answer.head.to_lowercase().contains(&format!("location: /api/v1/jobs/{id}")));
        id
    }

    fn cancel(&self, id: &str) -> u16 {
        self.ask_with("POST", &format!("/api/v1/jobs/{id}/cancel"), "", b"").status
    }

    fn state(&self, id: &str) -> String {
        self.get(&format!("/api/v1/jobs/{id}")).json()["state"].as_str().unwrap().to_owned()
    }

    fn wait_for(&self, id: &str, state: &str) {
        let ends = Instant::now() + Duration::from_secs(120);
        while self.state(id) != state {
            assert!(Instant::now() < ends, "{id} is {}", self.state(id));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The events of a stream: name and data.
fn events(lines: impl Iterator<Item = std::io::Result<String>>) -> Vec<(String, Value)> {
    let (mut events, mut name) = (Vec::new(), "job".to_owned());
    for line in lines.map(Result::unwrap) {
        if let Some(event) = line.strip_prefix("event: ") {
            event.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            events.push((name.clone(), serde_json::from_str(data).unwrap()));
        }
    }
    events
}

fn apple() -> Value {
    json!({"prompt": "a red apple", "seed": 7, "images": 2, "last_stage": "base", "stages": {"base": {"steps": 4}}})
}

/// One that takes long enough to be met on the way.
fn long() -> Value {
    json!({"prompt": "a cat", "last_stage": "base", "stages": {"base": {"steps": 900}}})
}

#[test]
fn a_job_is_drawn_as_the_library_draws_it_and_tells_of_it() {
    let server = start(builder());
    // It waits until somebody watches it.
    let before = server.submit(&long(), 0);
    let id = server.submit(&apple(), 2);
    let stream = server.connect("GET", &format!("/api/v1/jobs/{id}/events"), "", b"");
    let mut lines = BufReader::new(stream).lines();
    while lines.next().unwrap().unwrap() != "event: job" {}
    server.cancel(&before);
    let events = events(lines);
    let named = |name: &str| events.iter().filter(|(event, _)| event == name).map(|(_, data)| data).collect::<Vec<_>>();
    let (jobs, images) = (named("job"), named("image"));
    assert_eq!(events.last().unwrap().0, "job");
    assert_eq!(jobs.last().unwrap()["state"], "finished");
    assert_eq!(jobs.last().unwrap()["images"].as_array().unwrap().len(), 2);
    // Its start and four steps; two previews of each picture.
    assert_eq!((named("progress").len(), images.len()), (5, 2));
    let previews = named("preview");
    let places: Vec<_> = previews.iter().map(|data| (data["index"].as_u64(), data["step"].as_u64())).collect();
    assert_eq!(places, [(Some(0), Some(2)), (Some(1), Some(2)), (Some(0), Some(4)), (Some(1), Some(4))]);
    assert!(previews.iter().all(|data| data["data_url"].as_str().unwrap().starts_with("data:image/jpeg;base64,")));

    let request = Request::from_json(apple().to_string().as_bytes()).unwrap();
    let drawn =
        Pipeline::builder("../models/icons").device(DeviceChoice::Cpu).open().unwrap().generate(&request).unwrap();
    for (index, image) in drawn.images.iter().enumerate() {
        let answer = server.get(&format!("/api/v1/jobs/{id}/images/{index}"));
        assert_eq!((answer.status, &answer.body), (200, &image.to_png().unwrap()));
        let plain = server.get(&format!("/api/v1/jobs/{id}/images/{index}?plain=true")).body;
        assert!(matches!(Request::from_png_bytes(&plain), Err(ediffi::Error::PngWithoutRequest)));
        let read = server.ask_with("POST", "/api/v1/read", "", &answer.body).json();
        assert_eq!(read["request"], serde_json::to_value(image.request()).unwrap());
        assert!(read["made"]["precision"].is_string());
    }
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/images/2")).status, 404);
    assert_eq!(server.get("/api/v1/jobs").json()["jobs"][0]["id"], id.as_str());
    // One that is over is deleted, with its pictures.
    assert_eq!(server.ask_with("DELETE", &format!("/api/v1/jobs/{id}"), "", b"").status, 204);
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/images/0")).status, 404);
}

#[test]
fn a_job_is_cancelled_while_it_runs_and_while_it_waits() {
    let server = start(builder());
    let (runs, waits) = (server.submit(&long(), 0), server.submit(&long(), 0));
    server.wait_for(&runs, "running");
    assert_eq!(server.get(&format!("/api/v1/jobs/{waits}")).json()["position"], 1);
    for id in [&waits, &runs] {
        assert_eq!(server.ask_with("DELETE", &format!("/api/v1/jobs/{id}"), "", b"").status, 409);
        assert_eq!(server.cancel(id), 200);
        server.wait_for(id, "cancelled");
    }
    // It is counted when its device is free again.
    let counted = "ediffi_jobs_total{model=\"icons\",state=\"cancelled\"} 1";
    let metrics = || String::from_utf8(server.get("/metrics").body).unwrap();
    while !metrics().contains(counted) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(metrics().contains("ediffi_jobs_running 0"));
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let keep = Keep { queue: 1, ..Keep::default() };
    let server = start(builder().keep(keep));
    let runs = server.submit(&long(), 0);
    server.wait_for(&runs, "running");
    let waits = server.submit(&apple(), 0);
    let answer = server.post("/api/v1/jobs", &json!({"request": apple()}));
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (429, Some("queue_full")));
    assert!(answer.head.to_lowercase().contains("retry-after: "), "{}", answer.head);
    server.cancel(&runs);
    server.wait_for(&waits, "finished");
}

#[test]
fn what_cannot_be_drawn_is_refused_with_its_reason() {
    let server = start(builder().body_bytes(4096));
    let message = |request: &Value| {
        let answer = server.post("/api/v1/jobs", &json!({"request": request}));
        assert_eq!(answer.status, 400, "{request}");
        answer.json()["error"].clone()
    };
    assert!(message(&json!({"prompt": "a", "sed": 1}))["message"].as_str().unwrap().contains("unknown field `sed`"));
    let error = message(&json!({"prompt": "", "images": 0}));
    assert_eq!(error["problems"].as_array().unwrap().len(), 2, "{error}");
    assert!(message(&json!({"prompt": "a", "images": 17}))["message"].as_str().unwrap().contains("limit is 16"));
    // More words than the encoders read.
    assert!(message(&json!({"prompt": "apple ".repeat(90)}))["message"].as_str().unwrap().contains("too long"));
    for (body, status) in [
        ("{", 400),
        ("{}", 400),
        ("{\"request\": {}, \"modle\": 1}", 400),
        ("{\"request\": {\"prompt\": \"a\"}, \"model\": \"x\"}", 404),
    ] {
        assert_eq!(server.ask_with("POST", "/api/v1/jobs", "", body.as_bytes()).status, status, "{body}");
    }
    let long = server.ask_with("POST", "/api/v1/jobs", "", &vec![b' '; 5000]);
    assert_eq!((long.status, long.json()["error"]["code"].as_str()), (413, Some("too_long")));
    for path in ["/api/v1/jobs/x", "/api/v1/jobs/01890000-0000-7000-8000-000000000000", "/api/v1/nothing", "/nothing"] {
        assert_eq!(server.get(path).status, 404, "{path}");
        assert!(path == "/nothing" || server.get(path).json()["error"]["code"] == "not_found", "{path}");
    }
    assert_eq!(server.ask_with("PUT", "/api/v1/jobs", "", b"").status, 405);
    assert_eq!(server.ask_with("POST", "/api/v1/read", "", b"no png").status, 400);
}

#[test]
fn questions_are_answered_without_drawing() {
    let server = start(builder());
    let plan = server.post("/api/v1/plan", &json!({"request": {"prompt": "a red apple"}})).json();
    let base = &plan["stages"][0];
    assert_eq!((base["name"].as_str(), base["experts"].as_array().unwrap().len()), (Some("base"), 3));
    assert_eq!(base["steps"].as_array().unwrap().len(), 20);
    let canvas = json!({"width": 4, "height": 4, "regions": [{"phrase": "apple", "mask": "255*4 0*12"}]});
    let bound =
        server.post("/api/v1/bindings", &json!({"request": {"prompt": "a red apple", "canvas": canvas}})).json();
    let region = &bound["regions"][0];
    assert_eq!((region["coverage"].as_f64(), region["phrase"].as_str()), (Some(0.25), Some("apple")));
    assert_eq!(region["encoders"].as_array().unwrap().len(), 2, "{bound}");
    let missing = server.post("/api/v1/bindings", &json!({"request": {"prompt": "a red pear", "canvas": canvas}}));
    assert!(missing.status == 400 && missing.json()["error"]["message"].as_str().unwrap().contains("apple"));
    assert_eq!(server.get("/healthz").status, 200);
    // What a page of another host, or a name that leads here, would send.
    let foreign = "Origin: http://elsewhere.example\r\n";
    let body = json!({"request": apple()}).to_string();
    assert_eq!(server.ask_with("POST", "/api/v1/jobs", foreign, body.as_bytes()).status, 403);
    let described = server.get("/api/v1/openapi.json").json();
    for path in ["/api/v1/jobs", "/api/v1/jobs/{id}/events", "/api/v1/plan"] {
        assert!(described["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn who_has_no_token_is_not_let_in() {
    let server = start(builder().token("anna", "secret").token("ben", "other"));
    assert_eq!(server.get("/api/v1/capabilities").status, 401);
    let (anna, ben) = ("Authorization: Bearer secret\r\n", "Authorization: Bearer other\r\n");
    let answer = server.ask_with("POST", "/api/v1/jobs", anna, json!({"request": apple()}).to_string().as_bytes());
    assert_eq!(answer.status, 202);
    let jobs = |headers| server.ask_with("GET", "/api/v1/jobs", headers, b"").json()["jobs"].as_array().unwrap().len();
    assert_eq!((jobs(anna), jobs(ben)), (1, 0));
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_stop_without_patience_gives_back_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(builder().folder(folder.path()).grace(Duration::ZERO));
    let runs = server.submit(&long(), 0);
    server.wait_for(&runs, "running");
    drop(server);
    let server = start(builder().folder(folder.path()));
    server.wait_for(&runs, "running");
    assert_eq!(server.cancel(&runs), 200);
}

#[test]
fn a_stop_finishes_what_runs_and_keeps_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(builder().folder(folder.path()).grace(Duration::from_secs(300)));
    let steps = json!({"prompt": "a cat", "last_stage": "base", "stages": {"base": {"steps": 20}}});
    let (runs, waits) = (server.submit(&steps, 0), server.submit(&apple(), 0));
    server.wait_for(&runs, "running");
    drop(server);
    let server = start(builder().folder(folder.path()));
    assert_eq!(server.state(&runs), "finished");
    assert_eq!(server.get(&format!("/api/v1/jobs/{runs}/images/0")).status, 200);
    server.wait_for(&waits, "finished");
}
