//! An opened model.

use std::cell::{RefCell, RefMut};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ediffi_cascade::{Cascade, Enlarger, Stage};
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_paint::WeightFunction;

use crate::deepfloyd::{self, Folders, Published};
use crate::embeddings::Source;
use crate::encoders::{EncoderSet, LoadedEncoders};
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::shape::StageShape;
use crate::validate::{self, Abilities};
use crate::{Embeddings, Error, PipelineBuilder, Request, Result, StagePlan};

/// A model that turns requests into pictures.
///
/// Opening one reads and checks its configuration; weights are loaded when they are first needed. A pipeline can be sent to
/// another thread, but belongs to one at a time; a [`Worker`](crate::Worker) is used from many.
#[derive(Debug)]
pub struct Pipeline {
    folder: PathBuf,
    manifest: Manifest,
    runtime: Runtime,
    pub(crate) encoders: EncoderSet,
    pub(crate) shapes: Vec<StageShape>,
    /// The embeddings that any stage takes.
    pub(crate) needs: EmbeddingShapes,
    pub(crate) keep_encoders: bool,
    pub(crate) batch: usize,
    /// Whether images keep their float pixels.
    pub(crate) keep_floats: bool,
    /// How paint is scaled, if not as the canvas says.
    pub(crate) paint_weight: Option<Arc<dyn WeightFunction>>,
    state: RefCell<State>,
}

/// What changes while a pipeline works.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cascade: Cascade,
    pub(crate) loaded: LoadedEncoders,
    /// Of the last request: the same text with another seed is not encoded again.
    pub(crate) last: Option<Embeddings>,
}

