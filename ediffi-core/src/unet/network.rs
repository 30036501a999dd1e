//! The network F: a U-Net built from its configuration, run as a list of steps.

use tch::{Device, Kind, Tensor};

use super::blocks::{CrossAttention, EPS, ResBlock, SelfAttention, Upsample};
use super::builder::Builder;
use super::config::{Layout, UNetConfig};
use super::context::{Context, ContextEncoder};
use super::deepfloyd::Activation;
use super::joint::{JointAttention, LevelEmbedding, TextEncoder};
use crate::conditioning::Conditioning;
use crate::nn::{Conv2d, MapNorm, ScoreBias, channels_last};
use crate::weights::Scope;
use crate::{Error, Result};

/// Paint-with-words for one evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Painted<'a> {
    /// What biases the scores.
    pub hook: &'a dyn ScoreBias,
    /// Noise level of this evaluation.
    pub sigma: f64,
    /// How many rows, from the first, are conditional; the others are left alone.
    pub conditional: i64,
}

/// One step of the network.
#[derive(Debug)]
pub(super) enum Step {
    Res(ResBlock),
    SelfAttention(SelfAttention),
    CrossAttention(CrossAttention),
    JointAttention(JointAttention),
    Down(Conv2d),
    Up(Upsample),
    /// Keeps the feature map for the way up.
    Push,
    /// Concatenates the feature map kept last, times this scale.
    Concat(f64),
}

/// What makes a context of a conditioning.
#[derive(Debug)]
enum Source {
    Nothing,
    Ediffi(ContextEncoder),
    DeepFloyd(TextEncoder),
}

/// What differs between the layouts outside of the blocks.
struct Frame {
    activation: Activation,
    embedding_activation: Activation,
    eps: f64,
    /// Names of the two maps of the noise level, of the first convolution, of the steps, of the last norm and convolution.
    names: ([&'static str; 2], &'static str, &'static str, &'static str, &'static str),
}

impl Frame {
    fn of(layout: &Layout) -> Self {
        match layout {
            Layout::DeepFloyd(layout) => Self {
                activation: layout.activation,
                embedding_activation: layout.embedding_activation,
                eps: layout.norm_eps,
                names: (
                    ["time_embedding.linear_1", "time_embedding.linear_2"],
                    "conv_in",
                    "",
                    "conv_norm_out",
                    "conv_out",
                ),
            },
            Layout::Adm | Layout::Efficient => Self {
                activation: Activation::Silu,
                embedding_activation: Activation::Silu,
                eps: EPS,
                names: (["noise1", "noise2"], "stem", "steps", "norm", "out"),
            },
        }
    }
}

/// The network F of a denoiser.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    kind: Kind,
    source: Source,
    noise: LevelEmbedding,
    activation: Activation,
    embedding_activation: Activation,
    stem: Conv2d,
    /// With their names; what carries no parameters has none.
    steps: Vec<(String, Step)>,
    norm: MapNorm,
    out: Conv2d,
}

impl UNet {
    /// Builds the network from its parameters; it computes in `kind`.
    ///
    /// # Errors
    /// Dimensions that make no network, or parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, config: &UNetConfig, kind: Kind) -> Result<Self> {
        config.validate()?;
        let width = config.embedding_width;
        let pixels = config.patch * config.patch * 3;
        let inputs = if config.low_res { 2 * pixels } else { pixels };
        let Frame { activation, embedding_activation, eps, names } = Frame::of(&config.layout);
        let (noise_names, stem, steps, norm, out) = names;
        let source = match (&config.layout, config.context) {
            (Layout::DeepFloyd(layout), Some(context)) => {
                let level = layout.noise_level.then_some((config.sinusoids(), activation));
                Source::DeepFloyd(TextEncoder::new(scope.again(), context, width, layout.text_heads, level)?)
            }
            (_, Some(context)) => Source::Ediffi(ContextEncoder::new(scope.at("context"), context, width)?),
            (_, None) => Source::Nothing,
        };
        let noise = LevelEmbedding::new(scope.again(), noise_names, config.sinusoids(), width, activation)?;
        let stem = Conv2d::new(scope.at(stem), inputs, config.width(0), 3)?;
        let steps_scope = if steps.is_empty() { scope.again() } else { scope.at(steps) };
        let steps = Builder::new(steps_scope, config).build()?;
        let norm = MapNorm::new(scope.at(norm), config.norm, config.width(0), eps)?;
        let out = Conv2d::zeroed(scope.at(out), config.width(0), config.outputs() * pixels, 3)?;
        let config = config.clone();
        Ok(Self { config, kind, source, noise, activation, embedding_activation, stem, steps, norm, out })
    }

