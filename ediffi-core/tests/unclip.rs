//! unCLIP's samplers beside diffusers', and paint-with-words in its decoder.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::{Estimate, estimate_with};
use ediffi_core::guidance::Thresholding;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use ediffi_core::noise::NoiseSource;
use ediffi_core::precondition::{Epsilon, Precondition, SampleOnTable};
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::{Solver, Variance};
use ediffi_core::timesteps::{Ends, NoiseTable, Sampler, Spacing, Timesteps};
use ediffi_core::unet::{Painted, PublishedUnClip, UNet};
use ediffi_core::weights::WeightsFile;
use ediffi_core::window::Window;
use tch::{Device, Kind, Tensor};

const TABLE: NoiseTable = NoiseTable::SquaredCosine;

const SCHEDULE: Timesteps =
    Timesteps { sampler: Sampler::UnClip, spacing: Spacing::Linspace, karras: false, to_first: false };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/unclip").join(name)
}

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

fn recorded() -> BTreeMap<String, Tensor> {
    tensors("samplers.safetensors")
}

struct Recorded(Option<Tensor>);

impl NoiseSource for Recorded {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        let noise = self.0.take().unwrap().narrow(1, 0, shape[1]);
        assert_eq!(noise.size(), shape);
        Ok(noise)
    }
}

/// The greatest difference in units of the greatest value.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max() / b.abs().max()).unwrap()
}

#[test]
fn timesteps_are_those_of_diffusers() {
    let io = recorded();
    for steps in [2, 7, 25, 50] {
        let sigmas = Schedule::Timesteps(SCHEDULE).sigmas_on(steps, TABLE).unwrap();
        let found: Vec<i64> = sigmas.iter().take(steps).map(|&sigma| TABLE.index_of(sigma).unwrap() as i64).collect();
        assert_eq!(found, Vec::<i64>::try_from(&io[&format!("timesteps.{steps}")]).unwrap(), "{steps}");
        assert_eq!((sigmas.len(), sigmas[steps]), (steps + 1, 0.0));
    }
    assert_eq!(Schedule::Timesteps(SCHEDULE).ends(TABLE), Ends { unit_start: true, last: None });
    for (timesteps, steps) in [
        (SCHEDULE, 1),
        (Timesteps { spacing: Spacing::Trailing, ..SCHEDULE }, 7),
        (Timesteps { karras: true, ..SCHEDULE }, 7),
        (Timesteps { to_first: true, ..SCHEDULE }, 7),
    ] {
        assert!(Schedule::Timesteps(timesteps).sigmas_on(steps, TABLE).is_err(), "{timesteps:?}");
    }
    let text = r#"{"timesteps":{"sampler":"unclip","spacing":"linspace","karras":false,"to_first":false}}"#;
    assert_eq!(serde_json::to_string(&Schedule::Timesteps(SCHEDULE)).unwrap(), text);
}

