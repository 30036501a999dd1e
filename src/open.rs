//! Opening a model: from a folder and the builder's options to a pipeline.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ediffi_cascade::{Cascade, Enlarger, Prior, Stage};
use ediffi_core::folders::Identity;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_encoders::T5Weights;
use tch::{Device, Kind};

use crate::deepfloyd::{Folders, Published};
use crate::encoders::{EncoderSet, LoadedEncoders, PublishedEncoders};
use crate::limits::Drawing;
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::pipeline::State;
use crate::provenance::Digests;
use crate::published::{self, Family};
use crate::recent::Recent;
use crate::shape::StageShape;
use crate::stable_diffusion::Latent;
use crate::unclip::UnClip;
use crate::{Error, Pipeline, PipelineBuilder, Result};

impl Pipeline {
    /// Opens a model folder on the best device there is: one with a `pipeline.json`, or as diffusers saves it one of Stable Diffusion, of Karlo
    /// or of a DeepFloyd IF stage I.
    ///
    /// # Errors
    /// [`Error::NoFolder`], [`Error::NoManifest`], [`Error::Format`], [`Error::Manifest`], [`Error::PathOutside`];
    /// [`Error::Json`] naming an unknown key of the manifest or of an encoder's configuration, and [`Error::ReadFile`] for one
    /// that cannot be read; [`Error::Cascade`] for a stage that cannot be opened; [`Error::Core`] for weights in a format
    /// that is not read, and [`Error::Published`] for a published folder that is not whole, both saying what to do.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::builder(folder).open()
    }

    /// Opens a model folder with settings of your own.
    pub fn builder(folder: impl AsRef<Path>) -> PipelineBuilder {
        PipelineBuilder::new(folder.as_ref().to_owned())
    }
}

impl PipelineBuilder {
    /// Opens the pipeline. The manifest and all configurations are read and checked; weights are loaded when they are
    /// needed.
    ///
    /// # Errors
    /// As [`Pipeline::open`]; [`Error::Core`] for a folder that was [replaced](ediffi_core::folders::replace()) meanwhile, or later before its
    /// weights were loaded; [`Error::IdleOption`] for an option that does nothing on this model; [`Error::Core`] for a
    /// device that cannot be used, and for a [LoRA](Self::lora) that cannot be read or is of another base.
    pub fn open(self) -> Result<Pipeline> {
        let others = self.experts.iter().map(|(_, folder)| folder).chain(&self.stages).chain(&self.likes);
        let folders = std::iter::once(&self.folder).chain(others).map(PathBuf::as_path).chain(self.loras.paths());
        let folders = Arc::new(Identity::of_all(folders));
        let opened = self.opened(&folders);
        // All that was read is of these folders then. What is missing may only be gone with an old one.
        folders.check()?;
        opened
    }

