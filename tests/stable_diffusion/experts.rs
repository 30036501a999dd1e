//! Experts as people say them, and what each does otherwise.

use ediffi::{Error, ExpertInterval, Guidance, NoiseTable, Pipeline, Problem, Request, SigmaInterval, Solver, Tensor};

use super::folders::Folder;
use super::{PROMPT, difference, draw, off, recorded};

/// Ten steps of the base's own sampler are the timesteps 901, 801, ..., 1.
fn plain() -> Request {
    Request::new(PROMPT).size(24, 16).steps("base", 10).negative_prompt("blur")
}

fn picture(pipeline: &Pipeline, request: &Request) -> Tensor {
    pipeline.generate(&request.clone().seed(3)).unwrap().images[0].tensor().unwrap()
}

fn owners(pipeline: &Pipeline, request: &Request) -> Vec<usize> {
    pipeline.plan(request).unwrap()[0].plan.steps().iter().map(|step| step.expert).collect()
}

/// `denoising_end` 0.6 of diffusers' base and `denoising_start` 0.6 of its refiner, in every unit.
#[test]
fn one_border_is_said_in_any_unit() {
    let (base, refiner, io) = (Folder::base(), Folder::refiner(), recorded());
    let sigma = NoiseTable::ScaledLinear.sigmas()[400];
    let request = Request::new(PROMPT).size(24, 16).steps("base", 10);
    for interval in [
        ExpertInterval::fraction(0.6..),
        ExpertInterval::timesteps(..400),
        SigmaInterval::new(0.0, sigma).unwrap().into(),
        ExpertInterval::snr(sigma.powi(-2)..),
        ExpertInterval::log_snr(-2.0 * sigma.ln()..),
        ExpertInterval::steps(6..),
        ExpertInterval::steps(-4..),
    ] {
        let pipeline = base.builder().expert(interval, refiner.path()).open().unwrap();
        assert_eq!(owners(&pipeline, &request), [0, 0, 0, 0, 0, 0, 1, 1, 1, 1], "{interval}");
        let embeddings = pipeline.encode(&request).unwrap();
        let found = off(&draw(&pipeline, &embeddings, &request, &io, "xl.pair-plain"), &io["xl.pair-plain"]);
        assert!(found < 0.25, "{interval}: {found}");
    }
}

#[test]
fn settings_that_say_the_same_change_no_bit() {
    let (base, refiner) = (Folder::base(), Folder::refiner());
    let pipeline = base.builder().expert(ExpertInterval::fraction(0.6..), refiner.path()).open().unwrap();
    for solver in [Solver::Euler, Solver::DpmPp2M, Solver::Plms] {
        let request = plain().solver("base", solver);
        let expected = picture(&pipeline, &request);
        let own = |request: Request, expert| {
            let request = request.expert_guidance("base", expert, 5.0).expert_solver("base", expert, solver);
            request.expert_negative_prompt("base", expert, "blur")
        };
        assert_eq!(difference(&picture(&pipeline, &own(own(request.clone(), 0), 1)), &expected), 0.0, "{solver}");
        if solver != Solver::Plms {
            let counted = request.expert_steps("base", 0, 6).expert_steps("base", 1, 4);
            assert_eq!(difference(&picture(&pipeline, &counted), &expected), 0.0, "{solver}");
        }
    }
}

#[test]
fn base_and_refiner_are_guided_each_in_its_way() {
    let (base, refiner) = (Folder::base(), Folder::refiner());
    let pipeline = base.builder().expert(ExpertInterval::timesteps(..400), refiner.path()).open().unwrap();
    let high = SigmaInterval::new(NoiseTable::ScaledLinear.sigmas()[400], f64::INFINITY).unwrap();
    let limited = plain().guidance_rule("base", Guidance { interval: Some(high), ..Guidance::new(5.0) });
    let off = plain().expert_guidance("base", 1, 1.0);
    assert_eq!(difference(&picture(&pipeline, &off), &picture(&pipeline, &limited)), 0.0);
    // The text of one expert, and that of the other, from both sides.
    let one = plain().expert_negative_prompt("base", 1, "rain");
    let other = plain().negative_prompt("rain").expert_negative_prompt("base", 0, "blur");
    let found = picture(&pipeline, &one);
    assert_eq!(difference(&found, &picture(&pipeline, &other)), 0.0);
    assert!(difference(&found, &picture(&pipeline, &plain())) > 1e-3);
    let text = pipeline.plan(&one.expert_guidance("base", 1, 2.0)).unwrap()[0].to_string();
    assert!(text.contains("expert 1: steps 7-10 of 10, "), "{text}");
    assert!(text.contains(", guidance 2, a negative prompt of its own\n"), "{text}");
    let json = serde_json::to_string(&plain().expert_steps("base", 1, 3).expert_negative_prompt("base", 1, "rain"));
    let again: Request = serde_json::from_str(&json.unwrap()).unwrap();
    assert_eq!(owners(&pipeline, &again), [0, 0, 0, 0, 0, 0, 1, 1, 1]);
}

