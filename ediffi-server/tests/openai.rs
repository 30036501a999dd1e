//! OpenAI's images interface, on the base of the shipped model.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod clients;

use std::time::Duration;

use axum::http::StatusCode;
use clients::{asked, bytes, file, form, get, guarded, png, post, router, send, told, with_token};
use image::{Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::{Value, json};

/// Two steps of the base.
const QUICK: &str = r#"{"seed": 7, "last_stage": "base", "stages": {"base": {"steps": 2}}}"#;

fn quick() -> Value {
    serde_json::from_str(QUICK).unwrap()
}

const GENERATIONS: &str = "/v1/images/generations";

/// A picture of 64 pixels with a gradient, so that each pixel is known again.
fn gradient() -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8 * 3, y as u8 * 3, 90]))
}

#[tokio::test]
async fn a_generation_holds_its_request() {
    let router = router();
    let body = json!({ "prompt": "a red apple", "model": "icons", "n": 2, "user": "u", "moderation": "low", "ediffi": quick() });
    let answer = asked(&router, GENERATIONS, &body).await;
    let data = answer["data"].as_array().unwrap();
    assert_eq!((data.len(), &answer["output_format"], &answer["size"]), (2, &json!("png"), &json!("64x64")));
    assert_eq!((&answer["background"], &answer["ediffi"]["seeds"]), (&json!("opaque"), &json!([7, 8])));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    let request = ediffi::Request::from_png_bytes(&file(&data[1]["b64_json"])).unwrap();
    assert_eq!((request.prompt.as_str(), request.seed, request.images), ("a red apple", 8, 1));
    // Counted by the model's tokenizer: more than none, and the longer prompt has more.
    let tokens = |answer: &Value| answer["usage"]["input_tokens_details"]["text_tokens"].as_u64().unwrap();
    let longer = json!({ "prompt": "a red apple left of a cat, noto style", "ediffi": quick() });
    let longer = asked(&router, GENERATIONS, &longer).await;
    assert!(tokens(&answer) >= 3 && tokens(&longer) > tokens(&answer), "{answer}");
    assert_eq!(answer["usage"]["total_tokens"], answer["usage"]["input_tokens"]);
}

#[tokio::test]
async fn files_are_of_the_format_that_is_asked_for() {
    let router = router();
    for (format, head) in [("jpeg", &b"\xff\xd8\xff"[..]), ("webp", b"RIFF"), ("png", b"\x89PNG")] {
        let body = json!({ "prompt": "a red apple", "output_format": format, "ediffi": quick() });
        let answer = asked(&router, GENERATIONS, &body).await;
        assert!(file(&answer["data"][0]["b64_json"]).starts_with(head), "{format}");
        assert_eq!(answer["output_format"], format);
    }
    let body = json!({ "prompt": "a red apple", "response_format": "url", "ediffi": quick() });
    let mut request = post(GENERATIONS, &body);
    request.headers_mut().insert("host", "pictures.example:8080".parse().unwrap());
    let (_, answer) = told(send(&router, request).await).await;
    let path = answer["data"][0]["url"].as_str().unwrap().strip_prefix("http://pictures.example:8080").unwrap();
    assert!(bytes(send(&router, get(path)).await).await.starts_with(b"\x89PNG"));
}