/// The image behind strong noise is a difference of two numbers as large as sigma: so large are its roundings.
#[test]
fn steps_are_those_of_diffusers() {
    let io = recorded();
    let norm = |sigma: f64| 1_f64.hypot(sigma);
    let (epsilon, sample) = (Epsilon::new(TABLE), SampleOnTable::new(TABLE));
    let samplers: [(&str, Variance, Thresholding, &dyn Precondition, f64); 3] = [
        ("prior_scheduler", Variance::FixedSmall, Thresholding::Within { bound: 5.0 }, &sample, 4.0),
        ("decoder_scheduler", Variance::Learned, Thresholding::Static, &epsilon, 1.0),
        ("super_res_scheduler", Variance::FixedSmall, Thresholding::Static, &epsilon, 1.0),
    ];
    for (name, variance, thresholding, precondition, scale) in samplers {
        let answer = &io["answer"] * scale;
        let answer = if variance == Variance::Learned { answer } else { answer.narrow(1, 0, 3) };
        for (t, previous) in [(957, Some(916)), (500, Some(458)), (42, Some(0)), (0, None)] {
            let sigma = TABLE.sigmas()[t];
            let next = previous.map_or(0.0, |t: usize| TABLE.sigmas()[t]);
            let sigmas = if next > 0.0 { vec![sigma, next, 0.0] } else { vec![sigma, 0.0] };
            let mut noise = Recorded(io.get(&format!("{name}.{t}.noise")).map(Tensor::shallow_clone));
            let ends = Ends { unit_start: true, last: None };
            let start = io["sample"].copy();
            let mut trajectory = Solver::Ddpm(variance).start_between(start, &sigmas, ends, &mut noise).unwrap();
            let network = |_: &Tensor, _: f64| Ok(answer.shallow_clone());
            let estimate = estimate_with(precondition, trajectory.x(), sigma, network).unwrap();
            let denoised = thresholding.apply(estimate.denoised).unwrap();
            let off = relative(&denoised, &io[&format!("{name}.{t}.denoised")]) / sigma.max(1.0);
            assert!(off < 1e-6, "{name}, the image at {t}: {off:.1e}");
            trajectory.advance(Estimate { denoised, ..estimate }, &mut noise).unwrap();
            // diffusers' beta of the last step is that of its table, and not the one of its products of alphas.
            let table = if t == 0 { 4.128_422_4e-5_f32 / (1.0 - TABLE.alpha_bars()[0]) } else { 1.0 };
            let found = trajectory.x() / norm(next) * f64::from(table);
            let off = relative(&found, &io[&format!("{name}.{t}.previous")]);
            assert!(off < 1e-6, "{name}, the step from {t}: {off:.1e}");
        }
    }
}

/// Pulls towards one column of the text.
#[derive(Debug)]
struct Pull {
    column: i64,
    weight: Option<f64>,
}

impl ScoreBias for Pull {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        assert_eq!(site.shape()[3], 77, "the words, and neither the tokens of the image nor the pixels");
        let Some(weight) = self.weight else { return Ok(None) };
        let bias = site.scores()?.f_zeros_like()?;
        let _ = bias.f_narrow(3, self.column, 1)?.f_fill_(weight)?;
        Ok(Some(Bias::Dense(bias)))
    }
}

#[test]
fn paint_reaches_the_words_of_conditional_rows() {
    let [config, text_proj] = ["decoder", "text_proj"].map(|part| fixture(&format!("text/{part}/config.json")));
    let network = PublishedUnClip::decoder(&config, &text_proj, 77).unwrap().network;
    let [decoder, text_proj] = ["decoder", "text_proj"].map(|part| {
        let path = fixture(&format!("text/{part}/diffusion_pytorch_model.safetensors"));
        WeightsFile::open(&path, |name| Some(name.to_owned())).unwrap()
    });
    let file = decoder.with_part("text_proj", text_proj);
    let unet = file.build(Device::Cpu, Kind::Float, |scope| UNet::new(scope, &network, Kind::Float)).unwrap();
    let (text, io) = (tensors("prior.safetensors"), tensors("decoder.safetensors"));
    let conditioning = Conditioning {
        clip_text: Some(&text["text"] * text["mask"].unsqueeze(-1).to_kind(Kind::Float)),
        clip_text_pooled: Some(text["pooled"].copy()),
        clip_image: Some(io["image"].copy()),
        ..Conditioning::default()
    };
    let context = unet.context(&conditioning, 2).unwrap();
    let forward = |painted: Option<Painted<'_>>| unet.forward(&io["x"], &io["timestep"], &context, painted).unwrap();
    let plain = forward(None);
    let off = |column, weight| {
        let hook = Pull { column, weight };
        let painted = Painted { hook: &hook, sigma: 1.5, conditional: 1, window: Window::WHOLE };
        let off = (forward(Some(painted)) - &plain).abs().amax([1, 2, 3], false);
        Vec::<f64>::try_from(off.to_kind(Kind::Double)).unwrap()
    };
    assert_eq!(off(1, None), [0.0, 0.0]);
    let found = off(1, Some(4.0));
    assert!(found[0] > 1e-3 && found[1] < 1e-6, "{found:?}");
    // The first text has 5 tokens: behind its end there is nothing to pull towards.
    let found = off(5, Some(4.0));
    assert!(found.iter().all(|off| *off < 1e-6), "{found:?}");
}
