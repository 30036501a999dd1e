//! An opened model.

use std::cell::{RefCell, RefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ediffi_cascade::{Cascade, Prior, SamplerSettings};
use ediffi_core::guidance::Rows;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_paint::WeightFunction;

use crate::embeddings::Source;
use crate::encoders::{EncoderSet, LoadedEncoders};
use crate::limits::{Drawing, Limits};
use crate::loras::Loras;
use crate::manifest::Manifest;
use crate::preset;
use crate::provenance::Digests;
use crate::recent::Recent;
use crate::shape::{self, Sides, StageShape};
use crate::validate::{self, Abilities, ImageSource};
use crate::{EditPicture, Error, Margins, Request, Result, StagePlan};

/// A model that turns requests into pictures.
///
/// Opening one reads and checks its configuration. Weights are loaded when they are first needed. A pipeline can be sent to
/// another thread but belongs to one at a time; use a [`Worker`](crate::Worker) from many threads.
#[derive(Debug)]
pub struct Pipeline {
    pub(crate) folder: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) runtime: Runtime,
    pub(crate) encoders: EncoderSet,
    pub(crate) shapes: Vec<StageShape>,
    /// That of the prior, if the model has one.
    pub(crate) prior_shape: Option<StageShape>,
    /// Whether it draws variations of pictures, and needs one.
    pub(crate) varies: bool,
    /// The embeddings that any stage takes.
    pub(crate) needs: EmbeddingShapes,
    pub(crate) keep_encoders: bool,
    pub(crate) rows: Rows,
    /// The most that a request may ask for.
    pub(crate) limits: Limits,
    pub(crate) drawing: Drawing,
    /// The file of the enlarger.
    pub(crate) enlarger: Option<PathBuf>,
    pub(crate) digests: Digests,
    /// How paint is scaled, if not as the canvas says.
    pub(crate) paint_weight: Option<Arc<dyn WeightFunction>>,
    /// What is merged into the weights.
    pub(crate) loras: Loras,
    pub(crate) state: RefCell<State>,
}

/// What changes while a pipeline works.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cascade: Cascade,
    /// What draws the image embeddings that the stages see.
    pub(crate) prior: Option<Prior>,
    pub(crate) loaded: LoadedEncoders,
    /// Of the last requests: the same text with another seed is not encoded again.
    pub(crate) recent: Recent,
}

impl Pipeline {
    /// The model folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest: stages with their names, sizes, experts and settings.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How the [prior](Prior) samples, of a model that has one: it is a stage beside those of the manifest.
    #[must_use]
    pub fn prior(&self) -> Option<&SamplerSettings> {
        self.prior_shape.as_ref().map(|prior| &prior.settings)
    }

    /// Where and in which precision it computes.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// Checks a request against this model, as every generation does first. It opens tokenizers but no weights.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] with every [limit](crate::Limits) that is broken, or with everything else that is wrong;
    /// [`Error::Encoders`] for a tokenizer that cannot be read.
    pub fn validate(&self, request: &Request) -> Result<()> {
        validate::validate(request, self.abilities(true), || {
            let source = Source::of(request);
            let mut problems = self.encoders.too_long(&source)?;
            problems.extend(validate::cleaned_away(request, |text| self.encoders.cleans_away(text)));
            problems.extend(self.encoders.foreign_styles(source.style.as_deref())?);
            Ok(problems)
        })
    }

    /// Which expert of which stage runs which step. It loads nothing. Of a model with a [prior](Prior) that runs, its plan is the first.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], where prompts may be of any length; [`Error::Busy`].
    pub fn plan(&self, request: &Request) -> Result<Vec<StagePlan>> {
        validate::validate(request, self.abilities(false), || Ok(Vec::new()))?;
        let state = self.state()?;
        self.plans(&state, request)
    }

    /// The stage with which enlarging the picture of this request is best begun: the first of super-resolution that draws no less than the
    /// picture has, else the last that may run. `None` for a model without one, or a request without a picture.
    #[must_use]
    pub fn enlarged_from(&self, request: &Request) -> Option<&str> {
        let picture = &request.edit.as_ref()?.picture;
        let last = *shape::range(request, &self.shapes).end();
        let enlarging = || self.shapes.iter().take(last + 1).filter(|stage| stage.enlarges);
        let whole = |stage: &&StageShape| {
            let request = request.clone().first_stage(&stage.name);
            let running = shape::running(&request, &self.shapes);
            shape::first_size(&request, running).is_some_and(|(w, h)| w >= picture.width() && h >= picture.height())
        };
        enlarging().find(whole).or(enlarging().next_back()).map(|stage| stage.name.as_str())
    }

