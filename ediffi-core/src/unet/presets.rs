//! The dimensions that eDiff-I publishes (appendix A, tables 2 to 4).
//!
//! Not in the paper, and chosen here: 64 channels a head (ADM's and EDM's), a noise embedding four times as wide as the
//! base channels (ADM's), a context width of 1024, 32 groups a norm (ADM's).

use super::config::{ClipText, ContextConfig, Layout, Level, Tokens, UNetConfig};
use crate::nn::Norm;

/// T5-XXL (113 tokens), CLIP L/14 text (77) and image (1): eDiff-I §4.2 and its published encoders' widths.
const CONTEXT: ContextConfig = ContextConfig {
    width: 1024,
    t5: Some(Tokens { tokens: 113, width: 4096 }),
    clip_text: Some(ClipText { tokens: 77, width: 768, pooled: 768 }),
    clip_image: Some(768),
};

impl UNetConfig {
    /// Table 2, the 64×64 base: channels 256 × (1, 2, 4, 4), 3 blocks, self- and cross-attention at 32, 16 and 8.
    #[must_use]
    pub fn base_64() -> Self {
        let levels = [(1, false), (2, true), (4, true), (4, true)];
        Self {
            layout: Layout::Adm,
            low_res: false,
            channels: 256,
            embedding_width: 1024,
            levels: levels
                .map(|(multiplier, attention)| Level {
                    multiplier,
                    blocks: 3,
                    self_attention: attention,
                    cross_attention: attention,
                })
                .to_vec(),
            ..Self::paper()
        }
    }

    /// Table 3, 64 → 256: channels 128 × (1, 2, 4, 8), 2 × (1, 2, 4, 4) blocks, self- and cross-attention at 32.
    #[must_use]
    pub fn sr_256() -> Self {
        Self { levels: efficient([1, 2, 4, 8], true), ..Self::paper() }
    }

    /// Table 4, 256 → 1024: channels 128 × (1, 2, 4, 4), 2 × (1, 2, 4, 4) blocks, cross-attention alone, at the side that
    /// is 32 in its 256×256 training crops.
    #[must_use]
    pub fn sr_1024() -> Self {
        Self { levels: efficient([1, 2, 4, 4], false), ..Self::paper() }
    }

    fn paper() -> Self {
        Self {
            layout: Layout::Efficient,
            low_res: true,
            patch: 1,
            channels: 128,
            levels: Vec::new(),
            head_channels: 64,
            norm: Norm::Group(32),
            embedding_width: 512,
            context: Some(CONTEXT),
        }
    }
}

/// 2 × (1, 2, 4, 4) residual blocks, attention at the lowest resolution only.
fn efficient(multipliers: [i64; 4], self_attention: bool) -> Vec<Level> {
    let block_multipliers = [1, 2, 4, 4];
    multipliers
        .into_iter()
        .zip(block_multipliers)
        .enumerate()
        .map(|(index, (multiplier, blocks))| Level {
            multiplier,
            blocks: 2 * blocks,
            self_attention: self_attention && index == 3,
            cross_attention: index == 3,
        })
        .collect()
}
