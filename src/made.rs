//! Finding the provenance of a picture: digests of what an opened pipeline is made of.

use std::collections::BTreeMap;
use std::path::Path;

use ediffi_cascade::{Stage, StageConfig, StagePlan};
use ediffi_core::weights::WeightsFile;
use sha2::{Digest, Sha256};
use tch::Kind;

use crate::lazy::get_or_make;
use crate::pipeline::State;
use crate::{Pipeline, Provenance, Request, Result, StageProvenance};

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
            let (Some(stage), Some(cell)) = (stages.get(plan.index), self.digests.stages.get(plan.index)) else {
                continue;
            };
            let digest = get_or_make(cell, || stage_digest(stage))?.clone();
            made.insert(plan.stage.clone(), StageProvenance { digest, settings: plan.settings.clone() });
        }
        let whole = plans.last().is_some_and(|plan| plan.index + 1 == stages.len());
        let enlarger = self.enlarger.as_deref().filter(|_| whole);
        let enlarger = enlarger.map(|file| get_or_make(&self.digests.enlarger, || weights_digest(&[file])));
        let encoders = get_or_make(&self.digests.encoders, || weights_digest(&self.encoders.folders()))?.clone();
        let precision = match self.runtime.kind {
            Kind::BFloat16 => "bf16",
            Kind::Half => "f16",
            _ => "f32",
        };
        let enlarger = enlarger.transpose()?.cloned();
        Ok(Provenance { precision: precision.to_owned(), encoders, stages: made, enlarger })
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
    let named = |source| ediffi_cascade::Error::Stage { stage: stage.name().to_owned(), source: Box::new(source) };
    let intervals = experts.iter().map(|expert| Some(expert.sigma)).chain([None]);
    for (files, interval) in stage.files().iter().chain(stage.weaker_files()).zip(intervals) {
        hash.update(format!("{interval:?} {:?}\n", files.network));
        sample(&files.weights, &mut hash).map_err(named)?;
    }
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

fn text(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
