//! `evaluate samplers`: what `evaluate seen` has measured of several samplers, in one table and one plot.

use std::path::{Path, PathBuf};

use ediffi_core::files::read_json;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::drawn::Note;
use crate::bootstrap::Measure;
use crate::document::{Table, number};
use crate::error::{Error, Result};
use crate::measured::Measured;
use crate::plot::{Axis, Line, Plot};

/// The measures that the table has, as `evaluate seen` calls them.
const COLUMNS: [&str; 4] = ["plainness, median", "curvature, 256, median", "specks a picture, 256", "patches, 256"];

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
    samplers: Vec<Value>,
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
        let words = |sampler: &Value| {
            let (stage, patch) = (sampler["stage"].as_str().unwrap_or_default(), &sampler["patch"]);
            format!("{stage} `{patch}`")
        };
        match &self.samplers[..] {
            [] => "the model's own".to_owned(),
            samplers => samplers.iter().map(words).collect::<Vec<_>>().join(", "),
        }
    }

    /// Rows of the first stage's networks for a picture.
    fn rows(&self) -> Option<usize> {
        self.note.as_ref()?.work.first().map(|work| work.rows)
    }

    fn line(&self, name: &str) -> Option<&KeptLine> {
        self.lines.iter().find(|line| line.name == name)
    }
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
            let point = |kept: &Kept| Some((kept.rows()? as f64, kept.line(name)?.pictures));
            let line = |kept: &Kept| Line::measured(&kept.sampler().replace('`', ""), point(kept).into_iter());
            let (x, y) = (Axis::linear("rows of the base's networks for a picture"), Axis::linear(name));
            let lines = self.0.iter().map(line).collect();
            (file.to_owned(), Plot { title: format!("{name}, by sampler of the base"), x, y, lines })
        };
        [("plainness, median", "samplers-plainness"), ("patches, 256", "samplers-patches")].map(plot).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        write("own.json", kept(256, json!([])));
        write("sde.json", kept(256, json!([{ "stage": "base", "patch": { "steps": 30 } }])));
        write("large.json", kept(1024, json!([])));
        let of =
            |names: &[&str]| compare(&Settings { names: names.iter().map(|&n| n.to_owned()).collect() }, folder.path());
        let samplers = of(&["own", "sde"]).unwrap();
        let text = samplers.markdown();
        assert!(text.contains("| the model's own | base 20 evaluations (30 rows) | 2.000 (1.500–2.500) |"), "{text}");
        assert!(text.contains("| base `{\"steps\":30}` |") && text.contains("| other renders |"), "{text}");
        assert_eq!(samplers.plots().iter().map(|(_, plot)| plot.lines.len()).collect::<Vec<_>>(), [2, 2]);
        assert!(of(&["own", "large"]).unwrap_err().to_string().contains("`large`"));
        assert!(of(&["own", "none"]).is_err());
    }
}
