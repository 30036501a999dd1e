//! The stages of a model in order, and what they are going to do.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::enlarger::Enlarger;
use crate::plan::StagePlan;
use crate::settings::SettingsPatch;
use crate::sizes::{StageSize, sides, unit};
use crate::stage::Stage;
use crate::{Error, Result};

/// Stages of rising size, each enlarging the pictures of the one before, and the enlarger after them if there is one.
#[derive(Debug)]
pub struct Cascade {
    pub(crate) stages: Vec<Stage>,
    pub(crate) enlarger: Option<Enlarger>,
}

impl Cascade {
    /// A cascade of `stages`. Its first may be one of super-resolution, for enlarging pictures that come from elsewhere.
    ///
    /// # Errors
    /// [`Error::Cascade`] for no stages, two of one name, a later one that is not of super-resolution, one that is not larger
    /// than the one before, or one whose pictures have other channels.
    pub fn new(stages: Vec<Stage>) -> Result<Self> {
        let wrong = |reason| Err(Error::Cascade(reason));
        if stages.is_empty() {
            return wrong("there is none".to_owned());
        }
        for (index, stage) in stages.iter().enumerate().skip(1) {
            let name = stage.name();
            if stages.iter().take(index).any(|other| other.name() == name) {
                return wrong(format!("two are called `{name}`"));
            }
            if !stage.io().low_res {
                return wrong(format!("stage `{name}` is not the first but takes no smaller picture"));
            }
        }
        for (below, above) in stages.iter().zip(stages.iter().skip(1)) {
            let (name, before) = (above.name(), below.name());
            if above.sizes().size <= below.sizes().size {
                return wrong(format!("stage `{name}` is not larger than `{before}`"));
            }
            let (given, taken) = (below.picture_channels(), above.picture_channels());
            if given != taken {
                let reason =
                    format!("stage `{name}` takes pictures of {taken} channels, those of `{before}` have {given}");
                return wrong(reason);
            }
        }
        Ok(Self { stages, enlarger: None })
    }

    /// Puts an enlarger after the last stage. It does not run where a run ends with an earlier stage.
    ///
    /// # Errors
    /// [`Error::Cascade`] for a last stage whose pictures are not RGB, the only ones that an enlarger takes.
    pub fn with_enlarger(mut self, enlarger: Enlarger) -> Result<Self> {
        if let Some(last) = self.stages.last().filter(|last| last.picture_channels() != Enlarger::CHANNELS) {
            let (name, given) = (last.name(), last.picture_channels());
            return Err(Error::Cascade(format!("the enlarger takes RGB, pictures of `{name}` have {given} channels")));
        }
        self.enlarger = Some(enlarger);
        Ok(self)
    }

    /// The stages in order.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The enlarger after the last stage.
    #[must_use]
    pub fn enlarger(&self) -> Option<&Enlarger> {
        self.enlarger.as_ref()
    }

    /// Drops every network from memory; each is loaded again when it is next needed.
    pub fn release(&mut self) {
        self.stages.iter_mut().for_each(Stage::release);
        self.enlarger.iter_mut().for_each(Enlarger::release);
    }

    /// What the stages of these numbers are going to do. Nothing is loaded for it.
    ///
    /// `size` is width and height of the pictures that come out of the last of them, its own size where there is none.
    /// `patch` says for the name of a stage what differs from its own settings.
    ///
    /// # Errors
    /// [`Error::NoStages`] for numbers that the cascade does not have, or none; [`Error::ImageSize`] naming what width and
    /// height have to be multiples of; [`Error::Setting`] for a setting that makes no picture.
    pub fn plan<'a>(
        &self,
        stages: RangeInclusive<usize>,
        size: (Option<u32>, Option<u32>),
        patch: impl Fn(&str) -> Option<&'a SettingsPatch>,
    ) -> Result<Vec<StagePlan>> {
        let (first, last) = (*stages.start(), *stages.end());
        let running = self.stages.get(stages).filter(|running| !running.is_empty());
        let running = running.ok_or(Error::NoStages { first, last, stages: self.stages.len() })?;
        let sizes: Vec<StageSize> = running.iter().map(Stage::sizes).collect();
        let (Some(widths), Some(heights)) = (sides(&sizes, size.0), sides(&sizes, size.1)) else {
            let own = sizes.last().map_or(0, |stage| stage.size);
            let [width, height] = [size.0, size.1].map(|side| side.map_or(own, i64::from));
            return Err(Error::ImageSize { width, height, multiple: unit(&sizes) });
        };
        let plan = |((index, stage), (width, height)): ((usize, &Stage), (u32, u32))| {
            let patch = patch(stage.name());
            let (settings, tiling) = (stage.config().settings.patched(patch), patch.and_then(|patch| patch.tiling));
            let table = stage.config().precondition.timesteps();
            if let Some((field, source)) = settings.problems(table, stage.config().weaker.is_some()).into_iter().next()
            {
                return Err(stage.config().refused(field, source));
            }
            let decoding = stage.decoder.as_ref().map(|decoder| decoder.decoding(width, height, tiling.is_some()));
            if let Some(source) = settings.latent_problem().filter(|_| decoding.is_some()) {
                return Err(stage.config().refused("guidance", source));
            }
            let owned = stage.config().owners().owned(&settings);
            let owned = owned.map_err(|source| stage.config().refused("experts", source))?;
            let plan = owned.experts.plan(&owned.sigmas).map_err(|source| Error::in_stage(stage.name(), source))?;
            Ok(StagePlan {
                stage: stage.name().to_owned(),
                index,
                width,
                height,
                settings,
                tiling,
                skipped: 0,
                jumps: None,
                decoding,
                leaning: BTreeSet::new(),
                embedding: None,
                plan,
            })
        };
        (first..).zip(running).zip(widths.into_iter().zip(heights)).map(plan).collect()
    }
}
