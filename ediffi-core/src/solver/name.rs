//! The names of the solvers.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ddpm::Variance;
use super::heun::Churn;
use super::solve::Solver;
use crate::{Error, Result};

const NAMES: [(&str, Solver); 10] = [
    ("euler", Solver::Euler),
    ("heun", Solver::Heun(Churn::NONE)),
    ("kutta-3", Solver::Kutta3),
    ("tab-deis-1", Solver::TabDeis { order: 1 }),
    ("tab-deis-2", Solver::TabDeis { order: 2 }),
    ("tab-deis-3", Solver::TabDeis { order: 3 }),
    ("dpmpp-2m", Solver::DpmPp2M),
    ("dpmpp-3m", Solver::DpmPp3M),
    ("ddpm", Solver::Ddpm(Variance::Learned)),
    ("ddpm-fixed-small", Solver::Ddpm(Variance::FixedSmall)),
];

impl Solver {
    /// Every solver, without churn.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, solver)| solver)
    }

    /// The solvers of the probability-flow equation, without churn: they add no noise on the way, and take any schedule.
    pub fn deterministic() -> impl Iterator<Item = Self> {
        Self::all().filter(|solver| !matches!(solver, Self::Ddpm(_)))
    }
}

/// The name; churn is not part of it.
impl fmt::Display for Solver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Euler => f.write_str("euler"),
            Self::Heun(_) => f.write_str("heun"),
            Self::Kutta3 => f.write_str("kutta-3"),
            Self::TabDeis { order } => write!(f, "tab-deis-{order}"),
            Self::DpmPp2M => f.write_str("dpmpp-2m"),
            Self::DpmPp3M => f.write_str("dpmpp-3m"),
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
            Self::Heun(churn) if *churn != Churn::NONE => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("heun", churn)?;
                map.end()
            }
            _ => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Solver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrChurn)
    }
}

struct NameOrChurn;

impl<'de> Visitor<'de> for NameOrChurn {
    type Value = Solver;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a solver or {\"heun\": churn}")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<Solver, E> {
        name.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Solver, A::Error> {
        let mut churn = None;
        while let Some(key) = map.next_key::<String>()? {
            match (key.as_str(), &churn) {
                ("heun", None) => churn = Some(map.next_value::<Churn>()?),
                ("heun", Some(_)) => return Err(A::Error::duplicate_field("heun")),
                _ => return Err(A::Error::unknown_field(&key, &["heun"])),
            }
        }
        let solver = Solver::Heun(churn.ok_or_else(|| A::Error::missing_field("heun"))?);
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
    fn only_ddpm_is_not_deterministic() {
        assert_eq!((Solver::all().count(), Solver::deterministic().count()), (10, 8));
        assert!(Solver::deterministic().all(|solver| !solver.to_string().starts_with("ddpm")));
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
    fn what_is_unknown_is_named() {
        let message = |text: &str| serde_json::from_str::<Solver>(text).unwrap_err().to_string();
        assert!(message("\"ddim\"").contains("there is no `ddim`, only euler, heun"));
        assert!(message(r#"{"euler": {}}"#).contains("euler"));
        assert!(message(r#"{"heun": {"churn": 1}}"#).contains("churn"));
        assert!(message(r#"{"heun": {"s_churn": -1}}"#).contains("s_churn: -1"));
        assert!(message("{}").contains("heun"));
        assert!(message("3").contains("the name of a solver"));
    }
}
