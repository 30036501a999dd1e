//! How often the judge is right, on renders that it was not trained on.

use std::path::Path;

use ediffi_core::weights::{Init, Spec, Table, WeightsFile, save};
use ediffi_train::lineage::fingerprint;
use ediffi_train::pixels::from_rgb;
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use train_icons::concepts::SMALL;

use super::architecture::Network;
use super::network::SIDE;
use super::scenes::{CHECK, Example, Examples, Layout, Truth};
use super::{Accuracy, Detection, Judge, Verdict, matched, right};
use crate::bootstrap::{Measure, share};
use crate::document::{Table as Markdown, percent};
use crate::error::Result;
use crate::measured::Measured;

/// Pictures looked at together.
const BATCH: usize = 64;
/// A detection is of an object if its centre is off by at most this part of the object's size along each axis.
const NEAR: f32 = 0.4;

/// What the judge got right: of one render as (right, asked), of many as shares in [0, 1].
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Facts<T> {
    /// Objects that it found, with the right concept near the right place.
    pub recall: T,
    /// Detections that were right.
    pub precision: T,
    /// Styles.
    pub style: T,
    /// Relations of the two objects of a picture: both found, and their centres stand to each other as they should.
    pub relation: T,
    /// Colours of the objects that it found and captions would name a colour of.
    pub colour: T,
    /// Colours of backgrounds.
    pub background: T,
}

/// What was right about one render, as (right, asked).
type OfOne = Facts<(f64, f64)>;

/// What the judge got right of some renders.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which renders.
    pub kind: String,
    /// How many.
    pub renders: usize,
    /// What it got right.
    #[serde(flatten)]
    pub shares: Facts<Option<Measure>>,
}

/// Looks at `renders` renders and reports what was right: first on the two kinds that the generator is asked for, which is
/// what the judge is used on, then by how they are laid out.
pub fn check(judge: &Judge, examples: &Examples, renders: usize) -> Result<Vec<Report>> {
    let mut facts: Vec<(Layout, OfOne)> = Vec::with_capacity(renders);
    for start in (0..renders).step_by(BATCH) {
        let made = (start..(start + BATCH).min(renders))
            .map(|index| examples.example(CHECK, index as u64))
            .collect::<Result<Vec<_>>>()?;
        let pixels: Vec<&[u8]> = made.iter().map(|example| example.pixels.as_slice()).collect();
        let verdicts = judge.look_at(&from_rgb(&pixels, SIDE, SIDE)?)?;
        facts.extend(made.iter().zip(&verdicts).map(|(example, verdict)| (example.layout, compare(example, verdict))));
    }
    let mut reports = vec![report("of the generator's kinds", &facts, |layout| layout != Layout::Free)];
    for (layout, name) in [
        (Layout::Trained, "like the generator's data"),
        (Layout::HeldOut, "held out from the generator"),
        (Layout::Free, "laid out freely"),
    ] {
        reports.push(report(name, &facts, |other| other == layout));
    }
    Ok(reports)
}

fn report(name: &str, facts: &[(Layout, OfOne)], of: impl Fn(Layout) -> bool) -> Report {
    let chosen: Vec<OfOne> = facts.iter().filter(|(layout, _)| of(*layout)).map(|(_, facts)| *facts).collect();
    let measure = |part: fn(&OfOne) -> (f64, f64)| share(&chosen.iter().map(part).collect::<Vec<_>>());
    let shares = Facts {
        recall: measure(|facts| facts.recall),
        precision: measure(|facts| facts.precision),
        style: measure(|facts| facts.style),
        relation: measure(|facts| facts.relation),
        colour: measure(|facts| facts.colour),
        background: measure(|facts| facts.background),
    };
    Report { kind: name.to_owned(), renders: chosen.len(), shares }
}

impl Measured for Vec<Report> {
    fn name(&self) -> String {
        "judge".to_owned()
    }

    fn markdown(&self) -> String {
        let mut table =
            Markdown::new(["renders", "recall %", "precision %", "style %", "relation %", "colour %", "background %"]);
        for Report { kind, renders, shares: Facts { recall, precision, style, relation, colour, background } } in self {
            let shares = [recall, precision, style, relation, colour, background].map(|share| percent(*share));
            table.row([format!("{kind} ({renders})")].into_iter().chain(shares));
        }
        table.to_string()
    }
}

/// Writes the judge in `from` to `to`, with the accuracy that `report` found in its header.
pub fn stamp(judge: &Judge, from: &Path, to: &Path, report: &Report) -> Result<()> {
    let value = |measure: Option<Measure>| measure.map_or(0.0, |measure| (measure.value * 1e4).round() / 1e2);
    let accuracy = Accuracy {
        recall: value(report.shares.recall),
        precision: value(report.shares.precision),
        style: value(report.shares.style),
        relation: value(report.shares.relation),
        renders: report.renders,
    };
    let file = WeightsFile::open(from, |name| Some(name.to_owned()))?;
    let table = Table::of(|scope| Network::new(judge.architecture, scope))?;
    let tensors: Vec<(String, Tensor)> = file.build(Device::Cpu, Kind::BFloat16, |mut scope| {
        let mut read = |spec: &Spec| Ok((spec.name.clone(), scope.weight(&spec.name, &spec.shape, Init::Zeros)?));
        table.specs().iter().map(&mut read).collect()
    })?;
    let mut notes = std::collections::HashMap::new();
    for key in ["pictures", "steps"] {
        notes.extend(file.text(key).map(|text| (key.to_owned(), text.to_owned())));
    }
    notes.insert("format".to_owned(), judge.architecture.format().to_owned());
    notes.insert("fingerprint".to_owned(), fingerprint(from)?);
    notes.insert("accuracy".to_owned(), serde_json::to_string(&accuracy)?);
    Ok(save(to, &tensors, notes)?)
}

fn compare(example: &Example, verdict: &Verdict) -> OfOne {
    let found = matched(&example.objects, &verdict.detections, fits);
    let hits = found.iter().flatten().count() as f64;
    let mut facts = Facts {
        recall: (hits, found.len() as f64),
        precision: (hits, verdict.detections.len() as f64),
        // A picture without objects has no style.
        style: if found.is_empty() { (0.0, 0.0) } else { right(verdict.style == example.scene.style) },
        background: right(verdict.background == example.scene.background.colour()),
        ..Facts::default()
    };
    if let ([first, second], [a, b]) = (example.objects.as_slice(), found.as_slice()) {
        let truth = side(second.x - first.x, second.y - first.y);
        let seen = a.zip(*b).map(|(a, b)| side(b.x - a.x, b.y - a.y));
        facts.relation = right(seen == Some(truth));
    }
    for (object, detection) in example.objects.iter().zip(&found) {
        if let (Some(colour), Some(detection)) = (object.colour, detection) {
            facts.colour.0 += right(detection.colour as usize == colour).0;
            facts.colour.1 += 1.0;
        }
    }
    facts
}

/// Whether a detection is of an object, near its place.
fn fits(object: &Truth, detection: &Detection) -> bool {
    let reach = NEAR * object.width.max(object.height);
    SMALL.get(object.concept).is_some_and(|name| detection.concept == *name)
        && (detection.x - object.x).abs() <= reach
        && (detection.y - object.y).abs() <= reach
}

/// Which side an offset mostly points to: (across, down), one of them 0.
fn side(dx: f32, dy: f32) -> (i8, i8) {
    let sign = |v: f32| if v < 0.0 { -1 } else { 1 };
    if dx.abs() >= dy.abs() { (sign(dx), 0) } else { (0, sign(dy)) }
}