impl Pipeline {
    /// Opens a model folder on the best device there is: one with a `pipeline.json`, or one of a published DeepFloyd IF
    /// stage I as diffusers saves it.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::NoManifest`], [`Error::Json`] naming an unknown key, [`Error::Format`],
    /// [`Error::Manifest`], [`Error::PathOutside`]; [`Error::Cascade`] for a stage that cannot be opened and
    /// [`Error::Core`] for an encoder whose configuration cannot be read, or weights in a format that is not read, saying
    /// what to do; [`Error::Published`] for a published folder that is not whole, saying what to do.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::builder(folder).open()
    }

    /// Opens a model folder with settings of one's own.
    #[must_use]
    pub fn builder(folder: impl AsRef<Path>) -> PipelineBuilder {
        PipelineBuilder::new(folder.as_ref().to_owned())
    }

    pub(crate) fn assemble(builder: PipelineBuilder, runtime: Runtime) -> Result<Self> {
        let PipelineBuilder { folder, residency, keep_encoders, batch, clean_captions, .. } = &builder;
        let PipelineBuilder { experts, stages, enlarger, noise_level, paint_weight, keep_floats, .. } = &builder;
        let published = deepfloyd::is_published(folder);
        if !published && !(experts.is_empty() && stages.is_empty()) {
            let reason =
                format!("{} is no folder of a published stage, to which others can be added", folder.display());
            return Err(Error::Compose { reason });
        }
        let path = folder.join(if published { deepfloyd::INDEX_FILE } else { MANIFEST_FILE });
        let (manifest, stages, text) = if published {
            let folders = Folders { base: folder, experts, stages, noise_level: *noise_level };
            let residency = residency.unwrap_or(Residency::Relay);
            let Published { manifest, stages, text } = Published::open(&folders, runtime, residency)?;
            (manifest, stages, text)
        } else {
            let manifest = Manifest::read(folder)?;
            let residency = residency.unwrap_or(Residency::All);
            let open = |config| Ok(Stage::open(folder, config, runtime, residency)?);
            let stages = manifest.stages.iter().map(open).collect::<Result<Vec<_>>>()?;
            (manifest, stages, None)
        };
        let wrong = |key: String, reason: String| Error::Manifest { path: path.clone(), key, reason };
        if stages.first().is_some_and(Stage::is_super_resolution) {
            let reason = "the first stage starts from nothing, but its network enlarges pictures".to_owned();
            return Err(wrong("stages[0].network".to_owned(), reason));
        }
        let shapes: Vec<StageShape> = stages.iter().map(StageShape::of).collect();
        builder.refuse_idle_options(published, text.is_some(), &shapes)?;
        let mut needs = EmbeddingShapes::default();
        for (index, shape) in shapes.iter().enumerate() {
            needs = needs.union(shape.needs).map_err(|embedding| {
                let reason = format!("it takes {embedding} embeddings of another shape than an earlier stage");
                wrong(format!("stages[{index}].network"), reason)
            })?;
        }
        let mut cascade = Cascade::new(stages).map_err(|error| match error {
            ediffi_cascade::Error::Cascade { reason } => wrong("stages".to_owned(), reason),
            other => other.into(),
        })?;
        if let Some((file, tiling)) = enlarger {
            let precise = Runtime { kind: tch::Kind::Float, ..runtime };
            cascade = cascade.with_enlarger(Enlarger::open(file, precise)?.with_tiling(*tiling)?);
        }
        let encoders = if published {
            EncoderSet::published(folder, text, clean_captions.unwrap_or(true), needs, runtime)?
        } else {
            EncoderSet::open(folder, &manifest, needs, runtime)?
        };
        tracing::debug!(folder = %folder.display(), ?runtime, stages = shapes.len(), "opened");
        Ok(Self {
            folder: folder.clone(),
            manifest,
            runtime,
            encoders,
            shapes,
            needs,
            keep_encoders: *keep_encoders,
            batch: *batch,
            keep_floats: *keep_floats,
            paint_weight: paint_weight.clone(),
            state: RefCell::new(State { cascade, loaded: LoadedEncoders::default(), last: None }),
        })
    }

    /// The model folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the model consists of: its stages with their names, sizes, experts and usual settings.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where and in which precision it computes.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.runtime
    }

    /// Checks a request against this model. Every generation does so first. Tokenizers are opened for it, weights are not.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] with everything that is wrong; [`Error::Encoders`] for a tokenizer that cannot be read.
    pub fn validate(&self, request: &Request) -> Result<()> {
        let source = Source::of(request);
        let mut problems = self.encoders.too_long(&source)?;
        problems.extend(self.encoders.foreign_styles(source.style.as_deref())?);
        validate::validate(request, self.abilities(true), problems)
    }

    /// Which expert of which stage would run which step. Nothing is loaded for it.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`], where prompts may be of any length; [`Error::Busy`].
    pub fn plan(&self, request: &Request) -> Result<Vec<StagePlan>> {
        validate::validate(request, self.abilities(false), Vec::new())?;
        let state = self.state()?;
        self.plans(&state, request)
    }

    /// Drops everything that was loaded; it is loaded again when it is next needed.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn release(&self) -> Result<()> {
        let mut state = self.state()?;
        state.loaded = LoadedEncoders::default();
        state.last = None;
        state.cascade.release();
        Ok(())
    }

    /// `encoders`: whether texts have yet to be encoded.
    pub(crate) fn abilities(&self, encoders: bool) -> Abilities<'_> {
        let encoders = encoders.then(|| self.encoders.abilities());
        Abilities { stages: &self.shapes, needs: self.needs, encoders }
    }

    pub(crate) fn state(&self) -> Result<RefMut<'_, State>> {
        self.state.try_borrow_mut().map_err(|_| Error::Busy)
    }

    /// The plans of the stages that run, for a request that was checked.
    pub(crate) fn plans(&self, state: &State, request: &Request) -> Result<Vec<StagePlan>> {
        let last = validate::stages(request, &self.shapes).len().saturating_sub(1);
        let patch = |stage: &str| request.stages.get(stage);
        Ok(state.cascade.plan(0..=last, (request.width, request.height), patch)?)
    }
}
