//! How to open a pipeline.

use std::path::PathBuf;
use std::sync::Arc;

use ediffi_cascade::{Enlarger, Tiling};
use ediffi_core::expert_interval::ExpertInterval;
use ediffi_core::guidance::Rows;
use ediffi_core::pool::Residency;
use ediffi_core::runtime::{DeviceChoice, Precision};
use ediffi_core::weights::Lora;
use ediffi_encoders::T5Weights;
use ediffi_paint::WeightFunction;

use crate::Limits;
use crate::loras::Loras;

/// How many images are computed together unless [`PipelineBuilder::batch`] says otherwise.
pub const BATCH: usize = 4;

/// Of how many requests the embeddings are kept unless [`PipelineBuilder::recent_texts`] says otherwise.
pub const RECENT_TEXTS: usize = 16;

/// Opens a [`Pipeline`](crate::Pipeline) with other settings than the usual ones.
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
#[must_use]
pub struct PipelineBuilder {
    pub(crate) folder: PathBuf,
    pub(crate) device: DeviceChoice,
    pub(crate) precision: Precision,
    pub(crate) expert_devices: Vec<DeviceChoice>,
    pub(crate) residency: Option<Residency>,
    pub(crate) keep_encoders: bool,
    pub(crate) recent_texts: usize,
    pub(crate) batch: usize,
    pub(crate) rows: Rows,
    pub(crate) clean_captions: Option<bool>,
    pub(crate) t5_weights: T5Weights,
    pub(crate) experts: Vec<(ExpertInterval, PathBuf)>,
    pub(crate) likes: Vec<PathBuf>,
    pub(crate) loras: Loras,
    pub(crate) stages: Vec<PathBuf>,
    pub(crate) enlarger: Option<(PathBuf, Tiling)>,
    pub(crate) noise_level: Option<usize>,
    pub(crate) paint_weight: Option<Arc<dyn WeightFunction>>,
    pub(crate) keep_floats: bool,
    pub(crate) limits: Limits,
}

