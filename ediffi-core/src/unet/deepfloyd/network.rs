//! DeepFloyd IF's layout: what its networks do differently from eDiff-I's.
//!
//! The blocks are those of ADM. In the place of two kinds of attention stands one, in which pixels attend to the text and
//! to each other at once; the text also enters through the noise embedding, pooled by attention. Parameters carry the
//! names of diffusers' `UNet2DConditionModel`, so that published files load as they are.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::nn::{Activation, Linear, Norm};
use crate::unet::context::{ContextSource, Encoded};
use crate::unet::io::{EmbeddingShapes, Io, Tokens};
use crate::unet::joint_adm::{ATTENTION_EPS, Joint, JointAdm, deepest};
use crate::unet::layout::{Body, Layout};
use crate::unet::parts::{
    ContextConfig, Dimensions, Level, Modulation, Sinusoids, TEXT_NORM_GROUPS, TextPool, TimeEmbedding,
};
use crate::unet::stored::Stored;
use crate::weights::Scope;
use crate::{Error, Result};

/// Tokens that DeepFloyd IF pads every text to. Its networks see all of them: the group norm over the text has statistics
/// over the padding too, so another length gives other pictures.
pub const TEXT_TOKENS: i64 = 77;

/// The dimensions of a DeepFloyd IF network. A level's `cross_attention` says whether it has attention at all, its
/// `self_attention` whether the pixels are among what that attention sees; the context is T5 alone.
#[derive(Debug, Clone, PartialEq)]
pub struct DeepFloyd {
    /// What it shares with other layouts.
    pub dimensions: Dimensions,
    /// What is its own.
    pub switches: Switches,
}

/// The switches of DeepFloyd IF's layout.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switches {
    /// Whether the output has as many channels again, which say where between its bounds the variance of a DDPM step lies.
    pub variance: bool,
    /// Whether the network is told how noisy the smaller picture has been made.
    pub noise_level: bool,
    /// The nonlinearity of the blocks and of the first linear map of an embedding.
    pub activation: Activation,
    /// The nonlinearity of the finished noise embedding.
    pub embedding_activation: Activation,
    /// Epsilon of the norms of residual blocks and of the last one; that of attention is always 1e-5.
    pub norm_eps: f64,
    /// What the sum at the end of a residual block is divided by.
    pub residual_scale: f64,
    /// The same for the two blocks of the middle.
    pub middle_scale: f64,
    /// Whether the attention of the middle sees the pixels.
    pub middle_self_attention: bool,
    /// Heads of the attention that pools the text.
    pub text_heads: i64,
}

impl DeepFloyd {
    /// The context of T5 alone, with its tokens.
    fn context(&self) -> Result<(ContextConfig, Tokens)> {
        let wrong = |reason: &str| Error::NetworkConfig { field: "context", reason: reason.to_owned() };
        let context = self.dimensions.context.ok_or_else(|| wrong("this layout takes T5"))?;
        let t5 = context.t5.filter(|_| context.clip_text.is_none() && context.clip_image.is_none());
        Ok((context, t5.ok_or_else(|| wrong("this layout takes T5 and nothing else"))?))
    }
}

impl Stored for DeepFloyd {
    type Own = Switches;
    type Keys = Dimensions;

    fn stored(&self) -> (&Switches, &Dimensions) {
        (&self.switches, &self.dimensions)
    }

    fn from_stored(switches: Switches, dimensions: Dimensions) -> Self {
        Self { dimensions, switches }
    }
}

