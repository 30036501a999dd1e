//! New parameters with seeded start values, for training and tests.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use tch::{Device, Kind, Tensor};

use super::params::{Init, Params, Role, Spec};
use crate::Result;

/// Makes each parameter from its [`Init`], in f32 on one device, and in the memory order of its [`Role`]. The same seed gives the same
/// values.
#[derive(Debug)]
pub struct Fresh {
    rng: ChaCha8Rng,
    device: Device,
    named: Vec<(String, Tensor)>,
    fixed: bool,
}

impl Fresh {
    /// Start values drawn from `seed`, placed on `device`.
    #[must_use]
    pub fn new(seed: u64, device: Device) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), device, named: Vec::new(), fixed: false }
    }

    /// The same values as those of a loaded network: they will not change, so a layer may keep them in an order of its own.
    #[must_use]
    pub fn fixed(self) -> Self {
        Self { fixed: true, ..self }
    }

    /// Every parameter made so far, with its name. The tensors share storage with those of the network.
    #[must_use]
    pub fn into_named(self) -> Vec<(String, Tensor)> {
        self.named
    }
}

impl Params for Fresh {
    fn get(&mut self, spec: &Spec) -> Result<Tensor> {
        let options = (Kind::Float, Device::Cpu);
        let tensor = match spec.init {
            Init::Zeros => Tensor::f_zeros(&spec.shape, options)?,
            Init::Ones => Tensor::f_ones(&spec.shape, options)?,
            Init::Normal { std } => {
                let values: Vec<f32> = (0..spec.elements())
                    .map(|_| {
                        let z: f64 = StandardNormal.sample(&mut self.rng);
                        (z * std) as f32
                    })
                    .collect();
                Tensor::f_from_slice(&values)?.f_reshape(&spec.shape)?
            }
        };
        // The weight of a convolution. That of a network's last one is in f32.
        let convolves = spec.role == Role::Kernel || spec.role == Role::F32 && spec.shape.len() == 4;
        let tensor =
            if convolves { tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])? } else { tensor };
        let tensor = tensor.f_to_device(self.device)?;
        self.named.push((spec.name.clone(), tensor.shallow_clone()));
        Ok(tensor)
    }

    fn is_fixed(&self) -> bool {
        self.fixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Scope;

    #[test]
    fn a_kernel_is_channels_last_and_has_the_values_of_any_weight() {
        let (mut first, mut second) = (Fresh::new(1, Device::Cpu), Fresh::new(1, Device::Cpu));
        let (shape, init) = ([4, 3, 2, 5], Init::fan_in(30));
        let kernel = Scope::root(&mut first).get("k", &shape, init, Role::Kernel).unwrap();
        let weight = Scope::root(&mut second).weight("k", &shape, init).unwrap();
        assert_eq!(kernel, weight);
        assert_eq!((kernel.stride(), weight.stride()), (vec![30, 1, 15, 3], vec![30, 10, 5, 1]));
    }
}
