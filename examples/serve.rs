//! A small HTTP server: many connections, one [`Worker`]. It shows how a server uses the library, and is no server to put
//! on the internet.
//!
//! ```sh
//! cargo run --release --example serve -- models/icons 127.0.0.1:8080
//! curl --data '{"prompt": "a red apple", "seed": 7}' http://127.0.0.1:8080/ --output apple.png
//! ```
//!
//! The body is a [`Request`] in JSON, the answer a PNG picture. A client that hangs up cancels its job; a full queue is
//! answered with 503.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use ediffi::{Generation, JobHandle, Pipeline, Request, Worker};

/// The longest request: a style image and a canvas have room.
const LONGEST_BODY: u64 = 16 << 20;

/// A client that sends nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().map_or_else(ediffi::icons, |folder| Ok(folder.into()))?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    // The encoders stay in memory: every client brings a prompt of its own.
    let worker = Worker::new(Pipeline::builder(model).keep_encoders(true).open()?)?;
    let listener = TcpListener::bind(&address)?;
    println!("listening on http://{}/", listener.local_addr()?);
    for stream in listener.incoming() {
        let (stream, worker) = (stream?, worker.clone());
        std::thread::spawn(move || {
            if let Err(error) = answer(stream, &worker) {
                eprintln!("connection lost: {error}");
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream, worker: &Worker) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = match read_request(&stream)? {
        Ok(request) => request,
        Err(reason) => return respond(&mut stream, "400 Bad Request", "text/plain", reason.as_bytes()),
    };
    let result = match worker.submit(request) {
        Ok(job) => match wait(job, &stream)? {
            Some(result) => result,
            None => return Ok(()),
        },
        Err(error) => Err(error),
    };
    match result.and_then(|generation| first_png(&generation)) {
        Ok(png) => respond(&mut stream, "200 OK", "image/png", &png),
        Err(error) => respond(&mut stream, status(&error), "text/plain", error.to_string().as_bytes()),
    }
}

/// Waits for a job; `None` if the client hung up, which drops the handle and so cancels the job.
fn wait(mut job: JobHandle, stream: &TcpStream) -> io::Result<Option<ediffi::Result<Generation>>> {
    stream.set_nonblocking(true)?;
    loop {
        job = match job.wait_timeout(Duration::from_millis(200)) {
            Ok(result) => {
                stream.set_nonblocking(false)?;
                return Ok(Some(result));
            }
            Err(job) => job,
        };
        let progress = job.progress();
        println!("job {}: {:3.0} % {}", job.id(), 100.0 * progress.fraction(), progress.stage);
        match stream.peek(&mut [0]) {
            // The end of the stream.
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Ok(None),
        }
    }
}

/// The request in the body of an HTTP POST, or what is wrong with it.
fn read_request(stream: &TcpStream) -> io::Result<Result<Request, String>> {
    // Also bounds the headers.
    let mut reader = BufReader::new(stream.take(LONGEST_BODY));
    let (mut line, mut length, mut first) = (String::new(), 0, true);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(Err("the request ends within its headers".to_owned()));
        }
        if first && !line.starts_with("POST ") {
            return Ok(Err("POST a request in JSON, such as {\"prompt\": \"a red apple\"}".to_owned()));
        }
        first = false;
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok(Request::from_json(&body).map_err(|error| error.to_string()))
}

fn first_png(generation: &Generation) -> ediffi::Result<Vec<u8>> {
    generation.images.first().map_or_else(|| Ok(Vec::new()), |image| image.to_png())
}

fn status(error: &ediffi::Error) -> &'static str {
    match error {
        ediffi::Error::InvalidRequest { .. } => "400 Bad Request",
        ediffi::Error::QueueFull { .. } => "503 Service Unavailable",
        _ => "500 Internal Server Error",
    }
}

fn respond(stream: &mut TcpStream, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let header =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(header.as_bytes())?;
    stream.write_all(body)
}