/// A saved picture is drawn again, with all that its experts do otherwise.
#[test]
fn a_saved_picture_has_what_its_experts_did() {
    let (base, refiner) = (Folder::base(), Folder::refiner());
    let open = |interval| base.builder().expert(interval, refiner.path()).open().unwrap();
    let pipeline = open(ExpertInterval::steps(-4..));
    let request =
        plain().expert_guidance("base", 1, 2.0).expert_steps("base", 1, 2).expert_solver("base", 0, Solver::DpmPp2M);
    let request = request.expert_negative_prompt("base", 0, "rain");
    let png = pipeline.generate(&request).unwrap().images[0].to_png().unwrap();
    let again = Request::from_png_bytes(&png).unwrap();
    assert_eq!(again, request);
    let made = ediffi::Provenance::from_png_bytes(&png).unwrap();
    assert_eq!(made.differences(&pipeline.provenance(&again).unwrap()), Vec::<String>::new());
    let other = made.differences(&pipeline.provenance(&plain()).unwrap());
    assert!(other.len() == 1 && other[0].starts_with("settings of stage `base`"), "{other:?}");
    let other = made.differences(&open(ExpertInterval::steps(-3..)).provenance(&again).unwrap());
    assert!(other.len() == 1 && other[0].starts_with("model, stage `base`"), "{other:?}");
}

#[test]
fn what_is_wrong_with_an_expert_is_named() {
    let (base, refiner) = (Folder::base(), Folder::refiner());
    let refused = |pairs: &[(&str, &Folder)]| {
        let builder = pairs.iter().fold(base.builder(), |builder, (interval, folder)| {
            builder.expert(interval.parse::<ExpertInterval>().unwrap(), folder.path())
        });
        match builder.open().unwrap_err() {
            Error::Compose(reason) => reason,
            other => panic!("{other}"),
        }
    };
    let name = refiner.path().display().to_string();
    let shared = refused(&[("timesteps:..200", &refiner), ("fraction:0.7..", &refiner)]);
    assert!(
        shared.contains(&format!("{name} and {name} overlap: both are the expert of the noise levels [0.0000, ")),
        "{shared}"
    );
    let beyond = refused(&[("steps:40..60", &refiner)]);
    assert!(beyond.contains(&name) && beyond.contains("some of the 50 steps"), "{beyond}");
    let pipeline = base.builder().expert(ExpertInterval::steps(6..10), refiner.path());
    // Its own number of steps is 50, of which these are some in the middle.
    let pipeline = pipeline.open().unwrap();
    let problems = |request: Request| match pipeline.validate(&request) {
        Err(Error::InvalidRequest { problems }) => problems,
        other => panic!("{other:?}"),
    };
    let setting = |request: Request| match problems(request).as_slice() {
        [Problem::Setting { setting: "experts", reason, .. }] => reason.clone(),
        other => panic!("{other:?}"),
    };
    assert!(setting(plain()).contains("2 experts take it, and the others leave 1"));
    let plain = || plain().steps("base", 12);
    pipeline.validate(&plain()).unwrap();
    assert!(setting(plain().expert_steps("base", 3, 2)).contains("there is no expert 3"));
    assert!(setting(plain().expert_guidance("base", 1, f64::NAN)).contains("expert 1: scale NaN"));
    let found = problems(plain().expert_negative_prompt("base", 7, "rain"));
    assert!(matches!(&found[..], [Problem::StagePrompt { .. }]), "{found:?}");
    let found = problems(plain().expert_steps("base", 1, 900).expert_steps("base", 0, 900));
    assert!(matches!(&found[..], [Problem::Limit { value: 1800, name: "steps", .. }]), "{found:?}");
}

/// diffusers' key for pairs of experts: the second network runs `t < boundary_ratio * 1000`.
#[test]
fn a_folder_may_hold_a_pair_of_experts() {
    let (folder, other, plain) = (Folder::first(), Folder::first(), Folder::first());
    let weights = "unet/diffusion_pytorch_model.safetensors";
    other.change(weights, |name, x| if name == "conv_out.weight" { x * 0.5 } else { x });
    folder.add_part("unet_2", &other, "unet");
    folder.replace(
        "model_index.json",
        "{",
        r#"{ "boundary_ratio": 0.4, "unet_2": ["diffusers", "UNet2DConditionModel"],"#,
    );
    let request = Request::new(PROMPT).steps("base", 10);
    let pair = plain.builder().expert(ExpertInterval::timesteps(..400), other.path()).open().unwrap();
    let pipeline = folder.open();
    assert_eq!(owners(&pipeline, &request), owners(&pair, &request));
    assert_eq!(difference(&picture(&pipeline, &request), &picture(&pair, &request)), 0.0);
    assert!(difference(&picture(&pipeline, &request), &picture(&plain.open(), &request)) > 1e-3);
    let names: Vec<_> =
        pipeline.manifest().stages[0].experts.iter().map(|own| own.weights.display().to_string()).collect();
    assert!(names[0].contains("/unet/") && names[1].contains("/unet_2/"), "{names:?}");
    let composed = folder.builder().expert(ExpertInterval::timesteps(..100), other.path()).open().unwrap_err();
    assert!(matches!(&composed, Error::Compose(reason) if reason.contains("two networks of its own")), "{composed}");
    let composed = plain.builder().expert(ExpertInterval::timesteps(..100), folder.path()).open().unwrap_err();
    assert!(matches!(&composed, Error::Compose(reason) if reason.contains("boundary_ratio")), "{composed}");
    std::fs::remove_dir_all(folder.path().join("unet_2")).unwrap();
    assert!(folder.refused().contains("unet_2/config.json"), "{}", folder.refused());
}
