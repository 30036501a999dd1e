//! One state in several processes: it begins as that of rank 0, and stays the same because every step has the same gradients.

use tch::{Device, Kind, Tensor};

use super::{Collected, TrainState};
use crate::Result;
use crate::lineage::hash;
use crate::reduce::{Reduce, expect_alike};

/// Buffers are looked at in rows of this length: they are made of whole rows of 4096.
const ROW: i64 = 4096;

impl TrainState {
    /// Takes the state of rank 0: weights, moments, average and position.
    ///
    /// # Errors
    /// [`Error::Apart`](crate::Error::Apart) for processes that train other parameters, or in which the state did not arrive; those
    /// of [`Reduce::broadcast`].
    pub(crate) fn begin_together(&mut self, reduce: &dyn Reduce) -> Result<()> {
        if reduce.world() <= 1 {
            return Ok(());
        }
        let names: Vec<_> = self.parameters.iter().map(|(name, tensor)| (name, tensor.size())).collect();
        expect_alike(reduce, "parameters", hash(format!("{names:?}").as_bytes()))?;
        let _no_grad = tch::no_grad_guard();
        let position = [self.step as f64, self.pictures as f64, f64::from(self.ema.settled)];
        let used = self.used.iter().map(|used| f64::from(*used));
        let mut header = Tensor::f_from_slice(&position.into_iter().chain(used).collect::<Vec<_>>())?;
        reduce.broadcast(&mut header)?;
        let header = Vec::<f64>::try_from(&header)?;
        if let [step, pictures, settled, used @ ..] = header.as_slice() {
            (self.step, self.pictures, self.ema.settled) = (*step as u64, *pictures as u64, *settled > 0.0);
            self.used = used.iter().map(|used| *used > 0.0).collect();
        }
        for buffer in self.buffers() {
            reduce.broadcast(&mut buffer.shallow_clone())?;
        }
        self.refresh()?;
        self.expect_alike(reduce)
    }

    /// Fails unless the state of every process has the bits of that of rank 0.
    ///
    /// # Errors
    /// [`Error::Apart`](crate::Error::Apart); those of [`Reduce::sum`].
    pub(crate) fn expect_alike(&self, reduce: &dyn Reduce) -> Result<()> {
        if reduce.world() <= 1 {
            return Ok(());
        }
        expect_alike(reduce, "weights", self.fingerprint()?)
    }

    /// Adds up what every process has collected. Where the step before diverged, which all see, nothing is sent.
    ///
    /// # Errors
    /// Those of [`Reduce::sum`].
    pub(crate) fn sum_over(&mut self, reduce: &dyn Reduce, collected: &mut Collected, grown: bool) -> Result<()> {
        if reduce.world() <= 1 || collected.before.is_err() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        if grown {
            let mut used = Tensor::f_from_slice(&self.used.iter().map(|used| f64::from(*used)).collect::<Vec<_>>())?;
            reduce.sum(&mut used)?;
            self.used = Vec::<f64>::try_from(&used)?.into_iter().map(|count| count > 0.0).collect();
        }
        let sum = match &mut collected.sum {
            Some(sum) => sum,
            none => none.insert(self.layout.zeros(Kind::Float)?),
        };
        reduce.sum(sum)
    }

    /// Waits for the device, so that who meets the others has computed. A slow process is known by its time until then.
    pub(crate) fn catch_up(&self, reduce: &dyn Reduce) {
        if let (true, Device::Cuda(index)) = (reduce.world() > 1, self.weights.device()) {
            tch::Cuda::synchronize(index as i64);
        }
    }

    fn buffers(&self) -> [&Tensor; 4] {
        [&self.weights, &self.optimizer.first, &self.optimizer.second, &self.ema.average]
    }

    /// A number that tells states apart by their bits, whatever computed it.
    fn fingerprint(&self) -> Result<u64> {
        let _no_grad = tch::no_grad_guard();
        let mut text = format!("{} {}", self.step, self.pictures);
        for buffer in self.buffers() {
            let columns = buffer.f_view_dtype(Kind::Int)?.f_view([-1, ROW])?.f_sum_dim_intlist(
                &[0_i64][..],
                false,
                Kind::Int64,
            )?;
            let places = Tensor::f_arange_start(1, ROW + 1, (Kind::Int64, buffer.device()))?;
            // Whole numbers, which wrap around: in any order the sum is the same.
            let sum = columns.f_mul(&places)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
            text += &format!(" {sum}");
        }
        Ok(hash(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use crate::optimizer::AdamWSettings;
    use crate::state::TrainState;

    /// One bit of one number, two numbers that changed places, and a step more are seen; the way to the same state is not.
    #[test]
    fn the_fingerprint_tells_states_apart() {
        let state = |numbers: &[f32]| {
            let weight = Tensor::from_slice(numbers).to_device(Device::Cpu).to_kind(Kind::Float);
            TrainState::new(vec![("w".to_owned(), weight)], AdamWSettings::default(), 0.9).unwrap()
        };
        let print = |numbers: &[f32]| state(numbers).fingerprint().unwrap();
        let first = print(&[1.0, -2.0, 3.0]);
        assert_eq!(print(&[1.0, -2.0, 3.0]), first);
        for other in [[1.0, -2.0, f32::from_bits(3.0_f32.to_bits() + 1)], [-2.0, 1.0, 3.0], [1.0, 2.0, 3.0]] {
            assert_ne!(print(&other), first, "{other:?}");
        }
        let mut later = state(&[1.0, -2.0, 3.0]);
        later.step += 1;
        assert_ne!(later.fingerprint().unwrap(), first);
    }
}
