//! The tables of `docs/results/performance.md`, made anew of everything that was measured.

use std::path::Path;

use evaluate::bootstrap::Measure;
use evaluate::document::{Table, number, replace};

use crate::alternatives::PREFIX;
use crate::kept::{Kept, Rows, Setting};
use crate::result::Result;
use crate::rows::Row;
use crate::statistics::{median, quantile, ratio, slope};
use crate::turns::Times;

const PAGE: &str = "docs/results/performance.md";
/// What others may use of one processor before a row is doubtful.
const QUIET: f64 = 0.05;
/// A slope above it is worse than linear.
const LINEAR: f64 = 1.1;

/// A row with what was measured of it.
type Found<'a> = (&'a Row, &'a Kept);

/// Writes all tables between the markers of the page.
pub(crate) fn write(rows: &[Row], kept: &Rows) -> Result<()> {
    // Those have a page of their own.
    let rows: Vec<&Row> = rows.iter().filter(|row| !row.name.starts_with(PREFIX)).collect();
    let found: Vec<Found<'_>> = rows.iter().filter_map(|&row| Some((row, kept.get(&row.name)?))).collect();
    let missing: Vec<&str> = rows
        .iter()
        .filter(|row| !found.iter().any(|(other, _)| other.name == row.name))
        .map(|row| row.name.as_str())
        .collect();
    Ok(replace(Path::new(PAGE), "bench", &page(&found, &missing))?)
}

