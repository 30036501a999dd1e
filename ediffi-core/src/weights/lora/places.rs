//! Where a layer that a LoRA names is in a network: by its own name, with underscores in the place of dots, or by the name that it has in the
//! original code of SDXL, which Kohya's scripts train.

use std::collections::BTreeMap;

use super::keys::Module;
use crate::weights::params::Names;

/// How the names of weights end.
const WEIGHT: &str = ".weight";

/// The weights of a network, by their names.
pub(super) struct Places<'a> {
    shapes: BTreeMap<&'a str, &'a [usize]>,
    /// Names with underscores → names of weights; `None` if it would be two.
    joined: BTreeMap<String, Option<&'a str>>,
    names: Names,
}

impl<'a> Places<'a> {
    /// Of tensors with the names of the network, which `names` makes of those of published files.
    pub(super) fn new(tensors: impl Iterator<Item = (&'a str, &'a [usize])>, names: Names) -> Self {
        let shapes: BTreeMap<&str, &[usize]> = tensors.filter(|(name, _)| name.ends_with(WEIGHT)).collect();
        let layers = layers(shapes.keys().copied());
        let mut joined = BTreeMap::new();
        for &weight in shapes.keys() {
            let name = weight.strip_suffix(WEIGHT).unwrap_or(weight);
            let whole = name.replace('.', "_");
            // Newer versions of transformers leave `text_model` out.
            let bare = whole.strip_prefix("text_model_").map(str::to_owned);
            for alias in bare.into_iter().chain(original(name, layers)).chain([whole]) {
                joined.entry(alias).and_modify(|place| *place = None).or_insert(Some(weight));
            }
        }
        Self { shapes, joined, names }
    }

    /// Name and shape of the weight of a layer.
    pub(super) fn find(&self, module: &Module) -> Option<(&'a str, &'a [usize])> {
        let of = |name: &str| self.shapes.get_key_value(name).map(|(name, shape)| (*name, *shape));
        match module {
            Module::Joined(name) => of((*self.joined.get(name)?)?),
            Module::Dotted(name) => {
                let weight = format!("{name}{WEIGHT}");
                of(&weight).or_else(|| of(&(self.names)(&weight)?))
            }
        }
    }
}

/// How many layers the blocks on the way down have.
fn layers<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    let number = |name: &str| -> Option<usize> {
        let (number, _) = name.strip_prefix("down_blocks.0.resnets.")?.split_once('.')?;
        number.parse().ok()
    };
    names.filter_map(number).max().map_or(0, |last| last.saturating_add(1))
}

/// The names of a layer of a U-Net in the original code, with underscores. Blocks are numbered there through all levels.
fn original(name: &str, layers: usize) -> Vec<String> {
    let plain = match name {
        "conv_in" => "input_blocks_0_0",
        "conv_out" => "out_2",
        "time_embedding.linear_1" => "time_embed_0",
        "time_embedding.linear_2" => "time_embed_2",
        "add_embedding.linear_1" => "label_emb_0_0",
        "add_embedding.linear_2" => "label_emb_0_2",
        _ => return of_block(name, layers).unwrap_or_default(),
    };
    vec![plain.to_owned()]
}

/// That of a layer in a block.
fn of_block(name: &str, layers: usize) -> Option<Vec<String>> {
    let mut parts = name.splitn(4, '.');
    let mut next = || parts.next();
    let kind = next()?;
    if kind == "mid_block" {
        let (part, number, rest) = (next()?, next()?, next()?);
        let place = match (part, number) {
            ("resnets", "0") => 0,
            ("attentions", "0") => 1,
            ("resnets", "1") => 2,
            _ => return None,
        };
        return Some(vec![format!("middle_block_{place}_{}", inner(part, rest))]);
    }
    let (block, part, rest): (usize, _, _) = (next()?.parse().ok()?, next()?, next()?);
    let (layer, rest) = rest.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let first = block.checked_mul(layers.checked_add(1)?)?;
    let at = first.checked_add(layer)?;
    let slot = if part == "resnets" { 0 } else { 1 };
    match (kind, part) {
        ("down_blocks", "resnets" | "attentions") => {
            Some(vec![format!("input_blocks_{}_{slot}_{}", at.checked_add(1)?, inner(part, rest))])
        }
        ("down_blocks", "downsamplers") => {
            Some(vec![format!("input_blocks_{}_0_op", first.checked_add(layers)?.checked_add(1)?)])
        }
        ("up_blocks", "resnets" | "attentions") => {
            Some(vec![format!("output_blocks_{at}_{slot}_{}", inner(part, rest))])
        }
        // After an attention, where the level has one.
        ("up_blocks", "upsamplers") => {
            let last = first.checked_add(layers)?;
            Some([1, 2].map(|slot| format!("output_blocks_{last}_{slot}_conv")).to_vec())
        }
        _ => None,
    }
}

