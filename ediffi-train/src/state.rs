//! Everything a training needs to go on: weights, optimizer, average and position, in one file written atomically.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ediffi_core::unet::DETAIL;
use ediffi_core::weights::save;
use tch::{Device, Kind, Tensor};

use crate::checkpoint::{Checkpoint, header, open, read_into};
use crate::ema::Ema;
use crate::flat::{Gradients, Layout};
use crate::lock::Lock;
use crate::optimizer::{AdamW, AdamWSettings};
pub use crate::replica::{Replica, ReplicaSource, Shared};
use crate::replica::{expect_trainable, lock};
use crate::{Error, Result};

mod together;

/// Parameters under training, with optimizer, average and position.
///
/// Weights, moments, average and gradients are a buffer each, of which the parameters are views.
#[derive(Debug)]
pub struct TrainState {
    layout: Arc<Layout>,
    parameters: Vec<(String, Tensor)>,
    average: Vec<(String, Tensor)>,
    /// All parameters.
    weights: Tensor,
    /// All parameters in another precision, for replicas.
    cast: Option<Tensor>,
    /// The gradients that backward passes leave in the parameters themselves.
    gradients: Gradients,
    /// Which parameters have ever had a gradient.
    used: Vec<bool>,
    optimizer: AdamW,
    ema: Ema,
    step: u64,
    pictures: u64,
    /// The last step, until it is known whether its gradients were finite.
    pending: Option<Pending>,
    /// Of the run that it is trained in.
    pub(crate) lock: Option<Lock>,
}

/// A step whose norm has not been read.
#[derive(Debug)]
struct Pending {
    norm: Tensor,
    pictures: u64,
}

/// The gradients of a step, added up.
#[derive(Debug)]
pub(crate) struct Collected {
    /// Shares its storage with the gradients of a replica, or of the parameters. `None` if there were none.
    sum: Option<Tensor>,
    /// Whether a parameter has had its first gradient.
    pub(crate) grown: bool,
    /// The norm of the step before, unless that was read already.
    before: Result<Option<f64>>,
}

impl TrainState {
    /// Starts the training of `parameters`, which come from [`Fresh`](ediffi_core::weights::Fresh). They track gradients from now on,
    /// and their numbers move to a buffer of all parameters: what shares their storage, but is another tensor, does not follow them.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that makes no sense, a decay outside of [0, 1), or parameters that are not f32 on one device;
    /// a device without room.
    pub fn new(parameters: Vec<(String, Tensor)>, optimizer: AdamWSettings, ema_decay: f64) -> Result<Self> {
        let layout = Arc::new(Layout::of(&parameters)?);
        let optimizer = AdamW::new(optimizer, &layout)?;
        let weights = layout.zeros(Kind::Float)?;
        let mut tracked = Vec::with_capacity(parameters.len());
        for ((name, mut parameter), mut view) in parameters.into_iter().zip(layout.views(&weights)?) {
            view.f_copy_(&parameter)?;
            parameter.f_set_data(&view)?;
            tracked.push((name, parameter.f_set_requires_grad(true)?));
        }
        let ema = Ema::new(ema_decay, &weights)?;
        let average = named(&tracked, layout.views(&ema.average)?);
        let leaves = tracked.iter().map(|(_, parameter)| parameter.shallow_clone()).enumerate().collect();
        let (gradients, used) = (Gradients::of(&layout, leaves), vec![false; tracked.len()]);
        let (cast, pending, step, pictures) = (None, None, 0, 0);
        let parameters = tracked;
        Ok(Self {
            layout,
            parameters,
            average,
            weights,
            cast,
            gradients,
            used,
            optimizer,
            ema,
            step,
            pictures,
            pending,
            lock: None,
        })
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
        &self.average
    }

    /// One optimizer step, with the mean of the gradients that `accumulated` backward passes have left in the parameters. All of
    /// them together saw `pictures` pictures. Clears the gradients, and returns the norm of their mean.
    ///
    /// A parameter that has never had a gradient stays as it is.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the gradients are not finite. They are cleared, and nothing else is changed.
    pub fn update(&mut self, pictures: u64, accumulated: usize) -> Result<f64> {
        self.update_from(&[], pictures, accumulated)
    }

    /// A view of the parameters for one worker of a data-parallel training. It shares their storage and collects gradients of its
    /// own, so that workers on several threads do not disturb each other. Every backward pass since the last update counts: after a
    /// step that failed half way, make new replicas.
    ///
    /// # Errors
    /// An error of libtorch.
    pub fn replica(&self) -> Result<Replica> {
        Replica::new(&self.layout, &self.parameters, None)
    }