    /// The dimensions it was built from.
    #[must_use]
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Where the network computes.
    #[must_use]
    pub fn device(&self) -> Device {
        self.stem.device()
    }

    /// What the network derives from `conditioning` for `rows` pictures, once for a whole generation.
    ///
    /// # Errors
    /// An embedding that the network has no place for, one that it cannot do without, or one of another shape than the
    /// configuration says.
    pub fn context(&self, conditioning: &Conditioning, rows: i64) -> Result<Context> {
        self.context_of(conditioning, rows, None)
    }

    /// As [`context`](Self::context) for a network that is told how noisy the smaller picture has been made.
    ///
    /// # Shapes
    /// `levels`: `[rows]`, the timestep whose noise has been added to each smaller picture
    ///
    /// # Errors
    /// As [`context`](Self::context); a network that takes no noise level.
    pub fn context_noised(&self, conditioning: &Conditioning, rows: i64, levels: &Tensor) -> Result<Context> {
        self.context_of(conditioning, rows, Some(levels))
    }

    fn context_of(&self, conditioning: &Conditioning, rows: i64, levels: Option<&Tensor>) -> Result<Context> {
        ContextEncoder::refuse(self.config.context.as_ref(), conditioning)?;
        let low_res = match (&conditioning.low_res, self.config.low_res) {
            (Some(x), true) => Some(x.f_to_kind(self.kind)?),
            (None, false) => None,
            (given, _) => return Err(Error::LowRes { given: given.is_some() }),
        };
        if levels.is_some() && !self.config.takes_noise_level() {
            return Err(Error::EmbeddingNotTaken { name: "noise level" });
        }
        let (pooled, tokens, text_columns) = match &self.source {
            Source::Nothing => (None, None, 0),
            Source::Ediffi(encoder) => (
                encoder.pooled(conditioning, rows, self.kind)?,
                Some(encoder.tokens(conditioning, rows, self.kind)?),
                encoder.text_columns(),
            ),
            Source::DeepFloyd(encoder) => (
                Some(encoder.pooled(conditioning, rows, self.kind, levels)?),
                Some(encoder.tokens(conditioning, rows, self.kind)?),
                encoder.text_columns(),
            ),
        };
        let mut context = Context { keys_values: Vec::new(), pooled, low_res, text_columns };
        for (_, step) in &self.steps {
            match (step, &tokens) {
                (Step::CrossAttention(layer), Some(tokens)) => context.keys_values.push(layer.keys_values(tokens)?),
                (Step::JointAttention(layer), Some(tokens)) => context.keys_values.push(layer.keys_values(tokens)?),
                _ => {}
            }
        }
        Ok(context)
    }

    /// F(x; c_noise, context).
    ///
    /// # Shapes
    /// `x`: [rows, 3, h, w] f32, `c_noise`: `[rows]` f32 → [rows, 3, h, w] f32, or [rows, 6, h, w] from a network that
    /// [predicts a variance](UNetConfig::predicts_variance)
    ///
    /// # Errors
    /// A height or width that is no multiple of [`UNetConfig::size_multiple`], or an error of libtorch or of the hook.
    pub fn forward(
        &self,
        x: &Tensor,
        c_noise: &Tensor,
        context: &Context,
        painted: Option<Painted<'_>>,
    ) -> Result<Tensor> {
        self.forward_tapped(x, c_noise, context, painted, |_, _| {})
    }

