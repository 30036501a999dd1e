//! What a picture of each system takes: the tables of `docs/alternatives.md`, made of the rows of its networks.

use std::path::Path;

use evaluate::document::{Table, replace};

use crate::alternatives::{NETWORKS, Network, PREFIX, parameters};
use crate::kept::{Kept, Rows};
use crate::result::Result;
use crate::statistics::{median, quantile};

const PAGE: &str = "docs/alternatives.md";

/// A system: the evaluations of each network for a picture, by its published defaults, and what else is known of it.
struct System {
    name: &'static str,
    side: u32,
    evaluations: &'static [(&'static str, u32)],
    /// Parameters of the text encoders, in millions.
    text: &'static [(&'static str, f64)],
}

const T5_XXL: (&str, f64) = ("T5-XXL", 4762.0);
const CLIP_L: (&str, f64) = ("CLIP L/14", 123.0);
const CLIP_G: (&str, f64) = ("OpenCLIP bigG/14", 695.0);

const SYSTEMS: [System; 7] = [
    System {
        name: "eDiff-I, presets",
        side: 1024,
        evaluations: &[("ediffi-base", 25), ("ediffi-sr256", 10), ("ediffi-sr1024", 10)],
        text: &[T5_XXL, CLIP_L],
    },
    System {
        name: "eDiff-I, to 256",
        side: 256,
        evaluations: &[("ediffi-base", 25), ("ediffi-sr256", 10)],
        text: &[T5_XXL, CLIP_L],
    },
    System { name: "IF M", side: 256, evaluations: &[("if-i-m", 100), ("if-ii-m", 50)], text: &[T5_XXL] },
    System { name: "IF L", side: 256, evaluations: &[("if-i-l", 100), ("if-ii-l", 50)], text: &[T5_XXL] },
    System {
        name: "Karlo, without its prior",
        side: 256,
        evaluations: &[("karlo-decoder", 25), ("karlo-sr256", 7)],
        text: &[CLIP_L],
    },
    System { name: "Stable Diffusion 1.5", side: 512, evaluations: &[("sd-1.5", 50)], text: &[CLIP_L] },
    System {
        name: "SDXL, base and refiner",
        side: 1024,
        evaluations: &[("sdxl-base", 40), ("sdxl-refiner", 10)],
        text: &[CLIP_L, CLIP_G],
    },
];

/// A network of which everything is measured.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    network: Network,
    parameters: f64,
    kept: &'a Kept,
    flop: f64,
    seconds: f64,
}

impl<'a> Found<'a> {
    fn of(network: Network, rows: &'a Rows) -> Option<Self> {
        let kept = rows.get(&format!("{PREFIX}{}", network.name))?;
        let side = kept.measured.sides.first()?;
        let (flop, seconds) = (side.flop?, median(&side.seconds)?);
        Some(Self { network, parameters: parameters(network.name).ok()? as f64, kept, flop, seconds })
    }
}

/// Writes the tables of what was measured; nothing if that is nothing.
pub(crate) fn write(rows: &Rows) -> Result<()> {
    let found: Vec<Found<'_>> = NETWORKS.into_iter().filter_map(|network| Found::of(network, rows)).collect();
    let Some(first) = found.first() else { return Ok(()) };
    let setting = &first.kept.setting;
    let one = format!(
        "`cargo xtask bench alternatives --rounds {} --starts {}` on {}; {} threads; {}; libtorch and networks with random weights.",
        setting.rounds,
        setting.starts,
        setting.processor,
        setting.threads,
        first.kept.precision.name(),
    );
    replace(Path::new(PAGE), "networks", &format!("{one}\n\n{}", evaluations(&found)))?;
    Ok(replace(Path::new(PAGE), "pictures", &pictures(&found).to_string())?)
}

fn evaluations(found: &[Found<'_>]) -> Table {
    let headings =
        ["network", "parameters", "given", "GFLOP", "s", "quartiles", "GFLOP/s", "load and first, s", "peak MB"];
    let mut table = Table::new(headings);
    for Found { network, parameters, kept, flop, seconds } in found {
        let Some(side) = kept.measured.sides.first() else { continue };
        let (rows, side_of) = (network.rows, network.side);
        let quartile = |share| quantile(&side.seconds, share).map_or_else(String::new, |second| format!("{second:.3}"));
        table.row([
            network.name.to_owned(),
            format!("{:.0} M", parameters / 1e6),
            format!("{rows} × {side_of}²"),
            format!("{:.0}", flop / 1e9),
            format!("{seconds:.3}"),
            format!("{}–{}", quartile(0.25), quartile(0.75)),
            format!("{:.0}", flop / seconds / 1e9),
            median(&side.beginnings()).map_or_else(String::new, |seconds| format!("{seconds:.1}")),
            side.peak_mb.map_or_else(String::new, |peak| format!("{peak:.0}")),
        ]);
    }
    table
}

/// What a picture takes: evaluations times what each of them takes. Systems of which a network was not measured are left out.
fn pictures(found: &[Found<'_>]) -> Table {
    let headings = ["system", "picture", "evaluations", "networks", "text encoders", "TFLOP", "s", "TFLOP a megapixel"];
    let mut table = Table::new(headings);
    for System { name, side, evaluations, text } in SYSTEMS {
        let of = |name: &str| found.iter().find(|found| found.network.name == name);
        let parts: Option<Vec<(&Found<'_>, u32)>> =
            evaluations.iter().map(|(name, count)| Some((of(name)?, *count))).collect();
        let Some(parts) = parts else { continue };
        let sum =
            |of: fn(&Found<'_>) -> f64| parts.iter().map(|(found, count)| f64::from(*count) * of(found)).sum::<f64>();
        let (flop, seconds) = (sum(|found| found.flop), sum(|found| found.seconds));
        let counts: Vec<String> = parts.iter().map(|(_, count)| count.to_string()).collect();
        let networks: f64 = parts.iter().map(|(found, _)| found.parameters).sum();
        let texts: f64 = text.iter().map(|(_, millions)| millions).sum();
        let names: Vec<&str> = text.iter().map(|(name, _)| *name).collect();
        let megapixels = f64::from(side).powi(2) / 1e6;
        table.row([
            name.to_owned(),
            format!("{side}²"),
            counts.join(" + "),
            format!("{:.2} G", networks / 1e9),
            format!("{} ({:.2} G)", names.join(", "), texts / 1e3),
            format!("{:.1}", flop / 1e12),
            format!("{seconds:.0}"),
            format!("{:.0}", flop / 1e12 / megapixels),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alternatives::find;

    #[test]
    fn every_system_is_of_networks_that_are_measured() {
        for System { name, evaluations, .. } in SYSTEMS {
            assert!(evaluations.iter().all(|(network, count)| find(network).is_ok() && *count > 0), "{name}");
        }
        assert!(find("if-iii").is_err());
    }

    #[test]
    fn a_picture_is_its_evaluations() {
        let kept = Kept::of_sides(Vec::new(), 0.0);
        let one = |name, flop| Found { network: find(name).unwrap(), parameters: 2e9, kept: &kept, flop, seconds: 0.5 };
        let table = pictures(&[one("if-i-m", 1e12), one("if-ii-m", 3e12)]).to_string();
        // 100 · 1 + 50 · 3 TFLOP, 150 · 0.5 s, over 256² pixels.
        assert!(table.contains("| IF M | 256² | 100 + 50 | 4.00 G | T5-XXL (4.76 G) | 250.0 | 75 | 3815 |"), "{table}");
        assert!(!table.contains("IF L"), "not measured");
    }
}
