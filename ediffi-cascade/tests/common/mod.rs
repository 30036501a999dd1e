//! Small random models on disk, and observers that count.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part of this module")]

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use ediffi_cascade::{
    Cascade, CascadeJob, Enlarger, Error, SamplerSettings, SettingsPatch, Stage, StageConfig, StageEvent,
    StageObserver, Tiling,
};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::Rows;
use ediffi_core::nn::{Norm, ScoreBias};
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;
use ediffi_core::seed::Noise;
use ediffi_core::unet::{Adm, ClipText, ContextConfig, Dimensions, Level, Tokens, UNet, UNetConfig};
use ediffi_core::weights::{self, Fresh, Scope};
use tch::{Device, Kind, Tensor};

pub const CPU: Runtime = Runtime { device: Device::Cpu, kind: Kind::Float };

/// Two levels, the deeper one with both attentions; sides have to be multiples of 2.
pub fn network(low_res: bool) -> UNetConfig {
    Adm(dimensions(low_res)).into()
}

/// The dimensions of [`network`].
pub fn dimensions(low_res: bool) -> Dimensions {
    let level =
        |multiplier, attention| Level { multiplier, blocks: 1, self_attention: attention, cross_attention: attention };
    Dimensions {
        picture_channels: 3,
        low_res,
        patch: 1,
        channels: 8,
        levels: vec![level(1, false), level(2, true)],
        head_channels: 4,
        norm: Norm::Group(4),
        embedding_width: 16,
        context: Some(ContextConfig {
            width: 8,
            t5: Some(Tokens { tokens: 3, width: 6 }),
            clip_text: Some(ClipText { tokens: 2, width: 5, pooled: Some(4) }),
            clip_image: Some(4),
        }),
        detail: None,
    }
}

/// Weights of a new network with everything jittered: no part of it is a zero or the identity.
pub fn write_weights(path: &Path, network: &UNetConfig, seed: u64) {
    write_weights_with(path, network, seed, |_, _| ());
}

/// As [`write_weights`]; `change` may do something to each tensor first.
pub fn write_weights_with(path: &Path, network: &UNetConfig, seed: u64, change: impl Fn(&str, &mut Tensor)) {
    let mut fresh = Fresh::new(seed, Device::Cpu);
    let _ = UNet::new(Scope::root(&mut fresh), network, Kind::Float).unwrap();
    let mut jitter = Noise::new(&[seed], 99);
    let named: Vec<_> = fresh
        .into_named()
        .into_iter()
        .map(|(name, x)| {
            let noise = jitter.normal(&[1, x.numel() as i64]).unwrap().view_as(&x);
            let mut x = x + noise * 0.1;
            change(&name, &mut x);
            (name, x)
        })
        .collect();
    weights::save(path, &named, HashMap::new()).unwrap();
}

/// Writes a stage of two experts that meet at sigma 1, and gives its configuration.
pub fn write_stage(folder: &Path, name: &str, size: i64, network: &UNetConfig) -> StageConfig {
    let place = folder.join(name);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("config.json"), serde_json::to_string(network).unwrap()).unwrap();
    write_weights(&place.join("high.safetensors"), network, 1);
    write_weights(&place.join("low.safetensors"), network, 2);
    stage_config(name, size)
}

pub fn stage_config(name: &str, size: i64) -> StageConfig {
    serde_json::from_value(serde_json::json!({
        "name": name, "size": size, "network": format!("{name}/config.json"),
        "precondition": { "edm": { "sigma_data": 0.5 } },
        "experts": [
            { "weights": format!("{name}/high.safetensors"), "sigma": [1, null] },
            { "weights": format!("{name}/low.safetensors"), "sigma": [0, 1] },
        ],
        "sampler": { "solver": "dpmpp-2m", "steps": 4, "schedule": { "karras": { "min": 0.002, "max": 80, "rho": 7 } } },
        "guidance": { "scale": 3.0 },
    }))
    .unwrap()
}

/// A stage in a folder that lives as long as the test.
pub struct Model {
    pub folder: tempfile::TempDir,
    pub config: StageConfig,
}

impl Model {
    pub fn new(network: &UNetConfig, size: i64) -> Self {
        // The tests themselves run side by side, and their networks are too small to share out.
        tch::set_num_threads(1);
        let folder = tempfile::tempdir().unwrap();
        let config = write_stage(folder.path(), "base", size, network);
        Self { folder, config }
    }

    /// A cascade of this stage alone.
    pub fn open(&self, residency: Residency) -> Cascade {
        Cascade::new(vec![Stage::open(self.folder.path(), &self.config, CPU, residency).unwrap()]).unwrap()
    }
}

/// Embeddings of the rows with these seeds: a row does not depend on the others.
pub fn embeddings(seeds: &[u64]) -> Conditioning {
    let n = seeds.len() as i64;
    let mut noise = Noise::new(seeds, 7);
    let mut normal = |shape: &[i64]| Some(noise.normal(shape).unwrap());
    Conditioning {
        t5: normal(&[n, 3, 6]),
        clip_text: normal(&[n, 2, 5]),
        clip_text_pooled: normal(&[n, 4]),
        clip_image: normal(&[n, 4]),
        ..Conditioning::default()
    }
}

/// Pictures in [-1, 1].
pub fn pictures(seeds: &[u64], height: i64, width: i64) -> Tensor {
    Noise::new(seeds, 8).normal(&[seeds.len() as i64, 3, height, width]).unwrap().tanh()
}

