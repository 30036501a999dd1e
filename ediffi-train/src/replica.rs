//! The parameters as one worker sees them.

use std::sync::{Arc, Mutex, MutexGuard};

use ediffi_core::weights::{Params, Role, Spec};
use tch::{Kind, Tensor};

use crate::flat::{Gradients, Layout};
use crate::{Error, Result};

/// Parameters as one worker of a data-parallel training sees them; see [`TrainState::replica`](crate::state::TrainState::replica).
#[derive(Debug)]
pub struct Replica {
    /// Each parameter in f32, and the same in the precision of the network if that is another.
    parameters: Vec<(String, Tensor, Option<Tensor>)>,
    pub(crate) gradients: Arc<Mutex<Gradients>>,
}

impl Replica {
    /// Views of `parameters`, and of `cast`, a buffer that holds them in another precision.
    pub(crate) fn new(layout: &Arc<Layout>, parameters: &[(String, Tensor)], cast: Option<&Tensor>) -> Result<Self> {
        let leaf = |tensor: &Tensor| -> Result<Tensor> { Ok(tensor.f_detach()?.f_set_requires_grad(true)?) };
        let cast = cast.map(|buffer| layout.views(buffer)).transpose()?.unwrap_or_default();
        let mut views = cast.into_iter();
        let both = parameters.iter().map(|(name, parameter)| {
            let cast = views.next().map(|view| leaf(&view)).transpose()?;
            Ok((name.clone(), leaf(parameter)?, cast))
        });
        let parameters = both.collect::<Result<Vec<_>>>()?;
        let leaves = parameters.iter().enumerate().flat_map(|(index, (_, parameter, cast))| {
            [Some(parameter), cast.as_ref()].into_iter().flatten().map(move |leaf| (index, leaf.shallow_clone()))
        });
        let gradients = Gradients::of(layout, leaves.collect());
        Ok(Self { parameters, gradients: Arc::new(Mutex::new(gradients)) })
    }

    /// The source that the worker builds its network from.
    #[must_use]
    pub fn source(&self) -> ReplicaSource<'_> {
        ReplicaSource(self)
    }
}

/// Fails for a kind that a network cannot be trained in.
pub(crate) fn expect_trainable(kind: Kind) -> Result<()> {
    match kind {
        Kind::Float | Kind::BFloat16 => Ok(()),
        _ => {
            let reason = format!("{kind:?} cannot be trained in; f32 and bf16 can");
            Err(Error::Setting { field: "kind", reason })
        }
    }
}

/// The gradients of a replica.
///
/// # Errors
/// [`Error::WorkerPanicked`] if the thread that worked on them did.
pub(crate) fn lock(gradients: &Mutex<Gradients>) -> Result<MutexGuard<'_, Gradients>> {
    gradients.lock().map_err(|_| Error::WorkerPanicked)
}

/// A [`Replica`] as a source of parameters.
#[derive(Debug)]
pub struct ReplicaSource<'a>(&'a Replica);

impl Params for ReplicaSource<'_> {
    fn kind(&self) -> Option<Kind> {
        let cast = self.0.parameters.iter().find_map(|(_, _, cast)| cast.as_ref());
        Some(cast.map_or(Kind::Float, Tensor::kind))
    }

    fn get(&mut self, spec: &Spec) -> ediffi_core::Result<Tensor> {
        let found = self.0.parameters.iter().find(|(name, ..)| *name == spec.name);
        let fitting = found.filter(|(_, parameter, _)| parameter.size() == spec.shape);
        let (_, parameter, cast) = fitting.ok_or_else(|| absent(spec))?;
        let tensor = match spec.role {
            Role::F32 | Role::Stored => parameter,
            Role::Weight | Role::Kernel => cast.as_ref().unwrap_or(parameter),
        };
        Ok(tensor.shallow_clone())
    }
}

/// Named tensors as a source of parameters, which shares their storage. A network that is built from a running average changes with
/// it.
#[derive(Debug)]
pub struct Shared<'a>(pub &'a [(String, Tensor)]);

impl Params for Shared<'_> {
    fn get(&mut self, spec: &Spec) -> ediffi_core::Result<Tensor> {
        match self.0.iter().find(|(name, _)| *name == spec.name) {
            Some((_, tensor)) if tensor.size() == spec.shape => Ok(tensor.shallow_clone()),
            _ => Err(absent(spec)),
        }
    }
}

fn absent(spec: &Spec) -> ediffi_core::Error {
    ediffi_core::Error::Weights {
        path: "shared parameters".into(),
        missing: vec![spec.name.clone()],
        unexpected: Vec::new(),
        mismatched: Vec::new(),
    }
}
