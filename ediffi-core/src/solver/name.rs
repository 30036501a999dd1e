//! The names of the solvers.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ddpm::Variance;
use super::dpmpp_sde::FreshNoise;
use super::heun::Churn;
use super::solve::Solver;
use crate::{Error, Result};

const NAMES: [(&str, Solver); 13] = [
    ("euler", Solver::Euler),
    ("heun", Solver::Heun(Churn::NONE)),
    ("kutta-3", Solver::Kutta3),
    ("tab-deis-1", Solver::TabDeis { order: 1 }),
    ("tab-deis-2", Solver::TabDeis { order: 2 }),
    ("tab-deis-3", Solver::TabDeis { order: 3 }),
    ("dpmpp-2m", Solver::DpmPp2M),
    ("dpmpp-3m", Solver::DpmPp3M),
    ("euler-ancestral", Solver::EulerAncestral),
    ("plms", Solver::Plms),
    ("dpmpp-2m-sde", Solver::DpmPp2MSde(FreshNoise { eta: 1.0, s_noise: 1.0 })),
    ("ddpm", Solver::Ddpm(Variance::Learned)),
    ("ddpm-fixed-small", Solver::Ddpm(Variance::FixedSmall)),
];

impl Solver {
    /// Every solver, without churn.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, solver)| solver)
    }

    /// The solvers of the probability-flow equation, without churn: they add no noise on the way, and take any schedule. [`Plms`](Self::Plms)
    /// is made for even timesteps, and not among them.
    pub fn deterministic() -> impl Iterator<Item = Self> {
        Self::all()
            .filter(|solver| !matches!(solver, Self::Ddpm(_) | Self::DpmPp2MSde(_) | Self::EulerAncestral | Self::Plms))
    }
}

/// The name; churn and fresh noise are not part of it.
impl fmt::Display for Solver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Euler => f.write_str("euler"),
            Self::Heun(_) => f.write_str("heun"),
            Self::Kutta3 => f.write_str("kutta-3"),
            Self::TabDeis { order } => write!(f, "tab-deis-{order}"),
            Self::DpmPp2M => f.write_str("dpmpp-2m"),
            Self::DpmPp3M => f.write_str("dpmpp-3m"),
            Self::DpmPp2MSde(_) => f.write_str("dpmpp-2m-sde"),
            Self::EulerAncestral => f.write_str("euler-ancestral"),
            Self::Plms => f.write_str("plms"),
            Self::Ddpm(Variance::Learned) => f.write_str("ddpm"),
            Self::Ddpm(Variance::FixedSmall) => f.write_str("ddpm-fixed-small"),
        }
    }
}

impl FromStr for Solver {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, solver)| *solver).ok_or_else(|| {
            let known = NAMES.map(|(known, _)| known).join(", ");
            Error::InvalidSolver(format!("there is no `{name}`, only {known}"))
        })
    }
}

impl Serialize for Solver {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Heun(churn) if *churn != Churn::NONE => one_entry(serializer, "heun", churn),
            Self::DpmPp2MSde(fresh) if *fresh != FreshNoise::default() => one_entry(serializer, "dpmpp-2m-sde", fresh),
            _ => serializer.collect_str(self),
        }
    }
}

/// A solver with its numbers: `{"NAME": {..}}`.
fn one_entry<S: Serializer>(
    serializer: S,
    name: &str,
    numbers: &impl Serialize,
) -> std::result::Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, numbers)?;
    map.end()
}

impl<'de> Deserialize<'de> for Solver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrNumbers)
    }
}

struct NameOrNumbers;

impl<'de> Visitor<'de> for NameOrNumbers {
    type Value = Solver;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a solver, {\"heun\": churn} or {\"dpmpp-2m-sde\": noise}")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<Solver, E> {
        name.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Solver, A::Error> {
        let solver = match map.next_key::<String>()?.as_deref() {
            Some("heun") => Solver::Heun(map.next_value()?),
            Some("dpmpp-2m-sde") => Solver::DpmPp2MSde(map.next_value()?),
            Some(other) => return Err(A::Error::unknown_field(other, &["heun", "dpmpp-2m-sde"])),
            None => return Err(A::Error::missing_field("heun")),
        };
        if let Some(second) = map.next_key::<String>()? {
            return Err(A::Error::custom(format!("`{second}` beside {solver}: one solver at a time")));
        }
        solver.validate().map_err(A::Error::custom)?;
        Ok(solver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (name, solver) in NAMES {
            assert_eq!(solver.to_string(), name);
            assert_eq!(name.parse::<Solver>().unwrap(), solver);
            assert_eq!(serde_json::to_string(&solver).unwrap(), format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<Solver>(&format!("\"{name}\"")).unwrap(), solver);
        }
    }

    #[test]
    fn deterministic_solvers_add_no_noise() {
        assert_eq!((Solver::all().count(), Solver::deterministic().count()), (13, 8));
        let noisy = |solver: Solver| solver.to_string().starts_with("ddpm") || solver.to_string().ends_with("sde");
        assert!(!Solver::deterministic().any(noisy));
    }

    #[test]
    fn churn_is_written_out() {
        let text = r#"{"heun":{"s_churn":40.0,"s_min":0.05,"s_max":50.0,"s_noise":1.003}}"#;
        let solver: Solver = serde_json::from_str(text).unwrap();
        assert_eq!(solver, Solver::Heun(Churn { s_churn: 40.0, s_min: 0.05, s_max: 50.0, s_noise: 1.003 }));
        assert_eq!(serde_json::to_string(&solver).unwrap(), text);
        let open: Solver = serde_json::from_str(r#"{"heun": {"s_churn": 1}}"#).unwrap();
        assert_eq!(open, Solver::Heun(Churn { s_churn: 1.0, ..Churn::NONE }));
        assert_eq!(serde_json::from_str::<Solver>(&serde_json::to_string(&open).unwrap()).unwrap(), open);
    }

    #[test]
    fn fresh_noise_is_written_out() {
        let text = r#"{"dpmpp-2m-sde":{"eta":0.5,"s_noise":1.0}}"#;
        let solver: Solver = serde_json::from_str(text).unwrap();
        assert_eq!(solver, Solver::DpmPp2MSde(FreshNoise { eta: 0.5, s_noise: 1.0 }));
        assert_eq!(serde_json::to_string(&solver).unwrap(), text);
        assert_eq!(serde_json::from_str::<Solver>(r#"{"dpmpp-2m-sde": {"eta": 0.5}}"#).unwrap(), solver);
    }

    #[test]
    fn what_is_unknown_is_named() {
        let message = |text: &str| serde_json::from_str::<Solver>(text).unwrap_err().to_string();
        assert!(message("\"ddim\"").contains("there is no `ddim`, only euler, heun"));
        assert!(message(r#"{"euler": {}}"#).contains("euler"));
        assert!(message(r#"{"heun": {"churn": 1}}"#).contains("churn"));
        assert!(message(r#"{"heun": {"s_churn": -1}}"#).contains("s_churn: -1"));
        assert!(message("{}").contains("heun"));
        assert!(message(r#"{"heun": {}, "dpmpp-2m-sde": {}}"#).contains("`dpmpp-2m-sde` beside heun"));
        assert!(message(r#"{"dpmpp-2m-sde": {"eta": -1}}"#).contains("eta: -1"));
        assert!(message("3").contains("the name of a solver"));
    }
}
