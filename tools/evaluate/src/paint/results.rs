//! What was measured of every rule: tables, plots and the sentence about the best.

use std::path::PathBuf;

use ediffi::{Growth, Statistic};
use serde::Serialize;

use crate::bootstrap::{Measure, difference, share};
use crate::document::{Table, csv, number, percent};
use crate::error::Result;
use crate::measured::Measured;
use crate::pairs::paired;
use crate::placed::{Outcome, Placed};
use crate::plot::{Axis, Line, Plot};

/// The rules: what they are called, and how they are made of a w'.
pub(super) const RULES: [(&str, Statistic, Growth); 7] = [
    ("max · log(1+σ)", Statistic::Max, Growth::Log),
    ("max · log(1+σ²)", Statistic::Max, Growth::LogSquared),
    ("max · 1", Statistic::Max, Growth::Constant),
    ("std · log(1+σ)", Statistic::Std, Growth::Log),
    ("std · log(1+σ²)", Statistic::Std, Growth::LogSquared),
    ("constant w", Statistic::One, Growth::Constant),
    ("w · log(1+σ)", Statistic::One, Growth::Log),
];

/// What pictures without a canvas are called.
pub(super) const NO_PAINT: &str = "no paint";

/// What was measured with one rule and one w'.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleResult {
    /// The rule; `no paint` and `renders` are what it is compared with.
    rule: String,
    /// w'; 0 without paint.
    weight: f64,
    /// Share of the objects whose centre was seen in their box.
    inside: Option<Measure>,
    /// How many more of the objects are in their box than without paint, of the same prompts and seeds; of the rules only.
    gain: Option<Measure>,
    /// Share of the objects in their box, of pairs that never met in training.
    inside_held_out: Option<Measure>,
    /// Mean intersection over union of an object and its box.
    iou: Option<Measure>,
    /// Share of the objects that were seen anywhere.
    seen: Option<Measure>,
    /// Share of the named styles that were right.
    style: Option<Measure>,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    pub(super) model: PathBuf,
    pub(super) prompts: usize,
    pub(super) machine: String,
    pub(super) judge: String,
    /// Renders with every object in its box, then no paint, then the rules.
    pub(super) cells: Vec<RuleResult>,
    /// Seconds of this run; cells of an earlier one that was stopped are not in it.
    pub(super) seconds: f64,
}

impl RuleResult {
    /// `plain`: the outcomes without paint, to compare with.
    pub(super) fn new(
        rule: &str,
        weight: f64,
        prompts: &[Placed],
        outcomes: &[Outcome],
        plain: Option<&[Outcome]>,
    ) -> Result<Self> {
        let rows: Vec<(&Placed, &Outcome)> = paired("outcomes", prompts, outcomes)?.collect();
        let of = |chosen: &dyn Fn(&Placed) -> bool, part: &dyn Fn(&Outcome) -> (f64, f64)| {
            let pairs = rows.iter().filter(|(prompt, _)| chosen(prompt));
            share(&pairs.map(|(_, outcome)| part(outcome)).collect::<Vec<_>>())
        };
        let gain = |plain| -> Result<Option<Measure>> {
            let both = paired("outcomes without paint", outcomes, plain)?;
            let inside = |outcome: &Outcome| f64::from(outcome.inside);
            let gains = both.map(|(painted, plain)| (inside(painted), inside(plain), Outcome::OBJECTS));
            Ok(difference(&gains.collect::<Vec<_>>()))
        };
        let inside = |outcome: &Outcome| (f64::from(outcome.inside), Outcome::OBJECTS);
        let style = |outcome: &Outcome| outcome.style.map_or((0.0, 0.0), |right| (f64::from(u8::from(right)), 1.0));
        Ok(Self {
            rule: rule.to_owned(),
            weight,
            inside: of(&|_| true, &inside),
            gain: plain.map(gain).transpose()?.flatten(),
            inside_held_out: of(&|prompt| prompt.held_out, &inside),
            iou: of(&|_| true, &|outcome| (f64::from(outcome.iou), Outcome::OBJECTS)),
            seen: of(&|_| true, &|outcome| (f64::from(outcome.seen), Outcome::OBJECTS)),
            style: of(&|_| true, &style),
        })
    }

