use ediffi_core::interval::SigmaInterval;
use ediffi_paint::Region;

use super::*;
use crate::{EditPicture, StyleImage};

fn full() -> Request {
    let style = StyleImage::new(image::RgbImage::from_pixel(3, 2, image::Rgb([9, 8, 7]))).unwrap();
    let canvas = Canvas::new([Region::rectangle("cat", (4, 4), 0..2, 0..2).unwrap()]).unwrap();
    let picture = EditPicture::new(&image::RgbImage::new(4, 2)).unwrap();
    Request::new("a cat — \"été\"\n🍎")
        .negative_prompt("blur")
        .mix(Mix::new("a dog").share(0.25).sigma(SigmaInterval::new(0.1, 5.0).unwrap()))
        .mix(Mix::new("a bird"))
        .stage_prompt("sr-256", "fur")
        .stage_negative_prompt("sr-256", "noise")
        .near(u64::MAX - 1, 0.3)
        .seed(u64::MAX)
        .images(3)
        .size(128, 64)
        .first_stage("base")
        .last_stage("sr-256")
        .edit(Edit::new(picture.clone()).mask(picture).strength(0.5).jumps(5, 2))
        .preset("fast")
        .truncate(true)
        .style_with_strength(style, 0.7)
        .canvas(canvas)
        .steps("base", 30)
        .solver("base", Solver::Kutta3)
        .schedule("base", Schedule::paper_base())
        .guidance("base", 5.3)
        .guidance_rule("sr-256", Guidance::new(2.0))
        .tiling("sr-256", Tiling { tile: 64, overlap: 16 })
}

#[test]
fn a_request_comes_back_from_json() {
    for request in [full(), Request::new("a cat"), Request::unconditional()] {
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request, "{json}");
    }
}

/// A number that came back one bit away would be another picture. This needs `float_roundtrip` of serde_json.
#[test]
fn numbers_come_back_to_the_bit() {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // 0 to 16, with all bits of the mantissa.
        let request = Request::new("a").guidance("base", (bits >> 11) as f64 / (1_u64 << 49) as f64);
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request, "{json}");
    }
}

#[test]
fn what_is_not_set_is_not_written() {
    let json = serde_json::to_string(&Request::new("a cat").seed(7)).unwrap();
    assert_eq!(json, r#"{"prompt":"a cat","seed":7,"images":1}"#);
    assert_eq!(serde_json::from_str::<Request>(r#"{"prompt": "a cat"}"#).unwrap(), Request::new("a cat"));
}

#[test]
fn an_unknown_key_is_named() {
    let message = |json: &str| serde_json::from_str::<Request>(json).unwrap_err().to_string();
    assert!(message(r#"{"prompt": "a", "sed": 1}"#).contains("unknown field `sed`"));
    assert!(message(r#"{"stages": {"base": {"step": 1}}}"#).contains("unknown field `step`"));
}

/// A key or a value of a megabyte would come back to who sent it, and go into the log.
#[test]
fn what_is_wrong_with_json_is_said_briefly() {
    let request = Request::new("a cat").seed(3);
    assert_eq!(Request::from_json(&serde_json::to_vec(&request).unwrap()).unwrap(), request);
    let long = "k".repeat(1 << 20);
    for json in [
        format!("{{\"{long}\": 1}}"),
        format!("{{\"seed\": \"{long}\"}}"),
        format!("{{\"stages\": {{\"base\": {{\"solver\": \"{long}\"}}}}}}"),
    ] {
        let error = Request::from_json(json.as_bytes()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            matches!(error, Error::RequestJson(_)) && error.to_string().len() < 700 && cause.len() < 700,
            "{error}"
        );
        assert!(cause.contains("at line 1 column 104"), "{cause}");
    }
}

#[test]
fn an_image_of_many_is_a_request_of_its_own() {
    let request = full().seed(u64::MAX - 1);
    assert_eq!(request.only(2), full().seed(0).images(1));
    assert_eq!(request.only(0), full().seed(u64::MAX - 1).images(1));
}

#[test]
fn setting_a_rule_forgets_the_scale() {
    let request = Request::new("a").guidance("base", 3.0).guidance_rule("base", Guidance::new(2.0));
    let settings = &request.stages["base"];
    assert_eq!((settings.guidance_scale, &settings.guidance), (None, &Some(Guidance::new(2.0))));
}
