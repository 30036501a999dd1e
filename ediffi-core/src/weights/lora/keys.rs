//! The names of tensors in files of LoRA, of diffusers, PEFT and Kohya's scripts.

use super::LoraPart;

/// What one tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// [rank, inputs]
    Down,
    /// [outputs, rank]
    Up,
    /// A number.
    Alpha,
}

/// A layer, as the file names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Module {
    /// With the dots of its path.
    Dotted(String),
    /// With underscores in their place, as Kohya's scripts write it.
    Joined(String),
}

impl Module {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Dotted(name) | Self::Joined(name) => name,
        }
    }
}

/// A name, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) part: LoraPart,
    pub(super) module: Module,
    pub(super) half: Half,
}

/// How the names of tensors end.
const ENDINGS: [(&str, Half); 13] = [
    (".lora_A.weight", Half::Down),
    (".lora_B.weight", Half::Up),
    (".lora_A.default.weight", Half::Down),
    (".lora_B.default.weight", Half::Up),
    (".lora.down.weight", Half::Down),
    (".lora.up.weight", Half::Up),
    (".lora_linear_layer.down.weight", Half::Down),
    (".lora_linear_layer.up.weight", Half::Up),
    (".lora_down.weight", Half::Down),
    (".lora_up.weight", Half::Up),
    ("_lora.down.weight", Half::Down),
    ("_lora.up.weight", Half::Up),
    (".alpha", Half::Alpha),
];

/// How the names of PEFT's own files begin.
pub(super) const PEFT: &str = "base_model.model.";

/// How Kohya's names begin.
const JOINED: [(&str, LoraPart); 4] = [
    ("lora_unet_", LoraPart::Network),
    ("lora_te_", LoraPart::Text),
    ("lora_te1_", LoraPart::Text),
    ("lora_te2_", LoraPart::Text2),
];

/// How those of diffusers begin.
const DOTTED: [(&str, LoraPart); 3] =
    [("unet.", LoraPart::Network), ("text_encoder.", LoraPart::Text), ("text_encoder_2.", LoraPart::Text2)];

/// Beginnings of names of other networks, and what they are of.
const OTHER_NETWORKS: [(&str, &str); 5] = [
    ("transformer.", "a transformer, as Stable Diffusion 3 and FLUX have it"),
    ("lora_transformer_", "a transformer, as Stable Diffusion 3 and FLUX have it"),
    ("text_encoder_3.", "a third text encoder, as Stable Diffusion 3 has it"),
    ("lora_te3_", "a third text encoder, as Stable Diffusion 3 has it"),
    ("lora_prior_", "Stable Cascade's prior"),
];

/// Parts of names of what is no LoRA, and what it is.
const OTHER_KINDS: [(&str, &str); 9] = [
    (".dora_scale", "DoRA, which scales whole columns of the weight"),
    (".lora_magnitude_vector", "DoRA, which scales whole columns of the weight"),
    (".hada_", "LoHa, a Hadamard product of two LoRAs"),
    (".lokr_", "LoKr, a Kronecker product"),
    (".oft_", "OFT, an orthogonal map of the weight"),
    (".lora_mid.", "a LoRA of three matrices (CP decomposition)"),
    (".lora_embedding_", "a LoRA of a table of words"),
    (".diff_b", "a whole difference of a bias"),
    (".diff", "a whole difference of a weight"),
];

/// Understands a name.
///
/// # Errors
/// Why it is not one of a LoRA that can be merged, if that is known.
pub(super) fn parse(key: &str) -> Result<Key, Option<&'static str>> {
    let known = OTHER_KINDS.iter().find(|(part, _)| key.contains(part));
    let known = known.or_else(|| OTHER_NETWORKS.iter().find(|(start, _)| key.starts_with(start)));
    if let Some((_, what)) = known {
        return Err(Some(what));
    }
    let (stem, ending, half) =
        ENDINGS.iter().find_map(|(end, half)| Some((key.strip_suffix(end)?, *end, *half))).ok_or(None)?;
    let joined = JOINED.iter().find_map(|(start, part)| Some((*part, stem.strip_prefix(start)?)));
    if let Some((part, name)) = joined {
        return Ok(Key { part, module: Module::Joined(name.to_owned()), half });
    }
    let stem = stem.strip_prefix(PEFT).unwrap_or(stem);
    let dotted = DOTTED.iter().find_map(|(start, part)| Some((*part, stem.strip_prefix(start)?)));
    let (part, name) = dotted.unwrap_or((LoraPart::Network, stem));
    let name = if ending.starts_with('_') { of_processor(name).ok_or(None)? } else { name.to_owned() };
    Ok(Key { part, module: Module::Dotted(name), half })
}

/// The layer of what older versions of diffusers kept in an attention's processor: `attn1.processor.to_q` is `attn1.to_q`.
fn of_processor(name: &str) -> Option<String> {
    let (attention, layer) = name.split_once(".processor.")?;
    Some(format!("{attention}.{}", if layer == "to_out" { "to_out.0" } else { layer }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str) -> (LoraPart, Module, Half) {
        let Key { part, module, half } = parse(key).unwrap();
        (part, module, half)
    }

    #[test]
    fn names_of_all_writers_are_understood() {
        let dotted = |name: &str| Module::Dotted(name.to_owned());
        let joined = |name: &str| Module::Joined(name.to_owned());
        let (network, text, text_2) = (LoraPart::Network, LoraPart::Text, LoraPart::Text2);
        for (key, expected) in [
            ("unet.a.to_q.lora_A.weight", (network, dotted("a.to_q"), Half::Down)),
            ("base_model.model.a.to_q.lora_B.default.weight", (network, dotted("a.to_q"), Half::Up)),
            ("a.to_q.lora.up.weight", (network, dotted("a.to_q"), Half::Up)),
            ("unet.a.processor.to_out_lora.down.weight", (network, dotted("a.to_out.0"), Half::Down)),
            ("text_encoder.b.q_proj.lora_linear_layer.down.weight", (text, dotted("b.q_proj"), Half::Down)),
            ("text_encoder_2.b.alpha", (text_2, dotted("b"), Half::Alpha)),
            ("lora_unet_a_to_q.lora_down.weight", (network, joined("a_to_q"), Half::Down)),
            ("lora_te_b.lora_up.weight", (text, joined("b"), Half::Up)),
            ("lora_te1_b.alpha", (text, joined("b"), Half::Alpha)),
            ("lora_te2_b.lora_A.weight", (text_2, joined("b"), Half::Down)),
        ] {
            assert_eq!(found(key), expected, "{key}");
        }
    }

    #[test]
    fn what_is_no_lora_is_known() {
        for (key, what) in [
            ("lora_unet_a.dora_scale", "DoRA"),
            ("unet.a.lora_magnitude_vector", "DoRA"),
            ("lora_unet_a.hada_w1_a", "LoHa"),
            ("lora_unet_a.lokr_w1", "LoKr"),
            ("lora_unet_a.oft_blocks", "OFT"),
            ("lora_unet_a.lora_mid.weight", "CP"),
            ("lora_unet_a.diff", "difference of a weight"),
            ("lora_unet_a.diff_b", "difference of a bias"),
            ("transformer.a.lora_A.weight", "FLUX"),
            ("lora_te3_a.lora_down.weight", "third text encoder"),
        ] {
            let reason = parse(key).unwrap_err().unwrap();
            assert!(reason.contains(what), "{key}: {reason}");
        }
        for key in ["a.weight", "lora_unet_a.lora_down.bias", "unet.a.to_q_lora.down.weight"] {
            assert_eq!(parse(key), Err(None), "{key}");
        }
    }
}
