//! Requests of strangers: each is refused in time and memory that follow its length, naming field and limit.

use ediffi::{Canvas, Error, Limits, Problem, Region, Request, Style};

use crate::model::{Model, apple, style};

fn problems(result: Result<impl Sized, Error>) -> Vec<Problem> {
    match result.map(drop) {
        Err(Error::InvalidRequest { problems }) => problems,
        other => panic!("{other:?}"),
    }
}

fn read(json: &str) -> Request {
    serde_json::from_str(json).unwrap()
}

/// 2.8 kilobytes of JSON, and all of it names one field.
#[test]
fn many_large_masks() {
    let mask = r#"{ "phrase": "cat", "mask": "255*4194304" }"#;
    let model = Model::new();
    let regions = vec![mask; 64].join(",");
    let canvas = format!(r#"{{ "width": 2048, "height": 2048, "regions": [{regions}] }}"#);
    let request = read(&format!(r#"{{ "prompt": "a cat", "images": 4, "canvas": {canvas} }}"#));
    let found = problems(model.open().generate(&request));
    let [Problem::Limit { field, value, limit, name: "mask_bytes" }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((field.as_str(), *value, *limit), ("canvas, bytes of its masks", 64 << 22, 64 << 20));
}

#[test]
fn many_images_and_large_ones() {
    let model = Model::new();
    let pipeline = model.open();
    for (request, name) in [
        (read(r#"{ "prompt": "a cat", "images": 4096, "stages": { "base": { "steps": 1 } } }"#), "images"),
        (read(r#"{ "prompt": "a cat", "width": 16384, "height": 16384 }"#), "pixels"),
        (read(r#"{ "prompt": "a cat", "images": 64, "width": 2048, "height": 2048 }"#), "working_memory"),
        (read(r#"{ "prompt": "a cat", "stages": { "sr": { "steps": 10000 } } }"#), "steps"),
    ] {
        let found = [
            problems(pipeline.generate(&request)),
            problems(pipeline.plan(&request)),
            problems(pipeline.validate(&request)),
            problems(pipeline.encode(&request)),
        ];
        for found in found {
            assert!(matches!(&found[..], [Problem::Limit { name: named, .. }] if *named == name), "{name}: {found:?}");
        }
    }
}

/// A phrase that is not there took time with the cube of the prompt's length, and its error repeated all of it.
#[test]
fn long_prompts_and_phrases() {
    let (words, letters) = ((0..2500).map(|k| format!("{k:04}")).collect::<Vec<_>>().join(" "), "a".repeat(1_000_000));
    let model = Model::new();
    let generous = Limits { prompt_characters: 1 << 20, ..Limits::default() };
    for (prompt, phrase) in [(&words, format!("q{}", &words[..6000])), (&letters, letters[..500_000].to_owned())] {
        let canvas = Canvas::new([Region::rectangle(phrase, (1, 1), 0..1, 0..1).unwrap()]).unwrap();
        let request = Request::new(prompt).truncate(true).canvas(canvas);
        let found = problems(model.open().generate(&request));
        let names = found.iter().map(|problem| match problem {
            Problem::Limit { name, .. } => *name,
            other => panic!("{other}"),
        });
        assert_eq!(names.collect::<Vec<_>>(), ["prompt_characters"; 2]);
        // Where the limit is raised, the time still follows the length, and so does no message.
        let error = model.builder().limits(generous.clone()).open().unwrap().validate(&request).unwrap_err();
        assert!(error.to_string().len() < 1500, "{}", error.to_string().len());
    }
}

/// A guidance scale of 1e308 ended in an error of libtorch, on a model as in a request.
#[test]
fn numbers_out_of_range_name_stage_and_field() {
    let model = Model::new();
    let request = read(
        r#"{ "prompt": "a red apple", "width": 16, "height": 16, "stages": { "sr": { "guidance_scale": 1e308 } } }"#,
    );
    let found = problems(model.open().generate(&request));
    let [Problem::Setting { stage, setting: "guidance", reason }] = &found[..] else { panic!("{found:?}") };
    assert!(stage == "sr" && reason.contains("1e308") && reason.contains("1000"), "{reason}");
    for (pointer, number, field) in [
        ("/stages/1/guidance", serde_json::json!({ "scale": 1e308 }), "guidance"),
        ("/stages/0/sampler/schedule/karras/max", 1e308.into(), "sampler.schedule"),
        ("/stages/0/sampler/schedule/karras/min", 1e-308.into(), "sampler.schedule"),
    ] {
        let model = Model::new();
        model.edit(|manifest| match manifest.pointer_mut(pointer) {
            Some(value) => *value = number,
            None => manifest["stages"][1]["guidance"] = number,
        });
        let error = model.builder().open().unwrap_err().to_string();
        assert!(error.contains(field) && error.len() < 400, "{error}");
    }
    let model = Model::new();
    model.edit(|manifest| manifest["stages"][0]["precondition"]["edm"]["sigma_data"] = 1e308.into());
    let error = model.builder().open().unwrap_err().to_string();
    assert!(error.contains("sigma_data 1e308"), "{error}");
}

#[test]
fn a_style_is_checked_alone_too() {
    let model = Model::new();
    let pipeline = model.builder().limits(Limits { style_pixels: 300, ..Limits::default() }).open().unwrap();
    assert!(pipeline.encode_style(style(1)).is_ok());
    let two = Style::from(style(1)).and(style(2), 1.0);
    for found in [problems(pipeline.encode_style(two.clone())), problems(pipeline.generate(&apple().style(two)))] {
        assert!(
            matches!(found[..], [Problem::Limit { value: 512, limit: 300, name: "style_pixels", .. }]),
            "{found:?}"
        );
    }
}

/// A large picture in JSON is decoded once its request has been checked, and the image keeps the one that CLIP saw.
#[test]
fn a_large_picture_of_a_style_is_scaled_down() {
    let model = Model::new();
    let pipeline = model.open();
    let large = image::RgbImage::from_fn(900, 960, |x, y| image::Rgb([(x / 4) as u8, (y / 4) as u8, 90]));
    let mut png = std::io::Cursor::new(Vec::new());
    large.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let small = ediffi::StyleImage::new(large).unwrap();
    let mut json = serde_json::to_value(apple().style(small.clone())).unwrap();
    let place = json.pointer_mut("/style/references/0/image").unwrap();
    *place = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, png.get_ref()).into();
    let request: Request = serde_json::from_value(json.clone()).unwrap();
    let image = pipeline.generate(&request).unwrap().images.remove(0);
    assert_eq!(image.request(), &apple().style(small));
    assert_eq!(image.to_png().unwrap(), pipeline.generate(image.request()).unwrap().images[0].to_png().unwrap());
    // What is kept is what came, cut short behind its header here.
    let cut = &png.get_ref()[..png.get_ref().len() / 2];
    *json.pointer_mut("/style/references/0/image").unwrap() =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, cut).into();
    let request: Request = serde_json::from_value(json).unwrap();
    assert!(matches!(pipeline.generate(&request), Err(Error::StyleImage(_))));
}
