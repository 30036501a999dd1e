//! What is wrong with a folder, and the settings of samplers.

use std::fs;

use ediffi::{Error, Pipeline, Problem, Request, SigmaInterval, Thresholding};

use super::PROMPT;
use super::folders::{Folder, fixture};

/// What opening a folder says after `spoil`, which has to hold all of `parts`.
fn says(spoil: impl FnOnce(&Folder), parts: &[&str]) {
    let folder = Folder::first();
    spoil(&folder);
    let message = folder.refused();
    for part in parts {
        assert!(message.contains(part), "{part} in {message}");
    }
}

const INDEX: &str = "model_index.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const NETWORK: &str = "unet/diffusion_pytorch_model.safetensors";

#[test]
fn what_is_wrong_with_a_folder_is_said_with_what_to_do() {
    let remove = |folder: &Folder, file: &str| fs::remove_file(folder.path().join(file)).unwrap();
    let rename =
        |folder: &Folder, from: &str, to: &str| fs::rename(folder.path().join(from), folder.path().join(to)).unwrap();
    says(|folder| fs::remove_dir_all(folder.path().join("vae")).unwrap(), &["vae/config.json", "as downloaded"]);
    says(
        |folder| remove(folder, "vae/diffusion_pytorch_model.safetensors"),
        &["diffusion_pytorch_model.safetensors", "Download", "`vae`"],
    );
    says(
        |folder| rename(folder, NETWORK, "unet/diffusion_pytorch_model.bin"),
        &["holds diffusion_pytorch_model.bin", "weights_only=True"],
    );
    says(
        |folder| rename(folder, "text_encoder/model.safetensors", "text_encoder/pytorch_model.bin"),
        &["text_encoder holds pytorch_model.bin", "model.safetensors"],
    );
    says(|folder| remove(folder, "text_encoder/config.json"), &["text_encoder/config.json"]);
    says(|folder| remove(folder, "tokenizer/tokenizer.json"), &["tokenizer.json", "vocab.json"]);
    says(|folder| remove(folder, "unet/config.json"), &["unet/config.json"]);
    says(|folder| remove(folder, SCHEDULER), &[SCHEDULER]);
    for (class, what) in [
        ("StableDiffusion3Pipeline", "Stable Diffusion 3, a transformer"),
        ("FluxPipeline", "FLUX, a transformer"),
        ("StableDiffusionInpaintPipeline", "inpainting, whose network sees a mask"),
        ("LatentConsistencyModelPipeline", "a latent consistency model"),
        ("WanPipeline", "holds a `WanPipeline`, which cannot be drawn here"),
    ] {
        let parts = [what, "StableDiffusionPipeline", "IFPipeline"];
        says(|folder| folder.replace(INDEX, "StableDiffusionPipeline", class), &parts);
    }
    says(
        |folder| folder.replace(INDEX, "AutoencoderKL", "AutoencoderTiny"),
        &["model_index.json, vae", "\"AutoencoderTiny\" is not supported, only AutoencoderKL"],
    );
    let adapter = "\"adapter\": [\"diffusers\", \"T2IAdapter\"], \"_class_name\"";
    says(|folder| folder.replace(INDEX, "\"_class_name\"", adapter), &["model_index.json, adapter", "not know it"]);
    says(
        |folder| folder.replace("unet/config.json", "\"in_channels\": 4", "\"in_channels\": 9"),
        &["in_channels", "one for inpainting has 9"],
    );
    says(
        |folder| folder.replace("vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 16"),
        &["it draws 4 channels, the autoencoder decodes 16"],
    );
    says(
        |folder| folder.replace("text_encoder/config.json", "\"hidden_size\": 6", "\"hidden_size\": 8"),
        &["a width of 8, its network takes 6"],
    );
}

