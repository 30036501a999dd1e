//! The list of a network's parameters, made without allocating them.

use tch::{Device, Kind, Tensor};

use super::params::{Params, Scope, Spec};
use crate::Result;

/// Records the parameters that a network asks for. It hands out empty tensors.
#[derive(Debug, Default)]
pub struct Table {
    specs: Vec<Spec>,
}

impl Table {
    /// The parameters that `build` asks for.
    ///
    /// # Errors
    /// Those of `build`: a configuration that makes no network.
    pub fn of<T>(build: impl FnOnce(Scope<'_>) -> Result<T>) -> Result<Self> {
        let mut table = Self::default();
        build(Scope::root(&mut table))?;
        Ok(table)
    }

    /// Every parameter, in the order of the network.
    #[must_use]
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// FNV-1a of 64 bits over the sorted names and shapes of the parameters that `named` names, as the scripts of fixtures compute it.
    #[cfg(test)]
    pub(crate) fn digest(&self, named: impl Fn(&str) -> Option<&str>) -> String {
        let shape = |shape: &[i64]| shape.iter().map(i64::to_string).collect::<Vec<_>>().join("x");
        let lines = self.specs.iter().filter_map(|spec| Some((named(&spec.name)?, shape(&spec.shape))));
        let mut lines: Vec<_> = lines.collect();
        lines.sort();
        let text: String = lines.into_iter().map(|(name, shape)| format!("{name} {shape}\n")).collect();
        let next = |value: u64, byte| (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, next))
    }

    /// Total number of elements.
    #[must_use]
    pub fn elements(&self) -> i64 {
        self.specs.iter().fold(0, |sum, spec| sum.saturating_add(spec.elements()))
    }
}

impl Params for Table {
    fn get(&mut self, spec: &Spec) -> Result<Tensor> {
        self.specs.push(spec.clone());
        Ok(Tensor::f_empty([0], (Kind::Float, Device::Cpu))?)
    }
}
