//! What was measured of every row, in one file of JSON: rows are measured one at a time, and the tables made anew of all of them.

use std::collections::BTreeMap;
use std::path::Path;

use ediffi_core::files::{read_json, write_atomic};
use evaluate::machine::processor;
use serde::{Deserialize, Serialize};

use crate::job::Precision;
use crate::prepare::versions;
use crate::result::Result;
use crate::statistics::quantile;
use crate::turns::{Measured, Setup};

/// The file, beside the page that shows it: whoever measures some rows anew keeps the others.
const FILE: &str = "docs/results/performance.json";

/// The pair of `tch`, which the workspace pins.
const LIBTORCH: &str = "2.11.0";

/// Where and how a row was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) processor: String,
    pub(crate) threads: usize,
    pub(crate) rounds: usize,
    pub(crate) starts: usize,
    /// Of libtorch, and of the packages that it is compared with.
    pub(crate) versions: String,
    /// Whether the processor has arithmetic for bf16.
    pub(crate) bf16: bool,
    /// Whether the sides of this library are built without optimisation.
    pub(crate) debug: bool,
}

impl Setting {
    pub(crate) fn here(setup: &Setup) -> Result<Self> {
        let cores = std::thread::available_parallelism()?;
        let packages = versions(&setup.python)?;
        let package = |name: &str| packages.get(name).and_then(|version| version.as_str()).unwrap_or("?").to_owned();
        Ok(Self {
            processor: format!("{}, {cores} cores", processor()),
            threads: setup.threads,
            rounds: setup.rounds,
            starts: setup.starts,
            versions: format!(
                "libtorch {LIBTORCH}, PyTorch {}, diffusers {}, transformers {}",
                package("torch"),
                package("diffusers"),
                package("transformers")
            ),
            bf16: !Precision::Bf16.emulated(),
            debug: cfg!(debug_assertions),
        })
    }

    pub(crate) fn emulates(&self, precision: Precision) -> bool {
        precision == Precision::Bf16 && !self.bf16
    }
}

/// What is kept of a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) setting: Setting,
    pub(crate) precision: Precision,
    /// The best rates of the machine in this precision and in the same run, in operations a second: of convolutions and of matrix
    /// products.
    pub(crate) limits: Option<[f64; 2]>,
    pub(crate) measured: Measured,
}

#[cfg(test)]
impl Kept {
    pub(crate) fn of_sides(sides: Vec<crate::turns::Times>, others: f64) -> Self {
        let setting = Setting {
            processor: "a processor, 2 cores".to_owned(),
            threads: 2,
            rounds: 3,
            starts: 1,
            versions: "libtorch 2.11.0".to_owned(),
            bf16: true,
            debug: false,
        };
        Self { setting, precision: Precision::F32, limits: Some([200e9, 400e9]), measured: Measured { sides, others } }
    }
}

/// What is kept, by the names of the rows.
#[derive(Debug, Default)]
pub(crate) struct Rows(BTreeMap<String, Kept>);

impl Rows {
    /// Empty if nothing was measured.
    pub(crate) fn open() -> Result<Self> {
        let path = Path::new(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        Ok(Self(read_json(path)?))
    }

    /// `None` of a row that was not measured.
    pub(crate) fn get(&self, name: &str) -> Option<&Kept> {
        self.0.get(name)
    }

    /// Keeps a row in the place of what there was of it, and writes the file: one line for each row.
    pub(crate) fn keep(&mut self, name: &str, kept: Kept) -> Result<()> {
        self.0.insert(name.to_owned(), kept);
        let line = |(name, kept)| Ok(format!("{}:{}", serde_json::to_string(name)?, serde_json::to_string(kept)?));
        let lines = self.0.iter().map(line).collect::<Result<Vec<_>>>()?;
        Ok(write_atomic(Path::new(FILE), format!("{{\n{}\n}}\n", lines.join(",\n")).as_bytes())?)
    }
}

/// The best rates that the row of limits found.
pub(crate) fn limits(measured: &Measured) -> Option<[f64; 2]> {
    let rate = |index: usize| {
        let times = measured.sides.get(index)?;
        Some(times.flop? / quantile(&times.seconds, 0.0)?)
    };
    Some([rate(0)?, rate(1)?])
}
