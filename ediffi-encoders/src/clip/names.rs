//! The names of tensors in published files.

/// The name that [`ClipTextNetwork`](super::ClipTextNetwork) gives to a tensor of a published file; `None` for tensors it has
/// no use for.
///
/// Files of the text half alone, written by newer versions of `transformers`, lack the prefix `text_model`.
#[must_use]
pub fn text_names(stored: &str) -> Option<String> {
    half(stored, "text_model.", "text_projection.", &["embeddings.", "encoder.", "final_layer_norm."])
}

/// The name that [`ClipVisionNetwork`](super::ClipVisionNetwork) gives to a tensor of a published file; `None` for tensors it
/// has no use for.
///
/// Files of the picture half alone, written by newer versions of `transformers`, lack the prefix `vision_model`.
#[must_use]
pub fn vision_names(stored: &str) -> Option<String> {
    let bare = ["embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm."];
    half(stored, "vision_model.", "visual_projection.", &bare)
}

fn half(stored: &str, prefix: &str, projection: &str, bare: &[&str]) -> Option<String> {
    // A buffer of older files: 0, 1, 2, ...
    if stored.ends_with(".position_ids") {
        return None;
    }
    if stored.starts_with(prefix) || stored.starts_with(projection) {
        return Some(stored.to_owned());
    }
    bare.iter().any(|start| stored.starts_with(start)).then(|| format!("{prefix}{stored}"))
}
