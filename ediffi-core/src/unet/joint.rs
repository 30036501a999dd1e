//! DeepFloyd IF's attention and what its networks derive from the text.

use tch::{Kind, Tensor};

use super::blocks::{EPS, as_map, as_tokens};
use super::config::ContextConfig;
use super::deepfloyd::{Activation, TEXT_NORM_GROUPS};
use super::network::{Painted, sinusoids};
use crate::conditioning::Conditioning;
use crate::nn::{GroupNorm, LayerNorm, Linear, MapNorm, Norm, attend, attend_biased, merge_heads, split_heads};
use crate::weights::{Init, Scope};
use crate::{Error, Result};

/// Pixels attend to the text and, in the same softmax, to each other (diffusers' `AttnAddedKVProcessor`).
#[derive(Debug)]
pub(super) struct JointAttention {
    norm: MapNorm,
    text_norm: GroupNorm,
    q: Linear,
    /// Keys and values of the pixels, unless the layer sees the text alone.
    own: Option<(Linear, Linear)>,
    text_k: Linear,
    text_v: Linear,
    out: Linear,
    heads: i64,
}

impl JointAttention {
    pub(super) fn new(
        mut scope: Scope<'_>,
        width: i64,
        context_width: i64,
        head_channels: i64,
        norm: Norm,
        see_pixels: bool,
    ) -> Result<Self> {
        let own = see_pixels
            .then(|| -> Result<(Linear, Linear)> {
                Ok((Linear::new(scope.at("to_k"), width, width)?, Linear::new(scope.at("to_v"), width, width)?))
            })
            .transpose()?;
        Ok(Self {
            norm: MapNorm::new(scope.at("group_norm"), norm, width, EPS)?,
            text_norm: GroupNorm::new(scope.at("norm_cross"), context_width, TEXT_NORM_GROUPS, EPS)?,
            q: Linear::new(scope.at("to_q"), width, width)?,
            own,
            text_k: Linear::new(scope.at("add_k_proj"), context_width, width)?,
            text_v: Linear::new(scope.at("add_v_proj"), context_width, width)?,
            out: Linear::zeroed(scope.at("to_out.0"), width, width)?,
            heads: width / head_channels,
        })
    }

    /// Keys and values of the text. The norm's statistics are over all tokens of a text, padding included.
    ///
    /// # Shapes
    /// `tokens`: [rows, tokens, context width] → two of [rows, heads, tokens, d]
    pub(super) fn keys_values(&self, tokens: &Tensor) -> Result<(Tensor, Tensor)> {
        let tokens = self.text_norm.forward(&tokens.f_transpose(1, 2)?)?.f_transpose(1, 2)?;
        let k = split_heads(&self.text_k.forward(&tokens)?, self.heads)?;
        let v = split_heads(&self.text_v.forward(&tokens)?, self.heads)?;
        Ok((k.f_contiguous()?, v.f_contiguous()?))
    }

    /// # Shapes
    /// `x`: [n, width, h, w] → the same
    pub(super) fn forward(
        &self,
        x: &Tensor,
        (text_k, text_v): &(Tensor, Tensor),
        painted: Option<Painted<'_>>,
    ) -> Result<Tensor> {
        let (_, _, height, width) = x.size4()?;
        let pixels = as_tokens(&self.norm.forward(x)?)?;
        let q = split_heads(&self.q.forward(&pixels)?, self.heads)?;
        let (k, v) = match &self.own {
            // The text comes first: that is where paint-with-words looks for it.
            Some((k, v)) => (
                Tensor::f_cat(&[text_k, &split_heads(&k.forward(&pixels)?, self.heads)?], 2)?,
                Tensor::f_cat(&[text_v, &split_heads(&v.forward(&pixels)?, self.heads)?], 2)?,
            ),
            None => (text_k.shallow_clone(), text_v.shallow_clone()),
        };
        let attended = match painted {
            Some(p) if p.conditional > 0 => {
                let columns = text_k.size4()?.2;
                attend_biased(&q, &k, &v, (height, width), columns, p.conditional, p.sigma, p.hook)?
            }
            _ => attend(&q, &k, &v)?,
        };
        Ok(x.f_add(&as_map(&self.out.forward(&merge_heads(&attended)?)?, x)?)?)
    }
}

/// Two linear maps with a nonlinearity between, held in f32: the embedding of a noise level.
#[derive(Debug)]
pub(super) struct LevelEmbedding {
    first: Linear,
    second: Linear,
    activation: Activation,
}

impl LevelEmbedding {
    /// `names`: those of the two maps.
    pub(super) fn new(
        mut scope: Scope<'_>,
        names: [&str; 2],
        sinusoids: i64,
        width: i64,
        activation: Activation,
    ) -> Result<Self> {
        let [first, second] = names;
        let first = Linear::precise(scope.at(first), sinusoids, width)?;
        Ok(Self { first, second: Linear::precise(scope.at(second), width, width)?, activation })
    }

    /// # Shapes
    /// `waves`: [n, sinusoids] → [n, width]
    pub(super) fn forward(&self, waves: &Tensor) -> Result<Tensor> {
        self.second.forward(&self.activation.apply(&self.first.forward(waves)?)?)
    }
}