    /// Opens it from `folders`, whatever becomes of them.
    fn opened(self, folders: &Arc<Identity>) -> Result<Pipeline> {
        let runtime = Runtime::new(self.device, self.precision)?;
        let published = published::is_published(&self.folder) || self.folder.is_file();
        let file = self.folder.join(if published { published::INDEX_FILE } else { MANIFEST_FILE });
        let wrong = |key: String, reason: String| Error::Manifest { path: file.clone(), key, reason };
        let (Found { manifest, stages, text }, prior) = if published {
            self.published(runtime)?
        } else {
            let (manifest, stages) = self.own(runtime)?;
            (Found { manifest, stages, text: PublishedEncoders::T5(None) }, None)
        };
        let varies = matches!(text, PublishedEncoders::UnClip(_, Some(_)));
        let published_t5 = matches!(text, PublishedEncoders::T5(Some(_)));
        if stages.first().is_some_and(|stage| stage.io().low_res) {
            let reason = "the first stage starts from nothing, but its network enlarges pictures".to_owned();
            return Err(wrong("stages[0].network".to_owned(), reason));
        }
        if let Some((index, stage)) = stages.iter().enumerate().find(|(_, stage)| stage.picture_channels() != 3) {
            let reason = format!("its pictures have {} channels, only RGB can be drawn", stage.picture_channels());
            return Err(wrong(format!("stages[{index}].network"), reason));
        }
        let shapes: Vec<StageShape> = stages.iter().map(StageShape::of).collect();
        let t5 = published_t5 || manifest.encoders.t5.is_some();
        let several = stages.iter().any(|stage| stage.files().len() > 1);
        let told = published && stages.iter().any(|stage| stage.io().noise_level);
        self.refuse_idle_options(told, (published_t5, t5, several), &shapes)?;
        if self.t5_weights == T5Weights::Int8 && runtime.device != Device::Cpu {
            return Err(ediffi_encoders::Error::Int8Device(runtime.device).into());
        }
        let mut needs = EmbeddingShapes::default();
        for (index, shape) in shapes.iter().enumerate() {
            needs = needs.union(shape.needs).map_err(|embedding| {
                let reason = format!("it takes {embedding} embeddings of another shape than an earlier stage");
                wrong(format!("stages[{index}].network"), reason)
            })?;
        }
        let devices = self.expert_devices.iter().map(|&device| Ok(Runtime::new(device, self.precision)?.device));
        let devices = devices.collect::<Result<Vec<_>>>()?;
        let stages = stages.into_iter().map(|stage| Ok(stage.of(Arc::clone(folders))?.spread(&devices)?));
        let stages = stages.collect::<Result<Vec<_>>>()?;
        let mut cascade = Cascade::new(stages).map_err(|error| match error {
            ediffi_cascade::Error::Cascade(reason) => wrong("stages".to_owned(), reason),
            other => other.into(),
        })?;
        let turns =
            self.residency.unwrap_or(if published { Residency::Relay } else { Residency::All }) != Residency::All;
        if let Some((file, tiling)) = &self.enlarger {
            let precise = Runtime { kind: Kind::Float, ..runtime };
            cascade = cascade.with_enlarger(Enlarger::open(file, precise)?.with_tiling(*tiling)?)?;
        }
        let encoders = if published {
            EncoderSet::published(&self.folder, text, self.clean_captions.unwrap_or(true), needs, runtime)?
        } else {
            EncoderSet::open(&self.folder, &manifest, needs, runtime)?
        };
        let encoders = encoders.of(Arc::clone(folders)).with_t5_weights(self.t5_weights);
        let scale = cascade.enlarger().map_or(1, |enlarger| enlarger.scale().unsigned_abs());
        let digests = Digests::new(shapes.len());
        let prior = prior.map(|prior| prior.of(Arc::clone(folders)));
        let prior_shape = prior.as_ref().map(StageShape::of_prior);
        let drawing = Drawing { batch: self.batch, turns, keep_floats: self.keep_floats, scale };
        tracing::debug!(folder = %self.folder.display(), ?runtime, stages = shapes.len(), "opened");
        Ok(Pipeline {
            folder: self.folder,
            manifest,
            runtime,
            encoders,
            shapes,
            prior_shape,
            varies,
            needs,
            keep_encoders: self.keep_encoders,
            rows: self.rows,
            limits: self.limits,
            drawing,
            enlarger: self.enlarger.map(|(file, _)| file),
            digests,
            paint_weight: self.paint_weight,
            loras: self.loras,
            state: RefCell::new(State {
                cascade,
                prior,
                loaded: LoadedEncoders::default(),
                recent: Recent::new(self.recent_texts),
            }),
        })
    }

