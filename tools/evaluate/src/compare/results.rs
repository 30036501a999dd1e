//! What was measured of every variant: tables and plots.

use std::path::Path;

use ediffi_cascade::SamplerSettings;
use serde::{Deserialize, Serialize};

use super::variant::Variant;
use crate::bootstrap::Measure;
use crate::document::{self, Table, number, percent};
use crate::error::Result;
use crate::plot::{Axis, Line, Plot};

/// A share of what was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// What is measured.
    pub name: String,
    /// Of this variant.
    pub value: Option<Measure>,
    /// How much more than of the first, picture by picture; `None` where what is asked of a picture depends on what it shows.
    pub gain: Option<Measure>,
}

/// The denoising loss at a noise level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The noise level.
    pub sigma: f64,
    /// Mean squared error of the estimate, per pixel and channel in [-1, 1].
    pub error: Option<Measure>,
    /// In errors of the first, on the same scenes with the same noise.
    pub relative: Option<Measure>,
}

/// What was measured of one variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Which.
    pub variant: Variant,
    /// How its pictures were sampled.
    pub sampler: SamplerSettings,
    /// Shares in [0, 1].
    pub shares: Vec<Share>,
    /// The Fréchet distance of its pictures to renders of other scenes.
    pub frechet: Measure,
    /// The base's denoising loss.
    pub loss: Vec<Loss>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What the comparison is called.
    pub name: String,
    /// How many prompts.
    pub prompts: usize,
    /// What computed.
    pub machine: String,
    /// The judge's fingerprint.
    pub judge: String,
    /// The Fréchet distance of renders of the scenes themselves.
    pub frechet_floor: Measure,
    /// The first is what the others are compared with.
    pub compared: Vec<Compared>,
    /// Seconds of all of it.
    pub seconds: f64,
}

impl Results {
    /// Whether all are one network with the same embeddings: the loss, which knows no guidance, is the same of all then.
    fn one_network(&self) -> bool {
        let mut others = self.compared.iter();
        others.next().is_none_or(|first| others.all(|other| other.variant.estimates_as(&first.variant)))
    }

    /// The results as Markdown: shares, differences from the first, Fréchet distances, and, where they differ, losses and losses over
    /// the first's.
    #[must_use]
    pub fn markdown(&self) -> String {
        let names: Vec<&str> = self.compared.iter().map(|one| one.variant.name.as_str()).collect();
        let [first, others @ ..] = names.as_slice() else { return String::new() };
        let headings = |corner| [corner].into_iter().chain(names.iter().copied()).collect::<Vec<_>>();
        let against: Vec<String> = others.iter().map(|other| format!("{other} − {first}")).collect();
        let over: Vec<String> = others.iter().map(|other| format!("{other} / {first}")).collect();
        let with = |corner, more: &[String]| {
            let mut headings = headings(corner);
            headings.extend(more.iter().map(String::as_str));
            Table::new(&headings)
        };
        let later = || self.compared.iter().skip(1);
        let mut shares = with("%, with 95 % interval", &against);
        for (index, share) in self.compared.first().into_iter().flat_map(|one| one.shares.iter().enumerate()) {
            let of = |one: &Compared| one.shares.get(index).cloned();
            let values = self.compared.iter().map(|one| percent(of(one).and_then(|share| share.value)));
            let gains = later().map(|one| percent(of(one).and_then(|share| share.gain)));
            shares.row([share.name.clone()].into_iter().chain(values).chain(gains));
        }
        let mut distances = Table::new(&[headings("").as_slice(), &["renders (floor)"]].concat());
        let scales = self.compared.iter().map(|one| one.sampler.guidance.scale.to_string());
        distances.row(["guidance".to_owned()].into_iter().chain(scales).chain(["–".to_owned()]));
        let values = self.compared.iter().map(|one| one.frechet).chain([self.frechet_floor]);
        distances.row(
            ["Fréchet distance to other renders".to_owned()]
                .into_iter()
                .chain(values.map(|value| number(Some(value), 3))),
        );
        let mut losses = with("squared error × 1000 at σ", &over);
        for (index, loss) in self.compared.first().into_iter().flat_map(|one| one.loss.iter().enumerate()) {
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

    /// Writes JSON and, where they differ, the plot of the losses into `out`; with a document, its tables between the markers of the
    /// comparison's name and the plot into the folder `images` beside it.
    ///
    /// # Errors
    /// Files that cannot be written; [`Error::Marker`](crate::error::Error::Marker) for a document without the markers.
    pub fn save(&self, out: &Path, page: Option<&Path>) -> Result<()> {
        document::json(&out.join(format!("compare-{}.json", self.name)), self)?;
        let point = |loss: &Loss| loss.relative.map(|ratio| (loss.sigma, ratio.value, Some((ratio.low, ratio.high))));
        let line = |one: &Compared| Line {
            name: one.variant.name.clone(),
            points: one.loss.iter().filter_map(point).collect(),
        };
        let first = self.compared.first().map_or("", |one| one.variant.name.as_str());
        let plot = Plot {
            title: format!("Denoising loss on held-out scenes, over that of {first}"),
            x: Axis::logarithmic("σ"),
            y: Axis::linear("ratio of squared errors"),
            lines: self.compared.iter().skip(1).map(line).collect(),
        };
        let images = page.map_or_else(|| out.to_owned(), |page| page.with_file_name("images"));
        if !self.one_network() {
            plot.save(&images.join(format!("compare-{}.png", self.name)))?;
        }
        page.map_or(Ok(()), |page| document::replace(page, &self.name, &self.markdown()))
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
        let sampler = SamplerSettings {
            solver: ediffi_core::solver::Solver::Euler,
            steps: 2,
            schedule: ediffi_core::schedule::Schedule::Custom(vec![1.0, 0.5, 0.0]),
            guidance,
        };
        let loss = |sigma| Loss { sigma, error: Some(measure), relative: Some(measure) };
        Compared { variant, sampler, shares: Vec::new(), frechet: measure, loss: vec![loss(0.5), loss(1.0)] }
    }
}
