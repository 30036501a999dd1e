//! Intervals of experts as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ExpertInterval, HalfOpen};
use crate::brief::brief;
use crate::interval::SigmaInterval;
use crate::{Error, Result};

const KINDS: &str =
    "sigma:LOW..HIGH, timesteps:LOW..HIGH, snr:LOW..HIGH, log-snr:LOW..HIGH, fraction:FROM..TO, steps:FROM..TO, rest";

fn wrong(said: &str, reason: impl Into<String>) -> Error {
    Error::ExpertInterval { said: brief(said).into_owned(), reason: reason.into() }
}

impl FromStr for ExpertInterval {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "rest" {
            return Ok(Self::Rest);
        }
        let unknown = || wrong(text, format!("it is none of {KINDS}"));
        let (kind, range) = text.split_once(':').ok_or_else(unknown)?;
        Ok(match kind {
            "sigma" => {
                let HalfOpen { from, to } = ends::<f64>(text, range)?;
                let interval = SigmaInterval::new(from.unwrap_or(0.0), to.unwrap_or(f64::INFINITY));
                Self::Sigma(interval.map_err(|error| wrong(text, error.to_string()))?)
            }
            "timesteps" => Self::Timesteps(ends(text, range)?),
            "snr" => Self::Snr(ends(text, range)?),
            "log-snr" => Self::LogSnr(ends(text, range)?),
            "fraction" => Self::Fraction(ends(text, range)?),
            "steps" => Self::Steps(ends(text, range)?),
            _ => return Err(unknown()),
        })
    }
}

/// `LOW..HIGH`, of which either may be missing.
fn ends<T: FromStr<Err: fmt::Display>>(text: &str, range: &str) -> Result<HalfOpen<T>> {
    let (from, to) = range.split_once("..").ok_or_else(|| wrong(text, "its two ends are written as LOW..HIGH"))?;
    let end = |end: &str| {
        let parsed =
            (!end.is_empty()).then(|| end.parse().map_err(|error| wrong(text, format!("{}: {error}", brief(end)))));
        parsed.transpose()
    };
    Ok(HalfOpen { from: end(from)?, to: end(to)? })
}

impl fmt::Display for ExpertInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sigma(interval) => {
                let low = Some(interval.low()).filter(|low| *low > 0.0);
                let high = Some(interval.high()).filter(|high| high.is_finite());
                write!(f, "sigma:{}", HalfOpen { from: low, to: high })
            }
            Self::Timesteps(range) => write!(f, "timesteps:{range}"),
            Self::Snr(range) => write!(f, "snr:{range}"),
            Self::LogSnr(range) => write!(f, "log-snr:{range}"),
            Self::Fraction(range) => write!(f, "fraction:{range}"),
            Self::Steps(range) => write!(f, "steps:{range}"),
            Self::Rest => f.write_str("rest"),
        }
    }
}

impl<T: fmt::Display> fmt::Display for HalfOpen<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = &self.from {
            from.fmt(f)?;
        }
        f.write_str("..")?;
        self.to.as_ref().map_or(Ok(()), |to| to.fmt(f))
    }
}

impl Serialize for ExpertInterval {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExpertInterval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn half_open<T: fmt::Debug + Clone + 'static>(
        value: impl Strategy<Value = T> + Clone + 'static,
    ) -> impl Strategy<Value = HalfOpen<T>> {
        (proptest::option::of(value.clone()), proptest::option::of(value)).prop_map(|(from, to)| HalfOpen { from, to })
    }

    fn any_interval() -> impl Strategy<Value = ExpertInterval> {
        let finite = || prop::num::f64::NORMAL | prop::num::f64::ZERO;
        let sigma = (1e-6..1e3_f64, 1.1..9.0_f64, any::<bool>(), any::<bool>()).prop_map(|(low, by, from, to)| {
            let (low, high) = (if from { low } else { 0.0 }, if to { low * by } else { f64::INFINITY });
            ExpertInterval::Sigma(SigmaInterval::new(low, high).unwrap())
        });
        prop_oneof![
            sigma,
            half_open(any::<usize>()).prop_map(ExpertInterval::Timesteps),
            half_open(finite()).prop_map(ExpertInterval::Snr),
            half_open(finite()).prop_map(ExpertInterval::LogSnr),
            half_open(finite()).prop_map(ExpertInterval::Fraction),
            half_open(any::<i64>()).prop_map(ExpertInterval::Steps),
            Just(ExpertInterval::Rest),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(interval in any_interval()) {
            let text = interval.to_string();
            prop_assert_eq!(text.parse::<ExpertInterval>().unwrap(), interval, "{}", text);
            let json = serde_json::to_string(&interval).unwrap();
            prop_assert_eq!(serde_json::from_str::<ExpertInterval>(&json).unwrap(), interval);
        }
    }

    #[test]
    fn intervals_are_written_as_ranges() {
        for (interval, text) in [
            (ExpertInterval::timesteps(..200), "timesteps:..200"),
            (ExpertInterval::timesteps(875..), "timesteps:875.."),
            (ExpertInterval::fraction(0.8..), "fraction:0.8.."),
            (ExpertInterval::log_snr(-1.5..2.0), "log-snr:-1.5..2"),
            (ExpertInterval::snr(4.0..), "snr:4.."),
            (ExpertInterval::steps(-5..), "steps:-5.."),
            (ExpertInterval::steps(..), "steps:.."),
            (SigmaInterval::new(0.0, 1.5).unwrap().into(), "sigma:..1.5"),
            (ExpertInterval::Rest, "rest"),
        ] {
            assert_eq!(interval.to_string(), text);
            assert_eq!(text.parse::<ExpertInterval>().unwrap(), interval);
        }
    }

    #[test]
    fn what_is_no_interval_is_named() {
        for (text, words) in [
            ("colour:1..2", "none of sigma:LOW..HIGH, timesteps"),
            ("timesteps", "none of sigma"),
            ("timesteps:200", "LOW..HIGH"),
            ("timesteps:-1..200", "-1: invalid digit"),
            ("steps:0.5..", "0.5: invalid digit"),
            ("fraction:x..", "x: invalid float"),
            ("sigma:3..2", "[3, 2) is no sigma interval"),
            ("Rest", "none of"),
        ] {
            let error = text.parse::<ExpertInterval>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is no interval of an expert: ")) && error.contains(words),
                "{error}"
            );
            let error = serde_json::from_str::<ExpertInterval>(&format!("{text:?}")).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!("x".repeat(9000).parse::<ExpertInterval>().unwrap_err().to_string().len() < 1000);
    }
}