    fn inside_share(&self) -> f64 {
        self.inside.map_or(0.0, |measure| measure.value)
    }
}

impl Measured for Results {
    fn name(&self) -> String {
        "paint".to_owned()
    }

    fn markdown(&self) -> String {
        let headings = [
            "weight rule",
            "w′",
            "in its box, %",
            "gain, points",
            "unseen pairs, %",
            "mean IoU",
            "object seen, %",
            "style right, %",
        ];
        let mut table = Table::new(headings);
        for cell in &self.cells {
            let weight = if cell.weight > 0.0 { cell.weight.to_string() } else { String::new() };
            let [inside, gain, held_out, seen, style] =
                [cell.inside, cell.gain, cell.inside_held_out, cell.seen, cell.style].map(percent);
            table.row([cell.rule.clone(), weight, inside, gain, held_out, number(cell.iou, 3), seen, style]);
        }
        format!(
            "{} prompts of two objects, base stage; model `{}`; {}. Judge `{}`. {:.0} s; 95 % intervals in \
             brackets.\n\n{}\n{table}",
            self.prompts,
            self.model.display(),
            self.machine,
            self.judge,
            self.seconds,
            self.summary(),
        )
    }

    fn csv(&self) -> Option<String> {
        let rows = self.cells.iter().map(|cell| {
            let measures = [cell.inside, cell.gain, cell.inside_held_out, cell.iou, cell.seen, cell.style];
            (format!("{},{}", cell.rule, cell.weight), measures)
        });
        Some(csv("rule,weight", ["inside", "gain", "inside_held_out", "iou", "seen", "style"], rows))
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let weights = self.cells.iter().map(|cell| cell.weight).filter(|weight| *weight > 0.0);
        let ends = weights.fold([f64::INFINITY, 0.0], |[low, high], w| [low.min(w), high.max(w)]);
        let plot = |name: &str, title: &str, label: &str, of: fn(&RuleResult) -> Option<Measure>| {
            let rule = |(name, ..): &(&str, Statistic, Growth)| {
                let own = self.cells.iter().filter(|cell| cell.rule == *name);
                Line::measured(name, own.map(|cell| (cell.weight, of(cell))))
            };
            let level = |name| Line::level(name, self.cells.iter().find(|cell| cell.rule == name).and_then(of), ends);
            let lines = RULES.iter().map(rule).chain([level(NO_PAINT), level("renders")]).collect();
            let (title, x, y) = (title.to_owned(), Axis::logarithmic("w'"), Axis::linear(label));
            (format!("paint-{name}"), Plot { title, x, y, lines })
        };
        let share = "share of the objects";
        vec![
            plot("inside", "Objects in their boxes", share, |cell| cell.inside),
            plot("iou", "Overlap of objects and boxes", "mean IoU", |cell| cell.iou),
            plot("seen", "Objects seen anywhere", share, |cell| cell.seen),
        ]
    }
}