#[test]
fn settings_of_samplers_are_followed_or_refused_by_name() {
    let sampler = |name: &str, from: &str, to: &str, parts: &[&str]| {
        let folder = Folder::first().sampler(name);
        folder.replace(SCHEDULER, from, to);
        let message = folder.refused();
        for part in parts.iter().chain(&["scheduler_config.json"]) {
            assert!(message.contains(part), "{part} in {message}");
        }
    };
    for class in ["LMSDiscreteScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler", "LCMScheduler"] {
        sampler("euler", "EulerDiscreteScheduler", class, &["_class_name", class, "DPMSolverMultistepScheduler"]);
    }
    sampler("pndm", "\"skip_prk_steps\": true", "\"skip_prk_steps\": false", &["skip_prk_steps", "only true"]);
    sampler("pndm", "  \"skip_prk_steps\": true,\n", "", &["skip_prk_steps", "leaves it out"]);
    sampler("pndm", "\"epsilon\"", "\"v_prediction\"", &["prediction_type", "PNDMScheduler, only epsilon"]);
    sampler("ddim", "\"leading\"", "\"linspace\"", &["timestep_spacing", "`linspace` is not supported"]);
    sampler(
        "ddim",
        "\"rescale_betas_zero_snr\": false",
        "\"rescale_betas_zero_snr\": true",
        &["rescale_betas_zero_snr"],
    );
    sampler("ddim", "0.012", "0.02", &["beta_schedule", "from 0.00085 to 0.02"]);
    sampler("ddim", "1000", "50", &["num_train_timesteps", "only 1000"]);
    sampler("euler", "\"final_sigmas_type\": \"zero\"", "\"final_sigmas_type\": \"sigma_min\"", &["final_sigmas_type"]);
    sampler(
        "euler",
        "\"use_beta_sigmas\": false",
        "\"use_beta_sigmas\": true",
        &["use_beta_sigmas", "true", "only false"],
    );
    sampler("dpm-solver", "\"solver_order\": 2", "\"solver_order\": 3", &["solver_order", "only 2"]);
    sampler("dpm-solver", "dpmsolver++", "sde-dpmsolver++", &["algorithm_type", "sde-dpmsolver++"]);
    let clipped = "\"lambda_min_clipped\": -Infinity";
    sampler("dpm-solver", clipped, "\"lambda_min_clipped\": -2", &["lambda_min_clipped", "-2 would", "up to -2.682"]);
    sampler("dpm-solver", clipped, "\"lambda_min_clipped\": \"low\"", &["lambda_min_clipped", "no number"]);
    // What DPM-Solver's authors say of the table of cosines, whose highest noise levels are above e^9: nothing on the others.
    let folder = Folder::first().sampler("dpm-solver");
    folder.replace(SCHEDULER, clipped, "\"lambda_min_clipped\": -5.1");
    folder.open();
    folder.replace(SCHEDULER, "scaled_linear", "squaredcos_cap_v2");
    assert!(folder.refused().contains("-5.1 would"), "{}", folder.refused());
    folder.replace(SCHEDULER, "-5.1", "-10");
    folder.open();
    sampler("ddpm", "fixed_small", "learned_range", &["variance_type"]);
    sampler("euler", "{", "{ \"colour\": 1,", &["colour", "does not know it"]);
    sampler("euler", "\"steps_offset\": 1", "\"steps_offset\": \"one\"", &["steps_offset", "no whole number"]);
    // What only another class reads, and numbers of Python that JSON has not.
    let folder = Folder::first().sampler("euler");
    folder.replace(
        SCHEDULER,
        "{",
        "{ \"skip_prk_steps\": true, \"clip_sample\": true, \"lambda_min_clipped\": -Infinity,",
    );
    folder.open();
}

#[test]
fn requests_that_make_no_latents_are_refused() {
    let folder = Folder::first();
    let pipeline = folder.open();
    let problems = |request: Request| match pipeline.validate(&request) {
        Err(Error::InvalidRequest { problems }) => problems,
        other => panic!("{other:?}"),
    };
    // Two pixels for a latent, and two latents for the network.
    let found = problems(Request::new(PROMPT).size(22, 16));
    assert!(matches!(found[..], [Problem::Size { value: 22, unit: 4, .. }]), "{found:?}");
    let guidance = ediffi::Guidance { thresholding: Thresholding::Static, ..ediffi::Guidance::new(5.0) };
    let found = problems(Request::new(PROMPT).guidance_rule("base", guidance));
    assert!(
        matches!(&found[..], [Problem::Setting { setting: "guidance", reason, .. }] if reason.contains("latents")),
        "{found:?}"
    );
}

#[test]
fn other_folders_do_not_follow_or_join() {
    let (folder, other) = (Folder::first(), Folder::second());
    let compose = |builder: ediffi::PipelineBuilder| match builder.open() {
        Err(Error::Compose(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let stage = fixture("../deepfloyd/stage-2");
    assert!(compose(folder.builder().stage(&stage)).contains("cannot follow"));
    let above = SigmaInterval::new(1.0, f64::INFINITY).unwrap();
    other.replace("vae/config.json", "0.18215", "0.5");
    assert!(compose(folder.builder().expert(above, other.path())).contains("another scale"));
    // What experts share has to mean the same.
    for (file, from, to, part) in [
        ("tokenizer/tokenizer_config.json", "\"pad_token\": \"<|endoftext|>\"", "\"pad_token\": \"!\"", "padding"),
        ("text_encoder/config.json", "quick_gelu", "gelu", "text encoder"),
    ] {
        let other = Folder::first();
        folder.builder().expert(above, other.path()).open().unwrap();
        other.replace(file, from, to);
        let reason = compose(folder.builder().expert(above, other.path()));
        let [own, other] = [folder.path(), other.path()].map(|path| path.display().to_string());
        assert!(reason.contains(part) && reason.contains(&own) && reason.contains(&other), "{reason}");
    }
    let deepfloyd = fixture("../deepfloyd/stage-1");
    let error = folder.builder().expert(above, &deepfloyd).open().unwrap_err().to_string();
    assert!(error.contains("holds a `IFPipeline`, where one of Stable Diffusion"), "{error}");
    let error = Pipeline::builder(&deepfloyd).expert(above, folder.path()).open().unwrap_err().to_string();
    assert!(error.contains("where one of DeepFloyd IF is expected"), "{error}");
}
