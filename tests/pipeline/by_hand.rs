//! A picture of the tiny model drawn by its cascade alone: what a request has to come to.

use std::ops::ControlFlow;

use ediffi::{Conditioning, Pipeline, Request, SamplerSettings, SettingsPatch, Tiling};
use ediffi_cascade::{Cascade, CascadeJob, Stage, StageEvent};
use ediffi_core::nn::ScoreBias;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;
use tch::{Device, Kind, Tensor};

use crate::model::{Model, apple, manifest};

/// What both stages are told.
pub(crate) struct ByHand<'a> {
    pub(crate) conditioning: Conditioning,
    pub(crate) unconditional: Conditioning,
    pub(crate) seed: u64,
    /// Width and height of the pictures that come out.
    pub(crate) size: (u32, u32),
    pub(crate) settings: [SamplerSettings; 2],
    pub(crate) tiling: [Option<Tiling>; 2],
    pub(crate) paint: Option<&'a dyn ScoreBias>,
}

impl ByHand<'_> {
    /// What [`apple`] comes to.
    pub(crate) fn apple(pipeline: &Pipeline) -> Self {
        Self {
            conditioning: encoded(pipeline, &apple()),
            unconditional: Conditioning::default(),
            seed: 7,
            size: (16, 16),
            settings: [0, 1].map(|stage| manifest().stages[stage].settings.clone()),
            tiling: [None, None],
            paint: None,
        }
    }

    /// [3, height, width]
    pub(crate) fn draw(self, model: &Model) -> Tensor {
        let cpu = Runtime { device: Device::Cpu, kind: Kind::Float };
        let manifest = manifest();
        let open = |config| Stage::open(model.path(), config, cpu, Residency::All).unwrap();
        let mut cascade = Cascade::new(manifest.stages.iter().map(open).collect()).unwrap();
        let [base, above] = [0, 1].map(|stage| {
            let mut patch = SettingsPatch::from(self.settings[stage].clone());
            patch.tiling = self.tiling[stage];
            patch
        });
        let patch = |stage: &str| Some(if stage == "base" { &base } else { &above });
        let plans = cascade.plan(0..=1, (Some(self.size.0), Some(self.size.1)), patch).unwrap();
        let seeds = [self.seed];
        let job = CascadeJob {
            unconditional: &self.unconditional,
            paint: self.paint,
            ..CascadeJob::new(&plans, &self.conditioning, &seeds)
        };
        let mut drawn = None;
        let mut keep = |event: &StageEvent<'_>| {
            if let StageEvent::Pictures { pictures, .. } = event {
                drawn = Some(pictures.get(0));
            }
            ControlFlow::Continue(())
        };
        cascade.run(job, &mut keep).unwrap();
        drawn.unwrap()
    }
}

/// The embeddings of prompt and style of a request.
pub(crate) fn encoded(pipeline: &Pipeline, request: &Request) -> Conditioning {
    pipeline.encode(request).unwrap().conditioning()
}
