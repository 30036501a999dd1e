//! LoRA under training: a network that is frozen, and small changes of some of its weights.
//!
//! The weight W of a layer becomes W + (alpha / rank) · B · A, with A [rank, inputs] and B [outputs, rank] (Hu et al. 2021, "LoRA:
//! Low-Rank Adaptation of Large Language Models", [arXiv 2106.09685](https://arxiv.org/abs/2106.09685), §4.1). A begins as chance says and B as
//! zeros, so the network begins as the frozen one. A and B alone are parameters: the optimizer, the average and checkpoints hold nothing else.
//!
//! The sum is made anew for each batch, in f32, and the network is built over it. So every layout can be trained, convolutions too,
//! and merging the file afterwards gives the very network that was trained. A step takes as long as that of the whole network; what it saves is
//! memory and disk.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::unet::{Layout, UNet};
use ediffi_core::weights::{self, Init, Params, Role, Spec, Table};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// How diffusers' names of a network's LoRA begin.
const NETWORK: &str = "unet";

/// The key of a header under which diffusers looks for rank and alpha.
const METADATA: &str = "lora_adapter_metadata";

/// How the names of weights end.
const WEIGHT: &str = ".weight";

/// Which weights a LoRA changes, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoraSettings {
    /// Rank of the changes.
    pub rank: i64,
    /// How strongly they act: alpha / rank. The rank if there is none.
    pub alpha: Option<f64>,
    /// The layers that are changed, by their names or the ends of them: `q` is every layer whose name ends in `.q`, as in PEFT.
    pub targets: Vec<String>,
}

impl LoraSettings {
    /// Checks the numbers, and that every target is a layer of a network.
    ///
    /// # Errors
    /// [`Error::Setting`] naming what makes no sense; dimensions that make no network.
    pub fn check(&self, layout: &dyn Layout) -> Result<()> {
        let wrong = |field, reason| Err(Error::Setting { field, reason });
        let (rank, alpha) = (self.rank, self.alpha());
        if !(1..=4096).contains(&rank) {
            return wrong("lora.rank", format!("{rank} is not in 1..=4096"));
        }
        if !alpha.is_finite() || alpha <= 0.0 {
            return wrong("lora.alpha", format!("{alpha} is no positive number"));
        }
        if self.targets.is_empty() {
            return wrong("lora.targets", "there are none: name the layers that are changed".to_owned());
        }
        let specs = specs(layout)?;
        let layers: Vec<&str> = specs.iter().filter_map(layer).collect();
        match self.targets.iter().find(|target| !layers.iter().any(|layer| is_called(layer, target))) {
            None => Ok(()),
            Some(target) => {
                let some = layers.iter().take(6).copied().collect::<Vec<_>>().join(", ");
                wrong("lora.targets", format!("no layer's name ends in {target:?}; there are {some}, …"))
            }
        }
    }

    /// How strongly the changes act, before they are divided by the rank.
    #[must_use]
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.rank as f64)
    }

    /// What the header of a file says for diffusers and PEFT, which know rank, alpha and layers by it.
    #[must_use]
    pub fn notes(&self) -> HashMap<String, String> {
        let said = json!({
            "unet.r": self.rank,
            "unet.lora_alpha": self.alpha(),
            "unet.target_modules": self.targets,
        });
        HashMap::from([(METADATA.to_owned(), said.to_string()), ("format".to_owned(), "pt".to_owned())])
    }

    fn changes(&self, spec: &Spec) -> bool {
        layer(spec).is_some_and(|layer| self.targets.iter().any(|target| is_called(layer, target)))
    }
}

/// The layer whose weight this is: a linear map or a convolution.
fn layer(spec: &Spec) -> Option<&str> {
    spec.name.strip_suffix(WEIGHT).filter(|_| [2, 4].contains(&spec.shape.len()))
}