impl Layout for DeepFloyd {
    fn validate(&self) -> Result<()> {
        let Self { dimensions, switches } = self;
        dimensions.validate(dimensions.width(0))?;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let Switches { norm_eps, residual_scale, middle_scale, noise_level, text_heads, .. } = *switches;
        let scaled = positive(norm_eps) && positive(residual_scale) && positive(middle_scale);
        let text = |level: &Level| level.cross_attention || !level.self_attention;
        let (context, t5) = self.context()?;
        for (right, field, reason) in [
            (scaled, "layout", "norm_eps, residual_scale and middle_scale have to be positive and finite"),
            (dimensions.patch == 1, "patch", "this layout has no patches"),
            (dimensions.detail.is_none(), "detail", "this layout has no detail head"),
            (matches!(dimensions.norm, Norm::Group(_)), "norm", "this layout has group norms"),
            (
                dimensions.low_res || !noise_level,
                "low_res",
                "a noise level is that of a smaller picture, which is needed",
            ),
            (dimensions.levels.iter().all(text), "levels", "attention of this layout always sees the text"),
            (
                deepest(dimensions) % dimensions.head_channels == 0,
                "head_channels",
                "it does not divide the channels of the last level, whose middle has attention",
            ),
            (context.width % TEXT_NORM_GROUPS == 0, "context", "32 groups have to divide its width"),
            (text_heads > 0 && t5.width % text_heads.max(1) == 0, "layout", "text_heads has to divide the width of T5"),
        ] {
            if !right {
                return Err(Error::NetworkConfig { field, reason: reason.to_owned() });
            }
        }
        Ok(())
    }

    fn io(&self) -> Io {
        let Switches { variance, noise_level, .. } = self.switches;
        Io { variance, noise_level, ..self.dimensions.io() }
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<Body> {
        let (context, t5) = self.context()?;
        let source = TextSource::new(scope.again(), self, context, t5)?;
        let Switches { variance, activation, embedding_activation, norm_eps, .. } = self.switches;
        let Switches { residual_scale, middle_scale, middle_self_attention, .. } = self.switches;
        let network = JointAdm {
            dimensions: &self.dimensions,
            variance,
            activation,
            embedding_activation,
            norm_eps,
            modulation: Modulation::ScaleShift,
            scales: [residual_scale, middle_scale],
            attention: Some(Joint { width: context.width, normed: true, middle_sees_pixels: middle_self_attention }),
        };
        network.body(scope, Some(Box::new(source)))
    }
}

/// What a DeepFloyd IF network derives from the text and from the noise level of the smaller picture.
#[derive(Debug)]
struct TextSource {
    t5: Tokens,
    projection: Linear,
    pool: TextPool,
    noise_level: Option<TimeEmbedding>,
}

impl TextSource {
    fn new(mut scope: Scope<'_>, network: &DeepFloyd, context: ContextConfig, t5: Tokens) -> Result<Self> {
        let (width, Switches { activation, text_heads, .. }) = (network.dimensions.embedding_width, network.switches);
        let sinusoids = Sinusoids { width: network.dimensions.width(0), multiply_first: true };
        let names = ["class_embedding.linear_1", "class_embedding.linear_2"];
        let level = || TimeEmbedding::new(scope.again(), names, sinusoids, width, activation);
        let noise_level = network.switches.noise_level.then(level).transpose()?;
        Ok(Self {
            t5,
            projection: Linear::new(scope.at("encoder_hid_proj"), t5.width, context.width)?,
            pool: TextPool::new(scope.at("add_embedding"), t5.width, width, text_heads, ATTENTION_EPS)?,
            noise_level,
        })
    }
}

impl ContextSource for TextSource {
    /// These networks were never trained on zeros in the place of a text: the absence of one is the embedding of an empty
    /// text.
    fn encode(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Encoded> {
        let Tokens { tokens, width } = self.t5;
        let text = EmbeddingShapes::checked("t5", conditioning.t5.as_ref(), &[rows, tokens, width])?;
        let text = text.ok_or(Error::EmbeddingNeeded("t5"))?;
        let text = text.f_to_device(self.pool.device())?.f_to_kind(kind)?;
        let pooled = self.pool.forward(&text)?;
        let level = EmbeddingShapes::checked("noise_level", conditioning.noise_level.as_ref(), &[rows])?;
        let pooled = match (&self.noise_level, level) {
            (Some(embedding), Some(level)) => {
                embedding.forward(&level.f_to_device(pooled.device())?)?.f_add(&pooled)?
            }
            (Some(_), None) => return Err(Error::EmbeddingNeeded("noise_level")),
            (None, _) => pooled,
        };
        let tokens_of_text: Tensor = self.projection.forward(&text)?;
        Ok(Encoded { pooled: Some(pooled), tokens: tokens_of_text, text_columns: tokens, mask: None })
    }
}
