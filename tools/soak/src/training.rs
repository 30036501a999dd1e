//! A small training that is killed, or has no room.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::nn::Norm;
use ediffi_core::precondition::Edm;
use ediffi_core::unet::{Dimensions, Efficient, Level};
use ediffi_core::weights::Params;
use ediffi_train::batch::Batch;
use ediffi_train::fit::{Setup, fit};
use ediffi_train::learner::{Learner, Objective};
use ediffi_train::lineage::Lineage;
use ediffi_train::log::Entry;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::random::{batch_rng, normal};
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::TrainState;
use tch::{Device, Kind};

use crate::result::Result;

/// Steps of the training: more than are done between all kills.
const STEPS: u64 = 6000;
/// What the training leaves in its folder when it is done.
pub const EXPORT: &str = "net.safetensors";

fn layout() -> Efficient {
    Efficient(Dimensions {
        picture_channels: 3,
        low_res: false,
        patch: 2,
        channels: 8,
        levels: vec![Level { multiplier: 1, blocks: 1, self_attention: false, cross_attention: false }],
        head_channels: 8,
        norm: Norm::Group(4),
        embedding_width: 16,
        context: None,
        detail: None,
    })
}

/// Trains to the end from whatever is in the folder. Says `training` when it begins.
pub fn train(folder: &Path) -> Result<()> {
    tch::set_num_threads(1);
    let lineage = Lineage::default().with("seed", 1);
    let run = Run {
        name: "net",
        folder,
        begin: Begin::Resume,
        steps: STEPS,
        batch: 4,
        accumulate: 1,
        first_batch: 0,
        checkpoint_every: Duration::from_millis(20),
        lineage,
    };
    let setup = Setup {
        seed: 1,
        parent: None,
        device: Device::Cpu,
        kind: Kind::Float,
        optimizer: AdamWSettings::default(),
        ema: 0.99,
        workers: 1,
    };
    let data = |number| {
        let pictures = normal(&mut batch_rng(3, number), &[4, 3, 8, 8])?.f_tanh()?;
        Ok(Batch { pictures, smaller: None, text: () })
    };
    let learner = |params: &mut dyn Params| {
        let levels = NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL);
        let objective = Objective::new(Edm::default(), levels, 1);
        let encode = |_: &Batch<()>| Ok(Conditioning::default());
        let learner = Learner::new(params, &layout(), Kind::Float, objective, encode)?;
        Ok(move |number, batch: Batch<()>| learner.loss(number, &batch))
    };
    let mut begun = false;
    let observe = |_: &TrainState, _: Option<&Entry>| {
        if !std::mem::replace(&mut begun, true) {
            println!("training");
        }
        Ok(ControlFlow::Continue(()))
    };
    let state: ediffi_train::Result<TrainState> = fit(&run, &setup, data, learner, observe);
    Ok(state?.export(&folder.join(EXPORT), "", Kind::Float, run.lineage.notes())?)
}
