//! eDiff-I's choices, which its base and its super-resolution share: the blocks of ADM, two kinds of attention, and what
//! stands before and after them.

use super::layout::Body;
use super::parts::{
    Beside, CrossAttention, DETAIL, DetailHead, Dimensions, EmbeddingProjections, Heads, Level, Modulation, ResBlock,
    ResBlockConfig, Resample, SelfAttention, Sinusoids, TimeEmbedding, Trunk,
};
use crate::Result;
use crate::nn::{Activation, Conv2d, MapNorm};
use crate::weights::Scope;

/// Makes a layout of a struct of [`Dimensions`] and the function `lay_out` beside it.
macro_rules! ediffi_layout {
    ($layout:ident) => {
        impl crate::unet::stored::Stored for $layout {
            type Own = ();
            type Keys = Dimensions;

            fn stored(&self) -> (&(), &Dimensions) {
                (&(), &self.0)
            }

            fn from_stored((): (), dimensions: Dimensions) -> Self {
                Self(dimensions)
            }
        }

        impl crate::unet::Layout for $layout {
            fn validate(&self) -> Result<()> {
                self.0.validate(self.0.channels)
            }

            fn io(&self) -> crate::unet::Io {
                self.0.io()
            }

            fn build(&self, scope: crate::weights::Scope<'_>) -> Result<crate::unet::Body> {
                self.0.body(scope, lay_out)
            }
        }
    };
}

pub(super) use ediffi_layout;

/// Epsilon of the norms of ADM and EDM.
const EPS: f64 = 1e-5;

impl Dimensions {
    /// Adds a residual block that gives `outputs` channels.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub(super) fn res(&self, trunk: &mut Trunk<'_>, outputs: i64, resample: Resample) -> Result<()> {
        let &Self { embedding_width, norm, .. } = self;
        let config = |inputs| ResBlockConfig {
            inputs,
            outputs,
            embedding_width,
            norm,
            eps: EPS,
            activation: Activation::Silu,
            modulation: Modulation::ScaleShift,
            resample,
            divisor: 1.0,
            names: ["embedding", "skip"],
        };
        trunk.add(trunk.numbered("res"), outputs, |scope, inputs| ResBlock::new(scope, config(inputs)))
    }

    /// Adds the attention of a level: to the pixels, then to the tokens.
    ///
    /// # Errors
    /// Parameters that cannot be had.
    pub(super) fn attention(&self, trunk: &mut Trunk<'_>, level: &Level) -> Result<()> {
        let &Self { head_channels, norm, context, .. } = self;
        let (heads, width) = (Heads::Width(head_channels), trunk.channels());
        if level.self_attention {
            trunk.add(trunk.numbered("self_attention"), width, |scope, width| {
                SelfAttention::new(scope, width, heads, norm, EPS)
            })?;
        }
        if let Some(context) = context.filter(|_| level.cross_attention) {
            trunk.add(trunk.numbered("cross_attention"), width, |scope, width| {
                CrossAttention::new(scope, (width, context.width), heads, norm, EPS)
            })?;
        }
        Ok(())
    }

    /// Builds a network around the blocks that `lay_out` adds.
    ///
    /// # Errors
    /// Those of `lay_out`, and parameters that cannot be had.
    pub(super) fn body(
        &self,
        mut scope: Scope<'_>,
        lay_out: impl FnOnce(&Self, &mut Trunk<'_>) -> Result<()>,
    ) -> Result<Body> {
        let (width, activation, channels) = (self.embedding_width, Activation::Silu, self.width(0));
        let (inputs, outputs) = self.patch_channels();
        let context = self.context.map(|context| EmbeddingProjections::new(scope.at("context"), context, width, EPS));
        let context = context.transpose()?.map(|context| Box::new(context) as _);
        let sinusoids = Sinusoids { width: self.channels, multiply_first: false };
        let time = TimeEmbedding::new(scope.again(), ["noise1", "noise2"], sinusoids, width, activation)?;
        let stem = Conv2d::new(scope.at("stem"), inputs, channels, 3)?;
        let mut trunk = Trunk::new(scope.at("steps"), channels);
        lay_out(self, &mut trunk)?;
        let blocks = trunk.finish()?;
        let pictures = self.picture_channels;
        let beside = Beside {
            pictures: (pictures, if self.low_res { pictures.saturating_mul(2) } else { pictures }),
            patch: self.patch,
            features: channels,
            embedding_width: width,
            norm: (self.norm, EPS),
        };
        let norm = MapNorm::new(scope.at("norm"), self.norm, channels, EPS)?;
        let out = Conv2d::precise(scope.at("out"), channels, outputs, 3)?;
        let detail = self.detail.map(|detail| DetailHead::new(scope.at(DETAIL), detail, beside)).transpose()?;
        Ok(Body {
            context,
            time,
            time_activation: activation,
            patch: self.patch,
            stem,
            blocks,
            norm,
            activation,
            out,
            detail,
        })
    }
}
