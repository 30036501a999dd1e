//! `evaluate samplers`: what `evaluate seen` has measured of several samplers, in one table and one plot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ediffi_core::files::read_json;
use ediffi_core::guidance::Guidance;
use serde::{Deserialize, Serialize};

use super::drawn::{Note, Sampler};
use crate::bootstrap::Measure;
use crate::document::{Table, number};
use crate::error::{Error, Result};
use crate::measured::Measured;
use crate::plot::{Axis, Line, Plot};

/// The measures that the table has, as `evaluate seen` calls them.
const COLUMNS: [&str; 4] = ["plainness, median", "curvature, 256, median", "specks a picture, 256", "patches, 256"];

/// What the sampler of the model itself is called.
const OWN: &str = "the model's own";

/// Which results to compare.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What `evaluate seen --name` called the results, in the order of the table.
    #[arg(required = true)]
    pub names: Vec<String>,
}

/// What a file of results says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    samplers: Vec<Sampler>,
    side: u32,
    machine: String,
    note: Option<Note>,
    lines: Vec<KeptLine>,
    pictures: Vec<KeptPicture>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptLine {
    name: String,
    renders: Option<Measure>,
    pictures: Option<Measure>,
}

/// Which picture it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct KeptPicture {
    prompt: String,
    seed: u64,
}

/// Several samplers beside each other.
#[derive(Debug, Clone, Serialize)]
pub struct Samplers(Vec<Kept>);

/// Reads the results of these names from the folder `out`.
///
/// # Errors
/// Results that are not there, or that are of other prompts or of another size than the first.
pub fn compare(settings: &Settings, out: &Path) -> Result<Samplers> {
    let path = |name: &String| -> PathBuf { out.join(format!("{name}.json")) };
    let all = settings.names.iter().map(|name| Ok(read_json(&path(name))?)).collect::<Result<Vec<Kept>>>()?;
    let same =
        |other: &Kept| all.first().is_none_or(|first| (first.side, &first.pictures) == (other.side, &other.pictures));
    match settings.names.iter().zip(&all).find(|(_, kept)| !same(kept)) {
        Some((name, _)) => {
            let reason = format!("`{name}` is of other prompts, or of another size, than the first");
            Err(Error::Setting { what: "names", reason })
        }
        None => Ok(Samplers(all)),
    }
}

impl Kept {
    /// The sampler in words: the settings that differ from the stage's own.
    fn sampler(&self) -> String {
        match &self.samplers[..] {
            [] => OWN.to_owned(),
            samplers => samplers.iter().map(words).collect::<Vec<_>>().join("; "),
        }
    }

    /// The solver of the first stage that has another sampler.
    fn solver(&self) -> String {
        let solver = self.samplers.first().and_then(|sampler| sampler.patch.solver);
        solver.map_or_else(|| "the model's own solver".to_owned(), |solver| solver.to_string())
    }

    /// Rows of the first stage's networks for a picture.
    fn rows(&self) -> Option<usize> {
        self.note.as_ref()?.work.first().map(|work| work.rows)
    }

    fn line(&self, name: &str) -> Option<&KeptLine> {
        self.lines.iter().find(|line| line.name == name)
    }
}

/// What differs from a stage's own settings, in words.
fn words(Sampler { stage, patch }: &Sampler) -> String {
    let scale = |guidance: &Guidance| {
        let interval = guidance.interval.map_or_else(String::new, |interval| format!(" on {interval}"));
        format!("guidance {}{interval}", guidance.scale)
    };
    let solver = patch.solver.map(|solver| serde_json::to_string(&solver).unwrap_or_default().replace('"', ""));
    let steps = patch.steps.map(|steps| format!("{steps} steps"));
    let parts = [solver, steps, patch.guidance.as_ref().map(scale)];
    format!("{stage}: {}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

impl Measured for Samplers {
    fn name(&self) -> String {
        "samplers".to_owned()
    }

    fn markdown(&self) -> String {
        let mut table = Table::new(["sampler", "work"].into_iter().chain(COLUMNS));
        for kept in &self.0 {
            let work = kept.note.as_ref().and_then(|note| note.work.first());
            let measures = COLUMNS.map(|name| number(kept.line(name).and_then(|line| line.pictures), 3));
            let work = work.map(ToString::to_string).unwrap_or_default();
            table.row([kept.sampler(), work].into_iter().chain(measures));
        }
        let Some(first) = self.0.first() else { return String::new() };
        let renders = COLUMNS.map(|name| number(first.line(name).and_then(|line| line.renders), 3));
        table.row(["other renders".to_owned(), String::new()].into_iter().chain(renders));
        format!("{} pictures of {} pixels; {}.\n\n{table}", first.pictures.len(), first.side, first.machine)
    }

    fn plots(&self) -> Vec<(String, Plot)> {
        let plot = |(name, file): (&str, &str)| {
            let mut solvers: BTreeMap<String, Vec<(f64, Option<Measure>)>> = BTreeMap::new();
            for kept in &self.0 {
                let point = kept.rows().zip(kept.line(name)).map(|(rows, line)| (rows as f64, line.pictures));
                solvers.entry(kept.solver()).or_default().extend(point);
            }
            let line = |(solver, mut points): (String, Vec<(f64, Option<Measure>)>)| {
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Line::measured(&solver, points.into_iter())
            };
            let (x, y) = (Axis::linear("rows of the base's networks for a picture"), Axis::linear(name));
            let lines = solvers.into_iter().map(line).collect();
            (file.to_owned(), Plot { title: format!("{name}, by solver of the base"), x, y, lines })
        };
        [("plainness, median", "samplers-plainness"), ("patches, 256", "samplers-patches")].map(plot).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn kept(side: u32, samplers: Value) -> Value {
        let measure = json!({ "value": 2.0, "low": 1.5, "high": 2.5, "samples": 3 });
        let line = |name: &str| json!({ "name": name, "renders": measure, "pictures": measure });
        json!({ "samplers": samplers, "side": side, "machine": "a machine", "lines": COLUMNS.map(line),
                "note": { "work": [{ "stage": "base", "evaluations": 20, "rows": 30 }], "seconds": 1.0, "drawn": 1 },
                "pictures": [{ "prompt": "a cat", "seed": 1, "plainness": 2.0 }] })
    }

    #[test]
    fn results_of_the_same_prompts_stand_in_one_table() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: Value| std::fs::write(folder.path().join(name), text.to_string()).unwrap();
        let guidance = json!({ "scale": 3.0, "interval": [2.0, null] });
        let patch = json!({ "solver": "heun", "steps": 30, "guidance": guidance });
        write("own.json", kept(256, json!([])));
        write("sde.json", kept(256, json!([{ "stage": "base", "patch": patch }])));
        write("large.json", kept(1024, json!([])));
        let of =
            |names: &[&str]| compare(&Settings { names: names.iter().map(|&n| n.to_owned()).collect() }, folder.path());
        let samplers = of(&["own", "sde"]).unwrap();
        let text = samplers.markdown();
        assert!(text.contains("| the model's own | base 20 evaluations (30 rows) | 2.000 (1.500–2.500) |"), "{text}");
        assert!(text.contains("| base: heun, 30 steps, guidance 3 on [2, inf) |"), "{text}");
        assert!(text.contains("| other renders |"), "{text}");
        let lines = samplers.plots().into_iter().map(|(_, plot)| plot.lines.len());
        assert_eq!(lines.collect::<Vec<_>>(), [2, 2]);
        assert!(of(&["own", "large"]).unwrap_err().to_string().contains("`large`"));
        assert!(of(&["own", "none"]).is_err());
    }
}
