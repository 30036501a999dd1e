//! A picture of the tiny model drawn by its stages alone: what a request has to come to.

use ediffi::{Conditioning, Pipeline, Request, SamplerSettings, Tiling};
use ediffi_cascade::{Stage, StageJob};
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
    pub(crate) size: (i64, i64),
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
        let mut picture: Option<Tensor> = None;
        for (index, settings) in self.settings.iter().enumerate() {
            let config = &manifest().stages[index];
            let mut stage = Stage::open(model.path(), config, cpu, Residency::All).unwrap();
            let scale = 2 - index as i64;
            let (conditioning, seeds) = (stage.select(&self.conditioning), [self.seed]);
            let job = StageJob {
                unconditional: &stage.select(&self.unconditional),
                stage_index: index as u64,
                height: self.size.1 / scale,
                width: self.size.0 / scale,
                low_res: picture.as_ref(),
                paint: self.paint.filter(|_| index == 0),
                tiling: self.tiling[index],
                ..StageJob::new(&stage, &conditioning, &seeds, settings)
            };
            picture = Some(stage.sample(&job, &mut ()).unwrap());
        }
        picture.unwrap().get(0)
    }
}

/// The embeddings of prompt and style of a request.
pub(crate) fn encoded(pipeline: &Pipeline, request: &Request) -> Conditioning {
    pipeline.encode(request).unwrap().conditioning()
}
