//! The names of the network: blocks that are counted through, where diffusers counts levels.

/// How many residual blocks a level has on the way down, by the names of a network. A level ends with a block that halves the map, the last
/// one does not.
pub(super) fn per_level<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let (mut halving, mut blocks) = (None, 0);
    for name in names {
        let Some((block, rest)) = name.strip_prefix("input_blocks.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let Ok(block) = block.parse::<usize>() else { continue };
        blocks = blocks.max(block);
        if rest.starts_with("0.op.") {
            halving = Some(halving.map_or(block, |first: usize| first.min(block)));
        }
    }
    // Block 0 is the first convolution.
    halving.map_or(blocks, |block| block.saturating_sub(1))
}

/// The name in diffusers' folders of a tensor of a network with so many blocks a level.
pub(super) fn name(stored: &str, per_level: usize) -> Option<String> {
    const OUTSIDE: [(&str, &str); 7] = [
        ("time_embed.0.", "time_embedding.linear_1."),
        ("time_embed.2.", "time_embedding.linear_2."),
        ("label_emb.0.0.", "add_embedding.linear_1."),
        ("label_emb.0.2.", "add_embedding.linear_2."),
        ("input_blocks.0.0.", "conv_in."),
        ("out.0.", "conv_norm_out."),
        ("out.2.", "conv_out."),
    ];
    if let Some(name) = OUTSIDE.iter().find_map(|(old, new)| Some(format!("{new}{}", stored.strip_prefix(old)?))) {
        return Some(name);
    }
    let (side, rest) = stored.split_once('.')?;
    if side == "middle_block" {
        let (block, rest) = rest.split_once('.')?;
        return match block {
            "0" => Some(format!("mid_block.resnets.0.{}", residual(rest)?)),
            "1" => Some(format!("mid_block.attentions.0.{rest}")),
            "2" => Some(format!("mid_block.resnets.1.{}", residual(rest)?)),
            _ => None,
        };
    }
    let (block, rest) = rest.split_once('.')?;
    let (module, rest) = rest.split_once('.')?;
    let block: usize = block.parse().ok()?;
    let (place, side, number) = match side {
        "input_blocks" => (block.checked_sub(1)?, "down_blocks", per_level.checked_add(1)?),
        "output_blocks" => (block, "up_blocks", per_level.checked_add(1)?),
        _ => return None,
    };
    let (level, place) = (place / number, place % number);
    match (side, module, rest.split_once('.')?) {
        ("down_blocks", "0", ("op", rest)) => Some(format!("{side}.{level}.downsamplers.0.conv.{rest}")),
        ("up_blocks", "1" | "2", ("conv", rest)) => Some(format!("{side}.{level}.upsamplers.0.conv.{rest}")),
        (_, "0", _) => Some(format!("{side}.{level}.resnets.{place}.{}", residual(rest)?)),
        (_, "1", _) => Some(format!("{side}.{level}.attentions.{place}.{rest}")),
        _ => None,
    }
}

/// The name of a layer within a residual block.
fn residual(stored: &str) -> Option<String> {
    const LAYERS: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    LAYERS.iter().find_map(|(old, new)| Some(format!("{new}{}", stored.strip_prefix(old)?)))
}
