//! What is wrong with a published folder, and what may lie where.

use std::fs;
use std::path::Path;

use ediffi::{Error, Problem, Request, Tensor};

use super::{PROMPT, base, builder, bytes, fixture};

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub(super) fn change_weights(path: &Path, change: impl Fn(&str, &Tensor) -> Tensor) {
    let named: Vec<(String, Tensor)> = Tensor::read_safetensors(path).unwrap();
    let changed: Vec<(String, Tensor)> =
        named.into_iter().map(|(name, x)| (name.clone(), change(&name, &x).to_kind(x.kind()))).collect();
    Tensor::write_safetensors(&changed, path).unwrap();
}

/// What opening a copy of stage 1 says after `spoil`.
fn spoiled(spoil: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("IF-I");
    copy(&fixture("stage-1"), &path);
    spoil(&path);
    builder(&path).open().unwrap_err().to_string()
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn what_is_wrong_with_a_folder_is_said_with_what_to_do() {
    let unet = |path: &Path| path.join("unet/diffusion_pytorch_model.fp16.safetensors");
    let says = |spoil: &dyn Fn(&Path), parts: &[&str]| {
        let message = spoiled(spoil);
        for part in parts {
            assert!(message.contains(part), "{part} in {message}");
        }
    };
    says(&|path| fs::remove_file(unet(path)).unwrap(), &["licence", "accept it", "`unet`"]);
    says(
        &|path| fs::rename(unet(path), path.join("unet/diffusion_pytorch_model.bin")).unwrap(),
        &["holds diffusion_pytorch_model.bin", "weights_only=True", "'diffusion_pytorch_model.safetensors'"],
    );
    says(
        &|path| {
            let encoder = path.join("text_encoder");
            fs::rename(encoder.join("model.fp16.safetensors"), encoder.join("pytorch_model.bin")).unwrap();
        },
        &["text_encoder holds pytorch_model.bin", "model.safetensors"],
    );
    says(
        &|path| fs::write(unet(path), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unwrap(),
        &["pointer of git-lfs", "git lfs pull"],
    );
    says(&|path| fs::remove_file(path.join("tokenizer/tokenizer.json")).unwrap(), &["tokenizer.json", "spiece.model"]);
    says(&|path| fs::remove_file(path.join("model_index.json")).unwrap(), &["pipeline.json", "model_index.json"]);
    says(
        &|path| replace(&path.join("model_index.json"), "IFPipeline", "FluxPipeline"),
        &["holds a `FluxPipeline`, FLUX", "DeepFloyd IF"],
    );
    let index = |path: &Path| path.join("model_index.json");
    says(
        &|path| replace(&index(path), "DDPMScheduler", "DDIMScheduler"),
        &["model_index.json, scheduler: \"DDIMScheduler\" is not supported, only DDPMScheduler"],
    );
    says(&|path| replace(&index(path), "T5EncoderModel", "UMT5EncoderModel"), &["text_encoder", "only T5EncoderModel"]);
    let prior = "\"prior\": [\"diffusers\", \"PriorTransformer\"], \"_class_name\"";
    says(&|path| replace(&index(path), "\"_class_name\"", prior), &["model_index.json, prior", "does not know it"]);
    says(
        &|path| replace(&path.join("unet/config.json"), "ResnetDownsampleBlock2D", "DownBlock2D"),
        &["down_block_types", "`DownBlock2D` is not supported"],
    );
    let scheduler = |path: &Path| path.join("scheduler/scheduler_config.json");
    says(
        &|path| fs::remove_file(path.join("unet/config.json")).unwrap(),
        &["it has no unet/config.json", "`scheduler`"],
    );
    says(&|path| fs::remove_file(scheduler(path)).unwrap(), &["it has no scheduler/scheduler_config.json"]);
    says(&|path| replace(&scheduler(path), "\"leading\"", "\"trailing\""), &["timestep_spacing", "`trailing`"]);
    says(
        &|path| replace(&path.join("unet/config.json"), "\"out_channels\": 6", "\"out_channels\": 3"),
        &["scheduler_config.json, variance_type", "predicts no variance", "fixed_small"],
    );
    says(
        &|path| replace(&scheduler(path), "squaredcos_cap_v2", "linear"),
        &["scheduler_config.json, beta_schedule", "`linear` is not supported"],
    );
    says(&|path| replace(&scheduler(path), "\"epsilon\"", "\"v_prediction\""), &["prediction_type"]);
    // As `X.from_config(ddpm.config).save_pretrained` writes them: the same keys, another sampler.
    for class in ["EulerDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler"] {
        let other = |path: &Path| replace(&scheduler(path), "DDPMScheduler", class);
        says(&other, &["scheduler_config.json, _class_name", class, "DDPMScheduler"]);
    }
    let add = |file: &Path, keys: &str| replace(file, "{", &format!("{{ {keys},"));
    says(&|path| add(&scheduler(path), "\"use_karras_sigmas\": true"), &["scheduler_config.json, use_karras_sigmas"]);
    says(&|path| add(&path.join("unet/config.json"), "\"colour\": true"), &["`colour`"]);
    // A number that JSON has not is named where it matters.
    says(
        &|path| replace(&scheduler(path), "\"sample_max_value\": 1.5", "\"sample_max_value\": -Infinity"),
        &["scheduler_config.json", "-Infinity"],
    );
    says(&|path| fs::write(path.join("unet/config.json"), "{").unwrap(), &["unet/config.json"]);
    says(
        &|path| replace(&path.join("text_encoder/config.json"), "\"d_model\": 40", "\"d_model\": 48"),
        &["d_model 48", "take 40"],
    );
    let stage_2 = builder(&fixture("stage-2")).open().unwrap_err();
    assert!(stage_2.to_string().contains("is a stage of super-resolution (IF-II-..), where a stage I"), "{stage_2}");
    let twice = base().stage(fixture("stage-1")).open().unwrap_err();
    assert!(twice.to_string().contains("it is a stage I (IF-I-..), where"), "{twice}");
    let nowhere = base().stage(fixture("nowhere")).open().unwrap_err();
    assert!(matches!(nowhere, Error::NoFolder { .. }), "{nowhere}");
    let own = builder(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/icons").as_path()).stage(fixture("stage-2"));
    assert!(matches!(own.open(), Err(Error::Compose { .. })));
}

#[test]
fn a_nan_in_half_precision_names_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("IF-I");
    copy(&fixture("stage-1"), &path);
    change_weights(&path.join("unet/diffusion_pytorch_model.fp16.safetensors"), |name, x| match name {
        "mid_block.attentions.0.to_q.bias" => x.full_like(f64::NAN),
        _ => x.shallow_clone(),
    });
    let pipeline = builder(&path).open().unwrap();
    let error = pipeline.generate(&Request::new(PROMPT).steps("base", 1)).unwrap_err().to_string();
    for part in
        ["stage `base`", "mid_block.attentions.0.to_q.bias", "IF-I/unet/diffusion_pytorch_model.fp16", "f32 or bf16"]
    {
        assert!(error.contains(part), "{part} in {error}");
    }
    // T5 says it of itself.
    copy(&fixture("stage-1"), &path);
    change_weights(&path.join("text_encoder/model.fp16.safetensors"), |name, x| match name {
        "encoder.final_layer_norm.weight" => x.full_like(f64::NAN),
        _ => x.shallow_clone(),
    });
    let error = builder(&path).open().unwrap().encode(&Request::new(PROMPT)).unwrap_err().to_string();
    assert!(error.contains("T5") && error.contains("bf16 or f32"), "{error}");
}

/// All folders of a family have the same T5: one that can be read is enough, wherever it is.
#[test]
fn the_encoder_may_be_in_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["IF-I", "IF-II"].map(|name| folder.path().join(name));
    copy(&fixture("stage-1"), &first);
    copy(&fixture("stage-2"), &second);
    let encoder = |path: &Path| path.join("text_encoder/model.fp16.safetensors");
    for part in ["text_encoder", "tokenizer"] {
        copy(&first.join(part), &second.join(part));
    }
    let encodes = || builder(&first).stage(&second).open().and_then(|pipeline| pipeline.encode(&Request::new(PROMPT)));
    assert!(encodes().is_ok());
    // A half download in a folder whose encoder is not needed does no harm.
    fs::remove_file(encoder(&second)).unwrap();
    assert!(encodes().is_ok());
    fs::remove_file(encoder(&first)).unwrap();
    let message = encodes().unwrap_err().to_string();
    assert!(message.contains("IF-I/text_encoder") && message.contains("licence"), "{message}");
    copy(&fixture("stage-1/text_encoder"), &second.join("text_encoder"));
    assert!(encodes().is_ok());
    fs::remove_dir_all(first.join("text_encoder")).unwrap();
    assert!(encodes().is_ok());
}

/// The table that the noise in the smaller picture comes from is the one the network was told of.
#[test]
fn another_table_for_the_smaller_picture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("IF-II");
    copy(&fixture("stage-2"), &path);
    replace(&path.join("image_noising_scheduler/scheduler_config.json"), "squaredcos_cap_v2", "linear");
    let error = base().stage(&path).open().unwrap_err().to_string();
    assert!(error.contains("image_noising_scheduler/scheduler_config.json, beta_schedule"), "{error}");
}

