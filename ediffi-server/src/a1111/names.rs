//! What A1111 calls the solvers and the schedules.

use axum::Json;
use ediffi::{Schedule, Solver};
use serde_json::{Value, json};

use crate::fields::{Wrong, brief};

/// A1111's names of solvers, and this library's. All others have one name.
const SAMPLERS: [(&str, &str); 7] = [
    ("Euler", "euler"),
    ("Euler a", "euler-ancestral"),
    ("Heun", "heun"),
    ("DPM++ 2M", "dpmpp-2m"),
    ("DPM++ 2M SDE", "dpmpp-2m-sde"),
    // It is Euler's rule.
    ("DDIM", "euler"),
    ("PLMS", "plms"),
];

/// The exponent of Karras's grid in A1111.
const RHO: f64 = 7.0;

/// A rule that makes the noise levels, between those that the model has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheduler {
    /// The model's.
    Automatic,
    Karras,
    Exponential,
}

/// Names and labels.
const SCHEDULERS: [(&str, &str, Scheduler); 3] = [
    ("automatic", "Automatic", Scheduler::Automatic),
    ("karras", "Karras", Scheduler::Karras),
    ("exponential", "Exponential", Scheduler::Exponential),
];

impl Scheduler {
    /// The schedule from `max` down to `min`; none if the model's own stays.
    pub(super) fn between(self, min: f64, max: f64) -> Option<Schedule> {
        match self {
            Self::Automatic => None,
            Self::Karras => Some(Schedule::Karras { min, max, rho: RHO }),
            Self::Exponential => Some(Schedule::Exponential { min, max }),
        }
    }

    fn named(name: &str) -> Option<Self> {
        let same = |(one, label, _): &&(&str, &str, Self)| one.eq_ignore_ascii_case(name) || *label == name;
        SCHEDULERS.iter().find(same).map(|(_, _, scheduler)| *scheduler)
    }

    /// By name or label.
    pub(super) fn of(name: &str) -> Result<Self, Wrong> {
        Self::named(name).ok_or_else(|| {
            let names = SCHEDULERS.map(|(name, _, _)| name).join(", ");
            Wrong::value("scheduler", format!("there is no scheduler `{}`, only {names}", brief(name)))
        })
    }

    pub(super) fn label(self) -> &'static str {
        SCHEDULERS.iter().find(|(_, _, scheduler)| *scheduler == self).map_or("", |(_, label, _)| label)
    }
}

/// The solver of a name, A1111's or this library's; with the schedule that old names end in.
pub(super) fn sampler(name: &str) -> Result<(Solver, Option<Scheduler>), Wrong> {
    if let Some(solver) = solver(name) {
        return Ok((solver, None));
    }
    let parts = name.rsplit_once(' ').and_then(|(name, end)| Some((solver(name)?, Scheduler::named(end)?)));
    match parts {
        Some((solver, scheduler)) => Ok((solver, Some(scheduler))),
        None => {
            let message = format!("there is no sampler `{}`: GET /sdapi/v1/samplers lists them", brief(name));
            Err(Wrong::value("sampler_name", message))
        }
    }
}

fn solver(name: &str) -> Option<Solver> {
    let own = SAMPLERS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(name, |(_, own)| own);
    own.parse().ok()
}

/// A1111's name of a solver, or this library's.
pub(super) fn name(solver: Solver) -> String {
    let own = solver.to_string();
    SAMPLERS.iter().find(|(_, known)| *known == own).map_or(own.clone(), |(name, _)| (*name).to_owned())
}

pub(super) async fn samplers() -> Json<Value> {
    let own = Solver::all().map(|solver| solver.to_string());
    let named = SAMPLERS.iter().map(|(name, own)| json!({ "name": name, "aliases": [own], "options": {} }));
    let others = own
        .filter(|own| SAMPLERS.iter().all(|(_, known)| known != own))
        .map(|own| json!({ "name": own, "aliases": [], "options": {} }));
    Json(named.chain(others).collect())
}

pub(super) async fn schedulers() -> Json<Value> {
    let told = |(name, label, _): &(&str, &str, Scheduler)| json!({ "name": name, "label": label, "aliases": null, "default_rho": -1.0, "need_inner_model": false });
    Json(SCHEDULERS.iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_both() {
        assert_eq!(sampler("Euler a"), Ok((Solver::EulerAncestral, None)));
        assert_eq!(sampler("dpmpp-2m"), Ok((Solver::DpmPp2M, None)));
        assert_eq!(sampler("DPM++ 2M Karras"), Ok((Solver::DpmPp2M, Some(Scheduler::Karras))));
        assert_eq!(sampler("UniPC").unwrap_err().field.as_deref(), Some("sampler_name"));
        assert_eq!(Scheduler::of("Karras"), Ok(Scheduler::Karras));
        assert_eq!(Scheduler::of("sgm_uniform").unwrap_err().field.as_deref(), Some("scheduler"));
        assert_eq!((name(Solver::EulerAncestral), name(Solver::Euler)), ("Euler a".to_owned(), "Euler".to_owned()));
        for solver in Solver::all() {
            assert_eq!(sampler(&name(solver)), Ok((solver, None)));
        }
    }
}
