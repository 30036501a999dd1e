//! Finding the provenance of a picture: digests of what an opened pipeline is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ediffi_cascade::{Prior, Stage, StageConfig, StagePlan};
use ediffi_core::weights::{Lora, LoraFile, WeightsFile};
use sha2::{Digest, Sha256};
use tch::Kind;

use crate::lazy::get_or_make;
use crate::pipeline::State;
use crate::{Error, Pipeline, Provenance, Request, Result, StageProvenance};

impl Pipeline {
    /// What would make the picture of a request here. The weights of the stages that run are looked into, not loaded.
    ///
    /// # Errors
    /// As [`Pipeline::plan`]; weights that cannot be read.
    pub fn provenance(&self, request: &Request) -> Result<Provenance> {
        let plans = self.plan(request)?;
        self.made_by(&*self.state()?, &plans)
    }

    /// The provenance of a picture that these stages make.
    pub(crate) fn made_by(&self, state: &State, plans: &[StagePlan]) -> Result<Provenance> {
        let stages = state.cascade.stages();
        let mut made = BTreeMap::new();
        for plan in plans {
            if let Some(prior) = state.prior.as_ref().filter(|_| plan.index == Prior::INDEX) {
                let digest = get_or_make(&self.digests.prior, || self.own(prior_digest(prior)))?.clone();
                made.insert(plan.stage.clone(), StageProvenance { digest, settings: plan.settings.clone() });
                continue;
            }
            let (Some(stage), Some(cell)) = (stages.get(plan.index), self.digests.stages.get(plan.index)) else {
                continue;
            };
            let digest = get_or_make(cell, || self.own(stage_digest(stage)))?.clone();
            made.insert(plan.stage.clone(), StageProvenance { digest, settings: plan.settings.clone() });
        }
        let whole = plans.last().is_some_and(|plan| plan.index + 1 == stages.len());
        let enlarger = self.enlarger.as_deref().filter(|_| whole);
        let enlarger = enlarger.map(|file| get_or_make(&self.digests.enlarger, || weights_digest(&[file])));
        // Whoever gives the embeddings needs no encoders.
        let encoders = match get_or_make(&self.digests.encoders, || self.own(self.encoders_digest())) {
            Ok(digest) => Some(digest.clone()),
            Err(error @ Error::Core(ediffi_core::Error::FolderReplaced(_) | ediffi_core::Error::Cancelled)) => {
                return Err(error);
            }
            Err(error) => {
                tracing::debug!(%error, "no digest of the encoders");
                None
            }
        };
        let precision = match self.runtime.kind {
            Kind::BFloat16 => "bf16",
            Kind::Half => "f16",
            _ => "f32",
        };
        let enlarger = enlarger.transpose()?.cloned();
        Ok(Provenance { precision: precision.to_owned(), encoders, stages: made, enlarger })
    }

    /// What was made of files, if they are of the folders that were opened.
    fn own<T>(&self, made: Result<T>) -> Result<T> {
        self.encoders.same_folders()?;
        made
    }

