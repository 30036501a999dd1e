//! One batch of pictures in one stage.

use std::collections::HashMap;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::guidance::{Guided, Rows};
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use tch::{Kind, Tensor};

use crate::denoiser::{Inputs, StageDenoiser};
use crate::diagnosis::broken_tensor;
use crate::observer::Watch;
use crate::plan::StagePlan;
use crate::settings::SamplerSettings;
use crate::stage::Stage;
use crate::tiled::TileGrid;
use crate::{Error, Result};

/// What one stage draws at once.
pub(crate) struct StageBatch<'a> {
    pub(crate) plan: &'a StagePlan,
    /// Embeddings that the stage takes, a row for each picture.
    pub(crate) conditioning: Conditioning,
    /// As `conditioning`, or none.
    pub(crate) unconditional: Conditioning,
    /// The pictures of the stage before, [pictures, channels, h, w] at any size, for a stage of super-resolution.
    pub(crate) low_res: Option<&'a Tensor>,
    pub(crate) pictures: i64,
    pub(crate) rows: Rows,
    pub(crate) paint: Option<&'a dyn ScoreBias>,
}

impl Stage {
    /// How the pictures of a plan are cut, if they are.
    pub(crate) fn tiles(&self, plan: &StagePlan) -> Result<Option<TileGrid>> {
        let Some(tiling) = plan.tiling else { return Ok(None) };
        let grid = TileGrid::new(tiling, plan.height.into(), plan.width.into(), self.sizes().multiple);
        let grid = grid.map_err(|source| Error::Tiling { stage: self.name().to_owned(), source })?;
        // One tile is the whole picture.
        Ok(Some(grid).filter(|grid| grid.len() > 1))
    }

    /// Draws the pictures of a batch. `noise` is asked for that of the start, then that of the smaller picture, then those of the
    /// steps.
    ///
    /// # Shapes
    /// → [pictures, channels, height, width] f32 in [-1, 1], on the stage's device
    pub(crate) fn draw(
        &mut self,
        batch: &StageBatch<'_>,
        noise: &mut dyn NoiseSource,
        watch: &Watch<'_>,
    ) -> Result<Tensor> {
        let span = tracing::info_span!("stage", name = self.name());
        let _entered = span.enter();
        let tiles = self.tiles(batch.plan)?;
        self.solve(batch, tiles.as_ref(), noise, watch).map_err(|source| self.explain(source))
    }

    fn solve(
        &mut self,
        batch: &StageBatch<'_>,
        tiles: Option<&TileGrid>,
        noise: &mut dyn NoiseSource,
        watch: &Watch<'_>,
    ) -> ediffi_core::Result<Tensor> {
        let SamplerSettings { solver, guidance, .. } = &batch.plan.settings;
        let sigmas = batch.plan.settings.sigmas(self.config().precondition.timesteps())?;
        let plan = self.ensemble.follow(&sigmas)?;
        tracing::debug!(%plan, "planned");
        let shape = [batch.pictures, self.io().channels, batch.plan.height.into(), batch.plan.width.into()];
        let start = noise.normal(&shape)?.f_to_device(self.runtime.device)?;
        let denoiser = StageDenoiser {
            inputs: &self.inputs(batch, noise)?,
            keep_contexts: self.residency == Residency::All,
            ensemble: &mut self.ensemble,
            paint: batch.paint,
            tiles,
            watch,
            current: None,
            contexts: HashMap::new(),
        };
        let mut guided = Guided::new(denoiser, guidance.clone(), batch.rows)?;
        let pictures = solver.solve(&mut guided, start, &sigmas, noise, &mut &*watch)?;
        Ok(pictures.f_clamp(-1.0, 1.0)?)
    }

    /// The conditionings on the device, with the enlarged smaller picture.
    fn inputs(&self, batch: &StageBatch<'_>, noise: &mut dyn NoiseSource) -> ediffi_core::Result<Inputs> {
        let device = self.runtime.device;
        let (rule, table) = (self.config().low_res, self.config().precondition.timesteps());
        let (height, width) = (batch.plan.height.into(), batch.plan.width.into());
        let condition = |x: &Tensor| rule.condition(&x.f_to_device(device)?, height, width, table, noise);
        let low_res = batch.low_res.map(condition).transpose()?;
        let level = rule.noise_level.map(|level| level as i64);
        let level = level.map(|level| Tensor::f_full([batch.pictures], level, (Kind::Int64, device))).transpose()?;
        let with_picture = |conditioning: &Conditioning| -> ediffi_core::Result<Conditioning> {
            let [low_res, noise_level] = [&low_res, &level].map(|x| x.as_ref().map(Tensor::shallow_clone));
            Ok(Conditioning { low_res, noise_level, ..conditioning.to(device, Kind::Float)? })
        };
        Ok(Inputs {
            conditional: with_picture(&batch.conditioning)?,
            unconditional: with_picture(&batch.unconditional)?,
            pictures: batch.pictures,
        })
    }

    /// Names the stage, and the expert that made a NaN.
    fn explain(&self, source: ediffi_core::Error) -> Error {
        let sigma = match source {
            ediffi_core::Error::DenoisedNotFinite(sigma) => sigma,
            source => return Error::in_stage(self.name(), source),
        };
        let expert = self.ensemble.experts().index_of(sigma).unwrap_or_default();
        let weights = self.config().experts.get(expert).map(|expert| expert.weights.display().to_string());
        let (stage, weights) = (self.name().to_owned(), weights.unwrap_or_default());
        match self.files().get(expert).map(|files| broken_tensor(&files.weights, &files.network)) {
            Some(Ok(Some(tensor))) => Error::WeightsNotFinite { stage, expert, weights, tensor },
            // Why the file cannot be read again matters less than what was seen.
            _ => Error::NotFinite { stage, expert, weights, sigma },
        }
    }
}
