//! unCLIP's layout (Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents"; Karlo): a decoder that sees the
//! embedding of an image beside the text, and super-resolution that sees the smaller picture alone.
//!
//! The blocks are those of ADM, the attention is DeepFloyd IF's without a norm over the text. Parameters carry the names of diffusers'
//! `UNet2DConditionModel` and `UNet2DModel`; those of `UnCLIPTextProjModel`, which is a file of its own, stand below `text_proj`.

use serde::{Deserialize, Serialize};

use super::source::TextProjection;
use crate::nn::{Activation, Norm};
use crate::unet::io::{ClipText, Io};
use crate::unet::joint_adm::{Joint, JointAdm, deepest};
use crate::unet::layout::{Body, Layout};
use crate::unet::parts::{ContextConfig, Dimensions, Level, Modulation};
use crate::unet::stored::Stored;
use crate::weights::Scope;
use crate::{Error, Result};

/// The dimensions of one of unCLIP's networks. A level's `cross_attention` says whether it has attention at all, its `self_attention` whether
/// the pixels are among what that sees. A decoder's context is CLIP's text, tokens and pooled, and its image embedding, all of one width;
/// without a context it is a network of super-resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct UnClip {
    /// What it shares with other layouts.
    pub dimensions: Dimensions,
    /// What is its own.
    pub switches: UnClipSwitches,
}

/// The switches of unCLIP's layout.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnClipSwitches {
    /// Whether the output has as many channels again, which say where between its bounds the variance of a DDPM step lies.
    pub variance: bool,
    /// How the noise embedding enters the residual blocks.
    pub modulation: Modulation,
    /// The nonlinearity of the blocks and of the noise embedding.
    pub activation: Activation,
    /// Epsilon of the norms of residual blocks and of the last one; that of attention is always 1e-5.
    pub norm_eps: f64,
    /// What the sum at the end of a residual block is divided by.
    pub residual_scale: f64,
    /// The same for the two blocks of the middle.
    pub middle_scale: f64,
    /// Whether the attention of the middle sees the pixels.
    pub middle_self_attention: bool,
    /// Tokens that the image embedding becomes; 0 without a context.
    pub image_tokens: i64,
}

impl UnClip {
    /// The context of CLIP, with the text that it takes and its width; none of super-resolution.
    fn context(&self) -> Result<Option<(ContextConfig, ClipText)>> {
        let Some(context) = self.dimensions.context else { return Ok(None) };
        let text = context.clip_text.filter(|_| context.t5.is_none());
        let text = text.filter(|text| text.pooled == Some(text.width) && context.clip_image == text.pooled);
        match text {
            Some(text) => Ok(Some((context, text))),
            None => Err(Error::NetworkConfig {
                field: "context",
                reason:
                    "this layout takes CLIP's text, tokens and pooled, and its image embedding, all of one width, and \
                         nothing else"
                        .to_owned(),
            }),
        }
    }
}

impl Stored for UnClip {
    type Own = UnClipSwitches;
    type Keys = Dimensions;

    fn stored(&self) -> (&UnClipSwitches, &Dimensions) {
        (&self.switches, &self.dimensions)
    }

    fn from_stored(switches: UnClipSwitches, dimensions: Dimensions) -> Self {
        Self { dimensions, switches }
    }
}

impl Layout for UnClip {
    fn validate(&self) -> Result<()> {
        /// The most tokens of an image; Karlo's has four.
        const MOST_TOKENS: i64 = 1024;
        let Self { dimensions, switches } = self;
        dimensions.validate(dimensions.width(0))?;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let UnClipSwitches { norm_eps, residual_scale, middle_scale, image_tokens, .. } = *switches;
        let scaled = positive(norm_eps) && positive(residual_scale) && positive(middle_scale);
        let text = |level: &Level| level.cross_attention || !level.self_attention;
        let reads = self.context()?.is_some();
        for (right, field, reason) in [
            (scaled, "layout", "norm_eps, residual_scale and middle_scale have to be positive and finite"),
            (dimensions.patch == 1, "patch", "this layout has no patches"),
            (dimensions.detail.is_none(), "detail", "this layout has no detail head"),
            (matches!(dimensions.norm, Norm::Group(_)), "norm", "this layout has group norms"),
            (dimensions.levels.iter().all(text), "levels", "attention of this layout always sees the text"),
            (
                !reads || deepest(dimensions) % dimensions.head_channels == 0,
                "head_channels",
                "it does not divide the channels of the last level, whose middle has attention",
            ),
            (
                if reads { (1..=MOST_TOKENS).contains(&image_tokens) } else { image_tokens == 0 },
                "layout",
                "image_tokens has to be between 1 and 1024, and 0 without a context",
            ),
        ] {
            if !right {
                return Err(Error::NetworkConfig { field, reason: reason.to_owned() });
            }
        }
        Ok(())
    }

    fn io(&self) -> Io {
        Io { variance: self.switches.variance, ..self.dimensions.io() }
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<Body> {
        let UnClipSwitches { variance, modulation, activation, norm_eps, image_tokens, .. } = self.switches;
        let UnClipSwitches { residual_scale, middle_scale, middle_self_attention, .. } = self.switches;
        let context = self.context()?;
        let source = |(context, text): (ContextConfig, ClipText)| {
            let widths = (context.width, self.dimensions.embedding_width);
            TextProjection::new(scope.at("text_proj"), text, image_tokens, widths)
        };
        let source = context.map(source).transpose()?;
        let network = JointAdm {
            dimensions: &self.dimensions,
            variance,
            activation,
            embedding_activation: activation,
            norm_eps,
            modulation,
            scales: [residual_scale, middle_scale],
            attention: context.map(|(context, _)| Joint {
                width: context.width,
                normed: false,
                middle_sees_pixels: middle_self_attention,
            }),
        };
        network.body(scope, source.map(|source| Box::new(source) as _))
    }
}
