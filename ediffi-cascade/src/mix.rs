//! Several prompts in one picture: whose estimate counts how much at which noise level.

use ediffi_core::Result;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::denoiser::Estimate;
use ediffi_core::interval::SigmaInterval;

/// What shares add up to may be off by this much: ten tenths are not one.
const ROUNDING: f64 = 1e-9;

/// How much another prompt counts, and where.
///
/// At a noise level the estimate of the clean picture is the mean of those under the prompts that count there, by their shares (Liu et al.
/// 2022, [arXiv 2206.01714](https://arxiv.org/abs/2206.01714), equation 11). What the shares leave is the job's own prompt's. A prompt that has no share is not evaluated: with a share of 1
/// another prompt takes over, and costs nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// From 0, nothing, to 1, everything.
    pub share: f64,
    /// The noise levels at which it counts.
    pub sigma: SigmaInterval,
}

/// Another prompt of a [`CascadeJob`](crate::CascadeJob), in every stage that runs.
#[derive(Debug, Clone, Copy)]
pub struct Mixed<'a> {
    /// Its embeddings, as those of the job.
    pub conditioning: &'a Conditioning,
    /// How much it counts, and where.
    pub share: Share,
}

impl Share {
    /// What is wrong with shares that count beside each other, in words, if something is: each has to be from 0 to 1, and so has what they
    /// add up to at every noise level.
    #[must_use]
    pub fn problem(shares: &[Self]) -> Option<String> {
        if let Some(Self { share, .. }) = shares.iter().find(|share| !(0.0..=1.0).contains(&share.share)) {
            return Some(format!("a share is {share:?}: it has to be from 0 to 1"));
        }
        // The sum can rise only where an interval begins.
        let sum = |sigma: f64| (sigma, sum(shares, sigma));
        let most = shares.iter().map(|share| sum(share.sigma.low())).max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (sigma, sum) = most.filter(|(_, sum)| *sum > 1.0 + ROUNDING)?;
        Some(format!("the shares add up to {sum} at sigma {sigma}: 1 at most can be shared out"))
    }

    /// What shares leave to the job's own prompt at a noise level: 0 where it is not evaluated.
    #[must_use]
    pub fn left(shares: &[Self], sigma: f64) -> f64 {
        let rest = 1.0 - sum(shares, sigma);
        if rest > ROUNDING { rest } else { 0.0 }
    }

    /// The prompts that count at a noise level with their shares. Number 0 is the job's own, number 1 the first of `shares`.
    pub(crate) fn at(shares: &[Self], sigma: f64) -> Vec<(usize, f64)> {
        let rest = Self::left(shares, sigma);
        let own = (rest > 0.0).then_some((0, rest));
        let others = (1..).zip(shares).filter(|(_, share)| share.share > 0.0 && share.sigma.contains(sigma));
        own.into_iter().chain(others.map(|(number, share)| (number, share.share))).collect()
    }
}

fn sum(shares: &[Share], sigma: f64) -> f64 {
    shares.iter().filter(|share| share.sigma.contains(sigma)).map(|share| share.share).sum()
}

/// The sum of what there is and of an estimate by its share: added up over all shares, the mean. Only the sum is kept, however many there
/// are.
pub(crate) fn plus(sum: Option<Estimate>, estimate: &Estimate, share: f64) -> Result<Estimate> {
    let denoised = estimate.denoised.f_mul_scalar(share)?;
    let variance = estimate.variance.as_ref().map(|x| x.f_mul_scalar(share)).transpose()?;
    let Some(sum) = sum else { return Ok(Estimate { denoised, variance }) };
    let variance = match (sum.variance, variance) {
        (Some(a), Some(b)) => Some(a.f_add(&b)?),
        (a, b) => a.or(b),
    };
    Ok(Estimate { denoised: sum.denoised.f_add(&denoised)?, variance })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(share: f64, low: f64, high: f64) -> Share {
        Share { share, sigma: SigmaInterval::new(low, high).unwrap() }
    }

    #[test]
    fn what_is_left_is_the_job_s_own() {
        let shares = [share(0.25, 0.0, f64::INFINITY), share(0.5, 1.0, 4.0), share(0.0, 0.0, 9.0)];
        assert_eq!(Share::at(&shares, 0.5), [(0, 0.75), (1, 0.25)]);
        assert_eq!(Share::at(&shares, 1.0), [(0, 0.25), (1, 0.25), (2, 0.5)]);
        assert_eq!(Share::at(&shares, 4.0), [(0, 0.75), (1, 0.25)]);
        assert_eq!(Share::at(&[], 4.0), [(0, 1.0)]);
        assert_eq!(Share::at(&[share(1.0, 0.0, 2.0)], 1.0), [(1, 1.0)]);
        let tenths = [share(0.1, 0.0, 9.0); 10];
        assert_eq!((Share::at(&tenths, 1.0).len(), Share::problem(&tenths)), (10, None));
    }

    #[test]
    fn what_is_left_of_tenths_is_nothing() {
        let shares = [share(0.1, 0.0, 9.0); 10];
        assert_eq!(
            (Share::left(&shares, 1.0), Share::left(&shares, 9.0), Share::left(&shares[..5], 1.0)),
            (0.0, 1.0, 0.5)
        );
    }

    #[test]
    fn more_than_everything_cannot_be_shared_out() {
        assert_eq!(Share::problem(&[share(0.7, 0.0, 2.0), share(0.7, 2.0, 4.0)]), None);
        let most = Share::problem(&[share(0.5, 0.0, 3.0), share(0.75, 2.0, 4.0)]).unwrap();
        assert!(most.contains("1.25 at sigma 2"), "{most}");
        for wrong in [-0.1, 1.5, f64::NAN, f64::INFINITY] {
            assert!(Share::problem(&[share(wrong, 0.0, 1.0)]).unwrap().contains(&format!("{wrong:?}")));
        }
    }
}
