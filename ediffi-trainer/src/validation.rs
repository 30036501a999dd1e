//! The loss on pictures that a network is not trained on, by noise level.
//!
//! Pictures, noise, noise levels and corruption are always the same, so the numbers of two checkpoints compare.

use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_train::batch::Batch;
use ediffi_train::learner::Learner;
use ediffi_train::loss::denoising_loss;
use ediffi_train::random::{batch_rng, normal};
use tch::Kind;

use crate::Result;

/// What tells the noise of validation from that of training.
const NOISE: u64 = 0x7A11_DA7E;

/// Ranges of noise levels, each as likely as another under the distribution that a network is trained on. A tail beside it does not count.
#[derive(Debug, Clone, Copy)]
pub struct Bins {
    noise: LogNormal,
    interval: SigmaInterval,
    count: usize,
}

impl Bins {
    /// `count` ranges of `interval`, which is a part of `noise`.
    #[must_use]
    pub fn new(noise: LogNormal, interval: SigmaInterval, count: usize) -> Self {
        Self { noise, interval, count }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The ends of range `bin`, from 0. The first and the last end where the interval does.
    #[must_use]
    pub fn ends(&self, bin: usize) -> (f64, f64) {
        let at = |edge: usize| match edge {
            0 => self.interval.low(),
            edge if edge >= self.count => self.interval.high(),
            edge => self.noise.sigma_at(self.interval, edge as f64 / self.count as f64),
        };
        (at(bin), at(bin + 1))
    }

    /// The noise levels of `rows` pictures of which the first is number `first` of `all`: spread over range `bin`.
    fn levels(&self, bin: usize, first: u64, rows: u64, all: u64) -> Vec<f64> {
        let level = |row: u64| {
            let share = ((first + row) as f64 + 0.5) / all.max(1) as f64;
            self.noise.sigma_at(self.interval, (bin as f64 + share) / self.count as f64)
        };
        (0..rows).map(level).collect()
    }
}

/// The mean loss in each range of noise levels, over all rows of `batches`.
///
/// # Errors
/// Those of the learner's `encode`, and of the network.
pub fn measure<T, F, E>(learner: &Learner<F>, batches: &[Batch<T>], bins: &Bins, seed: u64) -> Result<Vec<f64>, E>
where
    F: Fn(&Batch<T>) -> Result<Conditioning, E>,
    E: From<ediffi_train::Error>,
{
    let _no_grad = tch::no_grad_guard();
    let mut sizes = Vec::with_capacity(batches.len());
    for batch in batches {
        sizes.push(batch.pictures.size4().map_err(ediffi_train::Error::from)?.0.unsigned_abs());
    }
    let all: u64 = sizes.iter().sum();
    let (mut sums, mut first) = (vec![0.0; bins.count], 0);
    for ((number, batch), rows) in (0..).zip(batches).zip(sizes) {
        let conditioning = learner.conditioning(batch, &mut batch_rng(seed ^ NOISE, u64::MAX - number))?;
        let losses = of_batch(learner, batch, &conditioning, |bin| {
            let sigmas = bins.levels(bin, first, rows, all);
            (bin < bins.count).then(|| (sigmas, batch_rng(seed ^ NOISE, number * bins.count as u64 + bin as u64)))
        })?;
        for (sum, loss) in sums.iter_mut().zip(losses) {
            *sum += loss;
        }
        first += rows;
    }
    Ok(sums.into_iter().map(|sum| sum / all.max(1) as f64).collect())
}

/// The sum of the losses of a batch in each range, until `range` gives no more.
fn of_batch<T, F, R: rand::Rng>(
    learner: &Learner<F>,
    batch: &Batch<T>,
    conditioning: &Conditioning,
    range: impl Fn(usize) -> Option<(Vec<f64>, R)>,
) -> Result<Vec<f64>, ediffi_train::Error> {
    let (network, precondition) = (&learner.network, learner.objective.precondition.as_ref());
    let context = network.context(conditioning, batch.pictures.size4()?.0)?;
    let clean = batch.pictures.f_to_device(network.device())?;
    let mut sums = Vec::new();
    while let Some((sigmas, mut rng)) = range(sums.len()) {
        let noise = normal(&mut rng, &clean.size())?.f_to_device(clean.device())?;
        let losses = denoising_loss(precondition, &clean, &noise, &sigmas, |x, c_noise| {
            network.forward(x, c_noise, &context, None)
        })?;
        sums.push(losses.f_sum(Kind::Double)?.f_double_value(&[])?);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use ediffi_core::nn::Norm;
    use ediffi_core::precondition::{Edm, Precondition, Sample};
    use ediffi_core::unet::{Dimensions, Efficient, Level};
    use ediffi_core::weights::Fresh;
    use ediffi_train::learner::Objective;
    use ediffi_train::noise::NoiseLevels;
    use tch::{Device, Tensor};

    use super::*;

    fn learner(
        precondition: impl Precondition + 'static,
    ) -> Learner<impl Fn(&Batch<()>) -> crate::Result<Conditioning>> {
        let level = Level { multiplier: 1, blocks: 1, self_attention: false, cross_attention: false };
        let config = Efficient(Dimensions {
            picture_channels: 3,
            low_res: false,
            patch: 2,
            channels: 8,
            levels: vec![level],
            head_channels: 8,
            norm: Norm::Group(4),
            embedding_width: 16,
            context: None,
            detail: None,
        });
        let objective = Objective::new(precondition, NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL), 7);
        let encode = |_: &Batch<()>| Ok(Conditioning::default());
        Learner::new(&mut Fresh::new(1, Device::Cpu), &config, Kind::Float, objective, encode).unwrap()
    }

    /// A network under no training gives zeros, as its last convolution is zero. What is left of the loss is then
    /// λ ‖x₀ − c_skip (x₀ + σε)‖², of which the mean over the noise is λ ((1 − c_skip)² x₀² + c_skip² σ²).
    #[test]
    fn a_network_that_predicts_zero_has_the_loss_of_the_closed_form() {
        let value = 0.6;
        let batch = |rows: i64| Batch {
            pictures: Tensor::full([rows, 3, 32, 32], value, (Kind::Float, Device::Cpu)),
            smaller: None,
            text: (),
        };
        let batches = [batch(5), batch(3)];
        let bins = Bins::new(LogNormal::default(), SigmaInterval::ALL, 4);
        let closed = |precondition: &dyn Precondition, bin: usize| {
            let of = |sigma: f64| {
                let skip = precondition.c_skip(sigma);
                precondition.loss_weight(sigma) * ((1.0 - skip).powi(2) * value * value + skip * skip * sigma * sigma)
            };
            (0..8).map(|row| of(bins.levels(bin, row, 1, 8)[0])).sum::<f64>() / 8.0
        };
        let edm = measure(&learner(Edm::default()), &batches, &bins, 3).unwrap();
        let sample = measure(&learner(Sample::default()), &batches, &bins, 3).unwrap();
        for bin in 0..4 {
            for (got, expected) in
                [(edm[bin], closed(&Edm::default(), bin)), (sample[bin], closed(&Sample::default(), bin))]
            {
                // 24 576 numbers of noise: five standard deviations of their mean square are below 5 %.
                assert!((got / expected - 1.0).abs() < 0.05, "bin {bin}: {got}, expected {expected}");
            }
        }
        assert_eq!(edm, measure(&learner(Edm::default()), &batches, &bins, 3).unwrap(), "the same numbers again");
        assert_ne!(edm, measure(&learner(Edm::default()), &batches, &bins, 4).unwrap());
    }

    #[test]
    fn ranges_meet_and_every_picture_has_a_level_of_its_own() {
        let bins = Bins::new(LogNormal::default(), SigmaInterval::new(0.1, 5.0).unwrap(), 3);
        assert_eq!(bins.ends(0).1, bins.ends(1).0);
        assert_eq!((bins.ends(0).0, bins.ends(2).1), (0.1, 5.0));
        let (both, apart) = (bins.levels(1, 0, 6, 6), [bins.levels(1, 0, 4, 6), bins.levels(1, 4, 2, 6)].concat());
        assert_eq!(both, apart);
        assert!(both.windows(2).all(|pair| pair[0] < pair[1]) && both[0] > bins.ends(1).0 && both[5] < bins.ends(1).1);
    }
}
