//! The rows: what is compared with what.

use std::path::{Path, PathBuf};

use ediffi_core::pool::Residency;

use crate::alternatives::{self, NETWORKS, PREFIX};
use crate::job::{Case, Precision, Stage};

/// Where the models of the bench are made.
pub(crate) const MODELS: &str = ".bench/models";
const SHORT: &str = "a photo of an astronaut riding a horse on the moon";

/// Who evaluates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Program {
    Ediffi,
    /// PyTorch, diffusers or `transformers`, eager.
    Pytorch,
    /// The same after `torch.compile`.
    Compile,
}

/// One process of a row.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) label: String,
    pub(crate) program: Program,
    pub(crate) case: Case,
    /// How many units it evaluates, in a row that shows how cost grows.
    pub(crate) units: Option<f64>,
}

/// A named comparison.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) precision: Precision,
    /// Whether memory has room for one side at a time only.
    pub(crate) fresh: bool,
    /// What is counted, in a row that shows how cost grows.
    pub(crate) unit: Option<&'static str>,
    pub(crate) sides: Vec<Side>,
}

impl Row {
    /// Whether a name given on the command line means this row: its own, or one that it begins with.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    fn beside_pytorch(name: &str, precision: Precision, case: &Case, compile: bool) -> Self {
        let side = |label: &str, program| Side { label: label.to_owned(), program, case: case.clone(), units: None };
        let mut sides = vec![side("ediffi", Program::Ediffi), side("PyTorch", Program::Pytorch)];
        if compile {
            sides.push(side("torch.compile", Program::Compile));
        }
        Self { name: format!("{name}-{}", precision.name()), precision, fresh: false, unit: None, sides }
    }

    fn own(name: &str, cases: impl IntoIterator<Item = (String, Case)>) -> Self {
        let side = |(label, case)| Side { label, program: Program::Ediffi, case, units: None };
        let sides = cases.into_iter().map(side).collect();
        Self { name: name.to_owned(), precision: Precision::native(), fresh: false, unit: None, sides }
    }

    fn growth(name: &str, unit: &'static str, cases: impl IntoIterator<Item = (i64, Case)>) -> Self {
        let cases: Vec<_> = cases.into_iter().collect();
        let units: Vec<f64> = cases.iter().map(|(units, _)| *units as f64).collect();
        let mut row = Self::own(name, cases.into_iter().map(|(units, case)| (units.to_string(), case)));
        row.sides.iter_mut().zip(units).for_each(|(side, units)| side.units = Some(units));
        row.unit = Some(unit);
        row
    }
}

/// The machine's own limit in one precision; measured with every other row.
pub(crate) fn limit(precision: Precision) -> Row {
    let cases = [("convolution", false), ("matrix product", true)];
    let cases = cases.map(|(label, product)| (label.to_owned(), Case::Limit { product }));
    Row { precision, ..Row::own(&format!("limit-{}", precision.name()), cases) }
}

/// All rows, the quick ones first.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    for precision in Precision::BOTH {
        for (stage, pictures, side) in [("base", 2, 64), ("sr256", 1, 256), ("sr1024", 1, 1024)] {
            // Guidance doubles the rows of the base; the other stages run without.
            rows.push(Row::beside_pytorch(stage, precision, &shipped(stage, pictures, side), true));
        }
        for (name, network) in [("train-base", "base"), ("train-sr", "super-resolution")] {
            let folder = format!("runs/bench/{name}-{}", precision.name()).into();
            let case = Case::Train { network: network.to_owned(), folder };
            rows.push(Row::beside_pytorch(name, precision, &case, false));
        }
    }
    rows.extend([start(), paint(), many()]);
    rows.extend([1, 8].map(relay));
    rows.extend(growth());
    for (length, text) in [("short", SHORT.to_owned()), ("long", long(77))] {
        let clip = Case::ClipText { folder: model("clip-l"), text: text.clone() };
        rows.push(Row::beside_pytorch(&format!("clip-text-{length}"), Precision::F32, &clip, true));
        let t5 = Case::T5 { folder: model("t5-250m"), text, tokens: 77 };
        rows.push(Row::beside_pytorch(&format!("t5-250m-{length}"), Precision::F32, &t5, true));
    }
    let clip = Case::ClipImage { folder: model("clip-l") };
    rows.push(Row::beside_pytorch("clip-image", Precision::F32, &clip, true));
    for pictures in [1, 4] {
        for (name, side) in [("IF-I-M", 64), ("IF-II-M", 256)] {
            for precision in Precision::BOTH {
                let case = Case::Published { folder: model(name), pictures, side };
                let name = format!("{}-{pictures}", name.to_lowercase());
                rows.push(Row::beside_pytorch(&name, precision, &case, true));
            }
        }
    }
    for precision in Precision::BOTH {
        rows.extend(
            whole().map(|(name, case)| Row { fresh: true, ..Row::beside_pytorch(name, precision, &case, false) }),
        );
    }
    rows.extend(NETWORKS.map(|network| {
        let name = format!("{PREFIX}{}", network.name);
        Row::own(&name, [("ediffi".to_owned(), alternatives::case(network))])
    }));
    for (length, text) in [("short", SHORT.to_owned()), ("long", long(77))] {
        let case = Case::T5 { folder: model("t5-xxl"), text, tokens: 77 };
        let row = Row::beside_pytorch(&format!("t5-xxl-{length}"), Precision::Bf16, &case, false);
        rows.push(Row { fresh: true, ..row });
    }
    rows
}