    fn encoders_digest(&self) -> Result<String> {
        let weights = self.encoders.weights()?;
        let weights = weights_digest(&weights.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        let mut hash = Sha256::new_with_prefix(&weights);
        self.encoders.loras().try_for_each(|lora| merged(lora, &mut hash))?;
        let weights = if self.encoders.loras().next().is_some() { text(hash) } else { weights };
        // Other layers, padding or zeros make other embeddings of the same weights.
        Ok(match self.encoders.readings() {
            Some(readings) => text(Sha256::new().chain_update(readings).chain_update(weights)),
            None => weights,
        })
    }

    /// What is different of `other`, of two pipelines that are to draw the same pictures; nothing if they do, but for rounding.
    pub(crate) fn differs(&self, other: &Self) -> Result<Option<&'static str>> {
        let digest = |pipeline: &Self, file: &Option<PathBuf>| -> Result<Option<String>> {
            let digest =
                |file: &PathBuf| get_or_make(&pipeline.digests.enlarger, || weights_digest(&[file.as_path()])).cloned();
            file.as_ref().map(digest).transpose()
        };
        let paint = |pipeline: &Self| pipeline.paint_weight.as_ref().map(|weight| Arc::as_ptr(weight).cast::<()>());
        let prior = |pipeline: &Self| pipeline.prior_shape.as_ref().map(|prior| prior.settings.clone());
        let parts = [
            ("model", self.manifest != other.manifest),
            ("prior", prior(self) != prior(other)),
            ("limits", self.limits != other.limits),
            ("precision", self.runtime.kind != other.runtime.kind),
            ("encoders", !self.encoders.works_as(&other.encoders)),
            ("paint weights", paint(self) != paint(other)),
            ("kept floats", self.drawing.keep_floats != other.drawing.keep_floats),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, differs)| *differs) {
            return Ok(Some(part));
        }
        if self.enlarger != other.enlarger && digest(self, &self.enlarger)? != digest(other, &other.enlarger)? {
            return Ok(Some("enlarger"));
        }
        // One path may have led to two folders.
        if self.loras == other.loras && self.encoders.same_paths(&other.encoders) {
            self.encoders.same_folders()?;
            other.encoders.same_folders()?;
            return Ok(None);
        }
        // Folders with one manifest may have other weights.
        let stages = |pipeline: &Self| {
            let state = pipeline.state()?;
            let prior = state.prior.iter().map(prior_digest);
            state.cascade.stages().iter().map(stage_digest).chain(prior).collect::<Result<Vec<_>>>()
        };
        let encoders = |pipeline: &Self| pipeline.encoders_digest().ok();
        if stages(self)? != stages(other)? {
            return Ok(Some("weights"));
        }
        Ok((encoders(self) != encoders(other)).then_some("encoders"))
    }
}

fn stage_digest(stage: &Stage) -> Result<String> {
    let StageConfig { precondition, low_res, experts, weaker, .. } = stage.config();
    let own: Vec<_> = experts.iter().map(|expert| expert.precondition).collect();
    let weaker = weaker.as_ref().map(|weaker| weaker.precondition);
    let config = serde_json::to_string(&(precondition, low_res, own, weaker));
    let config = config.map_err(|source| crate::Error::Json { path: "stage".into(), source })?;
    let mut hash = Sha256::new();
    hash.update(config);
    experts.iter().filter_map(|expert| expert.interval).for_each(|said| hash.update(format!("{said}\n")));
    let named = |source| ediffi_cascade::Error::Stage { stage: stage.name().to_owned(), source: Box::new(source) };
    let intervals = experts.iter().map(|expert| Some(expert.sigma)).chain([None]);
    for (files, interval) in stage.files().iter().chain(stage.weaker_files()).zip(intervals) {
        hash.update(format!("{interval:?} {:?}\n", files.network));
        sample(&files.weights, &mut hash).map_err(named)?;
        files.part.iter().try_for_each(|(_, part)| sample(part, &mut hash)).map_err(named)?;
        files.loras.iter().try_for_each(|lora| merged(lora, &mut hash)).map_err(named)?;
    }
    if let Some(files) = stage.autoencoder() {
        hash.update(format!("{:?}\n", files.config));
        sample(&files.weights, &mut hash).map_err(named)?;
    }
    Ok(text(hash))
}

fn prior_digest(prior: &Prior) -> Result<String> {
    let (files, precondition) = (prior.files(), prior.precondition());
    let mut hash = Sha256::new_with_prefix(format!("{:?} {precondition:?}\n", files.config));
    let named = |source| ediffi_cascade::Error::Stage { stage: Prior::NAME.to_owned(), source: Box::new(source) };
    sample(&files.weights, &mut hash).map_err(named)?;
    Ok(text(hash))
}

fn weights_digest(paths: &[&Path]) -> Result<String> {
    let mut hash = Sha256::new();
    paths.iter().try_for_each(|path| sample(path, &mut hash))?;
    Ok(text(hash))
}

fn sample(path: &Path, hash: &mut Sha256) -> ediffi_core::Result<()> {
    let weights = WeightsFile::open(path, |name| Some(name.to_owned()))?;
    weights.sample(|_| false, |bytes| hash.update(bytes))
}

/// What is merged into weights.
fn merged(lora: &Lora, hash: &mut Sha256) -> ediffi_core::Result<()> {
    LoraFile::open(lora)?.sample(|bytes| hash.update(bytes))
}

fn text(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
