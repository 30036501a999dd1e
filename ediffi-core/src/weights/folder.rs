//! Which files of a folder hold a network's weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::loader::Names;
use crate::{Error, Result};

/// The file in `folder` that weights are read from, by the names that published folders use.
///
/// With a `variant`, such as `fp16`, `model.fp16.safetensors` or the index `model.safetensors.index.fp16.json`; without one,
/// `model.safetensors` or `model.safetensors.index.json`, and where the folder has neither, its only variant.
///
/// # Errors
/// No such file, or several variants and none of them named.
pub fn find(folder: &Path, variant: Option<&str>) -> Result<PathBuf> {
    let named = |variant: Option<&str>| {
        let part = variant.map(|variant| format!(".{variant}")).unwrap_or_default();
        let names = [
            format!("model{part}.safetensors"),
            format!("model.safetensors.index{part}.json"),
            format!("model{part}.safetensors.index.json"),
        ];
        names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
    };
    if let Some(path) = named(variant) {
        return Ok(path);
    }
    let missing = |source| Error::ReadFile {
        path: folder.join(variant.map_or("model.safetensors".to_owned(), |v| format!("model.{v}.safetensors"))),
        source,
    };
    let found = if variant.is_some() { BTreeSet::new() } else { variants(folder) };
    match found.len() {
        0 => Err(missing(std::io::ErrorKind::NotFound.into())),
        1 => {
            found.iter().find_map(|only| named(Some(only))).ok_or_else(|| missing(std::io::ErrorKind::NotFound.into()))
        }
        _ => {
            let list = found.into_iter().collect::<Vec<_>>().join(", ");
            Err(missing(std::io::Error::other(format!("there are several variants ({list}) and none was named"))))
        }
    }
}

/// The variants that a folder has weights of.
fn variants(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    let variant = |name: &str| {
        let file = name.strip_prefix("model.").and_then(|rest| rest.strip_suffix(".safetensors"));
        let index = name.strip_prefix("model.safetensors.index.").and_then(|rest| rest.strip_suffix(".json"));
        // The shards of a variant carry their number too: model.fp16-00001-of-00002.safetensors.
        file.or(index).filter(|variant| !variant.contains("-of-")).map(str::to_owned)
    };
    entries.flatten().filter_map(|entry| variant(entry.file_name().to_str()?)).collect()
}

/// The files of an index that hold a tensor which `names` has a use for, each beside the index.
///
/// Shards of other tensors alone, such as those of a decoder, need not be there.
///
/// # Errors
/// An index that cannot be read, or that leads out of its folder.
pub fn shards(index: &Path, names: Names) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|source| Error::ReadFile { path: index.to_owned(), source })?;
    let parsed: Index = serde_json::from_str(&text).map_err(|source| Error::Json { path: index.to_owned(), source })?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let needed: BTreeSet<String> =
        parsed.weight_map.into_iter().filter(|(tensor, _)| names(tensor).is_some()).map(|(_, file)| file).collect();
    needed
        .into_iter()
        .map(|name| {
            // A shard is a plain file name: an index must not lead out of its folder.
            if Path::new(&name).components().count() == 1 && !name.starts_with('.') {
                Ok(folder.join(name))
            } else {
                Err(Error::PathOutside { folder: folder.to_owned(), path: PathBuf::from(name) })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        folder
    }

    fn found(files: &[&str], variant: Option<&str>) -> std::result::Result<String, String> {
        let folder = folder(files);
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let full = |error: Error| match error {
            Error::ReadFile { path, source } => format!("{}: {source}", name(path)),
            other => other.to_string(),
        };
        find(folder.path(), variant).map(name).map_err(full)
    }

    #[test]
    fn the_weights_of_a_folder_are_found_by_their_published_names() {
        let both = ["model.safetensors", "model.fp16.safetensors"];
        assert_eq!(found(&both, None).unwrap(), "model.safetensors");
        assert_eq!(found(&both, Some("fp16")).unwrap(), "model.fp16.safetensors");
        let shards = ["model.safetensors.index.json", "model-00001-of-00002.safetensors"];
        assert_eq!(found(&shards, None).unwrap(), "model.safetensors.index.json");
        let variant = ["model.safetensors.index.bf16.json", "model.bf16-00001-of-00001.safetensors"];
        assert_eq!(found(&variant, None).unwrap(), "model.safetensors.index.bf16.json");
        assert_eq!(found(&variant, Some("bf16")).unwrap(), "model.safetensors.index.bf16.json");
    }

    #[test]
    fn weights_that_are_missing_or_ambiguous_are_errors() {
        assert!(found(&["model.bin"], None).unwrap_err().starts_with("model.safetensors: "));
        assert!(found(&["model.safetensors"], Some("fp16")).unwrap_err().starts_with("model.fp16.safetensors: "));
        let error = found(&["model.fp16.safetensors", "model.bf16.safetensors"], None).unwrap_err();
        assert!(error.contains("bf16, fp16"), "{error}");
    }

    #[test]
    fn shards_without_a_tensor_of_use_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("model.safetensors.index.json");
        std::fs::write(&index, r#"{ "weight_map": { "encoder.a": "1", "encoder.b": "1", "decoder.a": "2" } }"#)
            .unwrap();
        let names: Names = |stored| stored.starts_with("encoder.").then(|| stored.to_owned());
        assert_eq!(shards(&index, names).unwrap(), [folder.path().join("1")]);
        std::fs::write(&index, r#"{ "weight_map": { "encoder.a": "../1" } }"#).unwrap();
        assert!(matches!(shards(&index, names), Err(Error::PathOutside { .. })));
    }
}