fn start() -> Row {
    Row::own("start", [("ediffi".to_owned(), Case::Start)])
}

fn paint() -> Row {
    let case = |regions| Case::Stage(Stage { regions, ..base() });
    Row::own("paint", [("without".to_owned(), case(0)), ("with".to_owned(), case(2))])
}

fn many() -> Row {
    let sides = [("one prompt", false), ("64 prompts", true)];
    Row::own("many", sides.map(|(label, different)| (label.to_owned(), Case::Many { different })))
}

/// Three experts beside one network of the same size, for so many pictures.
fn relay(pictures: usize) -> Row {
    let case = |count, residency| Case::Stage(Stage { model: experts(count), pictures, residency, ..base() });
    let sides = [
        ("one network", case(1, Residency::All)),
        ("three in memory", case(3, Residency::All)),
        ("three by relay", case(3, Residency::Relay)),
        ("three prefetched", case(3, Residency::RelayPrefetch)),
    ];
    Row::own(&format!("relay-{pictures}"), sides.map(|(label, case)| (label.to_owned(), case)))
}

/// A picture of each published pipeline, its networks at full size, with two steps of each.
fn whole() -> [(&'static str, Case); 3] {
    let case = |folder, refiner: Option<&str>, steps: &[(&str, usize)]| {
        let steps = steps.iter().map(|(stage, steps)| ((*stage).to_owned(), *steps)).collect();
        Case::Whole { folder: model(folder), refiner: refiner.map(model), text: SHORT.to_owned(), steps }
    };
    [
        ("sd-1.5", case("sd-1.5", None, &[("base", 2)])),
        ("sdxl", case("sdxl-base", Some("sdxl-refiner"), &[("base", 4)])),
        // The last step of super-resolution has a network of its own.
        ("karlo", case("karlo", None, &[("prior", 2), ("base", 2), ("sr-256", 3)])),
    ]
}

fn growth() -> [Row; 6] {
    let tiled = |side: u32| {
        let stage = "sr1024".to_owned();
        Case::Stage(Stage { stage, side, tile: Some(128), steps: Some(1), ..base() })
    };
    let experts = |count| Case::Stage(Stage { model: experts(count), residency: Residency::Relay, ..base() });
    let regions = |regions| Case::Stage(Stage { regions, ..base() });
    let tokens = |tokens| Case::T5 { folder: model("t5-250m"), text: long(tokens), tokens };
    [
        // Two rows a picture, as guidance has them.
        Row::growth("growth-pictures", "picture", [1, 2, 4, 8].map(|n| (n, shipped("base", 2 * n, 64)))),
        Row::growth("growth-sides", "pixel", [64, 128, 256].map(|side| (side * side, shipped("base", 2, side)))),
        Row::growth("growth-tiles", "pixel", [256, 512, 1024, 2048].map(|side| (side * side, tiled(side as u32)))),
        Row::growth("growth-experts", "expert", [1, 3, 9].map(|count| (count, experts(count)))),
        Row::growth("growth-regions", "region", [1, 4, 16].map(|count| (count, regions(count as u32)))),
        Row::growth("growth-tokens", "token", [16, 32, 64, 128, 256, 512].map(|n| (n, tokens(n)))),
    ]
}

/// The base of the shipped model.
fn base() -> Stage {
    let (model, stage) = ("models/icons".into(), "base".to_owned());
    Stage { model, stage, side: 64, pictures: 1, regions: 0, residency: Residency::All, tile: None, steps: None }
}

fn shipped(stage: &str, rows: i64, side: i64) -> Case {
    Case::Shipped { stage: stage.to_owned(), rows, side }
}

fn model(name: &str) -> PathBuf {
    Path::new(MODELS).join(name)
}

/// The folder of a model with so many experts.
fn experts(count: i64) -> PathBuf {
    model(&format!("experts-{count}"))
}

/// A text that fills so many columns.
fn long(tokens: i64) -> String {
    [SHORT].repeat(tokens as usize).join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_told_apart() {
        let rows = all();
        let names: BTreeSet<_> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names.len(), rows.len());
        let meant =
            |name: &str| rows.iter().filter(|row| row.is(name)).map(|row| row.name.as_str()).collect::<Vec<_>>();
        assert_eq!(meant("sr256"), ["sr256-f32", "sr256-bf16"]);
        assert_eq!(meant("if-i-m-1-f32"), ["if-i-m-1-f32"]);
        assert_eq!(meant("sr25"), [""; 0], "no part of a word");
    }

    #[test]
    fn growth_has_units_in_every_side_and_nothing_else_has() {
        for row in all() {
            assert!(row.sides.iter().all(|side| side.units.is_some() == row.unit.is_some()), "{}", row.name);
            assert!(row.unit.is_none() || row.sides.len() > 2, "{}: a slope needs points", row.name);
        }
    }
}
