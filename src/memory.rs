//! What the weights of a model take in memory, known before anything is loaded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ediffi_cascade::{AutoencoderFiles, Prior, Stage};
use ediffi_core::autoencoder::{AttentionWeights, Decoder};
use ediffi_core::weights::{Table, WeightsFile};
use tch::Kind;

use crate::{Pipeline, Request, Result};

/// How names begin in a checkpoint of Stable Diffusion in one file: those of the network, and those of the text encoders.
const NETWORK: &str = "model.diffusion_model.";
const TEXT: [&str; 2] = ["cond_stage_model.", "conditioner."];
/// What such a file's encoders are called.
const TEXT_ENCODERS: &str = "text encoders";

/// A part of a model that a request needs, and what its weights take in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartMemory {
    /// What it is: an encoder by the name of its folder, `prior`, or a part of a stage by the stage's name.
    pub part: String,
    /// The number of the expert, of a stage's experts.
    pub expert: Option<usize>,
    /// Bytes of its weights in the precision in which this pipeline computes. What it computes with them comes on top. A T5 that is held in
    /// eight bits takes less.
    pub bytes: u64,
}

impl Pipeline {
    /// What the weights take that a request needs, in the order in which they are needed: encoders, the prior, the experts that run, and the
    /// decoder of a latent stage. Of the files only headers are read. How many parts are in memory at a time, the
    /// [residency](crate::PipelineBuilder::residency) says. Encoders whose files are not there are left out: a request with
    /// [embeddings](Pipeline::sample) needs none.
    ///
    /// # Errors
    /// As [`plan`](Self::plan); weights of a stage that cannot be read.
    pub fn memory(&self, request: &Request) -> Result<Vec<PartMemory>> {
        let plans = self.plan(request)?;
        let state = self.state()?;
        let kind = self.runtime.kind;
        let mut parts = of_encoders(&self.encoders.weights().unwrap_or_default(), kind);
        for plan in plans {
            if let Some(prior) = state.prior.as_ref().filter(|_| plan.index == Prior::INDEX) {
                let file = WeightsFile::open(&prior.files().weights, same)?;
                parts.push(PartMemory { part: plan.stage, expert: None, bytes: bytes(elements(&file), kind) });
                continue;
            }
            let Some(stage) = state.cascade.stages().get(plan.index) else { continue };
            let mut experts: Vec<usize> = plan.plan.experts().collect();
            experts.sort_unstable();
            experts.dedup();
            parts.extend(of_stage(stage, &experts, kind)?);
        }
        Ok(parts)
    }
}

/// The parts of a model whose encoders have these files.
fn of_encoders(files: &[PathBuf], kind: Kind) -> Vec<PartMemory> {
    let of_file = |path: &PathBuf| {
        // A checkpoint in one file has the network, too, and the autoencoder.
        let whole = WeightsFile::open(path, same).ok()?;
        let checkpoint = whole.shapes().any(|(name, _)| name.starts_with(NETWORK));
        let file = if checkpoint { WeightsFile::open(path, of_text).ok()? } else { whole };
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let part = if checkpoint { TEXT_ENCODERS.to_owned() } else { folder.into_owned() };
        Some(PartMemory { part, expert: None, bytes: bytes(elements(&file), kind) })
    };
    let unique: BTreeSet<&PathBuf> = files.iter().collect();
    unique.into_iter().filter_map(of_file).collect()
}

fn of_stage(stage: &Stage, experts: &[usize], kind: Kind) -> Result<Vec<PartMemory>> {
    let mut parts = Vec::new();
    let mut add = |part: String, expert, bytes| parts.push(PartMemory { part, expert, bytes });
    for &expert in experts {
        if let Some(files) = stage.files().get(expert) {
            add(stage.name().to_owned(), Some(expert), bytes(elements(&files.open()?), kind));
        }
    }
    if let Some(files) = stage.weaker_files() {
        add(format!("{} weaker", stage.name()), None, bytes(elements(&files.open()?), kind));
    }
    if let Some(AutoencoderFiles { config, .. }) = stage.autoencoder() {
        let decoder = Table::of(|scope| Decoder::new(scope, config, AttentionWeights::Matrices, Kind::Float))?;
        let elements = u64::try_from(decoder.elements()).unwrap_or(u64::MAX);
        add(format!("{} decoder", stage.name()), None, bytes(elements, config.precision(kind)));
    }
    Ok(parts)
}

/// The numbers of all tensors.
fn elements(file: &WeightsFile) -> u64 {
    let of = |shape: &[usize]| shape.iter().fold(1_u64, |product, side| product.saturating_mul(*side as u64));
    file.shapes().fold(0, |sum, (_, shape)| sum.saturating_add(of(shape)))
}

fn bytes(elements: u64, kind: Kind) -> u64 {
    elements.saturating_mul(if kind == Kind::Float { 4 } else { 2 })
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn of_text(name: &str) -> Option<String> {
    TEXT.iter().any(|prefix| name.starts_with(prefix)).then(|| name.to_owned())
}
