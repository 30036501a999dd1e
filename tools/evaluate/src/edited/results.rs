//! What became of edits.

use std::path::PathBuf;

use serde::Serialize;

use super::cases::Case;
use crate::bootstrap::{Measure, share};
use crate::document::{Table, percent};
use crate::error::Result;
use crate::judge::{Verdict, right};
use crate::measured::Measured;
use crate::pairs::paired;
use crate::plot::{Axis, Line, Plot};

/// How far the centre of an object may be from where it was, in sides of the picture. Objects are a little less than half a side wide.
const NEAR: f32 = 0.125;

/// What became of one object that was to be replaced, and of the other one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inpainted {
    /// Which pictures.
    way: String,
    /// Share in which the new object is where the old one was.
    new: Option<Measure>,
    /// Share in which the old object is not there any more.
    gone: Option<Measure>,
    /// Share in which the other object is where it was.
    other: Option<Measure>,
    /// Share in which all three hold.
    whole: Option<Measure>,
}

impl Inpainted {
    pub(super) fn new(way: &str, cases: &[Case], verdicts: &[Verdict]) -> Result<Self> {
        let rows: Vec<(&Case, &Verdict)> = paired("pictures", cases, verdicts)?.collect();
        let of = |holds: &dyn Fn(&Case, &Verdict) -> bool| {
            share(&rows.iter().map(|(case, verdict)| right(holds(case, verdict))).collect::<Vec<_>>())
        };
        let inside = |case: &Case, verdict: &Verdict, concept: &str| {
            verdict.detections.iter().any(|seen| seen.concept == concept && case.old.1.holds(seen.x, seen.y))
        };
        let new = |case: &Case, verdict: &Verdict| inside(case, verdict, case.new);
        let gone = |case: &Case, verdict: &Verdict| !inside(case, verdict, &case.old.0.concept);
        let other = |case: &Case, verdict: &Verdict| {
            let (object, area) = &case.other;
            verdict.detections.iter().any(|seen| seen.concept == object.concept && area.holds(seen.x, seen.y))
        };
        let whole = |case: &Case, verdict: &Verdict| new(case, verdict) && gone(case, verdict) && other(case, verdict);
        Ok(Self { way: way.to_owned(), new: of(&new), gone: of(&gone), other: of(&other), whole: of(&whole) })
    }
}

/// What of a picture was kept when all of it was drawn anew.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    /// How it was drawn.
    way: String,
    /// The strength, where it began with the picture.
    strength: Option<f64>,
    /// Share of the objects that are there, anywhere.
    objects: Option<Measure>,
    /// Share of the objects that are where they were.
    places: Option<Measure>,
    /// Share of the pictures in the style that was asked for.
    style: Option<Measure>,
}

impl Kept {
    /// With `other`, the style asked for is the other one; without, that of the picture.
    pub(super) fn new(
        way: &str,
        strength: Option<f64>,
        cases: &[Case],
        verdicts: &[Verdict],
        other: bool,
    ) -> Result<Self> {
        let rows: Vec<(&Case, &Verdict)> = paired("pictures", cases, verdicts)?.collect();
        let of = |part: &dyn Fn(&Case, &Verdict) -> (f64, f64)| {
            share(&rows.iter().map(|(case, verdict)| part(case, verdict)).collect::<Vec<_>>())
        };
        let objects = |case: &Case, verdict: &Verdict, most: f32| {
            let scene = case.placed.scene.objects.iter().zip(&case.placed.areas);
            let there = scene.filter(|(object, area)| {
                let (x, y) = (area.x + area.width / 2.0, area.y + area.height / 2.0);
                let mut seen = verdict.detections.iter().filter(|seen| seen.concept == object.concept);
                seen.any(|seen| (seen.x - x).hypot(seen.y - y) <= most)
            });
            (there.count() as f64, 2.0)
        };
        let style = |case: &Case, verdict: &Verdict| {
            right(verdict.style == if other { case.style } else { case.placed.scene.style })
        };
        Ok(Self {
            way: way.to_owned(),
            strength,
            objects: of(&|case, verdict| objects(case, verdict, f32::INFINITY)),
            places: of(&|case, verdict| objects(case, verdict, NEAR)),
            style: of(&style),
        })
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    pub(super) model: PathBuf,
    pub(super) edits: usize,
    pub(super) machine: String,
    pub(super) judge: String,
    pub(super) inpainted: Vec<Inpainted>,
    pub(super) redrawn: Vec<Kept>,
    pub(super) variations: Vec<Kept>,
    pub(super) seconds: f64,
}

fn kept(rows: &[Kept], style: &str) -> Table {
    let mut table = Table::new(["pictures", "strength", "objects there, %", "where they were, %", style]);
    for row in rows {
        let strength = row.strength.map_or_else(String::new, |strength| strength.to_string());
        let [objects, places, style] = [row.objects, row.places, row.style].map(percent);
        table.row([row.way.clone(), strength, objects, places, style]);
    }
    table
}

impl Measured for Results {
    fn name(&self) -> String {
        "edits".to_owned()
    }

