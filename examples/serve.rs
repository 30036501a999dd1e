//! A small HTTP server: many connections, one [`Worker`]. It shows how a server uses the library, and is no server to put
//! on the internet.
//!
//! ```sh
//! cargo run --release --example serve -- models/icons 127.0.0.1:8080
//! curl --data '{"prompt": "a red apple", "seed": 7}' http://127.0.0.1:8080/ --output apple.png
//! ```
//!
//! The body is a [`Request`] in JSON, the answer a PNG picture. A full queue is answered with 503. A client that closes its sending half
//! gets its answer; one that is gone looks the same, and its job runs to the end.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use ediffi::{Event, Generation, Pipeline, Request, Worker};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

/// The longest request: a style image and a canvas have room.
const LONGEST_BODY: usize = 16 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().map_or_else(ediffi::icons, |folder| Ok(PathBuf::from(folder)))?;
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    // The encoders stay in memory: every client brings a prompt of its own.
    let worker = Worker::new(Pipeline::builder(model).keep_encoders(true).open()?)?;
    let listener = TcpListener::bind(&address).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    serve(listener, worker).await;
    Ok(())
}

/// Answers every connection.
pub(crate) async fn serve(listener: TcpListener, worker: Worker) {
    let router = Router::new().route("/", post(draw)).layer(DefaultBodyLimit::max(LONGEST_BODY)).with_state(worker);
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Of this connection, or for want of files: the next may do.
            Err(error) => {
                eprintln!("a connection is lost: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            // A slow sender of headers is not waited for longer than hyper's own patience, which needs a clock.
            let mut connection = http1::Builder::new();
            connection.half_close(true).timer(TokioTimer::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("{client}: {error}");
            }
        });
    }
}

/// Draws the request of a body. Where this is dropped, the handle is too, which cancels the job.
async fn draw(State(worker): State<Worker>, body: Bytes) -> Result<Response, Refusal> {
    let request = Request::from_json(&body)?;
    let steps = |event: &Event<'_>| {
        if let Event::Step { stage, index, steps, .. } = event {
            println!("{stage}: {} of {steps}", index + 1);
        }
        ControlFlow::Continue(())
    };
    let generation = worker.submit_with(request, steps)?.await?;
    Ok(([(CONTENT_TYPE, "image/png")], first_png(&generation)?).into_response())
}

fn first_png(generation: &Generation) -> ediffi::Result<Vec<u8>> {
    generation.images.first().map_or_else(|| Ok(Vec::new()), |image| image.to_png())
}

/// A request that is answered in words.
struct Refusal(StatusCode, String);

impl From<ediffi::Error> for Refusal {
    fn from(error: ediffi::Error) -> Self {
        let status = match &error {
            ediffi::Error::InvalidRequest { .. } | ediffi::Error::RequestJson(_) => StatusCode::BAD_REQUEST,
            ediffi::Error::QueueFull { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}
