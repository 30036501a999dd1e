//! The network F: a U-Net built from its configuration, run as a list of steps.

use tch::{Device, Kind, Tensor};

use super::blocks::{CrossAttention, EPS, ResBlock, Resample, SelfAttention, Upsample};
use super::config::{Layout, Level, UNetConfig};
use super::context::{Context, ContextEncoder};
use crate::conditioning::Conditioning;
use crate::nn::{Conv2d, Linear, MapNorm, ScoreBias, channels_last};
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
enum Step {
    Res(ResBlock),
    SelfAttention(SelfAttention),
    CrossAttention(CrossAttention),
    Down(Conv2d),
    Up(Upsample),
    /// Keeps the feature map for the way up.
    Push,
    /// Concatenates the feature map kept last, times this scale.
    Concat(f64),
}

/// The network F of a denoiser.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    kind: Kind,
    context: Option<ContextEncoder>,
    noise1: Linear,
    noise2: Linear,
    stem: Conv2d,
    steps: Vec<Step>,
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
        let context = config.context.map(|c| ContextEncoder::new(scope.at("context"), c, width)).transpose()?;
        let noise1 = Linear::precise(scope.at("noise1"), config.channels, width)?;
        let noise2 = Linear::precise(scope.at("noise2"), width, width)?;
        let stem = Conv2d::new(scope.at("stem"), inputs, config.width(0), 3)?;
        let steps = Builder::new(scope.at("steps"), config).build()?;
        let norm = MapNorm::new(scope.at("norm"), config.norm, config.width(0), EPS)?;
        let out = Conv2d::zeroed(scope.at("out"), config.width(0), pixels, 3)?;
        Ok(Self { config: config.clone(), kind, context, noise1, noise2, stem, steps, norm, out })
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
    /// An embedding that the network has no place for, or one of another shape than the configuration says.
    pub fn context(&self, conditioning: &Conditioning, rows: i64) -> Result<Context> {
        ContextEncoder::refuse(self.config.context.as_ref(), conditioning)?;
        let low_res = match (&conditioning.low_res, self.config.low_res) {
            (Some(x), true) => Some(x.f_to_kind(self.kind)?),
            (None, false) => None,
            (given, _) => return Err(Error::LowRes { given: given.is_some() }),
        };
        let mut context = Context { keys_values: Vec::new(), pooled: None, low_res, text_columns: 0 };
        if let Some(encoder) = &self.context {
            context.pooled = encoder.pooled(conditioning, rows, self.kind)?;
            context.text_columns = encoder.text_columns();
            let tokens = encoder.tokens(conditioning, rows, self.kind)?;
            for step in &self.steps {
                if let Step::CrossAttention(layer) = step {
                    context.keys_values.push(layer.keys_values(&tokens)?);
                }
            }
        }
        Ok(context)
    }

    /// F(x; c_noise, context).
    ///
    /// # Shapes
    /// `x`: [rows, 3, h, w] f32, `c_noise`: `[rows]` f32 → [rows, 3, h, w] f32
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
        let (_, _, height, width) = x.size4()?;
        let multiple = self.config.size_multiple();
        if height < multiple || width < multiple || height % multiple != 0 || width % multiple != 0 {
            return Err(Error::ImageSize { width, height, multiple });
        }
        let embedding = self.embedding(c_noise, context)?;
        let mut h = x.f_to_kind(self.kind)?;
        if let Some(low_res) = &context.low_res {
            h = Tensor::f_cat(&[&h, low_res], 1)?;
        }
        if self.config.patch > 1 {
            h = h.f_pixel_unshuffle(self.config.patch)?;
        }
        h = self.stem.forward(&channels_last(&h)?)?;
        let mut skips = Vec::new();
        let mut keys_values = context.keys_values.iter();
        for step in &self.steps {
            h = match step {
                Step::Res(block) => block.forward(&h, &embedding)?,
                Step::SelfAttention(layer) => layer.forward(&h)?,
                Step::CrossAttention(layer) => match keys_values.next() {
                    Some(kv) => layer.forward(&h, kv, context.text_columns, painted)?,
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
        }
        h = self.out.forward(&self.norm.forward(&h)?.f_silu()?)?;
        if self.config.patch > 1 {
            h = h.f_pixel_shuffle(self.config.patch)?;
        }
        Ok(h.f_to_kind(Kind::Float)?.f_contiguous()?)
    }

    /// SiLU of the noise embedding plus the pooled conditioning, computed in f32.
    fn embedding(&self, c_noise: &Tensor, context: &Context) -> Result<Tensor> {
        let waves = sinusoids(c_noise, self.config.channels)?;
        let mut embedding = self.noise2.forward(&self.noise1.forward(&waves)?.f_silu()?)?;
        if let Some(pooled) = &context.pooled {
            embedding = embedding.f_add(pooled)?;
        }
        Ok(embedding.f_silu()?.f_to_kind(self.kind)?)
    }
}

