//! Sheets of samples while a network is trained, drawn as the trained stage will draw: with the plan's solver, steps and guidance.

use ediffi_cascade::SamplerSettings;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::{Guided, Rows};
use ediffi_core::interval::SigmaInterval;
use ediffi_core::noise::NoiseSource;
use ediffi_core::precondition::Precondition;
use ediffi_core::seed::{Noise, image_seeds};
use ediffi_core::unet::UNet;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::ensemble::{Ensemble, Owner};

/// Pictures that are drawn together.
const TOGETHER: i64 = 8;

/// The networks that draw a sheet.
#[derive(Debug)]
pub(crate) struct Drawing<'a> {
    /// Each with its noise levels. A level is for the first that has it.
    pub(crate) networks: Vec<(SigmaInterval, &'a UNet)>,
    pub(crate) precondition: &'a dyn Precondition,
    pub(crate) settings: &'a SamplerSettings,
}

impl Drawing<'_> {
    /// Draws one picture a row of `conditioning`, with seeds from 1 on.
    ///
    /// # Shapes
    /// → [rows, 3, side, side] on the CPU
    pub(crate) fn draw(&self, conditioning: &Conditioning, rows: i64, side: i64) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let mut drawn = Vec::new();
        let mut first = 0;
        while first < rows {
            let count = TOGETHER.min(rows - first);
            let told = conditioning.rows(first, count)?.to(self.device(), Kind::Float)?;
            drawn.push(self.together(&told, first, count, side)?);
            first += count;
        }
        Ok(Tensor::f_cat(&drawn, 0)?)
    }

    fn device(&self) -> Device {
        self.networks.first().map_or(Device::Cpu, |(_, network)| network.device())
    }

    fn together(&self, conditioning: &Conditioning, first: i64, rows: i64, side: i64) -> Result<Tensor> {
        let SamplerSettings { solver, steps, schedule, guidance, .. } = self.settings;
        let low_res = conditioning.low_res.as_ref().map(Tensor::shallow_clone);
        let both = conditioning.stacked(&Conditioning { low_res, ..Conditioning::default() })?;
        let mut owners = Vec::new();
        for &(range, network) in &self.networks {
            let contexts = [network.context(conditioning, rows)?, network.context(&both, 2 * rows)?];
            owners.push(Owner { range, network, precondition: self.precondition, contexts });
        }
        let seeds = image_seeds(1 + first.unsigned_abs(), usize::try_from(rows).unwrap_or(0));
        let mut noise = Noise::new(&seeds, 0);
        let start = noise.normal(&[rows, 3, side, side])?.f_to_device(self.device())?;
        let mut guided = Guided::new(Ensemble { owners }, guidance.clone(), Rows::Batched)?;
        let drawn = solver.solve(&mut guided, start, &schedule.sigmas(*steps)?, &mut noise, &mut ())?;
        Ok(drawn.f_to_device(Device::Cpu)?)
    }
}
