//! Everything a training needs to go on: weights, optimizer, average and position, in one file written atomically.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::weights::{Init, Scope, Spec, WeightsFile, save};
use tch::{Device, Kind, Tensor};

use crate::ema::Ema;
use crate::optimizer::{AdamW, AdamWSettings};
use crate::{Error, Result};

/// Parameters under training, with optimizer, average and position.
#[derive(Debug)]
pub struct TrainState {
    parameters: Vec<(String, Tensor)>,
    optimizer: AdamW,
    ema: Ema,
    step: u64,
    pictures: u64,
}

impl TrainState {
    /// Starts the training of `parameters`, which come from [`Fresh`](ediffi_core::weights::Fresh). They track gradients from now on.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that makes no sense or a decay outside of [0, 1); a device without room.
    pub fn new(parameters: Vec<(String, Tensor)>, optimizer: AdamWSettings, ema_decay: f64) -> Result<Self> {
        let optimizer = AdamW::new(optimizer, &parameters)?;
        let ema = Ema::new(ema_decay, &parameters)?;
        let tracked = parameters.into_iter().map(|(name, p)| Ok((name, p.f_set_requires_grad(true)?)));
        Ok(Self { parameters: tracked.collect::<Result<_>>()?, optimizer, ema, step: 0, pictures: 0 })
    }

    /// Optimizer steps done.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Pictures seen.
    #[must_use]
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Learning rate of the next step.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.optimizer.settings.rate(self.step)
    }

    /// The parameters under training, sharing storage with the network's.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// The averaged parameters, sharing storage with the running average.
    pub fn average(&self) -> &[(String, Tensor)] {
        &self.ema.average
    }

    /// One optimizer step, with the mean of the gradients that `accumulated` backward passes have left in the parameters. All of
    /// them together saw `pictures` pictures. Clears the gradients, and returns the norm of their mean.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the gradients are not finite. They are cleared, and nothing else is changed.
    pub fn update(&mut self, pictures: u64, accumulated: usize) -> Result<f64> {
        self.update_from(&[], pictures, accumulated)
    }

    /// A view of the parameters for one rank of a data-parallel training. It shares their storage and collects gradients of its
    /// own, so that ranks on several threads do not disturb each other. Every backward pass since the last update counts: after a
    /// step that failed half way, make new replicas.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn replica(&self) -> Result<Replica> {
        let view = |p: &Tensor| -> Result<Tensor> { Ok(p.f_detach()?.f_set_requires_grad(true)?) };
        let parameters = self.parameters.iter().map(|(name, p)| Ok((name.clone(), view(p)?))).collect::<Result<_>>()?;
        Ok(Replica { parameters })
    }

    /// As [`update`](Self::update), with the sum of the gradients that `replicas` have collected, added in their order.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_from(&mut self, replicas: &[&Replica], pictures: u64, accumulated: usize) -> Result<f64> {
        let copies: Vec<_> = replicas.iter().map(|replica| replica.parameters.as_slice()).collect();
        let norm = self.optimizer.step(&self.parameters, &copies, self.step, accumulated.max(1) as f64)?;
        self.ema.update(&self.parameters, self.step)?;
        self.step += 1;
        self.pictures += pictures;
        Ok(norm)
    }

    /// Sets the parameters and their average to the weights of a file. A child expert begins as its parent (eDiff-I §4.1).
    ///
    /// # Errors
    /// A file whose tensors are not these parameters.
    pub fn start_from(&mut self, path: &Path) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let loaded = read(&open(path)?, &self.parameters)?;
        for part in [&mut self.parameters, &mut self.ema.average] {
            fill(part, &loaded)?;
        }
        self.ema.settled = true;
        tracing::info!(file = %path.display(), "starting from a trained network");
        Ok(())
    }

    /// Writes a checkpoint, `notes` in its header.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path, mut notes: HashMap<String, String>) -> Result<()> {
        notes.insert("step".to_owned(), self.step.to_string());
        notes.insert("pictures".to_owned(), self.pictures.to_string());
        notes.insert("settled".to_owned(), self.ema.settled.to_string());
        save(path, &self.tensors(), notes)?;
        tracing::debug!(file = %path.display(), step = self.step, "checkpoint written");
        Ok(())
    }

    /// What a checkpoint holds of each parameter, sharing storage.
    fn tensors(&self) -> Vec<(String, Tensor)> {
        let moments = self.optimizer.first.iter().zip(&self.optimizer.second);
        let parts = self.parameters.iter().zip(moments).zip(&self.ema.average);
        let named = parts.flat_map(|(((name, parameter), (first, second)), (_, average))| {
            let parts = [("weights", parameter), ("first", first), ("second", second), ("ema", average)];
            parts.map(|(part, tensor)| (format!("{part}.{name}"), tensor.shallow_clone()))
        });
        named.collect()
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A file that is missing, cut short, or of another network. Nothing is changed then.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (file, mut tensors) = (open(path)?, self.tensors());
        let loaded = read(&file, &tensors)?;
        let (step, pictures) = (header(&file, path, "step")?, header(&file, path, "pictures")?);
        let settled = header(&file, path, "settled")?;
        fill(&mut tensors, &loaded)?;
        (self.step, self.pictures, self.ema.settled) = (step, pictures, settled);
        tracing::info!(file = %path.display(), step, pictures, "resumed");
        Ok(())
    }

    /// Writes the averaged weights in `kind`, as a model folder holds them. With a `prefix`, only the parameters whose names begin
    /// with it are written, without it.
    ///
    /// # Errors
    /// [`Error::Setting`] when no parameter is below `prefix`; a file that cannot be written.
    pub fn export(&self, path: &Path, prefix: &str, kind: Kind, mut notes: HashMap<String, String>) -> Result<()> {
        let below = self.average().iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)));
        let exported = below.map(|(name, tensor)| Ok((name.to_owned(), tensor.f_to_kind(kind)?)));
        let tensors = exported.collect::<Result<Vec<_>>>()?;
        if tensors.is_empty() {
            return Err(Error::Setting { field: "prefix", reason: format!("no parameter is below {prefix:?}") });
        }
        notes.insert("pictures".to_owned(), self.pictures.to_string());
        notes.insert("steps".to_owned(), self.step.to_string());
        Ok(save(path, &tensors, notes)?)
    }
}