impl PipelineBuilder {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
            expert_devices: Vec::new(),
            residency: None,
            keep_encoders: false,
            recent_texts: RECENT_TEXTS,
            batch: BATCH,
            rows: Rows::default(),
            clean_captions: None,
            t5_weights: T5Weights::Full,
            experts: Vec::new(),
            likes: Vec::new(),
            loras: Loras::default(),
            stages: Vec::new(),
            enlarger: None,
            noise_level: None,
            paint_weight: None,
            keep_floats: false,
            limits: Limits::default(),
        }
    }

    /// Where to compute (default: CUDA if there is a device, else the CPU).
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self
    }

    /// Spreads the experts of each stage over these devices, one after the other (default: all on [`device`](Self::device)). Pictures
    /// wait on `device`, and go to the expert's for each evaluation; the encoders compute there too. With [`Residency::All`], three
    /// experts on three devices take a third of the memory on each. With another residency, the default of published models, one
    /// expert is in memory at a time all the same.
    pub fn expert_devices(mut self, devices: impl IntoIterator<Item = DeviceChoice>) -> Self {
        self.expert_devices = devices.into_iter().collect();
        self
    }

    /// In which precision to compute (default: the fastest that is safe on the device).
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// How many experts of a stage are in memory at a time (default: all; of published models, which are large, one). With
    /// any choice but all, the batches of a request take turns, so that each expert is loaded once, and the experts of a stage are
    /// dropped when the stage is done, too. With an [`enlarger`](Self::enlarger) and
    /// more than one batch, the last stage is done only when the enlarger nearly is.
    pub fn residency(mut self, residency: Residency) -> Self {
        self.residency = Some(residency);
        self
    }

    /// Keep the encoders loaded between calls (default: false). Otherwise each is loaded, used and dropped before the next
    /// one and before the first denoiser, unless the texts are those of the call before.
    pub fn keep_encoders(mut self, keep: bool) -> Self {
        self.keep_encoders = keep;
        self
    }

    /// Of how many requests the embeddings of texts and style are kept, so that the same texts are not encoded again (default:
    /// [`RECENT_TEXTS`]): those that were used last. One takes 2.5 MB with T5-XXL and a negative prompt. What was made from pictures is kept
    /// for the next request alone, since the pictures are kept with it.
    pub fn recent_texts(mut self, requests: usize) -> Self {
        self.recent_texts = requests;
        self
    }

    /// How many images of a request are computed together, at least one (default: [`BATCH`]). More may be faster on a GPU
    /// and take more memory. An image depends on it by rounding alone.
    pub fn batch(mut self, images: usize) -> Self {
        self.batch = images.max(1);
        self
    }

    /// Whether guidance evaluates a network once for the rows with and without the prompt, or once for each (default:
    /// [`Rows::Batched`]). [`Rows::Sequential`] takes less memory. An image depends on it by rounding alone.
    pub fn rows(mut self, rows: Rows) -> Self {
        self.rows = rows;
        self
    }

    /// Keep each image's float pixels beside its 8-bit ones, for [`GeneratedImage::tensor`](crate::GeneratedImage::tensor)
    /// (default: false). They take four times as much memory.
    pub fn keep_floats(mut self, keep: bool) -> Self {
        self.keep_floats = keep;
        self
    }

    /// The most that a request may ask for (default: [`Limits::default`], which is safe for requests of strangers).
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a published stage of super-resolution: the folder of a DeepFloyd IF stage II, as diffusers saves it. The folder
    /// that the builder was made for has to be one of stage I.
    pub fn stage(mut self, folder: impl Into<PathBuf>) -> Self {
        self.stages.push(folder.into());
        self
    }

    /// Makes another published folder of the same family the expert for `interval`: it takes these noise levels over from the folder that the
    /// builder was made for. They share the text and the pixels or latents, so networks of several sizes make one ensemble, or SDXL and its
    /// refiner. The interval is said as suits best ([`ExpertInterval`]): by sigma, timestep, signal to noise, the fraction of the schedule that is
    /// done, or by steps, of which each request has its own. Two that share noise levels are refused, and so is one whose steps a request does not
    /// have.
    ///
    /// ```no_run
    /// use ediffi::{ExpertInterval, Pipeline, SigmaInterval};
    ///
    /// // The last five steps of any number.
    /// let pipeline = Pipeline::builder("stable-diffusion-xl-base-1.0")
    ///     .expert(ExpertInterval::steps(-5..), "stable-diffusion-xl-refiner-1.0")
    ///     .open()?;
    ///
    /// // What is in the picture is decided above sigma 1, by the large network; a smaller one draws the rest.
    /// let pipeline = Pipeline::builder("IF-I-M-v1.0")
    ///     .expert(SigmaInterval::new(1.0, f64::INFINITY)?, "IF-I-XL-v1.0")
    ///     .stage("IF-II-M-v1.0")
    ///     .open()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn expert(mut self, interval: impl Into<ExpertInterval>, folder: impl Into<PathBuf>) -> Self {
        self.experts.push((interval.into(), folder.into()));
        self
    }

    /// Takes configurations and tokenizers for a checkpoint of one file, which has weights alone: a folder as diffusers saves it, of a model of the
    /// same kind. Its own weights are not read, and need not be there. The file is what the builder was made for, or an
    /// [`expert`](Self::expert); where several are of different kinds, each has its own `like`.
    ///
    /// ```no_run
    /// use ediffi::Pipeline;
    ///
    /// let pipeline = Pipeline::builder("dreamshaper.safetensors").like("stable-diffusion-v1-5").open()?;
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    pub fn like(mut self, folder: impl Into<PathBuf>) -> Self {
        self.likes.push(folder.into());
        self
    }

    /// Merges a LoRA into a model of Stable Diffusion: into the networks of all experts but SDXL's refiner, and into the text encoders where the
    /// file has something for them. In a model folder with a manifest, into the networks of the first stage. Several are added up. They are merged when the weights are loaded, so drawing takes no longer with them.
    ///
    /// ```no_run
    /// use ediffi::{Lora, Pipeline};
    ///
    /// let pipeline = Pipeline::builder("stable-diffusion-v1-5")
    ///     .lora(Lora::new("watercolour.safetensors").scale(0.8))
    ///     .open()?;
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    pub fn lora(mut self, lora: Lora) -> Self {
        self.loras.add(None, lora);
        self
    }

    /// As [`lora`](Self::lora), for the network of one expert alone: 0 is that of the builder's own folder, 1 that of the first
    /// [`expert`](Self::expert), and so on. So each range of noise levels can have a style of its own, also where all experts are of one folder.
    /// In a model folder with a manifest it is the number of an expert of the first stage, from the highest noise down.
    /// Experts share their text encoders: a file that changes these is refused unless [`Lora::network_only`] leaves that out.
    pub fn lora_of_expert(mut self, expert: usize, lora: Lora) -> Self {
        self.loras.add(Some(expert), lora);
        self
    }

    /// Enlarges finished pictures by a network of Real-ESRGAN, a safetensors file with its own names of tensors: see
    /// [`Enlarger`]. It runs after the last stage of the cascade, in f32, and not where a request ends with an earlier one;
    /// [`Request::size`](crate::Request::size) is the size before it. Large pictures are cut as [`Enlarger::TILING`] says.
    pub fn enlarger(self, file: impl Into<PathBuf>) -> Self {
        self.tiled_enlarger(file, Enlarger::TILING)
    }

    /// As [`enlarger`](Self::enlarger) with tiles of another size: smaller ones take less memory.
    pub fn tiled_enlarger(mut self, file: impl Into<PathBuf>, tiling: Tiling) -> Self {
        self.enlarger = Some((file.into(), tiling));
        self
    }

    /// How much noise is mixed into the smaller picture of published stages of super-resolution: a timestep (default: 250 of
    /// 1000, as published). More hides more of what the stage before got wrong, and lets the stage draw more of its own.
    pub fn noise_level(mut self, timestep: usize) -> Self {
        self.noise_level = Some(timestep);
        self
    }

    /// Clean prompts for published models as their training captions were: without addresses, tags, file names, article
    /// numbers (default: true). What is painted is found by its words only where cleaning leaves them alone.
    pub fn clean_captions(mut self, clean: bool) -> Self {
        self.clean_captions = Some(clean);
        self
    }

    /// How the weights of T5 are held (default: in the precision of the pipeline). [`T5Weights::Int8`] takes half the memory of bf16,
    /// on the CPU alone; `docs/performance.md` says how far its embeddings are off.
    pub fn t5_weights(mut self, weights: T5Weights) -> Self {
        self.t5_weights = weights;
        self
    }

    /// Scales paint by a rule of your own, in the place of the [`Strength`](ediffi_paint::Strength) that canvases carry. It
    /// is not stored in the pictures: only a pipeline with the same rule draws them again.
    pub fn paint_weight(mut self, weight: impl WeightFunction + 'static) -> Self {
        self.paint_weight = Some(Arc::new(weight));
        self
    }
}