fn page(found: &[Found<'_>], missing: &[&str]) -> String {
    let (growing, compared): (Vec<_>, Vec<_>) = found.iter().partition(|(row, _)| row.unit.is_some());
    let mut parts = settings(found);
    if !compared.is_empty() {
        parts.push(format!("### Beside PyTorch\n\n{}", comparison(&compared)));
        parts.push(format!("### Of the machine's own limit\n\n{}", shares(&compared)));
    }
    if !growing.is_empty() {
        parts.push(format!("### How cost grows\n\n{}", growth(&growing)));
    }
    parts.extend(warnings(found));
    if !missing.is_empty() {
        parts.push(format!("Not measured: {}.", missing.join(", ")));
    }
    parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n")
}

/// Where and how: one paragraph for each setting, with its rows if there are several.
fn settings(found: &[Found<'_>]) -> Vec<String> {
    let mut settings: Vec<(&Setting, Vec<&str>)> = Vec::new();
    for (row, kept) in found {
        match settings.iter_mut().find(|(setting, _)| **setting == kept.setting) {
            Some((_, names)) => names.push(&row.name),
            None => settings.push((&kept.setting, vec![&row.name])),
        }
    }
    let several = settings.len() > 1;
    let paragraph = |(setting, names): (&Setting, Vec<&str>)| {
        let Setting { processor, threads, rounds, starts, versions, debug, .. } = setting;
        let names = if several { format!(" Rows: {}.", names.join(", ")) } else { String::new() };
        let debug = if *debug { " **Built without optimisation.**" } else { "" };
        format!(
            "`cargo xtask bench --rounds {rounds} --starts {starts}` on {processor}; {threads} threads; {versions}.{debug}{names}"
        )
    };
    settings.into_iter().map(paragraph).collect()
}

fn comparison(found: &[&Found<'_>]) -> Table {
    let headings =
        ["row", "in", "side", "s", "quartiles", "to the first side", "load, s", "first, s", "load + first", "peak MB"];
    let mut table = Table::new(headings);
    for (row, kept) in found {
        let first = kept.measured.sides.first();
        for (index, side) in kept.measured.sides.iter().enumerate() {
            let name = if index == 0 { row.name.clone() } else { String::new() };
            let mut cells = vec![name, precision(kept), side.label.clone()];
            if let Some(error) = &side.error {
                cells.push(format!("**failed:** {error}"));
            } else {
                let to_first = |of: fn(&Times) -> Vec<f64>| match first.filter(|_| index > 0) {
                    Some(first) => times(ratio(&of(side), &of(first))),
                    None => String::new(),
                };
                cells.extend([
                    seconds(median(&side.seconds)),
                    quartiles(&side.seconds),
                    to_first(|side| side.seconds.clone()),
                ]);
                cells.extend([
                    seconds(median(&side.loads)),
                    seconds(median(&side.firsts)),
                    to_first(Times::beginnings),
                ]);
                cells.push(memory(side));
            }
            table.row(cells);
        }
    }
    table
}

fn shares(found: &[&Found<'_>]) -> String {
    let headings = ["row", "in", "side", "GFLOP", "GFLOP/s", "of convolutions", "of matrix products"];
    let mut table = Table::new(headings);
    for (row, kept) in found {
        for side in &kept.measured.sides {
            let Some((flop, taken)) = side.flop.zip(median(&side.seconds)) else { continue };
            let share = |index: usize| {
                let limit = kept.limits.and_then(|limits| limits.get(index).copied());
                limit.map_or_else(dash, |limit| format!("{:.0} %", 100.0 * flop / taken / limit))
            };
            let rate = format!("{:.0}", flop / taken / 1e9);
            let flop = format!("{:.2}", flop / 1e9);
            table.row([row.name.clone(), precision(kept), side.label.clone(), flop, rate, share(0), share(1)]);
        }
    }
    let mut limits: Vec<String> = Vec::new();
    for (_, kept) in found {
        let told = kept.limits.map(|[convolution, product]| {
            let (convolution, product) = (convolution / 1e9, product / 1e9);
            format!("{}: convolutions {convolution:.0} GFLOP/s, matrix products {product:.0} GFLOP/s.", precision(kept))
        });
        limits.extend(told.filter(|told| !limits.contains(told)));
    }
    format!("Best rates in the same run. {}\n\n{table}", limits.join(" "))
}

fn growth(found: &[&Found<'_>]) -> String {
    let mut table = Table::new(["row", "in", "units", "s", "µs a unit", "slope"]);
    for (row, kept) in found {
        let sides = &kept.measured.sides;
        let point = |side: &Times| side.units.zip(median(&side.seconds));
        let slope = slope(&sides.iter().filter_map(point).collect::<Vec<_>>());
        for (index, side) in sides.iter().enumerate() {
            let (name, slope) =
                if index == 0 { (row.name.clone(), told(slope)) } else { (String::new(), String::new()) };
            let units = format!("{} {}", side.label, row.unit.unwrap_or_default());
            let cells = match (&side.error, point(side)) {
                (None, Some((count, taken))) => {
                    [name, precision(kept), units, seconds(Some(taken)), format!("{:.3}", 1e6 * taken / count), slope]
                }
                (error, _) => {
                    let error = format!("**failed:** {}", error.as_deref().unwrap_or("no time"));
                    [name, precision(kept), units, error, String::new(), slope]
                }
            };
            table.row(cells);
        }
    }
    table.to_string()
}

/// An exponent, and whether cost grows faster than what is computed.
fn told(slope: Option<f64>) -> String {
    match slope {
        Some(slope) if slope > LINEAR => format!("**{slope:.2}, worse than linear**"),
        Some(slope) => format!("{slope:.2}"),
        None => dash(),
    }
}

/// What makes numbers doubtful.
fn warnings(found: &[Found<'_>]) -> Vec<String> {
    let busy = found.iter().filter(|(_, kept)| kept.measured.others > QUIET).map(|(row, kept)| {
        let others = 100.0 * kept.measured.others;
        format!("**{}: other processes used {others:.0} % of a core meanwhile; measure it again.**", row.name)
    });
    let emulated = found.iter().any(|(_, kept)| precision(kept).contains("emulated"));
    let note =
        "This processor has no bf16 arithmetic: rows in bf16 are emulated, and say nothing of others.".to_owned();
    busy.chain(emulated.then_some(note)).collect()
}

/// The precision; emulated where the processor that measured it has no arithmetic for it.
fn precision(kept: &Kept) -> String {
    let emulated = if kept.setting.emulates(kept.precision) { ", emulated" } else { "" };
    format!("{}{emulated}", kept.precision.name())
}

/// The most memory, and what it is to the weights of the largest part.
fn memory(side: &Times) -> String {
    match (side.peak_mb, side.largest_mb) {
        (None, _) => dash(),
        (Some(peak), None) => format!("{peak:.0}"),
        (Some(peak), Some(largest)) => format!("{peak:.0}, {:.2} × {largest:.0}", peak / largest),
    }
}

fn dash() -> String {
    "–".to_owned()
}

/// Seconds with three digits that count.
fn seconds(value: Option<f64>) -> String {
    value.map_or_else(dash, |seconds| {
        let digits = (2.0 - seconds.max(1e-6).log10().floor()).clamp(0.0, 6.0);
        format!("{seconds:.0$}", digits as usize)
    })
}

fn quartiles(values: &[f64]) -> String {
    let [low, high] = [0.25, 0.75].map(|part| seconds(quantile(values, part)));
    format!("{low}–{high}")
}

fn times(measure: Option<Measure>) -> String {
    match measure {
        None => dash(),
        // Too few for an interval.
        Some(measure) if measure.samples < 3 => format!("{:.2} ×", measure.value),
        Some(_) => format!("{} ×", number(measure, 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::all;

    fn side(label: &str, taken: f64) -> Times {
        let (seconds, label) = (vec![taken; 3], label.to_owned());
        Times { label, loads: vec![taken], firsts: vec![taken], seconds, flop: Some(100e9), ..Times::default() }
    }

    #[test]
    fn a_row_tells_its_ratio_its_share_and_its_failures() {
        let rows = all();
        let row = rows.iter().find(|row| row.name == "base-f32").unwrap();
        let failed =
            Times { label: "torch.compile".to_owned(), error: Some("no compiler".to_owned()), ..Times::default() };
        let page =
            page(&[(row, &Kept::of_sides(vec![side("ediffi", 1.0), side("PyTorch", 1.5), failed], 0.5))], &["paint"]);
        for expected in [
            "| base-f32 | f32 | ediffi | 1.00 | 1.00–1.00 |  | 1.00 | 1.00 |  | – |",
            "|  | f32 | PyTorch | 1.50 | 1.50–1.50 | 1.50 (1.50–1.50) × | 1.50 | 1.50 | 1.50 × | – |",
            "|  | f32 | torch.compile | **failed:** no compiler |",
            "| base-f32 | f32 | ediffi | 100.00 | 100 | 50 % | 25 % |",
            "**base-f32: other processes used 50 % of a core meanwhile; measure it again.**",
            "Not measured: paint.",
        ] {
            assert!(page.contains(expected), "{expected}\n{page}");
        }
    }

    #[test]
    fn memory_of_a_model_in_parts_is_told_by_its_largest() {
        let side = |peak_mb, largest_mb| Times { peak_mb, largest_mb, ..side("ediffi", 1.0) };
        let told = [(None, Some(2.0)), (Some(1500.0), None), (Some(1500.0), Some(1000.0))];
        assert_eq!(told.map(|(peak, largest)| memory(&side(peak, largest))), ["–", "1500", "1500, 1.50 × 1000"]);
    }

    #[test]
    fn growth_worse_than_linear_is_marked() {
        let rows = all();
        let row = rows.iter().find(|row| row.name == "growth-pictures").unwrap();
        let of = |power: i32| {
            let sides = [1.0, 2.0, 4.0].map(|units: f64| Times { units: Some(units), ..side("n", units.powi(power)) });
            page(&[(row, &Kept::of_sides(sides.to_vec(), 0.0))], &[])
        };
        assert!(of(1).contains("| 1.00 |") && !of(1).contains("worse"), "{}", of(1));
        assert!(of(2).contains("**2.00, worse than linear**"), "{}", of(2));
    }

    #[test]
    fn seconds_have_three_digits() {
        for (value, shown) in [(0.001234, "0.00123"), (0.1234, "0.123"), (12.345, "12.3"), (123.4, "123")] {
            assert_eq!(seconds(Some(value)), shown);
        }
    }
}