/// The events of a stream: name and data.
fn events(text: &str) -> Vec<(String, Value)> {
    let event = |block: &str| {
        let line = |head: &str| block.lines().find_map(|line| line.strip_prefix(head)).map(str::to_owned);
        Some((line("event: ")?, serde_json::from_str(&line("data: ")?).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn partial_pictures_come_before_the_whole_one() {
    let request = json!({ "seed": 7, "last_stage": "base", "stages": { "base": { "steps": 8 } } });
    let body = json!({ "prompt": "a red apple", "stream": true, "partial_images": 3, "ediffi": request });
    let response = send(&router(), post(GENERATIONS, &body)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = String::from_utf8(bytes(response).await.to_vec()).unwrap();
    let events = events(&text);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let (partial, completed) = ("image_generation.partial_image", "image_generation.completed");
    assert_eq!(names, [partial, partial, partial, completed]);
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["type"], *name);
        assert!(file(&data["b64_json"]).starts_with(b"\x89PNG"));
        assert!(data["created_at"].is_u64() && data["quality"] == "high" && data["background"] == "opaque");
        assert_eq!(data["partial_image_index"].as_u64(), (number < 3).then_some(number as u64));
    }
    let last = &events[3].1;
    assert_eq!((last["size"].as_str(), last["usage"]["output_tokens"].as_u64()), (Some("64x64"), Some(0)));
    // No partial picture is the finished one.
    assert!(events[..3].iter().all(|(_, data)| data["b64_json"] != last["b64_json"]));
}

#[tokio::test]
async fn an_edit_draws_what_is_transparent_in_the_mask() {
    let picture = png(gradient());
    let mask = png(RgbaImage::from_fn(64, 64, |x, _| Rgba([0, 0, 0, if x < 32 { 0 } else { 255 }])));
    let texts = [("prompt", "a red apple"), ("n", "1"), ("size", "auto"), ("ediffi", QUICK)];
    let request = form("/v1/images/edits", &texts, &[("image[]", &picture), ("mask", &mask)]);
    let (status, answer) = told(send(&router(), request).await).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let drawn = image::load_from_memory(&file(&answer["data"][0]["b64_json"])).unwrap().into_rgb8();
    let same = |x: u32| (0..64).all(|y| drawn.get_pixel(x, y) == gradient().get_pixel(x, y));
    assert!((33..64).all(same) && !(0..31).any(same));
}

#[tokio::test]
async fn a_variation_needs_no_prompt() {
    let request = form("/v1/images/variations", &[("ediffi", QUICK)], &[("image", &png(gradient()))]);
    let (status, answer) = told(send(&router(), request).await).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let request = ediffi::Request::from_png_bytes(&file(&answer["data"][0]["b64_json"])).unwrap();
    assert!(request.unconditional && request.edit.unwrap().strength == Some(0.6));
}

#[tokio::test]
async fn errors_have_openais_form() {
    let router = router();
    let error = async |request| {
        let (status, body) = told(send(&router, request).await).await;
        let text = |key: &str| body["error"][key].as_str().unwrap_or_default().to_owned();
        assert!(!text("message").is_empty(), "{body}");
        (status.as_u16(), text("type"), text("param"), text("code"))
    };
    let bad = |param: &str, code: &str| (400, "invalid_request_error".to_owned(), param.to_owned(), code.to_owned());
    for (body, expected) in [
        (json!({ "prompt": "a", "sice": "auto" }), bad("sice", "unknown_parameter")),
        (json!({ "prompt": "a", "background": "transparent" }), bad("background", "invalid_value")),
        (json!({ "prompt": "" }), bad("prompt", "invalid_request")),
        (json!({ "prompt": "a", "size": "1000x999" }), bad("size", "invalid_request")),
        (json!({ "prompt": "a", "size": "8192x8192" }), bad("size", "invalid_request")),
        (json!({ "prompt": "apple ".repeat(400) }), bad("prompt", "invalid_request")),
        (json!({ "prompt": "a", "ediffi": { "stages": { "bass": {} } } }), bad("ediffi", "invalid_request")),
        (json!({ "n": 1 }), bad("prompt", "missing_required_parameter")),
        (json!([]), bad("", "invalid_body")),
    ] {
        assert_eq!(error(post(GENERATIONS, &body)).await, expected, "{body}");
    }
    let (status, _, param, code) = error(post(GENERATIONS, &json!({ "prompt": "a", "model": "gpt-image-1" }))).await;
    assert_eq!((status, param.as_str(), code.as_str()), (404, "model", "model_not_found"));
    let long = json!({ "prompt": "a".repeat(33 << 20) });
    assert_eq!(error(post(GENERATIONS, &long)).await.0, 413);
    let mut damaged = png(gradient());
    damaged.truncate(damaged.len() - 40);
    for (files, param) in
        [(vec![("image", &damaged[..])], "image"), (vec![], "image"), (vec![("image", &b"GIF"[..])], "image")]
    {
        let (status, _, named, _) =
            error(form("/v1/images/edits", &[("prompt", "a"), ("ediffi", QUICK)], &files)).await;
        assert_eq!((status, named.as_str()), (400, param));
    }
    assert_eq!(
        error(form("/v1/images/edits", &[("prompt", "a"), ("ediffi[seed]", "7")], &[("image", &png(gradient()))]))
            .await
            .2,
        "ediffi[seed]"
    );
    assert_eq!(error(get("/v1/images/generations")).await.0, 405);
    assert_eq!(error(get("/v1/chat/completions")).await.0, 404);
}

#[tokio::test]
async fn models_are_listed() {
    let router = router();
    let (_, list) = told(send(&router, get("/v1/models")).await).await;
    let (_, one) = told(send(&router, get("/v1/models/icons")).await).await;
    assert_eq!((&list["object"], &list["data"][0], &one["id"]), (&json!("list"), &one, &json!("icons")));
    assert_eq!(told(send(&router, get("/v1/models/other")).await).await.0, StatusCode::NOT_FOUND);
}

/// One at a time on a server of their own: a token, a full queue, a client that is gone.
#[tokio::test]
async fn who_is_unknown_too_many_or_gone() {
    let server = guarded();
    let router = server.router();
    let body = json!({ "prompt": "a", "ediffi": { "last_stage": "base", "stages": { "base": { "steps": 1000 } } } });
    for request in [post(GENERATIONS, &body), with_token(post(GENERATIONS, &body), "wrong"), get("/v1/models")] {
        let (status, told) = told(send(&router, request).await).await;
        assert_eq!((status.as_u16(), told["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    }
    let jobs = async || {
        let (_, told) = told(send(&router, with_token(get("/api/v1/jobs"), "secret")).await).await;
        let states = told["jobs"].as_array().unwrap().iter();
        states.map(|job| job["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let until = async |states: &[&str]| {
        loop {
            let now = jobs().await;
            if now == states {
                return;
            }
            assert!(!now.contains(&"finished".to_owned()), "drawn for nobody");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ask = || {
        let (router, request) = (router.clone(), with_token(post(GENERATIONS, &body), "secret"));
        tokio::spawn(async move { send(&router, request).await })
    };
    let first = ask();
    until(&["running"]).await;
    let second = ask();
    until(&["queued", "running"]).await;
    let response = send(&router, with_token(post(GENERATIONS, &body), "secret")).await;
    assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let (status, refused) = told(response).await;
    assert_eq!((status.as_u16(), refused["error"]["code"].as_str()), (429, Some("rate_limit_exceeded")));
    // Who goes away takes the job along.
    second.abort();
    first.abort();
    until(&["cancelled", "cancelled"]).await;
}