/// What a test asks a cascade of one stage for; it owns what a job borrows.
pub struct Ask {
    pub conditioning: Conditioning,
    pub unconditional: Conditioning,
    pub seeds: Vec<u64>,
    /// Height and width.
    pub size: (u32, u32),
    pub low_res: Option<Tensor>,
    pub settings: SamplerSettings,
    pub rows: Rows,
    pub paint: Option<Box<dyn ScoreBias>>,
    pub tiling: Option<Tiling>,
}

impl Ask {
    /// As the stage's configuration has it.
    pub fn new(cascade: &Cascade, seeds: &[u64]) -> Self {
        let stage = &cascade.stages()[0];
        Self {
            conditioning: embeddings(seeds),
            unconditional: Conditioning::default(),
            seeds: seeds.to_vec(),
            size: (stage.sizes().size as u32, stage.sizes().size as u32),
            low_res: None,
            settings: stage.config().settings.clone(),
            rows: Rows::default(),
            paint: None,
            tiling: None,
        }
    }

    /// The pictures, in one batch.
    pub fn run(&self, cascade: &mut Cascade, observer: &mut dyn StageObserver) -> Result<Tensor, Error> {
        let mut patch = SettingsPatch::from(self.settings.clone());
        patch.tiling = self.tiling;
        let plans = cascade.plan(0..=0, (Some(self.size.1), Some(self.size.0)), |_| Some(&patch))?;
        let job = CascadeJob {
            unconditional: &self.unconditional,
            rows: self.rows,
            low_res: self.low_res.as_ref(),
            paint: self.paint.as_deref(),
            ..CascadeJob::new(&plans, &self.conditioning, &self.seeds)
        };
        let mut keep = Keep { observer, pictures: None };
        cascade.run(job, &mut keep)?;
        Ok(keep.pictures.unwrap())
    }
}

/// Passes everything on, and keeps the pictures.
struct Keep<'a> {
    observer: &'a mut dyn StageObserver,
    pictures: Option<Tensor>,
}

impl StageObserver for Keep<'_> {
    fn event(&mut self, event: &StageEvent<'_>) -> ControlFlow<()> {
        if let StageEvent::Pictures { pictures, .. } = event {
            self.pictures = Some(pictures.shallow_clone());
        }
        self.observer.event(event)
    }

    fn cancelled(&mut self) -> bool {
        self.observer.cancelled()
    }
}

/// The pictures of a cascade of one stage, as its configuration has them but for what `change` changes.
pub fn sample(cascade: &mut Cascade, seeds: &[u64], change: impl FnOnce(&mut Ask)) -> Tensor {
    let mut ask = Ask::new(cascade, seeds);
    change(&mut ask);
    ask.run(cascade, &mut ()).unwrap()
}

/// A tiny network of Real-ESRGAN that enlarges four times and looks four pixels far.
pub fn enlarger() -> Enlarger {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/enlarger/compact.safetensors");
    Enlarger::open(&file, CPU).unwrap()
}

/// The bits of a tensor.
pub fn bytes(x: &Tensor) -> Vec<u32> {
    Vec::<f32>::try_from(&x.flatten(0, -1)).unwrap().into_iter().map(f32::to_bits).collect()
}

pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max()).unwrap()
}

/// Writes down what happens, counts the questions, keeps the pictures, and stops at question or event number `stop`.
#[derive(Default)]
pub struct Log {
    pub lines: Vec<String>,
    pub polls: usize,
    pub stop_poll: Option<usize>,
    pub stop_event: Option<usize>,
    pub pictures: Vec<Tensor>,
}

impl Log {
    /// The pictures that were handed out.
    pub fn pictures(&self) -> Tensor {
        Tensor::cat(&self.pictures, 0)
    }
}

impl StageObserver for Log {
    fn event(&mut self, event: &StageEvent<'_>) -> ControlFlow<()> {
        self.lines.push(match event {
            StageEvent::StageStarted { plan, index, stages, batches } => {
                let (stage, steps) = (&plan.stage, plan.plan.steps().len());
                format!("{stage} starts: {steps} steps, {batches} batches, {index} of {stages}")
            }
            StageEvent::ExpertSwitched { stage, batch, expert, interval } => {
                format!("{stage}: expert {expert} {interval}, batch {}", batch.index)
            }
            StageEvent::Step { stage, batch, index, steps, sigma, denoised } => {
                assert!(!denoised.requires_grad());
                format!("{stage}: batch {}, step {index} of {steps} at {sigma:.3}", batch.index)
            }
            StageEvent::StageFinished { plan, .. } => format!("{} is done", plan.stage),
            StageEvent::EnlargerStarted { index, stages, batches, tiles, width, height } => {
                format!("enlarger starts: {width}x{height}, {tiles} tiles, {batches} batches, {index} of {stages}")
            }
            StageEvent::TileEnlarged { batch, index, tiles } => {
                format!("enlarger: batch {}, tile {index} of {tiles}", batch.index)
            }
            StageEvent::EnlargerFinished { .. } => "enlarger is done".to_owned(),
            StageEvent::Pictures { batch, pictures } => {
                self.pictures.push(pictures.shallow_clone());
                format!("pictures {} to {}", batch.first, batch.first as i64 + pictures.size()[0] - 1)
            }
            other => format!("{other:?}"),
        });
        if self.stop_event == Some(self.lines.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn cancelled(&mut self) -> bool {
        self.polls += 1;
        self.stop_poll.is_some_and(|stop| self.polls >= stop)
    }
}
