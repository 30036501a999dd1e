//! The dimensions of the small model.
//!
//! Sized for a CPU of two cores and for a model folder of 32 MB: patches of 4×4 pixels, self-attention at the lowest resolution
//! only.

use ediffi_core::nn::Norm;
use ediffi_core::unet::{ClipText, ContextConfig, Dimensions, Efficient, Level, Tokens};
use ediffi_encoders::clip::{ClipConfig, ClipTextConfig, ClipVisionConfig};
use ediffi_encoders::t5::{FeedForwardKind, T5Config};

/// Tokens that a caption is padded to, for both text encoders.
pub const TOKENS: i64 = 32;
/// Side of the pictures that the image tower sees.
pub const VISION_SIZE: i64 = 64;
/// Common width of the encoders and of the space that CLIP projects into.
pub const WIDTH: i64 = 128;

/// The tiny T5 encoder.
pub fn t5(vocabulary: i64) -> T5Config {
    T5Config {
        vocab_size: vocabulary,
        d_model: WIDTH,
        d_kv: 32,
        d_ff: 256,
        num_layers: 3,
        num_heads: 4,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForwardKind::GatedGelu,
        pad_token_id: 0,
        eos_token_id: 1,
    }
}

/// The tiny CLIP.
pub fn clip(vocabulary: i64, end: i64) -> ClipConfig {
    ClipConfig {
        text_config: ClipTextConfig {
            vocab_size: vocabulary,
            hidden_size: WIDTH,
            intermediate_size: 4 * WIDTH,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            max_position_embeddings: TOKENS,
            eos_token_id: end,
            ..ClipTextConfig::default()
        },
        vision_config: Some(ClipVisionConfig {
            hidden_size: WIDTH,
            intermediate_size: 4 * WIDTH,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            image_size: VISION_SIZE,
            patch_size: 8,
            ..ClipVisionConfig::default()
        }),
        projection_dim: WIDTH,
    }
}

fn context() -> ContextConfig {
    ContextConfig {
        width: WIDTH,
        t5: Some(Tokens { tokens: TOKENS, width: WIDTH }),
        clip_text: Some(ClipText { tokens: TOKENS, width: WIDTH, pooled: Some(WIDTH) }),
        clip_image: Some(WIDTH),
    }
}

fn level(multiplier: i64, blocks: usize, self_attention: bool, cross_attention: bool) -> Level {
    Level { multiplier, blocks, self_attention, cross_attention }
}

/// The 64×64 base: 16×16 positions of 80 channels, which read the text, and 8×8 of 160, which also attend to each other.
pub fn base() -> Efficient {
    Efficient(Dimensions {
        picture_channels: 3,
        low_res: false,
        patch: 4,
        channels: 80,
        levels: vec![level(1, 2, false, true), level(2, 2, true, true)],
        head_channels: 40,
        norm: Norm::Group(16),
        embedding_width: 256,
        context: Some(context()),
        detail: None,
    })
}

/// Both super-resolution networks: positions of 4×4 pixels of 64 channels, more than the 48 values that one holds, and of
/// 8×8 pixels of 128 with cross-attention. Style references are the base's alone.
pub fn super_resolution() -> Efficient {
    Efficient(Dimensions {
        picture_channels: 3,
        low_res: true,
        patch: 4,
        channels: 64,
        levels: vec![level(1, 1, false, false), level(2, 1, false, true)],
        head_channels: 64,
        norm: Norm::Position,
        embedding_width: 128,
        context: Some(ContextConfig { clip_image: None, ..context() }),
        detail: None,
    })
}
