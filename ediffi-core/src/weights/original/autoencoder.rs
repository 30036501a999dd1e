//! The names of the autoencoder, whose decoder counts its levels from the largest map.

use super::view::{Named, View};

/// How the names begin.
pub(super) const PREFIX: &str = "first_stage_model.";

/// How many levels the decoder has.
pub(super) fn levels<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let level = |name: &str| name.strip_prefix("decoder.up.")?.split_once('.')?.0.parse::<usize>().ok();
    names.filter_map(level).max().map_or(0, |last| last.saturating_add(1))
}

/// The name in diffusers' folders of a tensor of an autoencoder with so many levels.
pub(super) fn named(stored: &str, levels: usize) -> Option<Named> {
    if stored.starts_with("quant_conv.") || stored.starts_with("post_quant_conv.") {
        return Some((stored.to_owned(), View::Whole));
    }
    let (half, rest) = stored.split_once('.')?;
    if !["encoder", "decoder"].contains(&half) {
        return None;
    }
    let (part, inner) = rest.split_once('.')?;
    let plain = |name: String| Some((format!("{half}.{name}"), View::Whole));
    match (half, part) {
        (_, "conv_in" | "conv_out") => plain(rest.to_owned()),
        (_, "norm_out") => plain(format!("conv_norm_out.{inner}")),
        (_, "mid") => {
            let (block, layer) = inner.split_once('.')?;
            match block {
                "block_1" => plain(format!("mid_block.resnets.0.{}", residual(layer))),
                "block_2" => plain(format!("mid_block.resnets.1.{}", residual(layer))),
                "attn_1" => {
                    let (layer, parameter) = layer.split_once('.')?;
                    let (layer, view) = attention(layer)?;
                    Some((format!("{half}.mid_block.attentions.0.{layer}.{parameter}"), view))
                }
                _ => None,
            }
        }
        ("encoder", "down") | ("decoder", "up") => {
            let (level, rest) = inner.split_once('.')?;
            let (kind, rest) = rest.split_once('.')?;
            let level: usize = level.parse().ok()?;
            let level = if half == "decoder" { levels.checked_sub(level.checked_add(1)?)? } else { level };
            match kind {
                "block" => {
                    let (block, layer) = rest.split_once('.')?;
                    plain(format!("{part}_blocks.{level}.resnets.{block}.{}", residual(layer)))
                }
                "downsample" => plain(format!("down_blocks.{level}.downsamplers.0.{rest}")),
                "upsample" => plain(format!("up_blocks.{level}.upsamplers.0.{rest}")),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The name of a layer within a residual block.
fn residual(stored: &str) -> String {
    stored.strip_prefix("nin_shortcut.").map_or_else(|| stored.to_owned(), |rest| format!("conv_shortcut.{rest}"))
}

/// The name of a layer of the attention, whose maps are convolutions of one pixel.
fn attention(stored: &str) -> Option<(&'static str, View)> {
    Some(match stored {
        "norm" => ("group_norm", View::Whole),
        "q" => ("to_q", View::Matrix),
        "k" => ("to_k", View::Matrix),
        "v" => ("to_v", View::Matrix),
        "proj_out" => ("to_out.0", View::Matrix),
        _ => return None,
    })
}
