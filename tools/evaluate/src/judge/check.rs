//! How often the judge is right, on renders that it was not trained on.

use std::path::Path;

use ediffi_core::weights::{Init, Spec, Table, WeightsFile, save};
use ediffi_train::lineage::fingerprint;
use ediffi_train::pixels::from_rgb;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::network::{Network, SIDE};
use super::scenes::{CHECK, Example, Examples, Layout, Truth, place};
use super::{Accuracy, Detection, FORMAT, Judge, Verdict};
use crate::bootstrap::{Measure, share};
use crate::document::{Table as Markdown, percent};
use crate::error::Result;

/// Pictures looked at together.
const BATCH: usize = 64;
/// A detection is of an object if its centre is off by at most this part of the object's size along each axis.
const NEAR: f32 = 0.4;

/// What the judge got right. Shares are in [0, 1].
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which renders.
    pub kind: String,
    /// How many.
    pub renders: usize,
    /// Objects that it found, with the right concept near the right place.
    pub recall: Option<Measure>,
    /// Detections that were right.
    pub precision: Option<Measure>,
    /// Styles.
    pub style: Option<Measure>,
    /// Relations of the two objects of a picture: both found, and their centres stand to each other as they should.
    pub relation: Option<Measure>,
    /// Colours of the objects that it found and captions would name a colour of.
    pub colour: Option<Measure>,
    /// Colours of backgrounds.
    pub background: Option<Measure>,
}

/// What was right about one render, as (right, asked).
#[derive(Debug, Default, Clone, Copy)]
struct Facts {
    recall: (f64, f64),
    precision: (f64, f64),
    style: (f64, f64),
    relation: (f64, f64),
    colour: (f64, f64),
    background: (f64, f64),
}

/// Looks at `renders` renders and reports what was right: first on the two kinds that the generator is asked for, which is
/// what the judge is used on, then by how they are laid out.
///
/// # Errors
/// A scene that cannot be drawn.
pub fn check(judge: &Judge, examples: &Examples, renders: usize) -> Result<Vec<Report>> {
    let mut facts: Vec<(Layout, Facts)> = Vec::with_capacity(renders);
    for start in (0..renders).step_by(BATCH) {
        let made = (start..(start + BATCH).min(renders))
            .map(|index| examples.example(CHECK, index as u64))
            .collect::<Result<Vec<_>>>()?;
        let pixels: Vec<&[u8]> = made.iter().map(|example| example.pixels.as_slice()).collect();
        let verdicts = judge.look_at(&from_rgb(&pixels, SIDE, SIDE)?)?;
        facts.extend(made.iter().zip(&verdicts).map(|(example, verdict)| (example.layout, compare(example, verdict))));
    }
    let mut reports = vec![report("of the generator's kinds", &facts, |layout| layout != Layout::Free)];
    for layout in [Layout::Trained, Layout::HeldOut, Layout::Free] {
        reports.push(report(layout.words(), &facts, |other| other == layout));
    }
    Ok(reports)
}

fn report(name: &str, facts: &[(Layout, Facts)], of: impl Fn(Layout) -> bool) -> Report {
    let chosen: Vec<Facts> = facts.iter().filter(|(layout, _)| of(*layout)).map(|(_, facts)| *facts).collect();
    let measure = |part: fn(&Facts) -> (f64, f64)| share(&chosen.iter().map(part).collect::<Vec<_>>());
    Report {
        kind: name.to_owned(),
        renders: chosen.len(),
        recall: measure(|facts| facts.recall),
        precision: measure(|facts| facts.precision),
        style: measure(|facts| facts.style),
        relation: measure(|facts| facts.relation),
        colour: measure(|facts| facts.colour),
        background: measure(|facts| facts.background),
    }
}

/// The reports as a Markdown table.
#[must_use]
pub fn table(reports: &[Report]) -> Markdown {
    let mut table =
        Markdown::new(&["renders", "recall %", "precision %", "style %", "relation %", "colour %", "background %"]);
    for report in reports {
        let shares = [report.recall, report.precision, report.style, report.relation, report.colour, report.background];
        table.row([format!("{} ({})", report.kind, report.renders)].into_iter().chain(shares.map(percent)));
    }
    table
}

/// Writes the judge in `from` to `to`, with the accuracy that `report` found in its header.
///
/// # Errors
/// Files that cannot be read or written.
pub fn stamp(from: &Path, to: &Path, report: &Report) -> Result<()> {
    let value = |measure: Option<Measure>| measure.map_or(0.0, |measure| (measure.value * 1e4).round() / 1e2);
    let accuracy = Accuracy {
        recall: value(report.recall),
        precision: value(report.precision),
        style: value(report.style),
        relation: value(report.relation),
        renders: report.renders,
    };
    let file = WeightsFile::open(from, |name| Some(name.to_owned()))?;
    let table = Table::of(Network::new)?;
    let tensors: Vec<(String, Tensor)> = file.build(Device::Cpu, Kind::BFloat16, |mut scope| {
        let mut read = |spec: &Spec| Ok((spec.name.clone(), scope.weight(&spec.name, &spec.shape, Init::Zeros)?));
        table.specs().iter().map(&mut read).collect()
    })?;
    let mut notes = std::collections::HashMap::new();
    for key in ["pictures", "steps"] {
        notes.extend(file.text(key).map(|text| (key.to_owned(), text.to_owned())));
    }
    notes.insert("format".to_owned(), FORMAT.to_owned());
    notes.insert("fingerprint".to_owned(), fingerprint(from)?);
    notes.insert("accuracy".to_owned(), serde_json::to_string(&accuracy)?);
    Ok(save(to, &tensors, notes)?)
}

fn compare(example: &Example, verdict: &Verdict) -> Facts {
    let found = matched(&example.objects, &verdict.detections);
    let hits = found.iter().flatten().count() as f64;
    let right = |yes: bool| (f64::from(u8::from(yes)), 1.0);
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
            facts.colour.1 += 1.0;
            facts.colour.0 += f64::from(u8::from(place(detection.colour) == Some(colour)));
        }
    }
    facts
}

/// The detection of each object, if there is one; none is used twice.
fn matched<'a>(objects: &[Truth], detections: &'a [Detection]) -> Vec<Option<&'a Detection>> {
    let mut free: Vec<&Detection> = detections.iter().collect();
    let of = |object: &Truth| {
        let reach = NEAR * object.width.max(object.height);
        let name = train_icons::concepts::SMALL.get(object.concept).copied().unwrap_or_default();
        let near = |detection: &&Detection| {
            detection.concept == name
                && (detection.x - object.x).abs() <= reach
                && (detection.y - object.y).abs() <= reach
        };
        let place = free.iter().position(near)?;
        Some(free.remove(place))
    };
    objects.iter().map(of).collect()
}

/// Which side an offset mostly points to: (across, down), one of them 0.
fn side(dx: f32, dy: f32) -> (i8, i8) {
    let sign = |v: f32| if v < 0.0 { -1 } else { 1 };
    if dx.abs() >= dy.abs() { (sign(dx), 0) } else { (0, sign(dy)) }
}
