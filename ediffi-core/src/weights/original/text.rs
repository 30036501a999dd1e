//! The names of the text encoders: those of transformers behind a prefix, or OpenCLIP's.

use super::view::{Named, View};

/// The names in transformers' folders of a stored tensor, if it is of this encoder and of its first `layers`.
pub(super) fn named(stored: &str, embedder: Option<usize>, layers: usize) -> Vec<Named> {
    let place =
        embedder.map_or_else(|| "cond_stage_model.".to_owned(), |number| format!("conditioner.embedders.{number}."));
    let Some(rest) = stored.strip_prefix(place.as_str()) else { return Vec::new() };
    if let Some(name) = rest.strip_prefix("transformer.") {
        return vec![(name.to_owned(), View::Whole)];
    }
    // Of Stable Diffusion 2 the pooled text is not read.
    rest.strip_prefix("model.").map(|name| of_open_clip(name, layers, embedder.is_some())).unwrap_or_default()
}

fn of_open_clip(stored: &str, layers: usize, projected: bool) -> Vec<Named> {
    let whole = |name: &str| vec![(format!("text_model.{name}"), View::Whole)];
    match stored {
        "positional_embedding" => return whole("embeddings.position_embedding.weight"),
        "token_embedding.weight" => return whole("embeddings.token_embedding.weight"),
        "text_projection" if projected => return vec![("text_projection.weight".to_owned(), View::Transposed)],
        _ => {}
    }
    if let Some(parameter) = stored.strip_prefix("ln_final.") {
        return whole(&format!("final_layer_norm.{parameter}"));
    }
    let layer = || {
        let (number, rest) = stored.strip_prefix("transformer.resblocks.")?.split_once('.')?;
        Some((number.parse::<usize>().ok().filter(|number| *number < layers)?, rest))
    };
    let Some((number, rest)) = layer() else { return Vec::new() };
    const MODULES: [(&str, &str); 5] = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
        ("attn.out_proj.", "self_attn.out_proj."),
    ];
    if let Some(name) = MODULES.iter().find_map(|(old, new)| Some(format!("{new}{}", rest.strip_prefix(old)?))) {
        return whole(&format!("encoder.layers.{number}.{name}"));
    }
    let Some(parameter) = rest.strip_prefix("attn.in_proj_") else { return Vec::new() };
    let maps = ["q_proj", "k_proj", "v_proj"].into_iter().enumerate();
    maps.map(|(third, map)| {
        (format!("text_model.encoder.layers.{number}.self_attn.{map}.{parameter}"), View::Third(third))
    })
    .collect()
}