    /// [`forward`](Self::forward), showing `tap` what every part of the network with a name gives.
    pub(super) fn forward_tapped(
        &self,
        x: &Tensor,
        c_noise: &Tensor,
        context: &Context,
        painted: Option<Painted<'_>>,
        mut tap: impl FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        let multiple = self.config.size_multiple();
        if height < multiple || width < multiple || height % multiple != 0 || width % multiple != 0 {
            return Err(Error::ImageSize { width, height, multiple });
        }
        let embedding = self.embedding(c_noise, context, &mut tap)?;
        let mut h = x.f_to_kind(self.kind)?;
        if let Some(low_res) = &context.low_res {
            h = Tensor::f_cat(&[&h, low_res], 1)?;
        }
        if self.config.patch > 1 {
            h = h.f_pixel_unshuffle(self.config.patch)?;
        }
        h = self.stem.forward(&channels_last(&h)?)?;
        tap("conv_in", &h);
        let mut skips = Vec::new();
        let mut keys_values = context.keys_values.iter();
        for (name, step) in &self.steps {
            h = match step {
                Step::Res(block) => block.forward(&h, &embedding)?,
                Step::SelfAttention(layer) => layer.forward(&h)?,
                Step::CrossAttention(layer) => match keys_values.next() {
                    Some(kv) => layer.forward(&h, kv, context.text_columns, painted)?,
                    None => return Err(Error::ForeignContext),
                },
                Step::JointAttention(layer) => match keys_values.next() {
                    Some(kv) => layer.forward(&h, kv, painted)?,
                    None => return Err(Error::ForeignContext),
                },
                Step::Down(conv) => conv.forward(&h)?,
                Step::Up(up) => up.forward(&h)?,
                Step::Push => {
                    skips.push(h.shallow_clone());
                    h
                }
                Step::Concat(scale) => match skips.pop() {
                    Some(skip) if *scale == 1.0 => Tensor::f_cat(&[&h, &skip], 1)?,
                    Some(skip) => Tensor::f_cat(&[&h, &skip.f_mul_scalar(*scale)?], 1)?,
                    None => h,
                },
            };
            if !name.is_empty() {
                tap(name, &h);
            }
        }
        h = self.norm.forward(&h)?;
        tap("conv_norm_out", &h);
        h = self.out.forward(&self.activation.apply(&h)?)?;
        if self.config.patch > 1 {
            h = h.f_pixel_shuffle(self.config.patch)?;
        }
        Ok(h.f_to_kind(Kind::Float)?.f_contiguous()?)
    }

    /// The noise embedding plus the pooled conditioning after its nonlinearity, computed in f32.
    fn embedding(&self, c_noise: &Tensor, context: &Context, tap: &mut impl FnMut(&str, &Tensor)) -> Result<Tensor> {
        let published = matches!(self.config.layout, Layout::DeepFloyd(_));
        let waves = sinusoids(c_noise, self.config.sinusoids(), published)?;
        let mut embedding = self.noise.forward(&waves)?;
        tap("time_embedding", &embedding);
        if let Some(pooled) = &context.pooled {
            embedding = embedding.f_add(pooled)?;
        }
        Ok(self.embedding_activation.apply(&embedding)?.f_to_kind(self.kind)?)
    }
}

/// Cosines and sines of c_noise at frequencies 10000^(-k / half), k = 0 … half − 1 (EDM's positional embedding).
///
/// `published`: with the roundings of diffusers. The last bit of a frequency is 10⁻⁵ of an angle at timestep 999.
///
/// # Shapes
/// `[n]` → [n, width] f32
pub(super) fn sinusoids(c_noise: &Tensor, width: i64, published: bool) -> Result<Tensor> {
    let half = width / 2;
    let options = (Kind::Float, c_noise.device());
    let (steps, log) = (Tensor::f_arange(half, options)?, -(10_000_f64.ln()));
    let exponent = if published {
        steps.f_mul_scalar(log)?.f_div_scalar(half as f64)?
    } else {
        steps.f_div_scalar(half as f64)?.f_mul_scalar(log)?
    };
    let angles = c_noise.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&exponent.f_exp()?.f_unsqueeze(0)?)?;
    Ok(Tensor::f_cat(&[angles.f_cos()?, angles.f_sin()?], 1)?)
}
