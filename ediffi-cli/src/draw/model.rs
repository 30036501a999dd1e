//! Which model, and how it computes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ediffi::{DeviceChoice, Pipeline, PipelineBuilder, Precision, Residency, Runtime};

/// Which model, and how it computes.
#[derive(Args)]
pub(super) struct Model {
    /// The model folder (default: that of the variable EDIFFI_MODEL, or the shipped model).
    #[arg(long, value_name = "FOLDER", help_heading = "Model")]
    model: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    #[arg(long, default_value = "auto", value_parser = device, help_heading = "Model")]
    device: DeviceChoice,
    #[command(flatten)]
    computing: Computing,
}

/// How a model computes, wherever that is.
#[derive(Args)]
pub(super) struct Computing {
    /// The numbers that networks compute in.
    #[arg(long, value_enum, default_value_t, help_heading = "Model")]
    precision: Numbers,
    /// How many experts are in memory.
    #[arg(long, value_enum, default_value_t, help_heading = "Model")]
    residency: Held,
}

/// [`Precision`] as an option.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum Numbers {
    #[default]
    Auto,
    F32,
    Bf16,
    F16,
}

impl From<Numbers> for Precision {
    fn from(numbers: Numbers) -> Self {
        match numbers {
            Numbers::Auto => Self::Auto,
            Numbers::F32 => Self::F32,
            Numbers::Bf16 => Self::Bf16,
            Numbers::F16 => Self::F16,
        }
    }
}

/// [`Residency`] as an option.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Held {
    /// All of them stay.
    #[default]
    All,
    /// One at a time.
    Relay,
    /// One at a time, while the next is loaded.
    RelayPrefetch,
}

impl Model {
    /// The model, computing where the options say.
    pub(super) fn builder(&self) -> Result<PipelineBuilder, ediffi::Error> {
        self.builder_on(self.device)
    }

    /// The model on a device of its own, where the options leave that open: of several processes each has one.
    pub(super) fn builder_on(&self, device: DeviceChoice) -> Result<PipelineBuilder, ediffi::Error> {
        let device = if self.device == DeviceChoice::Auto { device } else { self.device };
        let folder = self.model.clone().map_or_else(ediffi::icons, Ok)?;
        Ok(self.computing.builder(folder).device(device))
    }

    /// Where and in what numbers it computes. No model is asked.
    pub(super) fn runtime(&self) -> ediffi_core::Result<Runtime> {
        Runtime::new(self.device, self.computing.precision())
    }

    /// Whether the numbers are those that suit the device best.
    pub(super) fn chooses_precision(&self) -> bool {
        self.computing.precision() == Precision::Auto
    }

    pub(super) fn open(&self) -> Result<Pipeline, ediffi::Error> {
        self.builder()?.open()
    }
}

impl Computing {
    fn precision(&self) -> Precision {
        self.precision.into()
    }

    /// The model of a folder, computing so.
    pub(super) fn builder(&self, folder: PathBuf) -> PipelineBuilder {
        let residency = match self.residency {
            Held::All => Residency::All,
            Held::Relay => Residency::Relay,
            Held::RelayPrefetch => Residency::RelayPrefetch,
        };
        Pipeline::builder(folder).precision(self.precision()).residency(residency)
    }
}

pub(super) fn device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        _ => {
            let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
            number.map(DeviceChoice::Cuda).ok_or_else(|| "expected auto, cpu, cuda or cuda:NUMBER".to_owned())
        }
    }
}
