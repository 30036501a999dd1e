//! How much a network without a detail head computes: a closed form of its configuration.

use ediffi_core::unet::{ContextConfig, Efficient};

/// Multiply-adds of the convolutions, linear maps and attentions of one evaluation for one picture of `side`×`side` pixels.
/// Norms, nonlinearities and sums are left out, as everybody does.
pub fn multiply_adds(Efficient(config): &Efficient, side: i64) -> i64 {
    let width = |level: usize| config.width(level);
    let positions = |level: usize| ((side / config.patch) >> level).pow(2);
    let conv = |from: i64, to: i64, level: usize| 9 * from * to * positions(level);
    let (embedding, context) = (config.embedding_width, config.context.as_ref());
    let (inputs, pixels) = config.patch_channels();
    let last = config.levels.len() - 1;

    let frame = config.channels * embedding + embedding.pow(2) + conv(inputs, width(0), 0) + conv(width(0), pixels, 0);
    let mut sum = frame + context.map_or(0, |context| projections(context, embedding));
    for (index, level) in config.levels.iter().enumerate() {
        let (w, p) = (width(index), positions(index));
        let block = |from: i64| {
            let widened = if from == w { 0 } else { from * w * p };
            conv(from, w, index) + conv(w, w, index) + embedding * 2 * w + widened
        };
        // On the way up, the first block of a level takes in what was kept of the way down.
        let first = if index < last { 2 * w } else { w };
        let blocks = block(w) + block(first) + 2 * (level.blocks as i64 - 1) * block(w);
        // q, k, v and the way out; scores and the sum that they weigh.
        let own = if level.self_attention { 4 * w * w * p + 2 * p * p * w } else { 0 };
        let text = context.filter(|_| level.cross_attention).map_or(0, |context| {
            let tokens = tokens(context);
            2 * w * w * p + 2 * context.width * w * tokens + 2 * p * tokens * w
        });
        let resampled =
            if index > 0 { conv(width(index - 1), w, index) + conv(w, width(index - 1), index - 1) } else { 0 };
        sum += blocks + 2 * (own + text) + resampled;
    }
    sum
}

/// Tokens that cross-attention reads, the learned one among them.
fn tokens(context: &ContextConfig) -> i64 {
    let text = context.t5.map_or(0, |t5| t5.tokens) + context.clip_text.map_or(0, |text| text.tokens);
    text + i64::from(context.clip_image.is_some()) + 1
}

/// From the embeddings to tokens and to the pooled vector.
fn projections(context: &ContextConfig, embedding: i64) -> i64 {
    let t5 = context.t5.map_or(0, |t5| t5.tokens * t5.width * context.width);
    let pooled = context.clip_text.and_then(|text| text.pooled).unwrap_or(0) * embedding;
    let text = context.clip_text.map_or(0, |text| text.tokens * text.width * context.width) + pooled;
    t5 + text + context.clip_image.map_or(0, |width| width * (context.width + embedding))
}

#[cfg(test)]
mod tests {
    use ediffi_core::nn::Norm;
    use ediffi_core::unet::{Dimensions, Level};
    use train_icons::dimensions;

    use super::*;

    /// One level of 4 channels on pictures of 2×2: the embedding of the noise level 4·8 + 8·8, the first and the last
    /// convolution 9·3·4·4 each, two blocks of two convolutions 9·4·4·4 and a map of the embedding 8·8.
    #[test]
    fn a_small_network_by_hand() {
        let level = Level { multiplier: 1, blocks: 1, self_attention: false, cross_attention: false };
        let config = Efficient(Dimensions {
            picture_channels: 3,
            low_res: false,
            patch: 1,
            channels: 4,
            levels: vec![level],
            head_channels: 4,
            norm: Norm::Group(2),
            embedding_width: 8,
            context: None,
            detail: None,
        });
        assert_eq!(multiply_adds(&config, 2), 96 + 2 * 432 + 2 * (2 * 576 + 64));
    }

    /// Both as PyTorch's `FlopCounterMode` finds them in `comparison/training_speed.py`, halved: it counts a multiply-add as two.
    #[test]
    fn the_networks_as_pytorch_counts_them() {
        assert_eq!(multiply_adds(&dimensions::base(), 64), 355_274_752);
        assert_eq!(multiply_adds(&dimensions::super_resolution(), 64), 143_630_336);
    }
}
