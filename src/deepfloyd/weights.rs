//! Finding the weights of a part of a published folder, and saying what to do where there are none that can be read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::unusable;
use crate::{Error, Result};

/// How the file of a pointer of git-lfs begins, which is what a clone without git-lfs has in the place of the file.
const POINTER: &[u8] = b"version https://git-lfs";

/// The weights in `folder`: a safetensors file or the index of several, under the names that diffusers and transformers
/// give them. `half`: the variant in half precision is wanted, if there is one.
pub(crate) fn find(folder: &Path, stem: &str, half: bool) -> Result<PathBuf> {
    let full = [format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")];
    let halved = [
        format!("{stem}.fp16.safetensors"),
        format!("{stem}.safetensors.index.fp16.json"),
        format!("{stem}.fp16.safetensors.index.json"),
    ];
    let names: Vec<&String> =
        if half { halved.iter().chain(&full).collect() } else { full.iter().chain(&halved).collect() };
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let Some(path) = found else { return Err(missing(folder, stem, &full[0])) };
    if is_pointer(&path) {
        return Err(unusable(
            folder,
            format!("{} is a pointer of git-lfs and not the file: `git lfs pull` fetches it", name_of(&path)),
        ));
    }
    Ok(path)
}

fn missing(folder: &Path, stem: &str, expected: &str) -> Error {
    let pickled = std::fs::read_dir(folder).ok().and_then(|entries| {
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".bin") || name.ends_with(".ckpt") || name.ends_with(".pt")).min()
    });
    match pickled {
        Some(file) => Error::PickledWeights { folder: folder.to_owned(), file, expected: expected.to_owned() },
        None => {
            let part = name_of(folder);
            unusable(
                folder,
                format!(
                    "there is no {stem}.safetensors, nor its half-precision variant or index. DeepFloyd's files are given \
                     out when their licence has been accepted on the page of the model: accept it, log in, and download \
                     the folder `{part}`"
                ),
            )
        }
    }
}

fn is_pointer(path: &Path) -> bool {
    let mut start = [0; POINTER.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == POINTER
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