    /// As [`replica`](Self::replica), for a network that computes in `kind`. Its weights are cast once a step for all replicas, and not
    /// in every call of a layer. [`Run::train`](crate::run::Run::train) adds the gradients of several batches up in f32; without it, several
    /// backward passes before an update are added up in `kind`.
    ///
    /// # Errors
    /// [`Error::Setting`] for a kind that is neither f32 nor bf16: the gradients of f16 would need a loss that is scaled.
    pub fn replica_in(&mut self, kind: Kind) -> Result<Replica> {
        expect_trainable(kind)?;
        if kind == Kind::Float {
            return self.replica();
        }
        if self.cast.is_none() {
            self.cast = Some(self.weights.f_to_kind(kind)?);
        }
        Replica::new(&self.layout, &self.parameters, self.cast.as_ref())
    }

    /// As [`update`](Self::update), with the sum of the gradients that `replicas` have collected, added in their order.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_from(&mut self, replicas: &[&Replica], pictures: u64, accumulated: usize) -> Result<f64> {
        self.advance(replicas, pictures, accumulated)?;
        Ok(self.settle()?.unwrap_or_default())
    }

    /// As [`update_from`](Self::update_from), but nothing waits for the device to be done with the optimizer. Returns the norm of the step
    /// before, unless that was read already.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn advance(&mut self, replicas: &[&Replica], pictures: u64, accumulated: usize) -> Result<Option<f64>> {
        let collected = self.collect(replicas)?;
        self.apply(collected, pictures, accumulated)
    }

    /// The gradients that backward passes have left in the parameters and in `replicas`, added up.
    ///
    /// # Errors
    /// An error of libtorch.
    pub(crate) fn collect(&mut self, replicas: &[&Replica]) -> Result<Collected> {
        let before = self.settle();
        let _no_grad = tch::no_grad_guard();
        let mut others = replicas.iter().map(|replica| lock(&replica.gradients)).collect::<Result<Vec<_>>>()?;
        let all = std::iter::once(&mut self.gradients).chain(others.iter_mut().map(|other| &mut **other));
        let (mut sum, mut grown): (Option<Tensor>, bool) = (None, false);
        for gradients in all {
            let Some((buffer, used)) = gradients.gathered()? else { continue };
            for (ever, used) in self.used.iter_mut().zip(used).filter(|(_, used)| **used) {
                grown |= !std::mem::replace(ever, *used);
            }
            match &mut sum {
                Some(sum) => {
                    let _ = sum.f_add_(buffer)?;
                    let _ = buffer.f_zero_()?;
                }
                none => *none = Some(buffer.shallow_clone()),
            }
        }
        Ok(Collected { sum, grown, before })
    }

    /// A step with what was [collected](Self::collect). Returns the norm of the step before, unless that was read already.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the gradients of the step *before* were not finite. Those of this one are cleared then, and everything
    /// is as it was before that step: on the device, it was left out.
    pub(crate) fn apply(&mut self, collected: Collected, pictures: u64, accumulated: usize) -> Result<Option<f64>> {
        let _no_grad = tch::no_grad_guard();
        let Collected { mut sum, before, .. } = collected;
        let before = match (before, &mut sum) {
            (Err(diverged), Some(sum)) => {
                let _ = sum.f_zero_()?;
                return Err(diverged);
            }
            (before, _) => before?,
        };
        let (layout, weights, accumulated) = (&self.layout, &self.weights, accumulated.max(1) as f64);
        let norm = match &mut sum {
            Some(sum) => self.optimizer.step(layout, weights, (sum, &self.used), self.step, accumulated)?,
            None => Tensor::f_zeros([] as [i64; 0], (Kind::Double, weights.device()))?,
        };
        self.ema.update(weights, &norm, self.step)?;
        self.refresh()?;
        self.step += 1;
        self.pictures += pictures;
        self.pending = Some(Pending { norm, pictures });
        Ok(before)
    }

    /// The norm of the gradients of the last step, unless it was read already.
    ///
    /// # Errors
    /// [`Error::Diverged`] when it is not finite. Everything is as it was before that step then.
    pub(crate) fn settle(&mut self) -> Result<Option<f64>> {
        let Some(Pending { norm, pictures }) = self.pending.take() else { return Ok(None) };
        let value = norm.f_double_value(&[])?;
        if value.is_finite() {
            return Ok(Some(value));
        }
        self.step -= 1;
        self.pictures -= pictures;
        Err(Error::Diverged { step: self.step, what: "norm of the gradients", value })
    }

    /// Casts the weights once more, after they have changed.
    fn refresh(&mut self) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.cast.as_mut().map_or(Ok(()), |cast| Ok(cast.f_copy_(&self.weights)?))
    }

    /// Sets the parameters and their average to the weights of a file. A child expert begins as its parent (eDiff-I §4.1). The parameters
    /// of a [detail head](ediffi_core::unet::DetailConfig) that the file has not keep their start values: the child then answers as its
    /// parent, too.
    ///
    /// # Errors
    /// A file whose tensors are not these parameters.
    pub fn start_from(&mut self, path: &Path) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let file = open(path)?;
        let of_a_head = |name: &str| name.strip_prefix(DETAIL).is_some_and(|rest| rest.starts_with('.'));
        let parent_has_one = file.shapes().any(|(name, _)| of_a_head(name));
        let inherited = self.parameters.iter().filter(|(name, _)| parent_has_one || !of_a_head(name));
        read_into(&file, &inherited.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect::<Vec<_>>())?;
        self.ema.average.f_copy_(&self.weights)?;
        self.ema.settled = true;
        self.refresh()?;
        tracing::info!(file = %path.display(), "starting from a trained network");
        Ok(())
    }

    /// Writes a checkpoint, `notes` in its header. One tensor at a time is copied.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path, notes: HashMap<String, String>) -> Result<()> {
        self.checkpoint(self.tensors(shared)?, notes).write(path)
    }

    /// A copy of the state in the memory of the CPU, to be written while the training goes on. It takes as much memory as the
    /// checkpoint is long: four times the parameters.
    pub(crate) fn snapshot(&self, notes: HashMap<String, String>) -> Result<Checkpoint> {
        let copies = self.tensors(|buffer| Ok(buffer.f_to_device_(Device::Cpu, Kind::Float, false, true)?))?;
        Ok(self.checkpoint(copies, notes))
    }

    fn checkpoint(&self, tensors: Vec<(String, Tensor)>, mut notes: HashMap<String, String>) -> Checkpoint {
        notes.insert("step".to_owned(), self.step.to_string());
        notes.insert("pictures".to_owned(), self.pictures.to_string());
        notes.insert("settled".to_owned(), self.ema.settled.to_string());
        let used = self.used.iter().map(|used| if *used { '1' } else { '0' });
        notes.insert("used".to_owned(), used.collect());
        Checkpoint { tensors, notes }
    }

    /// What a checkpoint holds of each parameter: views of what `of` makes of each buffer.
    fn tensors(&self, of: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<(String, Tensor)>> {
        let AdamW { first, second, .. } = &self.optimizer;
        let parts = [("weights", &self.weights), ("first", first), ("second", second), ("ema", &self.ema.average)];
        let mut tensors = Vec::with_capacity(parts.len() * self.parameters.len());
        for (part, buffer) in parts {
            let views = named(&self.parameters, self.layout.views(&of(buffer)?)?);
            tensors.extend(views.into_iter().map(|(name, view)| (format!("{part}.{name}"), view)));
        }
        Ok(tensors)
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// A file that is missing, cut short, or of another network. Nothing is changed then.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let file = open(path)?;
        let (step, pictures) = (header(&file, path, "step")?, header(&file, path, "pictures")?);
        let settled = header(&file, path, "settled")?;
        read_into(&file, &self.tensors(shared)?)?;
        (self.step, self.pictures, self.ema.settled, self.pending) = (step, pictures, settled, None);
        // One whose gradients were zero has had them, too, and decays.
        let written: Option<Vec<bool>> = file.text("used").map(|used| used.bytes().map(|byte| byte == b'1').collect());
        if let Some(written) = written.filter(|written| written.len() == self.used.len()) {
            self.used = written;
        }
        // Of older files, a second moment that is not zero tells it.
        let older = file.text("used").is_none();
        for (used, second) in self.used.iter_mut().zip(self.layout.views(&self.optimizer.second)?).filter(|_| older) {
            *used = second.f_any()?.f_int64_value(&[])? != 0;
        }
        self.refresh()?;
        tracing::info!(file = %path.display(), step, pictures, "resumed");
        Ok(())
    }

    /// Writes the averaged weights in `kind`, as a model folder holds them. With a `prefix`, only the parameters whose names begin
    /// with it are written, without it.
    ///
    /// # Errors
    /// [`Error::Setting`] when no parameter is below `prefix`; a file that cannot be written.
    pub fn export(&self, path: &Path, prefix: &str, kind: Kind, mut notes: HashMap<String, String>) -> Result<()> {
        let below = self.average.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)));
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

/// A buffer itself.
fn shared(buffer: &Tensor) -> Result<Tensor> {
    Ok(buffer.shallow_clone())
}

/// Tensors with the names of `parameters`.
fn named(parameters: &[(String, Tensor)], tensors: Vec<Tensor>) -> Vec<(String, Tensor)> {
    parameters.iter().zip(tensors).map(|((name, _), tensor)| (name.clone(), tensor)).collect()
}
