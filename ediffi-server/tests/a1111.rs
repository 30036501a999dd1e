//! A1111's interface, on the base of the shipped model.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod clients;

use std::time::Duration;

use axum::http::StatusCode;
use clients::{asked, base64, file, get, guarded, png, post, router, send, told, with_token};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

const TXT2IMG: &str = "/sdapi/v1/txt2img";

fn info(answer: &Value) -> Value {
    serde_json::from_str(answer["info"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn txt2img_tells_what_it_drew() {
    let body = json!({
        "prompt": "a red apple", "negative_prompt": "blue", "seed": 7, "steps": 3, "cfg_scale": 4.5, "batch_size": 2, "n_iter": 1,
        "sampler_name": "DPM++ 2M Karras", "override_settings": { "sd_model_checkpoint": "icons" }, "enable_hr": false,
        "ediffi": { "last_stage": "base" },
    });
    let answer = asked(&router(), TXT2IMG, &body).await;
    let info = info(&answer);
    assert_eq!(
        (&info["seed"], &info["all_seeds"], &info["all_prompts"][1]),
        (&json!(7), &json!([7, 8]), &json!("a red apple"))
    );
    assert_eq!(
        (&info["sampler_name"], &info["steps"], &info["cfg_scale"]),
        (&json!("DPM++ 2M"), &json!(3), &json!(4.5))
    );
    assert_eq!(
        (&info["sd_model_name"], &info["width"], &answer["parameters"]["steps"]),
        (&json!("icons"), &json!(64), &json!(3))
    );
    let text = info["infotexts"][1].as_str().unwrap();
    let starts = "a red apple\nNegative prompt: blue\nSteps: 3, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4.5, Seed: 8, Size: 64x64";
    assert!(text.starts_with(starts), "{text}");
    // The settings are those of the first stage, and the picture holds them.
    let request = ediffi::Request::from_png_bytes(&file(&answer["images"][0])).unwrap();
    let stage = &request.stages["base"];
    assert_eq!(
        (stage.steps, stage.guidance_scale, request.negative_prompt.as_deref()),
        (Some(3), Some(4.5), Some("blue"))
    );
    assert_eq!((stage.solver, stage.schedule.is_some()), (Some(ediffi::Solver::DpmPp2M), true));
}

#[tokio::test]
async fn img2img_keeps_what_is_black_in_the_mask() {
    let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8 * 3, y as u8 * 3, 90]));
    let mask = RgbImage::from_fn(64, 64, |x, _| Rgb([if x < 32 { 255 } else { 0 }; 3]));
    let body = json!({
        "prompt": "a red apple", "seed": 7, "steps": 4, "denoising_strength": 0.5, "mask_blur": 0,
        "init_images": [base64(&png(picture.clone()))], "mask": base64(&png(mask)), "ediffi": { "last_stage": "base" },
    });
    let answer = asked(&router(), "/sdapi/v1/img2img", &body).await;
    let drawn = image::load_from_memory(&file(&answer["images"][0])).unwrap().into_rgb8();
    let same = |x: u32| (0..64).all(|y| drawn.get_pixel(x, y) == picture.get_pixel(x, y));
    assert!((33..64).all(same) && !(0..31).any(same));
    assert_eq!(
        (&info(&answer)["denoising_strength"], &answer["parameters"]["init_images"]),
        (&json!(0.5), &Value::Null)
    );
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let router = router();
    let mut damaged = png(RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8, y as u8, 9])));
    damaged.truncate(damaged.len() - 30);
    let edit = json!({ "init_images": [base64(&damaged)], "ediffi": { "last_stage": "base" } });
    for (path, body, status, field) in [
        (TXT2IMG, json!({ "sampler_name": "UniPC" }), 422, "sampler_name"),
        (TXT2IMG, json!({ "prompt": "a", "enable_hr": true }), 422, "enable_hr"),
        (
            TXT2IMG,
            json!({ "prompt": "a", "refiner_checkpoint": "x", "refiner_switch_at": 0.8 }),
            422,
            "refiner_checkpoint",
        ),
        (TXT2IMG, json!({ "prompt": "a", "width": 100 }), 400, ""),
        (TXT2IMG, json!({ "prompt": "a", "batch_size": 1000, "n_iter": 1000 }), 400, ""),
        (TXT2IMG, json!({ "prompt": "a", "override_settings": { "sd_model_checkpoint": "x" } }), 404, ""),
        ("/sdapi/v1/img2img", json!({ "prompt": "a" }), 422, "init_images"),
        ("/sdapi/v1/img2img", edit, 400, ""),
        ("/sdapi/v1/options", json!({ "CLIP_stop_at_last_layers": 2 }), 422, "CLIP_stop_at_last_layers"),
        ("/sdapi/v1/options", json!({ "sd_model_checkpoint": "x" }), 404, ""),
    ] {
        let (found, told) = told(send(&router, post(path, &body)).await).await;
        assert_eq!((found.as_u16(), told["body"].as_str()), (status, Some(field)), "{told}");
        assert!(!told["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_there_is_is_listed() {
    let router = router();
    let listed = async |path: &str| told(send(&router, get(path)).await).await.1;
    let samplers = listed("/sdapi/v1/samplers").await;
    let names: Vec<&str> =
        samplers.as_array().unwrap().iter().map(|sampler| sampler["name"].as_str().unwrap()).collect();
    assert!(["Euler a", "DPM++ 2M", "kutta-3", "tab-deis-3"].iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!(listed("/sdapi/v1/schedulers").await[1]["name"], "karras");
    assert_eq!(listed("/sdapi/v1/sd-models").await[0]["title"], "icons");
    assert_eq!(asked(&router, "/sdapi/v1/options", &json!({ "sd_model_checkpoint": "icons" })).await, json!({}));
    assert_eq!(listed("/sdapi/v1/options").await["sd_model_checkpoint"], "icons");
}

#[tokio::test]
async fn who_interrupts_gets_what_there_is() {
    let server = guarded();
    let router = server.router();
    let basic = |mut request: axum::http::Request<axum::body::Body>, password: &str| {
        let pair = base64(format!("whoever:{password}").as_bytes());
        request.headers_mut().insert("authorization", format!("Basic {pair}").parse().unwrap());
        request
    };
    let response = send(&router, basic(get("/sdapi/v1/progress"), "wrong")).await;
    assert_eq!(
        (response.status(), &response.headers()["www-authenticate"]),
        (StatusCode::UNAUTHORIZED, &"Basic".parse().unwrap())
    );
    let body = json!({ "prompt": "a", "steps": 1000, "ediffi": { "last_stage": "base" } });
    let asked = {
        let (router, request) = (router.clone(), basic(post(TXT2IMG, &body), "secret"));
        tokio::spawn(async move { told(send(&router, request).await).await })
    };
    let progress = async |token| told(send(&router, with_token(get("/sdapi/v1/progress"), token)).await).await.1;
    while progress("secret").await["current_image"].is_null() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = progress("secret").await;
    assert!(seen["progress"].as_f64().unwrap() > 0.0 && seen["state"]["sampling_steps"] == 1000, "{seen}");
    let jpeg = file(&seen["current_image"]);
    let picture = image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).unwrap();
    assert_eq!(picture.width(), picture.height());
    let without = with_token(get("/sdapi/v1/progress?skip_current_image=true"), "secret");
    assert!(told(send(&router, without).await).await.1["current_image"].is_null());
    // Of others nothing is seen, and nothing interrupted.
    assert_eq!(progress("other").await["state"]["job_count"], 0);
    told(send(&router, with_token(post("/sdapi/v1/interrupt", &json!({})), "other")).await).await;
    assert_eq!(progress("secret").await["state"]["job_count"], 1);
    told(send(&router, with_token(post("/sdapi/v1/interrupt", &json!({})), "secret")).await).await;
    let (status, answer) = asked.await.unwrap();
    assert_eq!((status, &answer["images"], &info(&answer)["all_seeds"]), (StatusCode::OK, &json!([]), &json!([])));
}