/// Stage II alone has no text encoder; embeddings of stage I are what it needs.
#[test]
fn a_folder_without_an_encoder_samples_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("IF-I");
    copy(&fixture("stage-1"), &path);
    fs::remove_dir_all(path.join("text_encoder")).unwrap();
    let pipeline = builder(&path).open().unwrap();
    let request = Request::new(PROMPT).steps("base", 2).seed(4);
    let Error::InvalidRequest { problems } = pipeline.generate(&request).unwrap_err() else { panic!() };
    assert!(matches!(problems[0], Problem::NoTextEncoder { .. }));
    let whole = base().open().unwrap();
    let embeddings = whole.encode(&request).unwrap();
    let drawn = pipeline.sample(&embeddings, &request).unwrap();
    assert_eq!(bytes(&drawn), bytes(&whole.generate(&request).unwrap()));
}

/// What Python writes for numbers that JSON has not, in keys that change nothing.
#[test]
fn a_key_without_effect_may_have_any_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    copy(&fixture("stage-1"), path);
    let add = |file: &Path, keys: &str| {
        let text = fs::read_to_string(file).unwrap();
        fs::write(file, text.replacen('{', &format!("{{ {keys},"), 1)).unwrap();
    };
    let scheduler = path.join("scheduler/scheduler_config.json");
    add(&scheduler, "\"lambda_min_clipped\": -5.1, \"_name_or_path\": -Infinity, \"solver_order\": null");
    add(&path.join("unet/config.json"), "\"dropout\": NaN, \"addition_time_embed_dim\": null");
    add(&path.join("model_index.json"), "\"_name_or_path\": [Infinity, NaN]");
    builder(path).open().unwrap();
}

/// A picture tells which text encoder its prompt was read by.
#[test]
fn the_provenance_of_a_published_model_has_its_text_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("IF-I");
    copy(&fixture("stage-1"), &path);
    let request = Request::new(PROMPT);
    let made = || builder(&path).open().unwrap().provenance(&request).unwrap();
    let published = made();
    assert_eq!(made().differences(&base().open().unwrap().provenance(&request).unwrap()), Vec::<String>::new());
    change_weights(&path.join("text_encoder/model.fp16.safetensors"), |_, x| x * 1.5);
    let found = published.differences(&made());
    assert!(found.len() == 1 && found[0].starts_with("encoders: "), "{found:?}");
    // Stage II alone is given its embeddings.
    fs::remove_dir_all(path.join("text_encoder")).unwrap();
    assert_ne!(made().encoders, published.encoders);
}
