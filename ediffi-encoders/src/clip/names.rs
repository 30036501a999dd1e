//! The names of tensors in published files.

/// Maps the name of a tensor in a published file to the name in [`ClipTextNetwork`](super::ClipTextNetwork); `None` for
/// tensors that it does not use.
///
/// Newer versions of `transformers` leave out the prefix `text_model` in files of the text half alone.
#[must_use]
pub fn text_names(stored: &str) -> Option<String> {
    half(stored, "text_model.", "text_projection.", &["embeddings.", "encoder.", "final_layer_norm."])
}

/// Maps the name of a tensor in a published file to the name in [`ClipVisionNetwork`](super::ClipVisionNetwork); `None` for
/// tensors that it does not use.
///
/// Newer versions of `transformers` leave out the prefix `vision_model` in files of the picture half alone.
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
