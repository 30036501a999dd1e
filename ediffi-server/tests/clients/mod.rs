//! What the tests of the interfaces have in common: a server of the shipped model, asked without a network.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ediffi::{DeviceChoice, Pipeline};
use ediffi_server::{Keep, Server, ServerBuilder};
use image::{DynamicImage, ImageFormat};
use serde_json::Value;
use tower::ServiceExt;

/// The settings of a server that draws with the shipped model on the CPU.
pub(crate) fn builder() -> ServerBuilder {
    let model = Pipeline::builder(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/icons"));
    Server::builder().model("icons", model).devices([DeviceChoice::Cpu])
}

static SERVER: LazyLock<Server> = LazyLock::new(|| builder().start().unwrap());

/// A server that lets everybody in.
pub(crate) fn router() -> Router {
    SERVER.router()
}

/// A server with the tokens `secret` of anna and `other` of ben, in whose queue one job may wait.
pub(crate) fn guarded() -> Server {
    let keep = Keep { queue: 1, queue_of_client: 1, ..Keep::default() };
    builder().keep(keep).token("anna", "secret").token("ben", "other").start().unwrap()
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn bytes(response: Response<Body>) -> Bytes {
    axum::body::to_bytes(response.into_body(), 64 << 20).await.unwrap()
}

/// The status, and the JSON of the answer.
pub(crate) async fn told(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let body = bytes(response).await;
    let json = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    (status, json)
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn post(path: &str, json: &Value) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(Body::from(json.to_string())).unwrap()
}

/// A request of who has this token.
pub(crate) fn with_token(mut request: Request<Body>, token: &str) -> Request<Body> {
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Posts JSON. An answer that is no 200 fails the test.
pub(crate) async fn asked(router: &Router, path: &str, json: &Value) -> Value {
    let (status, body) = told(send(router, post(path, json)).await).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

/// A form of texts and files.
pub(crate) fn form(path: &str, texts: &[(&str, &str)], files: &[(&str, &[u8])]) -> Request<Body> {
    let mut body = Vec::new();
    for (name, text) in texts {
        let head = format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
        body.extend_from_slice(head.as_bytes());
    }
    for (name, file) in files {
        let head = format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    Request::post(path).header("content-type", "multipart/form-data; boundary=edge").body(Body::from(body)).unwrap()
}

pub(crate) fn png(pixels: impl Into<DynamicImage>) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    pixels.into().write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// The file in a base64 text.
pub(crate) fn file(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_else(|| panic!("no text: {value}"))).unwrap()
}

pub(crate) fn base64(file: &[u8]) -> String {
    STANDARD.encode(file)
}
