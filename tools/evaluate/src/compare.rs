//! `evaluate compare`: models, or one model with fewer encoders, on the same prompts, seeds and scenes, so that what makes one
//! prompt harder than another does not hide a difference between them.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::ValueEnum as _;
use ediffi::StageConfig;
use ediffi_cascade::SamplerSettings;
use ediffi_core::guidance::Guidance;
use serde::{Deserialize, Serialize};
use train_icons::pack::Pack;

use crate::bootstrap::{Measure, difference, mean, ratio, share};
use crate::document::{self, Table, number, percent};
use crate::error::{Error, Result};
use crate::frechet;
use crate::icons::{SHARES, errors, look, reference, renders};
use crate::judge::{Judge, Verdict};
use crate::machine;
use crate::model::{Model, Without};
use crate::pairs::paired;
use crate::plot::{Axis, Line, Plot};
use crate::prompts::{self, Prompt};
use crate::wanted::Facts;

/// One of those that are compared: `NAME=FOLDER`, with `,without=t5` (or `clip`) and `,guidance=2` after it where wanted. A folder's name
/// has no comma.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// What tables and plots call it.
    pub name: String,
    /// The model folder.
    pub model: PathBuf,
    /// The encoder that is left out.
    pub without: Option<Without>,
    /// Another scale of guidance than the model's own.
    pub guidance: Option<f64>,
}

impl Variant {
    /// Whether its estimates without guidance are those of the other.
    fn estimates_as(&self, other: &Self) -> bool {
        self.model == other.model && self.without == other.without
    }

    /// What its pictures are sampled with.
    fn sampler(&self, base: &StageConfig) -> SamplerSettings {
        let own = base.settings.clone();
        let guidance = Guidance { scale: self.guidance.unwrap_or(own.guidance.scale), ..own.guidance };
        SamplerSettings { guidance, ..own }
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("not of the form NAME=FOLDER")?;
        let mut parts = rest.split(',');
        let model = parts.next().unwrap_or_default();
        if name.is_empty() || model.is_empty() {
            return Err("neither the name nor the folder may be empty".to_owned());
        }
        let mut variant = Self { name: name.to_owned(), model: model.into(), without: None, guidance: None };
        for part in parts {
            match part.split_once('=') {
                Some(("without", _)) if variant.without.is_some() => return Err("without= stands twice".to_owned()),
                Some(("guidance", _)) if variant.guidance.is_some() => return Err("guidance= stands twice".to_owned()),
                Some(("without", encoder)) => variant.without = Some(Without::from_str(encoder, true)?),
                Some(("guidance", scale)) => {
                    let scale = scale.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale >= 0.0);
                    variant.guidance = Some(scale.ok_or("guidance is not a number from 0 on")?);
                }
                _ => return Err(format!("`{part}` is neither without=ENCODER nor guidance=SCALE")),
            }
        }
        Ok(variant)
    }
}

/// What to compare.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// `NAME=FOLDER`, at least two; after the folder, `,without=t5` or `,without=clip` leaves an encoder out and `,guidance=2` samples
    /// with this scale. All are compared with the first.
    #[arg(long = "variant", value_name = "NAME=FOLDER", required = true)]
    pub variants: Vec<Variant>,
    /// What this comparison is called: its JSON, its plot and its place in the document. Letters, digits and `-`.
    #[arg(long, value_parser = plain)]
    pub name: String,
    /// How many prompts.
    #[arg(long, default_value_t = prompts::ALL as u32, value_parser = clap::value_parser!(u32).range(2..))]
    pub prompts: u32,
}

/// A name that is safe in the names of files.
fn plain(name: &str) -> std::result::Result<String, String> {
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if fits { Ok(name.to_owned()) } else { Err("it has other characters than letters, digits and `-`".to_owned()) }
}

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

/// Errors of the estimates, by noise level.
type Errors = Vec<(f64, Vec<f64>)>;
/// A variant's pictures as the judge sees them, and its errors.
type Observed = (Vec<Verdict>, Errors);

