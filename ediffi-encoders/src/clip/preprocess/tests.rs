//! The files that say how pictures are prepared, and the preparation.

use super::*;

fn open(json: &str, image_size: i64) -> Result<Preprocess> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preprocessor_config.json");
    std::fs::write(&path, json).unwrap();
    Preprocess::open(&path, image_size)
}

#[test]
fn a_missing_file_and_one_that_says_nothing_are_openai_s() {
    let missing = Preprocess::open(Path::new("no/such/file.json"), 224).unwrap();
    assert_eq!(missing, Preprocess::new(224));
    assert_eq!(open("{}", 224).unwrap(), Preprocess::new(224));
}

#[test]
fn sizes_of_old_and_new_files_are_read() {
    let old = open(r#"{ "size": 230, "crop_size": 224, "resample": 3 }"#, 224).unwrap();
    let new = open(r#"{ "size": { "shortest_edge": 230 }, "crop_size": { "height": 224, "width": 224 } }"#, 224);
    assert_eq!(old, new.unwrap());
    assert_eq!((old.size, old.crop), (230, 224));
}

#[test]
fn keys_without_effect_may_have_any_value() {
    let keys = "_name_or_path _valid_processor_keys auto_map backend data_format default_to_square device disable_grouping do_convert_rgb \
     input_data_format processor_class return_tensors transformers_version";
    let json: Map<String, Value> = keys.split_whitespace().map(|key| (key.to_owned(), Value::from(7))).collect();
    assert_eq!(open(&Value::from(json).to_string(), 224).unwrap(), Preprocess::new(224));
}

#[test]
fn what_cannot_be_done_is_an_error_that_names_the_key() {
    for (json, culprit) in [
        (r#"{ "crop_size": 336 }"#, "crop_size"),
        (r#"{ "crop_size": { "height": 224, "width": 220 } }"#, "crop_size"),
        (r#"{ "size": 200 }"#, "size"),
        (r#"{ "size": { "height": 224, "width": 224 } }"#, "size"),
        (r#"{ "size": 897 }"#, "size"),
        (r#"{ "size": 16384 }"#, "size"),
        (r#"{ "resample": 2 }"#, "resample"),
        (r#"{ "do_resize": false }"#, "do_resize"),
        (r#"{ "do_center_crop": false }"#, "do_center_crop"),
        (r#"{ "rescale_factor": 0 }"#, "rescale_factor"),
        (r#"{ "rescale_factor": -0.5 }"#, "rescale_factor"),
        (r#"{ "image_std": [1, 1, 0] }"#, "image_std"),
        (r#"{ "image_processor_type": "ViTImageProcessor" }"#, "image_processor_type"),
        (r#"{ "feature_extractor_type": "ViTFeatureExtractor" }"#, "feature_extractor_type"),
        (r#"{ "do_convert_rgb": true, "do_flip": true }"#, "do_flip"),
    ] {
        match open(json, 224).unwrap_err() {
            Error::Preprocessor { key, .. } => assert_eq!(key, culprit),
            other => panic!("{json}: {other}"),
        }
    }
}

/// As transformers 5 saves a CLIPProcessor. What is nested there goes before a file of its own.
#[test]
fn a_processor_s_file_holds_the_steps_too() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, json: &str| std::fs::write(folder.path().join(name), json).unwrap();
    let mean = || Preprocess::of_folder(folder.path(), 16).unwrap().mean;
    assert_eq!(mean(), CHANNEL_MEAN);
    write("preprocessor_config.json", r#"{ "image_mean": [0.25, 0.25, 0.25] }"#);
    write("processor_config.json", r#"{ "processor_class": "CLIPProcessor" }"#);
    assert_eq!(mean(), [0.25; 3]);
    let nested = r#"{ "image_processor": { "crop_size": { "height": 16, "width": 16 }, "do_center_crop": true,
        "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "CLIPImageProcessor", "image_std": [0.5, 0.5, 0.5], "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": { "shortest_edge": 16 } }, "processor_class": "CLIPProcessor" }"#;
    write("processor_config.json", nested);
    let read = Preprocess::of_folder(folder.path(), 16).unwrap();
    assert_eq!((read.mean, read.std), ([0.5; 3], [0.5; 3]));
    // The first values of white and of what is nearly white.
    for (level, value) in [(255, 1.0), (254, 0.9922)] {
        let picture = Tensor::full([3, 16, 16], level, (Kind::Uint8, Device::Cpu));
        assert!((read.apply(&picture).unwrap().double_value(&[0, 0, 0]) - value).abs() < 5e-5);
    }
    write("processor_config.json", &nested.replace("\"resample\": 3", "\"resample\": 2"));
    let error = Preprocess::of_folder(folder.path(), 16).unwrap_err().to_string();
    assert!(error.contains("processor_config.json, resample"), "{error}");
}

#[test]
fn steps_that_a_file_leaves_out_or_changes_are_so() {
    // One colour, which no filter changes: 51 is a fifth of 255.
    let grey = Tensor::full([3, 8, 8], 51, (Kind::Uint8, Device::Cpu));
    let first = |json: &str| open(json, 4).unwrap().apply(&grey).unwrap().double_value(&[0, 0, 0]);
    let close = |json: &str, expected: f64| assert!((first(json) - expected).abs() < 1e-4, "{json}: {}", first(json));
    close(
        r#"{ "do_resize": true, "do_rescale": true, "do_normalize": true }"#,
        (0.2 - CHANNEL_MEAN[0]) / CHANNEL_STD[0],
    );
    close(r#"{ "do_normalize": false }"#, 0.2);
    close(r#"{ "do_normalize": false, "do_rescale": false, "rescale_factor": 7 }"#, 51.0);
    close(r#"{ "rescale_factor": 0.5, "image_mean": [1, 1, 1], "image_std": [2, 2, 2] }"#, 12.25);
}

#[test]
fn a_picture_cut_between_the_axes_is_the_middle_of_the_whole() {
    let options = (Kind::Int64, Device::Cpu);
    for (height, width) in [(9, 40), (40, 9), (37, 23), (300, 41), (5, 5), (3, 290)] {
        let picture = (Tensor::arange(3 * height * width, options) * 7).remainder(251);
        let picture = picture.reshape([1, 3, height, width]).to_kind(Kind::Uint8);
        let side = |side: i64| 16 * side / height.min(width);
        let (new_height, new_width) = (side(height), side(width));
        let cut = Preprocess { size: 16, ..Preprocess::new(10) };
        let kept = cut.resize(&picture, new_height, new_width).unwrap();
        let shrinks = height - new_height;
        let between = match shrinks > 0 && shrinks > 2 * (width - new_width) {
            true => [new_height, width],
            false => [height, new_width],
        };
        let whole = picture.internal_upsample_bicubic2d_aa(between, false, None, None);
        let whole = whole.internal_upsample_bicubic2d_aa([new_height, new_width], false, None, None);
        let middle = whole.narrow(2, (new_height - 10) / 2, 10).narrow(3, (new_width - 10) / 2, 10);
        assert!(kept.equal(&middle), "{height}x{width}");
    }
}

#[test]
fn the_middle_of_a_picture_of_any_shape_is_kept() {
    let preprocess = Preprocess { mean: [0.0; 3], std: [1.0; 3], ..Preprocess::new(4) };
    // Columns 0 to 11 hold 0, 10, .. 110: unresized, the middle four are 4 to 7.
    let row = Tensor::arange(12, (Kind::Float, Device::Cpu)) * 10.0;
    let wide = row.expand([3, 4, 12], false).to_kind(Kind::Uint8);
    let kept = preprocess.apply(&wide).unwrap();
    let columns = Vec::<f32>::try_from(kept.select(0, 1).select(0, 2) * 255.0).unwrap();
    assert_eq!(columns.iter().map(|c| c.round()).collect::<Vec<_>>(), [40.0, 50.0, 60.0, 70.0]);
    for shape in [[3, 1, 1], [3, 2, 90], [3, 300, 7], [3, 4, 4]] {
        assert_eq!(preprocess.apply(&Tensor::zeros(shape, (Kind::Uint8, Device::Cpu))).unwrap().size(), [3, 4, 4]);
    }
}

#[test]
fn resizing_does_not_leave_the_range_of_pixels() {
    let preprocess = Preprocess { mean: [0.0; 3], std: [1.0; 3], ..Preprocess::new(16) };
    // A bicubic filter overshoots at edges.
    let edge = Tensor::from_slice(&[0.0_f32, 0.0, 1.0, 1.0]).expand([3, 4, 4], false);
    for picture in [edge.shallow_clone(), (edge * 255.0).to_kind(Kind::Uint8)] {
        let prepared = preprocess.apply(&picture).unwrap();
        assert_eq!((prepared.min().double_value(&[]), prepared.max().double_value(&[])), (0.0, 1.0));
    }
}

#[test]
fn tensors_that_are_no_pictures_are_errors() {
    let preprocess = Preprocess::new(4);
    for (shape, kind) in [
        (vec![4, 4], Kind::Float),
        (vec![1, 4, 4], Kind::Float),
        (vec![3, 0, 4], Kind::Float),
        (vec![3, 4, 4], Kind::Int64),
        (vec![3, 2, 201], Kind::Uint8),
    ] {
        let picture = Tensor::zeros(&shape, (kind, Device::Cpu));
        assert!(matches!(preprocess.apply(&picture), Err(Error::Picture { .. })), "{shape:?}");
    }
}
