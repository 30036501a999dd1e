//! Plans: which expert runs which step.

use std::fmt;
use std::ops::Range;

use crate::experts::Experts;
use crate::{Result, schedule};

/// Which expert runs which step of a schedule. It is known before anything is loaded.
///
/// A plan has one step for each positive sigma of its schedule: the step that starts with the evaluation at that sigma. So
/// a schedule of N + 1 sigmas that ends in 0 has N steps. One that ends above 0 has N + 1: the last is the solver's final
/// denoising.
///
/// Some solvers evaluate several times in a step, at sigmas between this step's and the next one's (Heun's churn: somewhat
/// above this step's). The expert that owns such a sigma makes the evaluation. So both experts work in a step that crosses
/// from one to the next.
///
/// A plan is shown as one line for each run of steps with the same expert:
///
/// ```
/// use ediffi_core::{experts::Experts, interval::SigmaInterval};
///
/// let experts = Experts::new(vec![SigmaInterval::new(9.61, f64::INFINITY)?, SigmaInterval::new(0.0, 9.61)?])?;
/// let plan = experts.plan(&[80.0, 20.0, 5.0, 0.5, 0.0])?;
/// assert_eq!(plan.to_string(), "expert 0: steps 1-2 of 4, sigma 80 to 20\nexpert 1: steps 3-4 of 4, sigma 5 to 0.5");
/// # Ok::<(), ediffi_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    steps: Vec<PlannedStep>,
    segments: Vec<Segment>,
}

/// One step of a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PlannedStep {
    /// The noise level the step starts from.
    pub sigma: f64,
    /// The expert that owns it.
    pub expert: usize,
}

/// A run of steps with the same expert.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Segment {
    /// The expert.
    pub expert: usize,
    /// The steps it runs, counted from 0.
    pub steps: Range<usize>,
    /// The noise level of its first step.
    pub first_sigma: f64,
    /// The noise level of its last step.
    pub last_sigma: f64,
}

impl Experts {
    /// Plans a schedule: which expert runs which step. Nothing is loaded.
    ///
    /// # Errors
    /// [`Error::InvalidSchedule`](crate::Error::InvalidSchedule) or [`Error::InvalidSigmas`](crate::Error::InvalidSigmas)
    /// if `sigmas` is no schedule.
    pub fn plan(&self, sigmas: &[f64]) -> Result<Plan> {
        schedule::validate(sigmas)?;
        let mut plan = Plan { steps: Vec::new(), segments: Vec::new() };
        for &sigma in sigmas.iter().filter(|sigma| **sigma > 0.0) {
            plan.push(PlannedStep { sigma, expert: self.index_of(sigma)? });
        }
        Ok(plan)
    }
}

impl Plan {
    /// The plan without its first `count` steps: of what begins at a lower noise level.
    #[must_use]
    pub fn without_first(&self, count: usize) -> Self {
        let mut plan = Self { steps: Vec::new(), segments: Vec::new() };
        for &step in self.steps.iter().skip(count) {
            plan.push(step);
        }
        plan
    }

    /// The plan of the steps with these numbers, in this order: of what goes back to earlier ones. Numbers that it has not are left out.
    #[must_use]
    pub fn in_order(&self, numbers: &[usize]) -> Self {
        let mut plan = Self { steps: Vec::new(), segments: Vec::new() };
        for &step in numbers.iter().filter_map(|&number| self.steps.get(number)) {
            plan.push(step);
        }
        plan
    }

    fn push(&mut self, PlannedStep { sigma, expert }: PlannedStep) {
        let index = self.steps.len();
        self.steps.push(PlannedStep { sigma, expert });
        match self.segments.last_mut() {
            Some(segment) if segment.expert == expert => {
                segment.steps.end = index + 1;
                segment.last_sigma = sigma;
            }
            _ => self.segments.push(Segment { expert, steps: index..index + 1, first_sigma: sigma, last_sigma: sigma }),
        }
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }

    /// The runs of steps with the same expert, in order. An expert has at most one run where
    /// the noise descends.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The experts that work, in the order of their work.
    pub fn experts(&self) -> impl Iterator<Item = usize> + '_ {
        self.segments.iter().map(|segment| segment.expert)
    }
}

/// Writes one line for each segment. Steps are counted from 1 here, and sigmas are rounded to four digits.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, Segment { expert, steps, first_sigma, last_sigma }) in self.segments.iter().enumerate() {
            let separator = if line > 0 { "\n" } else { "" };
            let (first, last, all) = (steps.start + 1, steps.end, self.steps.len());
            let (high, low) = (rounded(*first_sigma), rounded(*last_sigma));
            if steps.len() == 1 {
                write!(f, "{separator}expert {expert}: step {first} of {all}, sigma {high}")?;
            } else {
                write!(f, "{separator}expert {expert}: steps {first}-{last} of {all}, sigma {high} to {low}")?;
            }
        }
        Ok(())
    }
}

/// A number with at most four significant digits.
fn rounded(number: f64) -> String {
    let digits = 3 - number.abs().log10().floor().clamp(-300.0, 300.0) as i32;
    let scale = 10_f64.powi(digits);
    let text = format!("{:.*}", digits.max(0) as usize, (number * scale).round() / scale);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