/// Compares variants.
///
/// # Errors
/// [`Error::Setting`] for fewer than two variants, or two of one name; those of the models, of the scenes and of the judge.
pub fn evaluate(judge: &Judge, pack: &Pack, settings: &Settings) -> Result<Results> {
    let began = Instant::now();
    let names: std::collections::BTreeSet<&str> = settings.variants.iter().map(|v| v.name.as_str()).collect();
    if names.len() < settings.variants.len() || names.len() < 2 {
        let reason = "two variants or more are compared, each under a name of its own".to_owned();
        return Err(Error::Setting { what: "variant", reason });
    }
    let prompts = prompts::prompts(settings.prompts as usize)?;
    let clean = renders(pack, &prompts)?;
    let mut compared: Vec<Compared> = Vec::new();
    let (mut first, mut machine): (Option<Observed>, _) = (None, String::new());
    // A folder that cannot be opened shows before anything is drawn.
    let open = |variant: &Variant| {
        let model = Model::open(&variant.model)?;
        model.judged_base()?;
        Ok(model)
    };
    let models = settings.variants.iter().map(open).collect::<Result<Vec<_>>>()?;
    let reference = reference(judge, pack, prompts.len())?;
    let frechet_floor = frechet::measure(&frechet::features(&look(judge, &clean)?)?, &reference)?;
    // What was estimated once is not estimated again for another guidance.
    let mut estimates: Vec<(&Variant, Errors)> = Vec::new();
    for (variant, model) in settings.variants.iter().zip(&models) {
        machine = machine::describe(model);
        let sampler = variant.sampler(model.judged_base()?);
        let wishes = prompts
            .iter()
            .map(|prompt| model.wish(&prompt.scene.caption, prompt.seed, variant.without))
            .collect::<Result<Vec<_>>>()?;
        let verdicts = look(judge, &model.draw(&wishes, 1, &sampler)?)?;
        let same = estimates.iter().find(|(other, _)| other.estimates_as(variant));
        let estimates_of = match same {
            Some((_, errors)) => errors.clone(),
            None => errors(model, &wishes, &clean)?,
        };
        estimates.push((variant, estimates_of.clone()));
        let observed = (verdicts, estimates_of);
        let (shares, loss) = compare(&prompts, &observed, first.as_ref())?;
        let frechet = frechet::measure(&frechet::features(&observed.0)?, &reference)?;
        compared.push(Compared { variant: variant.clone(), sampler, shares, frechet, loss });
        first.get_or_insert(observed);
    }
    Ok(Results {
        name: settings.name.clone(),
        prompts: prompts.len(),
        machine,
        judge: judge.fingerprint().to_owned(),
        frechet_floor,
        compared,
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn compare(
    prompts: &[Prompt],
    (verdicts, errors): &Observed,
    first: Option<&Observed>,
) -> Result<(Vec<Share>, Vec<Loss>)> {
    let mut shares = Vec::new();
    for (name, kinds, of) in SHARES {
        let facts = |verdicts: &[Verdict]| -> Result<Vec<(f64, f64)>> {
            let pairs = paired("verdicts", prompts, verdicts)?.filter(|(prompt, _)| kinds.contains(&prompt.kind));
            Ok(pairs.map(|(prompt, verdict)| of(&Facts::new(&prompt.wanted, verdict))).collect())
        };
        let own = facts(verdicts)?;
        let gain = match first {
            // Where what is asked depends on what the picture shows (the colour of objects that are there), there is no
            // difference picture by picture.
            Some((verdicts, _)) => {
                let theirs = facts(verdicts)?;
                let same = own.iter().zip(&theirs).all(|((_, asked), (_, other))| asked == other);
                let triple = |((right, asked), (other, _)): (&(f64, f64), &(f64, f64))| (*right, *other, *asked);
                same.then(|| difference(&own.iter().zip(&theirs).map(triple).collect::<Vec<_>>())).flatten()
            }
            None => None,
        };
        shares.push(Share { name: name.to_owned(), value: share(&own), gain });
    }
    let mut loss = Vec::new();
    for (level, (sigma, own)) in errors.iter().enumerate() {
        let theirs = first.and_then(|(_, errors)| errors.get(level));
        let relative = match theirs {
            Some((_, theirs)) => ratio(&paired("errors", own, theirs)?.map(|(a, b)| (*a, *b)).collect::<Vec<_>>()),
            None => None,
        };
        loss.push(Loss { sigma: *sigma, error: mean(own), relative });
    }
    Ok((shares, loss))
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
    /// Files that cannot be written; [`Error::Marker`] for a document without the markers.
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
    use super::*;

    #[test]
    fn a_variant_is_a_name_a_folder_and_what_is_different() {
        let variant = |text: &str| text.parse::<Variant>();
        let plain = Variant { name: "A".to_owned(), model: "runs/a".into(), without: None, guidance: None };
        assert_eq!(variant("A=runs/a").unwrap(), plain);
        let less = Variant { without: Some(Without::T5), ..plain.clone() };
        assert_eq!(variant("A=runs/a,without=t5").unwrap(), less);
        let both = Variant { guidance: Some(1.5), ..less.clone() };
        assert_eq!(variant("A=runs/a,guidance=1.5,without=t5").unwrap(), both);
        assert!(both.estimates_as(&less) && !both.estimates_as(&plain));
        for wrong in [
            "runs/a",
            "=runs/a",
            "A=",
            "A=runs/a,without=vae",
            "A=runs/a,guidance=-1",
            "A=runs/a,steps=3",
            "A=a,guidance=1,guidance=2",
        ] {
            assert!(variant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_safe_in_paths() {
        assert_eq!(plain("experts-2").unwrap(), "experts-2");
        for wrong in ["", "a/b", "icons.json", "a b"] {
            assert!(plain(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_scale_replaces_the_scale_alone() {
        let stage = include_str!("../../../models/icons/pipeline.json");
        let manifest: ediffi::Manifest = serde_json::from_str(stage).unwrap();
        let own = manifest.stages[0].settings.clone();
        let variant: Variant = "A=runs/a,guidance=7.5".parse().unwrap();
        let other = variant.sampler(&manifest.stages[0]);
        assert_eq!(
            (other.guidance.scale, other.steps, other.guidance.interval),
            (7.5, own.steps, own.guidance.interval)
        );
        assert_eq!(Variant { guidance: None, ..variant }.sampler(&manifest.stages[0]), own);
    }

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

    /// Nothing is seen in the first's pictures and all that is asked in the other's; its errors are half as large.
    #[test]
    fn differences_are_those_from_the_first() {
        let prompts = prompts::prompts(60).unwrap();
        let verdict = |prompt: &Prompt, seen: bool| {
            let mut verdict = crate::wanted::tests::perfect(&prompt.scene);
            verdict.detections.retain(|_| seen);
            verdict
        };
        let verdicts = |seen| prompts.iter().map(|prompt| verdict(prompt, seen)).collect::<Vec<_>>();
        let errors = |scale: f64| vec![(1.0, (1..=60).map(|n| scale * f64::from(n)).collect::<Vec<_>>())];
        let (nothing, all) = ((verdicts(false), errors(2.0)), (verdicts(true), errors(1.0)));
        let (shares, loss) = compare(&prompts, &all, Some(&nothing)).unwrap();
        let share = |name: &str| shares.iter().find(|share| share.name.starts_with(name)).unwrap();
        assert_eq!(share("one object").gain.map(|gain| gain.value), Some(1.0));
        assert_eq!(share("colour of objects").gain, None, "asked of objects that are there alone");
        let ratio = loss[0].relative.unwrap();
        assert!((ratio.value - 0.5).abs() < 1e-12 && (ratio.high - ratio.low).abs() < 1e-12, "{ratio:?}");
        let (alone, loss) = compare(&prompts, &nothing, None).unwrap();
        assert!(alone.iter().all(|share| share.gain.is_none()) && loss[0].relative.is_none());
    }
}
