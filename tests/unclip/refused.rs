//! What is wrong with a folder.

use std::fs;

use ediffi::{Error, Lora, SigmaInterval};

use super::folders::{Folder, fixture};

/// What opening a folder says after `spoil`, which has to hold all of `parts`.
fn says(folder: Folder, spoil: impl FnOnce(&Folder), parts: &[&str]) {
    spoil(&folder);
    let message = folder.refused();
    for part in parts {
        assert!(message.contains(part), "{part} in {message}");
    }
}

const INDEX: &str = "model_index.json";

#[test]
fn a_part_that_is_missing_is_named() {
    let parts = ["decoder", "text_proj", "super_res_first", "super_res_last", "prior"];
    for part in parts {
        let (config, weights) = (format!("{part}/config.json"), format!("{part}/diffusion_pytorch_model.safetensors"));
        let remove = |file: &str| {
            let path = file.to_owned();
            move |folder: &Folder| fs::remove_file(folder.path().join(path)).unwrap()
        };
        says(Folder::text(), remove(&config), &[&config, "as downloaded"]);
        says(Folder::text(), remove(&weights), &["diffusion_pytorch_model.safetensors", "Download", part]);
        let scheduler = format!("{part}_scheduler/scheduler_config.json").replace("super_res_first", "super_res");
        if part != "text_proj" && part != "super_res_last" {
            says(Folder::text(), remove(&scheduler), &[&scheduler]);
        }
    }
    let gone = |part: &'static str| move |folder: &Folder| fs::remove_dir_all(folder.path().join(part)).unwrap();
    says(Folder::text(), gone("text_encoder"), &["text_encoder/config.json"]);
    says(Folder::text(), gone("tokenizer"), &["tokenizer"]);
    says(Folder::variations(), gone("image_encoder"), &["image_encoder/config.json", "what CLIP sees"]);
    says(Folder::variations(), gone("feature_extractor"), &["feature_extractor/preprocessor_config.json"]);
    says(
        Folder::text(),
        |folder| {
            let part = folder.path().join("prior");
            fs::rename(part.join("diffusion_pytorch_model.safetensors"), part.join("diffusion_pytorch_model.bin"))
                .unwrap();
        },
        &["holds diffusion_pytorch_model.bin", "weights_only=True"],
    );
}

#[test]
fn a_part_of_another_class_is_named() {
    for (own, other) in [
        ("PriorTransformer", "WuerstchenPrior"),
        ("UNet2DConditionModel", "UNet2DModel"),
        ("UnCLIPTextProjModel", "IPAdapterFullImageProjection"),
        ("UnCLIPScheduler", "DDPMScheduler"),
        ("CLIPTextModelWithProjection", "CLIPTextModel"),
    ] {
        let quoted = format!("\"{other}\"");
        let parts = ["model_index.json", quoted.as_str(), "is not supported, only"];
        says(Folder::text(), |folder| folder.replace(INDEX, own, other), &parts);
    }
    says(
        Folder::variations(),
        |folder| folder.replace(INDEX, "CLIPVisionModelWithProjection", "SiglipVisionModel"),
        &["model_index.json, image_encoder", "SiglipVisionModel"],
    );
    let more = "\"adapter\": [\"diffusers\", \"T2IAdapter\"], \"_class_name\"";
    says(Folder::text(), |folder| folder.replace(INDEX, "\"_class_name\"", more), &["adapter", "not know it"]);
    says(
        Folder::text(),
        |folder| folder.replace(INDEX, "UnCLIPPipeline", "StableUnCLIPPipeline"),
        &["Stable unCLIP", "Karlo (UnCLIPPipeline"],
    );
    // One kind in the place of the other.
    says(
        Folder::text(),
        |folder| folder.replace(INDEX, "UnCLIPPipeline", "UnCLIPImageVariationPipeline"),
        &["image_encoder/config.json"],
    );
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let replace = |file: &'static str, from: &'static str, to: &'static str| {
        move |folder: &Folder| folder.replace(file, from, to)
    };
    let scheduler = "decoder_scheduler/scheduler_config.json";
    for (spoil, parts) in [
        ((scheduler, "learned_range", "fixed_small_log"), ["variance_type", "predicts a variance"]),
        ((scheduler, "epsilon", "v_prediction"), ["prediction_type", "`v_prediction` is not supported"]),
        (("decoder/config.json", "\"in_channels\": 3", "\"in_channels\": 4"), ["in_channels", "a decoder sees 3"]),
        (
            ("decoder/config.json", "\"sample_size\": 8", "\"sample_size\": null"),
            ["decoder/config.json", "sample_size"],
        ),
        (
            ("super_res_first/config.json", "\"sample_size\": 16", "\"sample_size\": null"),
            ["super_res_first", "sample_size"],
        ),
        (
            ("super_res_last/config.json", "\"add_attention\": false", "\"add_attention\": true"),
            ["add_attention", "only false"],
        ),
        (
            ("text_proj/config.json", "\"cross_attention_dim\": 6", "\"cross_attention_dim\": 12"),
            ["cross_attention_dim", "text_proj gives a width of 12"],
        ),
        (
            ("text_proj/config.json", "\"clip_embeddings_dim\": 8", "\"clip_embeddings_dim\": 10"),
            ["has a width of 8", "takes 10"],
        ),
        (("prior/config.json", "\"embedding_dim\": 8", "\"embedding_dim\": 12"), ["embeddings of 12", "8 are needed"]),
        (("prior/config.json", "\"num_embeddings\": 77", "\"num_embeddings\": 64"), ["texts of 64", "77 are needed"]),
        (("prior/config.json", "\"added_emb_type\": \"prd\"", "\"added_emb_type\": null"), ["added_emb_type", "null"]),
    ] {
        says(Folder::text(), replace(spoil.0, spoil.1, spoil.2), &parts);
    }
    let without = |part: &'static str, name: &'static str| {
        move |folder: &Folder| folder.change(part, |found, x| Some(x).filter(|_| found != name))
    };
    says(Folder::text(), without("text_encoder", "text_projection.weight"), &["no text_projection"]);
    says(Folder::variations(), without("image_encoder", "visual_projection.weight"), &["no visual_projection"]);
}

#[test]
fn other_folders_do_not_follow_or_join() {
    let folder = Folder::text();
    let compose = |builder: ediffi::PipelineBuilder| match builder.open() {
        Err(Error::Compose(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let stage = fixture("../deepfloyd/stage-2");
    assert!(compose(folder.builder().stage(&stage)).contains("cannot follow a folder of Karlo"));
    let above = SigmaInterval::new(1.0, f64::INFINITY).unwrap();
    let error = folder.builder().expert(above, fixture("../deepfloyd/stage-1")).open().unwrap_err().to_string();
    assert!(error.contains("holds a `IFPipeline`, where one of unCLIP"), "{error}");
    assert!(folder.builder().lora(Lora::new("ink.safetensors")).open().is_err());
    let level = folder.builder().noise_level(100).open().unwrap_err();
    assert!(matches!(level, Error::IdleOption { option: "noise_level", .. }), "{level}");
}