/// The text as one vector (diffusers' `TextTimeEmbedding`): its mean, with a learned vector added, attends to itself and
/// all tokens, padding included.
#[derive(Debug)]
struct TextPool {
    norm1: LayerNorm,
    position: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    heads: i64,
    out: Linear,
    norm2: LayerNorm,
}

impl TextPool {
    fn new(mut scope: Scope<'_>, text_width: i64, width: i64, heads: i64) -> Result<Self> {
        let init = Init::Normal { std: (text_width as f64).sqrt().recip() };
        Ok(Self {
            norm1: LayerNorm::new(scope.at("norm1"), text_width, EPS)?,
            position: scope.weight("pool.positional_embedding", &[1, text_width], init)?,
            q: Linear::new(scope.at("pool.q_proj"), text_width, text_width)?,
            k: Linear::new(scope.at("pool.k_proj"), text_width, text_width)?,
            v: Linear::new(scope.at("pool.v_proj"), text_width, text_width)?,
            heads,
            out: Linear::new(scope.at("proj"), text_width, width)?,
            norm2: LayerNorm::new(scope.at("norm2"), width, EPS)?,
        })
    }

    /// # Shapes
    /// `text`: [rows, tokens, text width] → [rows, width]
    fn forward(&self, text: &Tensor) -> Result<Tensor> {
        let tokens = self.norm1.forward(text)?;
        let mean = tokens.f_mean_dim(1_i64, true, tokens.kind())?;
        let class = mean.f_add(&self.position.f_to_kind(tokens.kind())?)?;
        let all = Tensor::f_cat(&[&class, &tokens], 1)?;
        let heads = |x: &Tensor| split_heads(x, self.heads);
        let attended = attend(
            &heads(&self.q.forward(&class)?)?,
            &heads(&self.k.forward(&all)?)?,
            &heads(&self.v.forward(&all)?)?,
        )?;
        let pooled = merge_heads(&attended)?.f_squeeze_dim(1)?;
        self.norm2.forward(&self.out.forward(&pooled)?)
    }
}

/// What a DeepFloyd IF network derives from the text and from the noise level of the smaller picture.
#[derive(Debug)]
pub(super) struct TextEncoder {
    tokens: i64,
    text_width: i64,
    sinusoids: i64,
    projection: Linear,
    pool: TextPool,
    noise_level: Option<LevelEmbedding>,
}

impl TextEncoder {
    pub(super) fn new(
        mut scope: Scope<'_>,
        context: ContextConfig,
        width: i64,
        heads: i64,
        noise_level: Option<(i64, Activation)>,
    ) -> Result<Self> {
        let (tokens, text_width) = context.t5.map_or((0, 0), |t5| (t5.tokens, t5.width));
        let names = ["class_embedding.linear_1", "class_embedding.linear_2"];
        let level = |(sinusoids, activation)| LevelEmbedding::new(scope.again(), names, sinusoids, width, activation);
        let sinusoids = noise_level.map_or(0, |(sinusoids, _)| sinusoids);
        let noise_level = noise_level.map(level).transpose()?;
        Ok(Self {
            tokens,
            text_width,
            sinusoids,
            projection: Linear::new(scope.at("encoder_hid_proj"), text_width, context.width)?,
            pool: TextPool::new(scope.at("add_embedding"), text_width, width, heads)?,
            noise_level,
        })
    }

    pub(super) fn text_columns(&self) -> i64 {
        self.tokens
    }

    /// The embeddings of T5 as they came, on the network's device. These networks were never trained on zeros in the place
    /// of a text: the absence of one is the embedding of an empty text.
    fn text(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Tensor> {
        let expected = [rows, self.tokens, self.text_width];
        match &conditioning.t5 {
            Some(x) if x.size() == expected => Ok(x.f_to_device(self.pool.position.device())?.f_to_kind(kind)?),
            Some(x) => Err(Error::EmbeddingShape { name: "t5", expected: expected.to_vec(), got: x.size() }),
            None => Err(Error::EmbeddingNeeded { name: "t5" }),
        }
    }

    /// # Shapes
    /// → [rows, tokens, context width]
    pub(super) fn tokens(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Tensor> {
        self.projection.forward(&self.text(conditioning, rows, kind)?)
    }

    /// What is added to the noise embedding.
    ///
    /// # Shapes
    /// `levels`: `[rows]` → [rows, embedding width]
    pub(super) fn pooled(
        &self,
        conditioning: &Conditioning,
        rows: i64,
        kind: Kind,
        levels: Option<&Tensor>,
    ) -> Result<Tensor> {
        let text = self.pool.forward(&self.text(conditioning, rows, kind)?)?;
        match (&self.noise_level, levels) {
            (None, None) => Ok(text),
            (Some(embedding), Some(levels)) => {
                if levels.size() != [rows] {
                    let (name, got) = ("noise level", levels.size());
                    return Err(Error::EmbeddingShape { name, expected: vec![rows], got });
                }
                let waves = sinusoids(&levels.f_to_device(text.device())?, self.sinusoids, true)?;
                Ok(embedding.forward(&waves)?.f_add(&text)?)
            }
            (None, Some(_)) => Err(Error::EmbeddingNotTaken { name: "noise level" }),
            (Some(_), None) => Err(Error::EmbeddingNeeded { name: "noise level" }),
        }
    }
}