/// The name in a residual block or a transformer.
fn inner(part: &str, rest: &str) -> String {
    let resnet = (part == "resnets").then_some(match rest {
        "conv1" => "in_layers_2",
        "time_emb_proj" => "emb_layers_1",
        "conv2" => "out_layers_3",
        "conv_shortcut" => "skip_connection",
        _ => "",
    });
    match resnet {
        Some(known) if !known.is_empty() => known.to_owned(),
        _ => rest.replace('.', "_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of `_maybe_map_sgm_blocks_to_diffusers` and `_convert_unet_lora_key` of diffusers, for SDXL's two layers a block.
    #[test]
    fn layers_have_the_names_of_the_original_code() {
        for (name, expected) in [
            ("conv_in", "input_blocks_0_0"),
            ("down_blocks.0.resnets.1.conv1", "input_blocks_2_0_in_layers_2"),
            ("down_blocks.0.downsamplers.0.conv", "input_blocks_3_0_op"),
            ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks_4_0_skip_connection"),
            ("down_blocks.1.attentions.0.proj_in", "input_blocks_4_1_proj_in"),
            (
                "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0",
                "input_blocks_8_1_transformer_blocks_9_attn2_to_out_0",
            ),
            ("mid_block.resnets.0.time_emb_proj", "middle_block_0_emb_layers_1"),
            ("mid_block.attentions.0.proj_out", "middle_block_1_proj_out"),
            ("mid_block.resnets.1.conv2", "middle_block_2_out_layers_3"),
            (
                "up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj",
                "output_blocks_2_1_transformer_blocks_0_ff_net_0_proj",
            ),
            ("up_blocks.1.resnets.0.conv1", "output_blocks_3_0_in_layers_2"),
            ("up_blocks.2.resnets.2.conv2", "output_blocks_8_0_out_layers_3"),
            ("conv_out", "out_2"),
        ] {
            assert_eq!(original(name, 2), [expected], "{name}");
        }
        let upsampler = original("up_blocks.1.upsamplers.0.conv", 2);
        assert_eq!(upsampler, ["output_blocks_5_1_conv", "output_blocks_5_2_conv"]);
        assert!(original("down_blocks.x.resnets.0.conv1", 2).is_empty());
    }

    #[test]
    fn a_layer_is_found_by_each_of_its_names() {
        let shape: &[usize] = &[4, 4];
        let names = [
            "down_blocks.0.resnets.0.conv1.weight",
            "down_blocks.0.resnets.1.conv1.weight",
            "a.b_c.weight",
            "a_b.c.weight",
        ];
        let places =
            Places::new(names.iter().map(|name| (*name, shape)), |name| name.strip_prefix("x.").map(str::to_owned));
        let joined = |name: &str| places.find(&Module::Joined(name.to_owned())).map(|(name, _)| name);
        let dotted = |name: &str| places.find(&Module::Dotted(name.to_owned())).map(|(name, _)| name);
        assert_eq!(joined("down_blocks_0_resnets_1_conv1"), Some(names[1]));
        assert_eq!(joined("input_blocks_2_0_in_layers_2"), Some(names[1]));
        assert_eq!(joined("input_blocks_3_0_in_layers_2"), None);
        assert_eq!(dotted("a.b_c"), Some(names[2]));
        assert_eq!(dotted("x.a.b_c"), Some(names[2]));
        // It could be either.
        assert_eq!(joined("a_b_c"), None);
    }
}