/// Cosines and sines of c_noise at frequencies 10000^(-k / half), k = 0 … half − 1 (EDM's positional embedding).
///
/// # Shapes
/// `[n]` → [n, width] f32
fn sinusoids(c_noise: &Tensor, width: i64) -> Result<Tensor> {
    let half = width / 2;
    let options = (Kind::Float, c_noise.device());
    let exponent = Tensor::f_arange(half, options)?.f_div_scalar(half as f64)?;
    let frequencies = exponent.f_mul_scalar(-(10_000_f64.ln()))?.f_exp()?;
    let angles = c_noise.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&frequencies.f_unsqueeze(0)?)?;
    Ok(Tensor::f_cat(&[angles.f_cos()?, angles.f_sin()?], 1)?)
}

/// Lays out the steps and keeps track of channels, as both layouts need them.
struct Builder<'a, 'b> {
    scope: Scope<'a>,
    config: &'b UNetConfig,
    steps: Vec<Step>,
    channels: i64,
    skips: Vec<i64>,
}

impl<'a, 'b> Builder<'a, 'b> {
    fn new(scope: Scope<'a>, config: &'b UNetConfig) -> Self {
        Self { scope, config, steps: Vec::new(), channels: config.width(0), skips: Vec::new() }
    }

    fn build(mut self) -> Result<Vec<Step>> {
        match self.config.layout {
            Layout::Adm => self.adm()?,
            Layout::Efficient => self.efficient()?,
        }
        Ok(self.steps)
    }

    fn adm(&mut self) -> Result<()> {
        let levels = &self.config.levels;
        let last = levels.len() - 1;
        self.push();
        for (i, level) in levels.iter().enumerate() {
            for _ in 0..level.blocks {
                self.res(self.config.width(i), Resample::Keep)?;
                self.attention(level)?;
                self.push();
            }
            if i < last {
                self.res(self.config.width(i), Resample::Halve)?;
                self.push();
            }
        }
        self.res(self.config.width(last), Resample::Keep)?;
        if let Some(deepest) = levels.last() {
            self.attention(deepest)?;
        }
        self.res(self.config.width(last), Resample::Keep)?;
        for (i, level) in levels.iter().enumerate().rev() {
            for _ in 0..=level.blocks {
                self.concat(1.0);
                self.res(self.config.width(i), Resample::Keep)?;
                self.attention(level)?;
            }
            if i > 0 {
                self.res(self.config.width(i), Resample::Double)?;
            }
        }
        Ok(())
    }

    fn efficient(&mut self) -> Result<()> {
        let levels = &self.config.levels;
        let last = levels.len() - 1;
        for (i, level) in levels.iter().enumerate() {
            if i > 0 {
                let name = self.name("down");
                let conv = Conv2d::strided(self.scope.at(&name), self.channels, self.config.width(i), 3, 2)?;
                self.channels = self.config.width(i);
                self.steps.push(Step::Down(conv));
            }
            self.level(i, level)?;
            // The deepest level's way up begins where its way down ends: nothing to carry over.
            if i < last {
                self.push();
            }
        }
        for (i, level) in levels.iter().enumerate().rev() {
            if i < last {
                self.concat(std::f64::consts::FRAC_1_SQRT_2);
            }
            self.level(i, level)?;
            if i > 0 {
                let name = self.name("up");
                let conv = Conv2d::new(self.scope.at(&name), self.channels, self.config.width(i - 1), 3)?;
                self.channels = self.config.width(i - 1);
                self.steps.push(Step::Up(Upsample(conv)));
            }
        }
        Ok(())
    }

    fn level(&mut self, index: usize, level: &Level) -> Result<()> {
        for _ in 0..level.blocks {
            self.res(self.config.width(index), Resample::Keep)?;
        }
        self.attention(level)
    }

    fn res(&mut self, outputs: i64, resample: Resample) -> Result<()> {
        let name = self.name("res");
        let block = ResBlock::new(
            self.scope.at(&name),
            (self.channels, outputs),
            self.config.embedding_width,
            self.config.norm,
            resample,
        )?;
        self.channels = outputs;
        self.steps.push(Step::Res(block));
        Ok(())
    }

    fn attention(&mut self, level: &Level) -> Result<()> {
        let (channels, head, norm) = (self.channels, self.config.head_channels, self.config.norm);
        if level.self_attention {
            let name = self.name("self_attention");
            self.steps.push(Step::SelfAttention(SelfAttention::new(self.scope.at(&name), channels, head, norm)?));
        }
        if let (true, Some(context)) = (level.cross_attention, &self.config.context) {
            let name = self.name("cross_attention");
            let layer = CrossAttention::new(self.scope.at(&name), channels, context.width, head, norm)?;
            self.steps.push(Step::CrossAttention(layer));
        }
        Ok(())
    }

    fn push(&mut self) {
        self.skips.push(self.channels);
        self.steps.push(Step::Push);
    }

    fn concat(&mut self, scale: f64) {
        self.channels += self.skips.pop().unwrap_or(0);
        self.steps.push(Step::Concat(scale));
    }

    /// Names count the steps from 0: `3.res`, `4.self_attention`.
    fn name(&self, what: &str) -> String {
        format!("{}.{what}", self.steps.len())
    }
}
