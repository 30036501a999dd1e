//! A stage drawn by the core alone: network, guidance and solver, with nothing of cascade and pipeline between.

use ediffi::{Conditioning, Device, Embeddings, Guidance, Kind, NoiseSource, Pipeline, Rows, Solver, Tensor};
use ediffi_core::denoiser::{Branch, BranchDenoiser, Estimate, estimate_with};
use ediffi_core::guidance::Guided;
use ediffi_core::precondition::Epsilon;
use ediffi_core::seed::Noise;
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::{PublishedUNet, UNet};
use ediffi_core::weights;

use super::fixture;

struct ByHand {
    network: UNet,
    conditional: Conditioning,
    unconditional: Conditioning,
}

impl BranchDenoiser for ByHand {
    fn estimate_branch(&mut self, x: &Tensor, sigma: f64, branch: Branch) -> ediffi_core::Result<Estimate> {
        let (conditional, unconditional) = (&self.conditional, &self.unconditional);
        let conditioning = match branch {
            Branch::Conditional => conditional.shallow_clone(),
            Branch::Unconditional => unconditional.shallow_clone(),
            Branch::Both => conditional.stacked(unconditional)?,
            Branch::Weaker => return Err(ediffi_core::Error::NoWeakerNetwork),
        };
        let rows = x.size()[0];
        let context = self.network.context(&conditioning, rows)?;
        estimate_with(&Epsilon::new(NoiseTable::SquaredCosine), x, sigma, |input, t| {
            let t = Tensor::full([rows], t, (Kind::Float, Device::Cpu));
            self.network.forward(input, &t, &context, None)
        })
    }
}

/// The picture of `seed` in the stage `number` of `pipeline`, as the stage guides; for stage II `low_res` is the smaller picture
/// and the timestep of its noise.
pub(super) fn draw(
    pipeline: &Pipeline,
    number: usize,
    embeddings: &Embeddings,
    (solver, sigmas): (Solver, &[f64]),
    seed: u64,
    low_res: Option<(&Tensor, usize)>,
) -> Tensor {
    let stage = &pipeline.manifest().stages[number];
    let (folder, file) = match number {
        0 => ("stage-1/unet", "diffusion_pytorch_model.fp16.safetensors"),
        _ => ("stage-2/unet", "diffusion_pytorch_model.safetensors"),
    };
    let config = PublishedUNet::read(&fixture(folder).join("config.json")).unwrap().network;
    let (names, path) = (|name: &str| Some(name.to_owned()), fixture(folder).join(file));
    let network = weights::load(&path, names, Device::Cpu, Kind::Float, |scope| UNet::new(scope, &config, Kind::Float));
    let mut noise = Noise::new(&[seed], number as u64);
    let start = noise.normal(&[1, 3, stage.size, stage.size]).unwrap();
    let [mut conditional, mut unconditional] = [embeddings.conditioning(), embeddings.unconditional()];
    if let Some((small, level)) = low_res {
        let large = small.upsample_bilinear2d([stage.size, stage.size], true, None, None);
        let kept = f64::from(NoiseTable::SquaredCosine.alpha_bars()[level]);
        let noised = large * kept.sqrt() + noise.normal(&start.size()).unwrap() * (1.0 - kept).sqrt();
        for conditioning in [&mut conditional, &mut unconditional] {
            conditioning.low_res = Some(noised.shallow_clone());
            conditioning.noise_level = Some(Tensor::from_slice(&[level as i64]));
        }
    }
    let denoiser = ByHand { network: network.unwrap(), conditional, unconditional };
    let guidance: Guidance = stage.settings.guidance.clone();
    let mut guided = Guided::new(denoiser, guidance, Rows::Batched).unwrap();
    let picture = solver.solve(&mut guided, start, sigmas, &mut noise, &mut ()).unwrap();
    picture.clamp(-1.0, 1.0).squeeze_dim(0)
}