    /// The stages of published folders.
    fn published(&self, runtime: Runtime) -> Result<(Found, Option<Prior>)> {
        let Self { folder, experts, likes, stages, noise_level, residency, .. } = self;
        let residency = residency.unwrap_or(Residency::Relay);
        let family = if folder.is_file() { Family::StableDiffusion } else { published::family(folder)? };
        let checkpoint = folder.is_file() || experts.iter().any(|(_, folder)| folder.is_file());
        if !likes.is_empty() && !checkpoint {
            return Err(Error::IdleOption { option: "like", reason: "nothing is a checkpoint of one file" });
        }
        match family {
            Family::DeepFloyd => {
                self.loras.refuse()?;
                let folders = Folders { base: folder, experts, stages, noise_level: *noise_level };
                let Published { manifest, stages, text } = Published::open(&folders, runtime, residency)?;
                Ok((Found { manifest, stages, text: PublishedEncoders::T5(text) }, None))
            }
            Family::StableDiffusion => {
                nothing_follows(stages, "Stable Diffusion")?;
                let Latent { manifest, stage, text } =
                    Latent::open(folder, experts, likes, &self.loras, runtime, residency)?;
                Ok((Found { manifest, stages: vec![stage], text: PublishedEncoders::Clip(text) }, None))
            }
            Family::UnClip => {
                nothing_follows(stages, "Karlo")?;
                self.loras.refuse()?;
                let UnClip { manifest, stages, text, prior, vision } =
                    UnClip::open(folder, experts, runtime, residency)?;
                Ok((Found { manifest, stages, text: PublishedEncoders::UnClip(text, vision) }, prior))
            }
        }
    }

    /// The stages of a folder with a manifest.
    fn own(&self, runtime: Runtime) -> Result<(Manifest, Vec<Stage>)> {
        let folder = &self.folder;
        if !self.experts.is_empty() || !self.stages.is_empty() {
            let reason =
                format!("{} is no folder of a published stage, to which others can be added", folder.display());
            return Err(Error::Compose(reason));
        }
        self.loras.refuse_text()?;
        if !self.likes.is_empty() {
            return Err(Error::IdleOption { option: "like", reason: "nothing is a checkpoint of one file" });
        }
        let manifest = Manifest::read(folder)?;
        let residency = self.residency.unwrap_or(Residency::All);
        let open = |(index, config)| {
            // What enlarges has other layers.
            let loras = |expert| if index == 0 { self.loras.of_network(expert, true) } else { Vec::new() };
            Ok(Stage::open_with_loras(folder, config, loras, runtime, residency)?)
        };
        let stages = manifest.stages.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
        if let Some(first) = stages.first() {
            self.loras.check(first.files().len(), first.files())?;
        }
        Ok((manifest, stages))
    }

    /// Refuses options that were set and would do nothing: whoever sets them expects something.
    fn refuse_idle_options(
        &self,
        told: bool,
        (text, t5, several): (bool, bool, bool),
        stages: &[StageShape],
    ) -> Result<()> {
        let painted = stages.first().is_some_and(|first| first.needs.has_text());
        let (level, clean, weight) =
            (self.noise_level.is_some(), self.clean_captions.is_some(), self.paint_weight.is_some());
        let options = [
            ("noise_level", level && !told, "no published stage enlarges pictures"),
            ("clean_captions", clean && !text, "the model has no published text encoder"),
            ("expert_devices", !self.expert_devices.is_empty() && !several, "no stage has several experts"),
            ("t5_weights", self.t5_weights != T5Weights::Full && !t5, "the model has no T5"),
            ("paint_weight", weight && !painted, "the first stage takes no text that could be painted"),
        ];
        match options.into_iter().find(|(_, idle, _)| *idle) {
            Some((option, _, reason)) => Err(Error::IdleOption { option, reason }),
            None => Ok(()),
        }
    }
}

/// What was found in folders.
struct Found {
    manifest: Manifest,
    stages: Vec<Stage>,
    text: PublishedEncoders,
}

/// Refuses stages after the folder of a whole model.
fn nothing_follows(stages: &[PathBuf], model: &str) -> Result<()> {
    match stages.first() {
        Some(stage) => Err(Error::Compose(format!("{} cannot follow a folder of {model}", stage.display()))),
        None => Ok(()),
    }
}