fn is_called(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The parameters of a network.
fn specs(layout: &dyn Layout) -> Result<Vec<Spec>> {
    Ok(Table::of(|scope| UNet::new(scope, layout, Kind::Float))?.specs().to_vec())
}

/// The weights of a network that stay as they are.
#[derive(Debug)]
pub struct Frozen {
    settings: LoraSettings,
    kind: Kind,
    weights: Vec<(Spec, Tensor)>,
}

impl Frozen {
    /// Reads the weights of a network that computes in `kind`, in whose file they have the network's names. Those that a LoRA changes stay in
    /// f32.
    ///
    /// # Errors
    /// Those of [`LoraSettings::check`]; weights of another network.
    pub fn open(path: &Path, layout: &dyn Layout, settings: &LoraSettings, device: Device, kind: Kind) -> Result<Self> {
        settings.check(layout)?;
        let specs = specs(layout)?;
        let _no_grad = tch::no_grad_guard();
        let read = |mut scope: weights::Scope<'_>| -> ediffi_core::Result<Vec<Tensor>> {
            let mut get = |spec: &Spec| scope.get(&spec.name, &spec.shape, spec.init, spec.role);
            specs.iter().map(&mut get).collect()
        };
        let read = weights::load(path, |name| Some(name.to_owned()), device, Kind::Float, read)?;
        let held = |(spec, tensor): (&Spec, Tensor)| -> Result<(Spec, Tensor)> {
            let tensor =
                if settings.changes(spec) { tensor.f_to_kind(Kind::Float)? } else { in_role(&tensor, spec, kind)? };
            Ok((spec.clone(), tensor))
        };
        let weights = specs.iter().zip(read).map(held).collect::<Result<_>>()?;
        Ok(Self { settings: settings.clone(), kind, weights })
    }

    /// The weights with the changes that `params` holds, by the names of a file for diffusers and PEFT:
    /// `unet.LAYER.lora_A.weight` and `unet.LAYER.lora_B.weight`. What is asked of it later has what `params` holds then.
    ///
    /// # Errors
    /// Parameters that `params` does not have.
    pub fn over(&self, params: &mut dyn Params) -> Result<Adapted> {
        let mut weights = HashMap::with_capacity(self.weights.len());
        for (spec, base) in &self.weights {
            let change = layer(spec).filter(|_| self.settings.changes(spec));
            let change = change.map(|layer| matrices(params, layer, &spec.shape, self.settings.rank)).transpose()?;
            weights.insert(spec.name.clone(), (base.shallow_clone(), change));
        }
        Ok(Adapted { weights, factor: self.settings.alpha() / self.settings.rank as f64, kind: self.kind })
    }

    /// What was frozen under which settings.
    #[must_use]
    pub fn settings(&self) -> &LoraSettings {
        &self.settings
    }
}

/// A and B of a layer. Those of a convolution are convolutions, as in PEFT: A has its squares, and B is of single pixels.
fn matrices(params: &mut dyn Params, layer: &str, shape: &[i64], rank: i64) -> Result<(Tensor, Tensor)> {
    let outputs = shape.first().copied().unwrap_or(1);
    let inside = shape.get(1..).unwrap_or_default();
    let down: Vec<i64> = std::iter::once(rank).chain(inside.iter().copied()).collect();
    let up: Vec<i64> = [outputs, rank].into_iter().chain(inside.iter().skip(1).map(|_| 1)).collect();
    let init = Init::fan_in(inside.iter().product());
    let mut get = |half: &str, shape: Vec<i64>, init| {
        params.get(&Spec { name: format!("{NETWORK}.{layer}.lora_{half}{WEIGHT}"), shape, init, role: Role::F32 })
    };
    Ok((get("A", down, init)?, get("B", up, Init::Zeros)?))
}

/// A tensor in the kind that a network which computes in `kind` has it in.
fn in_role(tensor: &Tensor, spec: &Spec, kind: Kind) -> std::result::Result<Tensor, tch::TchError> {
    match spec.role {
        Role::Weight | Role::Kernel => tensor.f_to_kind(kind),
        Role::F32 => tensor.f_to_kind(Kind::Float),
        Role::Stored => Ok(tensor.shallow_clone()),
    }
}

/// A frozen network with its changes, as a source of parameters. A network that is built from it has the changes of that moment, and gives their
/// gradients to A and B.
#[derive(Debug)]
pub struct Adapted {
    weights: HashMap<String, (Tensor, Option<(Tensor, Tensor)>)>,
    factor: f64,
    kind: Kind,
}

impl Params for Adapted {
    fn kind(&self) -> Option<Kind> {
        Some(self.kind)
    }

    fn get(&mut self, spec: &Spec) -> ediffi_core::Result<Tensor> {
        let found = self.weights.get(&spec.name).filter(|(base, _)| base.size() == spec.shape);
        let Some((base, change)) = found else {
            return Err(ediffi_core::Error::Weights {
                path: "a frozen network".into(),
                missing: vec![spec.name.clone()],
                unexpected: Vec::new(),
                mismatched: Vec::new(),
            });
        };
        let Some((down, up)) = change else { return Ok(base.shallow_clone()) };
        let added = up.f_flatten(1, -1)?.f_matmul(&down.f_flatten(1, -1)?)?.f_mul_scalar(self.factor)?;
        Ok(in_role(&base.f_add(&added.f_view(&*spec.shape)?)?, spec, self.kind)?)
    }
}