/// A value in the header of a checkpoint.
fn header<T: std::str::FromStr>(file: &WeightsFile, path: &Path, key: &str) -> Result<T> {
    file.text(key)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Checkpoint { path: path.to_owned(), reason: format!("its header has no {key}") })
}

fn open(path: &Path) -> Result<WeightsFile> {
    Ok(WeightsFile::open(path, |name| Some(name.to_owned()))?)
}

/// Reads tensors of the names and shapes of `like`, f32, from a file that holds exactly them.
fn read(file: &WeightsFile, like: &[(String, Tensor)]) -> Result<Vec<Tensor>> {
    Ok(file.build(Device::Cpu, Kind::Float, |mut scope: Scope<'_>| {
        like.iter().map(|(name, tensor)| scope.weight(name, &tensor.size(), Init::Zeros)).collect()
    })?)
}

fn fill(tensors: &mut [(String, Tensor)], values: &[Tensor]) -> Result<()> {
    tensors.iter_mut().zip(values).try_for_each(|((_, tensor), value)| Ok(tensor.f_copy_(value)?))
}

/// Parameters as one rank of a data-parallel training sees them; see [`TrainState::replica`].
#[derive(Debug)]
pub struct Replica {
    parameters: Vec<(String, Tensor)>,
}

impl Replica {
    /// The source that the rank builds its network from.
    #[must_use]
    pub fn source(&self) -> Shared<'_> {
        Shared(&self.parameters)
    }
}

/// Named tensors as a source of parameters, which shares their storage. A network that is built from a running average changes with
/// it.
#[derive(Debug)]
pub struct Shared<'a>(pub &'a [(String, Tensor)]);

impl ediffi_core::weights::Params for Shared<'_> {
    fn get(&mut self, spec: &Spec) -> ediffi_core::Result<Tensor> {
        match self.0.iter().find(|(name, _)| *name == spec.name) {
            Some((_, tensor)) if tensor.size() == spec.shape => Ok(tensor.shallow_clone()),
            _ => Err(ediffi_core::Error::Weights {
                path: "shared parameters".into(),
                missing: vec![spec.name.clone()],
                unexpected: Vec::new(),
                mismatched: Vec::new(),
            }),
        }
    }
}