    /// Margins for [`Edit::outpaint`](crate::Edit::outpaint) that are no smaller than these, and with which the picture keeps its
    /// proportions to the pixel: without a size, this pipeline draws the longer side as a multiple of what its stages can draw. They stay as
    /// they are where a side without margins would have to grow.
    ///
    /// `request`: what else is asked, such as its size and its last stage.
    #[must_use]
    pub fn margins(&self, request: &Request, picture: &EditPicture, margins: Margins) -> Margins {
        let running = shape::running(request, &self.shapes);
        let Sides { unit, own } = Sides::of(running);
        let asked = (request.width.is_some() || request.height.is_some())
            .then(|| (request.width.unwrap_or(own as u32), request.height.unwrap_or(own as u32)));
        margins.widened((picture.width(), picture.height()), asked, unit, own)
    }

    /// Drops everything from memory. It is loaded again when it is next needed.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn release(&self) -> Result<()> {
        let mut state = self.state()?;
        state.loaded = LoadedEncoders::default();
        state.recent.clear();
        state.cascade.release();
        if let Some(prior) = &mut state.prior {
            prior.release();
        }
        Ok(())
    }

    /// `encoders`: whether texts have yet to be encoded.
    pub(crate) fn abilities(&self, encoders: bool) -> Abilities<'_> {
        let encoders = encoders.then(|| self.encoders.abilities());
        let (stages, presets, image) = (&self.shapes, &self.manifest.presets, self.image_source());
        Abilities { stages, image, presets, needs: self.needs, encoders, limits: &self.limits, drawing: self.drawing }
    }

    /// Where the image embedding comes from that its stages see.
    fn image_source(&self) -> ImageSource<&StageShape> {
        match &self.prior_shape {
            Some(prior) => ImageSource::Prior(prior),
            None if self.varies => ImageSource::Picture,
            None => ImageSource::Style,
        }
    }

    /// What requests can be checked against on any thread.
    pub(crate) fn checks(&self) -> validate::Checks {
        validate::Checks {
            stages: self.shapes.clone(),
            image: self.image_source().map(StageShape::clone),
            presets: self.manifest.presets.clone(),
            needs: self.needs,
            encoders: self.encoders.abilities(),
            limits: self.limits.clone(),
            drawing: self.drawing,
        }
    }

    pub(crate) fn state(&self) -> Result<RefMut<'_, State>> {
        self.state.try_borrow_mut().map_err(|_| Error::Busy)
    }

    /// The plans of the stages that run, that of the prior first, for a request that was checked.
    pub(crate) fn plans(&self, state: &State, request: &Request) -> Result<Vec<StagePlan>> {
        let request = preset::resolved(request, &self.manifest.presets, &self.shapes);
        let request = &*request.map_err(|problem| Error::InvalidRequest { problems: vec![problem] })?;
        let (range, running) = (shape::range(request, &self.shapes), shape::running(request, &self.shapes));
        let (size, patch) = (shape::size(request, running), |stage: &str| request.stages.get(stage));
        let begins = running.first().is_some_and(|first| !first.enlarges);
        let edit = request.edit.as_ref().filter(|_| begins);
        let plans = state.cascade.plan(range, size, patch)?.into_iter().enumerate();
        let begun = |(index, mut plan): (usize, StagePlan)| {
            let told = request.stage_prompts.get(&plan.stage);
            plan.leaning = told.into_iter().flat_map(|told| told.expert_negative_prompts.keys().copied()).collect();
            let Some(edit) = edit.filter(|_| index == 0) else { return Ok(plan) };
            let plan = plan.with_strength(edit.resolved_strength());
            match edit.jumps {
                Some(jumps) => Ok(plan.with_jumps(jumps)?),
                None => Ok(plan),
            }
        };
        let prior = state.prior.as_ref().filter(|_| shape::has_prior(request, &self.shapes));
        let prior = prior.map(|prior| Ok(prior.plan(request.stages.get(Prior::NAME))?));
        prior.into_iter().chain(plans.map(begun)).collect()
    }
}
