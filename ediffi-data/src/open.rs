//! Telling the layouts of data apart.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ediffi_train::dataset::Dataset;

use crate::error::file_error;
use crate::shards::in_folder;
use crate::unpack::is_named;
use crate::{Error, Folder, Result, Shards, picture, table};

/// Opens data by their path: a folder of pictures ([`Folder`]), a folder of `.tar` shards or of Parquet files, or either by their names, with lists
/// in braces such as `data/{000000..000009}.tar` ([`Shards`]).
///
/// # Errors
/// [`Error::Remote`] for an address, [`Error::Unknown`] for what is none of these, [`Error::Mixed`] for a folder with pictures and
/// shards, and those of the two.
pub fn open(path: &str) -> Result<Arc<dyn Dataset>> {
    if path.contains("://") || path.starts_with("pipe:") {
        return Err(Error::Remote { address: path.to_owned() });
    }
    let folder = Path::new(path);
    if folder.is_dir() {
        let shards = in_folder(folder)?;
        return match (!shards.found.is_empty(), has_pictures(folder)?) {
            (true, true) => Err(Error::Mixed { path: folder.to_owned() }),
            (true, false) => Ok(Arc::new(Shards::open(path, None)?)),
            // Pictures may lie beside the archive that they came in.
            (false, _) => match (Folder::open(folder), shards.compressed) {
                (Err(Error::Empty { .. }), Some(_)) => Ok(Arc::new(Shards::open(path, None)?)),
                (Err(Error::Empty { .. }), None) => Err(Error::Unknown { path: folder.to_owned() }),
                (folder, None) => Ok(Arc::new(folder?)),
                (opened, Some(archive)) => {
                    let opened = opened?;
                    tracing::warn!(archive = %archive.display(), "an archive beside the pictures is passed over");
                    Ok(Arc::new(opened))
                }
            },
        };
    }
    if path.to_ascii_lowercase().ends_with(".tar") || is_named(folder) || path.contains(['{', '}']) {
        return Ok(Arc::new(Shards::open(path, None)?));
    }
    // What is missing is said by the system.
    fs::metadata(folder).map_err(file_error(folder))?;
    Err(Error::Unknown { path: folder.to_owned() })
}

/// Whether a folder has pictures, or a table of them, not looking into those below.
fn has_pictures(folder: &Path) -> Result<bool> {
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = entry.map_err(file_error(folder))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with('.') && (picture::is_read(ending) || table::NAMES.contains(&name)) {
            return Ok(true);
        }
    }
    Ok(false)
}
