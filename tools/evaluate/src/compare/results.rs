//! What was measured of every variant: tables and plots.

use ediffi_cascade::SamplerSettings;
use serde::Serialize;

use super::variant::Variant;
use crate::bootstrap::Measure;
use crate::document::{Table, number, percent};
use crate::measured::Measured;
use crate::plot::{Axis, Line, Plot};

/// A share of what was asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    pub(super) name: String,
    /// Of this variant.
    pub(super) value: Option<Measure>,
    /// How much more than of the first, picture by picture; `None` where what is asked of a picture depends on what it shows.
    pub(super) gain: Option<Measure>,
}

/// The denoising loss at a noise level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Loss {
    pub(super) sigma: f64,
    /// Mean squared error of the estimate, per pixel and channel in [-1, 1].
    pub(super) error: Option<Measure>,
    /// In errors of the first, on the same scenes with the same noise.
    pub(super) relative: Option<Measure>,
}

/// What was measured of one variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    pub(super) variant: Variant,
    pub(super) sampler: SamplerSettings,
    pub(super) shares: Vec<Share>,
    /// The Fréchet distance of its pictures to renders of other scenes.
    pub(super) frechet: Measure,
    pub(super) loss: Vec<Loss>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    pub(super) name: String,
    pub(super) prompts: usize,
    pub(super) machine: String,
    pub(super) judge: String,
    /// The Fréchet distance of renders of the scenes themselves.
    pub(super) frechet_floor: Measure,
    /// The first is what the others are compared with.
    pub(super) compared: Vec<Compared>,
    pub(super) seconds: f64,
}

impl Results {
    /// Whether all are one network with the same embeddings: the loss, which knows no guidance, is the same of all then.
    fn one_network(&self) -> bool {
        let mut others = self.compared.iter();
        others.next().is_none_or(|first| others.all(|other| other.variant.estimates_as(&first.variant)))
    }
}

impl Measured for Results {
    fn name(&self) -> String {
        format!("compare-{}", self.name)
    }

    fn marker(&self) -> String {
        self.name.clone()
    }

    /// The results as Markdown: shares, differences from the first, Fréchet distances, and, where they differ, losses and losses over
    /// the first's.
    fn markdown(&self) -> String {
        let Some(first) = self.compared.first() else { return String::new() };
        let names = || self.compared.iter().map(|one| one.variant.name.clone());
        let headings = |corner: &str| [corner.to_owned()].into_iter().chain(names());
        let with = |corner, sign| {
            let against = names().skip(1).map(move |other| format!("{other} {sign} {}", first.variant.name));
            Table::new(headings(corner).chain(against))
        };
        let later = || self.compared.iter().skip(1);
        let mut shares = with("%, with 95 % interval", "−");
        for (index, share) in first.shares.iter().enumerate() {
            let of = |one: &Compared| one.shares.get(index).cloned();
            let values = self.compared.iter().map(|one| percent(of(one).and_then(|share| share.value)));
            let gains = later().map(|one| percent(of(one).and_then(|share| share.gain)));
            shares.row([share.name.clone()].into_iter().chain(values).chain(gains));
        }
        let mut distances = Table::new(headings("").chain(["renders (floor)".to_owned()]));
        let floorless = ["–".to_owned()];
        let samplers = self.compared.iter().map(|one| format!("{}, {}", one.sampler.solver, one.sampler.steps));
        distances.row(["solver, steps".to_owned()].into_iter().chain(samplers).chain(floorless.clone()));
        let guidance = self.compared.iter().map(|Compared { sampler: SamplerSettings { guidance, .. }, .. }| {
            let above = guidance.interval.map_or_else(String::new, |interval| format!(" on {interval}"));
            format!("{}{above}", guidance.scale)
        });
        distances.row(["guidance".to_owned()].into_iter().chain(guidance).chain(floorless));
        let values = self.compared.iter().map(|one| one.frechet).chain([self.frechet_floor]);
        let values = values.map(|value| number(Some(value), 3));
        distances.row(["Fréchet distance to other renders".to_owned()].into_iter().chain(values));
        let mut losses = with("squared error × 1000 at σ", "/");
        for (index, loss) in first.loss.iter().enumerate() {
            let of = |one: &Compared| one.loss.get(index).copied();
            let thousand = |error: Option<Measure>| number(error.map(|error| error.times(1e3)), 2);
            let values = self.compared.iter().map(|one| thousand(of(one).and_then(|loss| loss.error)));
            let ratios = later().map(|one| number(of(one).and_then(|loss| loss.relative), 3));
            losses.row([loss.sigma.to_string()].into_iter().chain(values).chain(ratios));
        }
        let losses = if self.one_network() { String::new() } else { format!("\n{losses}") };
        format!(
            "{} prompts, base stage; {}. Judge `{}`. Evaluated in {:.0} s.\n\n{shares}\n{distances}{losses}",
            self.prompts, self.machine, self.judge, self.seconds
        )
    }

    /// The losses, where they differ.
    fn plots(&self) -> Vec<(String, Plot)> {
        if self.one_network() {
            return Vec::new();
        }
        let line =
            |one: &Compared| Line::measured(&one.variant.name, one.loss.iter().map(|loss| (loss.sigma, loss.relative)));
        let first = self.compared.first().map_or("", |one| one.variant.name.as_str());
        let plot = Plot {
            title: format!("Denoising loss on held-out scenes, over that of {first}"),
            x: Axis::logarithmic("σ"),
            y: Axis::linear("ratio of squared errors"),
            lines: self.compared.iter().skip(1).map(line).collect(),
        };
        vec![(Measured::name(self), plot)]
    }
}

#[cfg(test)]
mod tests {
    use ediffi_core::guidance::Guidance;

    use super::*;

    /// Of one network with several scales there is one loss, which says nothing about them.
    #[test]
    fn losses_are_shown_of_different_networks_alone() {
        let measure = Measure { value: 1.0, low: 0.5, high: 1.5, samples: 9 };
        let results = |variants: [&str; 2]| Results {
            name: "two".to_owned(),
            prompts: 9,
            machine: String::new(),
            judge: String::new(),
            frechet_floor: measure,
            compared: variants.map(|variant| compared(variant.parse().unwrap(), measure)).to_vec(),
            seconds: 1.0,
        };
        let folder = tempfile::tempdir().unwrap();
        let plot = folder.path().join("compare-two.png");
        let one = results(["a=A,guidance=1", "b=A,guidance=2"]);
        one.save(folder.path(), None).unwrap();
        assert!(!one.markdown().contains("squared error") && !plot.exists());
        assert!(one.markdown().contains("| guidance | 1 | 2 | – |"), "{}", one.markdown());
        let two = results(["a=A", "b=B"]);
        two.save(folder.path(), None).unwrap();
        assert!(two.markdown().contains("squared error") && plot.exists());
    }

    fn compared(variant: Variant, measure: Measure) -> Compared {
        let guidance = Guidance::new(variant.guidance.unwrap_or(3.0));
        let schedule = ediffi_core::schedule::Schedule::Custom(vec![1.0, 0.5, 0.0]);
        let sampler = SamplerSettings::new(ediffi_core::solver::Solver::Euler, 2, schedule, guidance);
        let loss = |sigma| Loss { sigma, error: Some(measure), relative: Some(measure) };
        Compared { variant, sampler, shares: Vec::new(), frechet: measure, loss: vec![loss(0.5), loss(1.0)] }
    }
}