    fn markdown(&self) -> String {
        let mut inpainted = Table::new([
            "pictures",
            "new object there, %",
            "old one gone, %",
            "other one as it was, %",
            "all three, %",
        ]);
        for row in &self.inpainted {
            let [new, gone, other, whole] = [row.new, row.gone, row.other, row.whole].map(percent);
            inpainted.row([row.way.clone(), new, gone, other, whole]);
        }
        let mut parts = vec![format!(
            "{} edits of each kind, base stage; model `{}`; {}. Judge `{}`. {:.0} s; 95 % intervals in brackets.",
            self.edits,
            self.model.display(),
            self.machine,
            self.judge,
            self.seconds,
        )];
        if !self.inpainted.is_empty() {
            parts.push(format!("Inpainting, one of two objects replaced by another:\n\n{inpainted}"));
        }
        if !self.redrawn.is_empty() {
            let table = kept(&self.redrawn, "other style, %");
            parts.push(format!("Image to image, the prompt names another style:\n\n{table}"));
        }
        if !self.variations.is_empty() {
            parts.push(format!("Variations:\n\n{}", kept(&self.variations, "same style, %")));
        }
        // A table ends its last line itself.
        parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n")
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        if self.redrawn.is_empty() {
            return Vec::new();
        }
        let line = |name: &str, of: fn(&Kept) -> Option<Measure>| {
            let rows = self.redrawn.iter().filter_map(|row| Some((row.strength?, of(row))));
            Line::measured(name, rows)
        };
        let plot = Plot {
            title: "Image to image by its strength".to_owned(),
            x: Axis::linear("strength"),
            y: Axis::linear("share"),
            lines: vec![
                line("objects there", |row| row.objects),
                line("where they were", |row| row.places),
                line("in the other style", |row| row.style),
            ],
        };
        vec![("edits-strength".to_owned(), plot)]
    }
}

#[cfg(test)]
mod tests {
    use train_icons::colour::Colour;

    use super::super::cases::cases;
    use super::*;
    use crate::judge::Detection;

    #[test]
    fn tables_are_one_empty_line_apart() {
        let cases = cases(1, |_| Ok(true)).unwrap();
        let verdicts = [verdict(&cases[0], &[], cases[0].style)];
        let kept = || vec![Kept::new("one", None, &cases, &verdicts, true).unwrap()];
        let results = Results {
            model: PathBuf::new(),
            edits: 1,
            machine: String::new(),
            judge: String::new(),
            inpainted: vec![Inpainted::new("one", &cases, &verdicts).unwrap()],
            redrawn: kept(),
            variations: kept(),
            seconds: 0.0,
        };
        let text = results.markdown();
        assert!(text.matches("| one |").count() == 3 && !text.contains("\n\n\n"), "{text}");
    }

    fn verdict(case: &Case, shown: &[(&str, usize)], style: train_icons::icon_set::IconSet) -> Verdict {
        let seen = |(concept, place): &(&str, usize)| {
            let area = case.placed.areas[*place];
            let (x, y) = (area.x + area.width / 2.0, area.y + area.height / 2.0);
            let (width, height, colour) = (area.width, area.height, Colour::Red);
            Detection { concept: (*concept).to_owned(), confidence: 0.9, x, y, width, height, colour }
        };
        let background = case.placed.scene.background.colour();
        let detections = shown.iter().map(seen).collect();
        Verdict { detections, style, style_confidence: 1.0, background, features: Vec::new() }
    }

    fn values<const N: usize>(measures: [Option<Measure>; N]) -> [f64; N] {
        measures.map(|measure| measure.unwrap().value)
    }

    #[test]
    fn what_inpainting_did_is_told_apart() {
        let cases = cases(1, |_| Ok(true)).unwrap();
        let case = &cases[0];
        let (old, other) = (case.old.0.concept.as_str(), case.other.0.concept.as_str());
        let row = |shown: &[(&str, usize)]| {
            let row = Inpainted::new("", &cases, &[verdict(case, shown, case.style)]).unwrap();
            values([row.new, row.gone, row.other, row.whole])
        };
        let (place, beside) = (case.place, 1 - case.place);
        assert_eq!(row(&[(case.new, place), (other, beside)]), [1.0; 4]);
        assert_eq!(row(&[(old, place), (other, beside)]), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(row(&[(case.new, beside), (other, place)]), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(row(&[(case.new, place), (old, place), (other, beside)]), [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn what_is_kept_is_told_from_what_moved() {
        let cases = cases(1, |_| Ok(true)).unwrap();
        let case = &cases[0];
        let names: Vec<&str> = case.placed.scene.objects.iter().map(|object| object.concept.as_str()).collect();
        let row = |shown: &[(&str, usize)], style, other| {
            let row = Kept::new("", None, &cases, &[verdict(case, shown, style)], other).unwrap();
            values([row.objects, row.places, row.style])
        };
        assert_eq!(row(&[(names[0], 0), (names[1], 1)], case.style, true), [1.0; 3]);
        assert_eq!(row(&[(names[0], 1), (names[1], 0)], case.style, false), [1.0, 0.0, 0.0]);
        assert_eq!(row(&[(names[0], 0)], case.placed.scene.style, false), [0.5, 0.5, 1.0]);
    }
}
