//! Which files of a folder hold a network's weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::params::Names;
use super::stored::is_pointer;
use crate::files::{path_inside, read_json};
use crate::{Error, Result};

/// Finds the weights in `folder` under the names that published folders use.
///
/// With a `variant`, such as `fp16`, it looks for `model.fp16.safetensors` or the index
/// `model.safetensors.index.fp16.json`. Without one, it looks for `model.safetensors` or `model.safetensors.index.json`; if
/// there is neither and the folder has just one variant, it takes that.
///
/// # Errors
/// [`Error::ReadFile`] if there is no such file, or several variants and none was named; [`Error::WeightsPickled`] if there
/// are only weights of pickled Python; [`Error::WeightsPointer`].
pub fn find(folder: &Path, variant: Option<&str>) -> Result<PathBuf> {
    find_called(folder, "model", variant)
}

/// As [`find`], for weights that are called `stem` instead of `model`, such as `diffusion_pytorch_model` in diffusers.
///
/// # Errors
/// As [`find`].
pub fn find_called(folder: &Path, stem: &str, variant: Option<&str>) -> Result<PathBuf> {
    let named = |variant: Option<&str>| {
        candidates(stem, variant).iter().map(|name| folder.join(name)).find(|path| path.is_file())
    };
    let all = if variant.is_some() { BTreeSet::new() } else { variants(folder, stem) };
    let only = || all.first().filter(|_| all.len() == 1).and_then(|only| named(Some(only)));
    if let Some(path) = named(variant).or_else(only) {
        return if is_pointer(&path) { Err(Error::WeightsPointer(path)) } else { Ok(path) };
    }
    let expected = variant.map_or_else(|| format!("{stem}.safetensors"), |v| format!("{stem}.{v}.safetensors"));
    let source = if all.is_empty() {
        if let Some(file) = pickled(folder) {
            return Err(Error::WeightsPickled { folder: folder.to_owned(), file, expected });
        }
        std::io::ErrorKind::NotFound.into()
    } else {
        let list = all.into_iter().collect::<Vec<_>>().join(", ");
        std::io::Error::other(format!("there are several variants ({list}) and none was named"))
    };
    Err(Error::ReadFile { path: folder.join(expected), source })
}

/// The file names under which weights called `stem`, such as `model`, are published: one file, or an index of shards under
/// one of two names. `variant` is a part of each, such as `fp16`.
#[must_use]
pub fn candidates(stem: &str, variant: Option<&str>) -> [String; 3] {
    let part = variant.map(|variant| format!(".{variant}")).unwrap_or_default();
    [
        format!("{stem}{part}.safetensors"),
        format!("{stem}.safetensors.index{part}.json"),
        format!("{stem}{part}.safetensors.index.json"),
    ]
}

/// The variants of the weights in a folder.
fn variants(folder: &Path, stem: &str) -> BTreeSet<String> {
    let variant = |name: String| {
        let rest = name.strip_prefix(stem)?.strip_prefix('.')?;
        let index = rest.strip_prefix("safetensors.index.").and_then(|rest| rest.strip_suffix(".json"));
        let file = rest.strip_suffix(".safetensors.index.json").or_else(|| rest.strip_suffix(".safetensors"));
        // The shards of a variant carry their number too: model.fp16-00001-of-00002.safetensors.
        index.or(file).filter(|variant| !variant.contains("-of-")).map(str::to_owned)
    };
    names_in(folder).filter_map(variant).collect()
}

/// The first file of pickled Python, if the folder has no other weights.
fn pickled(folder: &Path) -> Option<String> {
    let ends = |name: &String, endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    let names: Vec<String> = names_in(folder).collect();
    let others = names.iter().any(|name| ends(name, &[".safetensors"]));
    names.into_iter().filter(|name| !others && ends(name, &[".bin", ".ckpt", ".pt", ".pth"])).min()
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The shards that an index lists and the network needs: those with a tensor that `names` maps to a name. They lie beside
/// the index.
///
/// Shards without such a tensor, for example of a decoder, need not exist.
///
/// # Errors
/// [`Error::ReadFile`] and [`Error::Json`] for the index; [`Error::PathOutside`] if it leads out of its folder;
/// [`Error::ReadFile`] for a name that is too long.
pub fn shards(index: &Path, names: Names) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let parsed: Index = read_json(index)?;
    let folder = index.parent().unwrap_or(Path::new(""));
    let needed: BTreeSet<String> =
        parsed.weight_map.into_iter().filter(|(tensor, _)| names(tensor).is_some()).map(|(_, file)| file).collect();
    needed
        .into_iter()
        .map(|name| {
            // A shard is a plain file name: an index must not lead out of its folder.
            let path = path_inside(folder, Path::new(&name))?;
            if Path::new(&name).components().count() == 1 && !name.starts_with('.') {
                Ok(path)
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
        assert!(found(&["config.json"], None).unwrap_err().starts_with("model.safetensors: "));
        let pickled = found(&["pytorch_model.bin", "config.json"], None).unwrap_err();
        assert!(pickled.contains("holds pytorch_model.bin but no model.safetensors"), "{pickled}");
        assert!(
            pickled.contains(".clone() for k, v in torch.load('pytorch_model.bin', weights_only=True)"),
            "{pickled}"
        );
        // No line to paste where it would convert a part of the model, or run what the name says.
        for file in ["pytorch_model-00001-of-00002.bin", "a', print('b.bin", "a b.pt", "gewichte-größe.ckpt"] {
            let error = found(&[file], None).unwrap_err();
            assert!(error.contains("safetensors files of the repository") && !error.contains("torch.load"), "{error}");
            assert!(error.contains(file), "{error}");
        }
        assert!(!found(&["model.bin"], Some("a'b")).unwrap_err().contains("torch.load"));
        assert!(found(&["model.safetensors"], Some("fp16")).unwrap_err().starts_with("model.fp16.safetensors: "));
        let error = found(&["model.fp16.safetensors", "model.bf16.safetensors"], None).unwrap_err();
        assert!(error.contains("bf16, fp16"), "{error}");
    }

    #[test]
    fn weights_are_found_under_another_name() {
        let files = ["model.safetensors", "unet.fp16.safetensors", "unet.fp16.safetensors.index.json", "unet.bin"];
        let folder = folder(&files);
        let name =
            |variant| find_called(folder.path(), "unet", variant).map(|path| path.file_name().unwrap().to_owned());
        assert_eq!(name(None).unwrap(), "unet.fp16.safetensors");
        assert_eq!(name(Some("fp16")).unwrap(), "unet.fp16.safetensors");
        // Files that can be read are there: converting is not what to do.
        assert!(matches!(name(Some("bf16")), Err(Error::ReadFile { .. })));
    }

    #[test]
    fn a_pointer_of_git_lfs_is_not_the_file() {
        let folder = folder(&["other.safetensors"]);
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unwrap();
        assert!(matches!(find(folder.path(), None), Err(Error::WeightsPointer(named)) if named == path));
        let opened = crate::weights::WeightsFile::open(&path, |name| Some(name.to_owned()));
        assert!(matches!(opened, Err(Error::WeightsPointer(named)) if named == path));
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
