//! What was measured, as JSON of each row: rows are measured one at a time, and the tables made anew of all of them.

use std::path::{Path, PathBuf};

use ediffi_core::files::write_json;
use evaluate::machine::processor;
use serde::{Deserialize, Serialize};

use crate::job::Precision;
use crate::prepare::versions;
use crate::result::Result;
use crate::statistics::quantile;
use crate::turns::{Measured, RUNS, Setup};

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

impl Kept {
    fn path(name: &str) -> PathBuf {
        Path::new(RUNS).join(format!("{name}.json"))
    }

    pub(crate) fn save(&self, name: &str) -> Result<()> {
        Ok(write_json(&Self::path(name), self)?)
    }

    /// `None` of a row that was not measured.
    pub(crate) fn open(name: &str) -> Result<Option<Self>> {
        let path = Self::path(name);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(ediffi_core::files::read_json(&path)?))
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