impl Results {
    /// The best rule beside no paint, in a sentence.
    fn summary(&self) -> String {
        let rules = || self.cells.iter().filter(|cell| cell.weight > 0.0);
        let best = rules().max_by(|a, b| a.inside_share().total_cmp(&b.inside_share()));
        let plain = self.cells.iter().find(|cell| cell.rule == NO_PAINT);
        let (Some(best), Some(plain)) = (best, plain) else { return String::new() };
        let (RuleResult { rule, weight, .. }, inside, without) = (best, percent(best.inside), percent(plain.inside));
        let (count, gain) = (rules().count(), percent(best.gain));
        let chance = "The largest of many is in part luck, which this interval does not know of.";
        if best.gain.is_some_and(|gain| gain.low > 0.0) {
            format!(
                "The largest of {count} rules is **{rule}, w′ = {weight}**: {inside} % of the objects are in their boxes, and \
                 {without} % without paint; on the same prompts and seeds it gains {gain} points. {chance}\n"
            )
        } else {
            format!(
                "**No effect shown**: the largest of {count} rules, {rule} with w′ = {weight}, has {inside} % of the objects in \
                 their boxes; without paint it is {without} %. On the same prompts and seeds it gains {gain} points, an interval \
                 that holds zero. {chance}\n"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::placed::placed;

    /// How many of ten are right without paint.
    const PLAIN: usize = 2;

    fn outcomes(right: usize) -> Vec<Outcome> {
        let of = |index: usize| {
            let inside = if index < right { 2 } else { 0 };
            Outcome { seen: 2, inside, iou: f32::from(inside) / 2.0, style: index.is_multiple_of(2).then_some(true) }
        };
        (0..10).map(of).collect()
    }

    /// Pictures of which `right` of ten have both objects in their boxes.
    fn cell(rule: &str, weight: f64, right: usize) -> RuleResult {
        let prompts = placed(10, |_| Ok(true)).unwrap();
        let plain = (weight > 0.0).then(|| outcomes(PLAIN));
        RuleResult::new(rule, weight, &prompts, &outcomes(right), plain.as_deref()).unwrap()
    }

    fn results() -> Results {
        let rule = RULES[0].0;
        Results {
            model: PathBuf::from("models/icons"),
            prompts: 10,
            machine: "a machine".to_owned(),
            judge: "j".to_owned(),
            cells: vec![
                cell("renders", 0.0, 10),
                cell("no paint", 0.0, PLAIN),
                cell(rule, 0.25, 6),
                cell(rule, 1.5, 9),
                cell(rule, 4.0, 5),
            ],
            seconds: 3.0,
        }
    }

    #[test]
    fn shares_are_of_objects_and_held_out_pairs_are_apart() {
        let cell = cell("no paint", 0.0, 5);
        let value = |measure: Option<Measure>| measure.map(|measure| (measure.value, measure.samples));
        assert_eq!((value(cell.inside), value(cell.seen)), (Some((0.5, 20)), Some((1.0, 20))));
        // Prompts 3 and 7 are held out; the first of them is right.
        assert_eq!(value(cell.inside_held_out), Some((0.5, 4)));
        assert_eq!((value(cell.iou), value(cell.style)), (Some((0.25, 20)), Some((1.0, 5))));
    }

    #[test]
    fn rules_are_compared_picture_by_picture() {
        let (strong, equal) = (cell(RULES[0].0, 1.5, 9), cell(RULES[0].0, 0.25, PLAIN));
        let gain = strong.gain.unwrap();
        assert!((gain.value - 0.7).abs() < 1e-12 && gain.low > 0.0, "{gain:?}");
        // Nothing changed in ten pictures, which says little.
        let gain = equal.gain.unwrap();
        assert!(gain.value == 0.0 && gain.low < -0.3 && gain.high > 0.3, "{gain:?}");
        assert_eq!(cell("no paint", 0.0, PLAIN).gain, None);
        let (prompts, few) = (placed(10, |_| Ok(true)).unwrap(), &outcomes(3)[..9]);
        assert!(matches!(
            RuleResult::new("", 1.0, &prompts, few, None),
            Err(Error::Rows { expected: 10, found: 9, .. })
        ));
        let compared = RuleResult::new("", 1.0, &prompts, &outcomes(3), Some(few));
        assert!(matches!(compared, Err(Error::Rows { expected: 10, found: 9, .. })));
    }

    #[test]
    fn the_page_names_the_best_and_the_table_has_every_cell() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("paint-with-words.md");
        std::fs::write(&page, "# Paint\n<!-- paint -->\n<!-- /paint -->\nend\n").unwrap();
        results().save(folder.path(), Some(&page)).unwrap();
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains("The largest of 3 rules is **max · log(1+σ), w′ = 1.5**: 90.0"), "{text}");
        assert!(text.contains("and 20.0") && text.contains("it gains 70.0"), "{text}");
        let mut weak = results();
        weak.cells.retain(|cell| cell.weight == 0.0);
        weak.cells.push(cell(RULES[0].0, 0.25, 3));
        let weak = weak.markdown();
        assert!(
            weak.contains("**No effect shown**: the largest of 1 rules") && weak.contains("gains 10.0 (0.0–"),
            "{weak}"
        );
        assert_eq!(text.matches("\n| ").count(), 2 + results().cells.len(), "{text}");
        assert!(text.ends_with("end\n"));
        for name in
            ["paint.json", "paint.csv", "images/paint-inside.png", "images/paint-iou.png", "images/paint-seen.png"]
        {
            assert!(folder.path().join(name).is_file(), "{name}");
        }
        assert_eq!(results().csv().unwrap().lines().count(), 1 + results().cells.len());
    }
}
