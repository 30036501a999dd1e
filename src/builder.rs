//! How to open a pipeline.

use std::path::PathBuf;

use ediffi_core::pool::Residency;
use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};

use crate::{Pipeline, Result};

/// How many images are computed together unless [`PipelineBuilder::batch`] says otherwise.
pub const BATCH: usize = 4;

/// Opens a [`Pipeline`] with other settings than the usual ones.
///
/// ```no_run
/// use ediffi::{DeviceChoice, Pipeline, Precision, Residency};
///
/// let pipeline = Pipeline::builder("models/icons")
///     .device(DeviceChoice::Cpu)
///     .precision(Precision::F32)
///     .residency(Residency::Relay)
///     .open()?;
/// # Ok::<(), ediffi::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PipelineBuilder {
    pub(crate) folder: PathBuf,
    pub(crate) device: DeviceChoice,
    pub(crate) precision: Precision,
    pub(crate) residency: Residency,
    pub(crate) keep_encoders: bool,
    pub(crate) batch: usize,
}

impl PipelineBuilder {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
            residency: Residency::All,
            keep_encoders: false,
            batch: BATCH,
        }
    }

    /// Where to compute; CUDA if there is one, else the CPU.
    #[must_use]
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self
    }

    /// In which precision; the fastest that is safe on the device.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// How many experts of a stage are in memory at a time; all. With any other choice a stage's experts are dropped
    /// when the stage is done, too.
    #[must_use]
    pub fn residency(mut self, residency: Residency) -> Self {
        self.residency = residency;
        self
    }

    /// Whether the encoders stay in memory; they do not. Without it each is loaded, used and dropped before the next one
    /// and before the first denoiser, unless the texts are those of the call before.
    #[must_use]
    pub fn keep_encoders(mut self, keep: bool) -> Self {
        self.keep_encoders = keep;
        self
    }

    /// How many images of a request are computed together, at least one; [`BATCH`]. More may be faster on a GPU and take
    /// more memory. An image depends on it by rounding alone.
    #[must_use]
    pub fn batch(mut self, images: usize) -> Self {
        self.batch = images.max(1);
        self
    }

    /// Opens the pipeline. The manifest and all configurations are read and checked; weights are loaded when they are
    /// needed.
    ///
    /// # Errors
    /// As [`Pipeline::open`], and [`Core`](crate::Error::Core) for a device that cannot be used.
    pub fn open(self) -> Result<Pipeline> {
        let runtime = Runtime::new(self.device, self.precision)?;
        Pipeline::assemble(self, runtime)
    }
}
