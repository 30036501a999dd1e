//! What was measured, as a table.

use std::path::PathBuf;

use serde::Serialize;

use super::drawn::{Note, Sampler};
use super::look::Seen;
use super::worst::Column;
use crate::bootstrap::{Measure, mean, median};
use crate::document::{Table, number};
use crate::icons::{Row, shares_table};
use crate::measured::Measured;

/// How the numbers of pictures become one.
type Summary = fn(&[f64]) -> Option<Measure>;
/// A measure of single pictures: what it is called, how it is read off one, how it is summed up.
type MeasureOf = (&'static str, fn(&Seen) -> Option<f64>, Summary);

/// The measures of single pictures, in the order of the table.
pub(super) const MEASURES: [MeasureOf; 9] = [
    ("plainness, median", |seen| Some(seen.plainness), median),
    ("edge width, full size, median", |seen| seen.width[0], median),
    ("edge width, 256, median", |seen| seen.width[1], median),
    ("roughness, full size, median", |seen| seen.roughness[0], median),
    ("roughness, 256, median", |seen| seen.roughness[1], median),
    ("curvature, full size, median", |seen| seen.curvature[0], median),
    ("curvature, 256, median", |seen| seen.curvature[1], median),
    ("specks a picture, full size", |seen| Some(seen.specks[0]), mean),
    ("specks a picture, 256", |seen| Some(seen.specks[1]), mean),
];

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub(super) name: String,
    /// Of other renders of the same prompts.
    pub(super) renders: Option<Measure>,
    /// Of the pictures.
    pub(super) pictures: Option<Measure>,
}

impl Line {
    /// The lines of the measures of single pictures.
    pub(super) fn of(renders: &[Seen], pictures: &[Seen]) -> Vec<Self> {
        let line = |(name, of, summary): MeasureOf| {
            let all = |seen: &[Seen]| summary(&seen.iter().filter_map(of).collect::<Vec<_>>());
            Self { name: name.to_owned(), renders: all(renders), pictures: all(pictures) }
        };
        MEASURES.into_iter().map(line).collect()
    }
}

/// A picture and what was measured of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfPicture {
    pub(super) prompt: String,
    pub(super) seed: u64,
    pub(super) picture: PathBuf,
    #[serde(flatten)]
    pub(super) seen: Seen,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    pub(super) name: String,
    /// The model folder, or the folder of pictures that were drawn elsewhere.
    pub(super) source: PathBuf,
    pub(super) samplers: Vec<Sampler>,
    pub(super) side: u32,
    pub(super) machine: String,
    /// What drawing took.
    pub(super) note: Option<Note>,
    pub(super) lines: Vec<Line>,
    /// The fingerprint of another judge and what it sees.
    pub(super) second: Option<(String, Vec<Row>)>,
    pub(super) seconds: f64,
    pub(super) pictures: Vec<OfPicture>,
}

impl Results {
    /// What the worst pictures are found by.
    pub(super) fn columns(seen: &[Seen]) -> Vec<Column> {
        MEASURES.into_iter().map(|(name, of, _)| (name, seen.iter().map(of).collect())).collect()
    }
}

impl Measured for Results {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn markdown(&self) -> String {
        let mut table = Table::new(["", "other renders", "pictures"]);
        for line in &self.lines {
            table.row([line.name.clone(), number(line.renders, 3), number(line.pictures, 3)]);
        }
        let drawn = self.note.as_ref().map_or_else(String::new, |note| {
            let work: Vec<String> = note.work.iter().map(ToString::to_string).collect();
            let each = note.seconds / note.drawn.max(1) as f64;
            format!(
                " A picture takes {}; {} were drawn in {each:.1} s each, all workers at work.",
                work.join(", "),
                note.drawn
            )
        });
        let samplers: Vec<String> = self
            .samplers
            .iter()
            .map(|Sampler { stage, patch }| format!(" `{stage}={}`.", serde_json::to_string(patch).unwrap_or_default()))
            .collect();
        let second = self.second.as_ref().map_or_else(String::new, |(judge, rows)| {
            format!("\nThe second judge, `{judge}`:\n\n{}", shares_table(rows))
        });
        format!(
            "{} pictures of {} pixels from `{}`; {}.{}{drawn} Measured in {:.0} s.\n\n{table}{second}",
            self.pictures.len(),
            self.side,
            self.source.display(),
            self.machine,
            samplers.concat(),
            self.seconds,
        )
    }
}
