//! The noise levels of several folders that make one ensemble.

use std::path::{Path, PathBuf};

use ediffi_cascade::SamplerSettings;
use ediffi_core::expert_interval::ExpertInterval;
use ediffi_core::interval::SigmaInterval;
use ediffi_core::timesteps::NoiseTable;

use super::rest::rest;
use crate::{Error, Result};

/// One expert of the ensemble.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Owner {
    /// The noise levels that it owns under the settings of the first folder.
    pub(crate) sigma: SigmaInterval,
    /// How that was said, where it follows the steps of each request.
    pub(crate) interval: Option<ExpertInterval>,
    /// Which folder it is of: none for the one that the others take over from, else the number among the others.
    pub(crate) other: Option<usize>,
}

impl Owner {
    /// The one expert of a folder alone.
    pub(crate) const ALONE: Self = Self { sigma: SigmaInterval::ALL, interval: None, other: None };
}

/// The experts of the folder `base`, which samples as `settings` say on `table`, and of those that take noise levels over from it: the
/// noisiest first.
///
/// # Errors
/// [`Error::Compose`] naming the folder whose interval makes no noise levels, and two folders that share some.
pub(crate) fn owners(
    base: &Path,
    others: &[(ExpertInterval, PathBuf)],
    table: NoiseTable,
    settings: &SamplerSettings,
) -> Result<Vec<Owner>> {
    let sigmas = settings.sigmas(table)?;
    let named = |folder: &Path, error: ediffi_core::Error| Error::Compose(format!("{}: {error}", folder.display()));
    let resolved = others.iter().map(|(said, folder)| {
        if *said == ExpertInterval::Rest {
            let reason = format!(
                "{}: the rest is that of {}, from which the others take over",
                folder.display(),
                base.display()
            );
            return Err(Error::Compose(reason));
        }
        said.resolve(Some(table), &sigmas).map_err(|error| named(folder, error))
    });
    let taken = resolved.collect::<Result<Vec<_>>>()?;
    for (number, (own, (_, folder))) in taken.iter().zip(others).enumerate() {
        let shares = |(before, _): &(&SigmaInterval, _)| before.low() < own.high() && own.low() < before.high();
        if let Some((before, (_, other))) = taken.iter().zip(others).take(number).find(shares) {
            let (one, two) = (other.display(), folder.display());
            let both = SigmaInterval::new(own.low().max(before.low()), own.high().min(before.high()))?;
            return Err(Error::Compose(format!(
                "{one} and {two} overlap: both are the expert of the noise levels {both:.4}"
            )));
        }
    }
    // What follows the steps moves what is left, too.
    let moves = others.iter().any(|(said, _)| said.follows_steps());
    let said = |said: ExpertInterval| Some(said).filter(|_| moves);
    let own = taken.iter().zip(others).enumerate();
    let own = own.map(|(number, (sigma, (one, _)))| Owner { sigma: *sigma, interval: said(*one), other: Some(number) });
    let left = rest(taken.clone()).into_iter();
    let left = left.map(|sigma| Owner { sigma, interval: said(ExpertInterval::Rest), other: None });
    let mut owners: Vec<Owner> = own.chain(left).collect();
    owners.sort_by(|a, b| b.sigma.low().total_cmp(&a.sigma.low()));
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use ediffi_core::guidance::Guidance;
    use ediffi_core::schedule::Schedule;
    use ediffi_core::solver::Solver;

    use super::*;

    const TABLE: NoiseTable = NoiseTable::ScaledLinear;

    fn found(intervals: &[&str]) -> Result<Vec<Owner>> {
        let others =
            |(number, said): (usize, &&str)| (said.parse().unwrap(), PathBuf::from(format!("expert-{number}")));
        let others: Vec<_> = intervals.iter().enumerate().map(others).collect();
        let settings = SamplerSettings::new(Solver::Euler, 20, Schedule::Leading, Guidance::new(1.0));
        owners(Path::new("base"), &others, TABLE, &settings)
    }

    #[test]
    fn others_take_over_from_the_first() {
        assert_eq!(found(&[]).unwrap(), [Owner::ALONE]);
        let pair = found(&["fraction:0.8.."]).unwrap();
        assert_eq!((pair[0].other, pair[1].other, pair[1].sigma), (None, Some(0), TABLE.below(200).unwrap()));
        assert!(pair.iter().all(|owner| owner.interval.is_none()));
        let three = found(&["timesteps:..100", "timesteps:500..600"]).unwrap();
        assert_eq!(three.iter().map(|owner| owner.other).collect::<Vec<_>>(), [None, Some(1), None, Some(0)]);
        let moving = found(&["steps:-5.."]).unwrap();
        assert_eq!(moving[0].interval, Some(ExpertInterval::Rest));
        assert_eq!(moving[1].interval, Some(ExpertInterval::steps(-5..)));
        assert_eq!(moving[1].sigma.high(), TABLE.sigmas()[200].next_up());
    }

    #[test]
    fn folders_that_share_noise_levels_are_named() {
        for (intervals, words) in [
            (&["timesteps:..200", "fraction:0.7..0.9"][..], "expert-0 and expert-1 overlap: both are the expert"),
            (&["timesteps:..1200"], "expert-0: `timesteps:..1200` is no interval"),
            (&["steps:..21"], "expert-0: `steps:..21`"),
            (&["rest"], "the rest is that of base"),
        ] {
            match found(intervals) {
                Err(Error::Compose(reason)) => assert!(reason.contains(words), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
