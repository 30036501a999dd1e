//! Parquet files that hold pictures, as Hugging Face's `datasets` writes them: unpacked once, to a shard beside each.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ediffi_core::files::{remove_unfinished, write_atomic_with};
use ediffi_train::lock::Lock;
use parquet::schema::types::Type;
use tar::{Builder, Header};

use crate::Result;
use crate::error::file_error;
use crate::file::name_of;
use crate::rows::{self, wrong};

/// How the names of the files end.
const ENDING: &str = ".parquet";

/// The column of pictures: their bytes, and the path that they once had.
const PICTURES: &str = "image";

/// Whether a file may hold pictures, by its name.
pub(crate) fn is_named(path: &Path) -> bool {
    let name = name_of(path).to_ascii_lowercase();
    name.ends_with(ENDING) && !name.starts_with('.') && name != crate::table::PARQUET
}

/// Where the shard of a file lies.
pub(crate) fn shard_of(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.tar", name_of(path)))
}

/// The shard of a file, which is written unless there is one of this very file: then both have the same time. Of several programs one does it, and
/// the others wait.
pub(crate) fn unpacked(path: &Path) -> Result<PathBuf> {
    let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified());
    let (shard, written) = (shard_of(path), time(path).map_err(file_error(path))?);
    if time(&shard).is_ok_and(|time| time == written) {
        return Ok(shard);
    }
    let _alone = Lock::wait(path.with_file_name(format!(".{}.lock", name_of(path))))?;
    if time(&shard).is_ok_and(|time| time == written) {
        return Ok(shard);
    }
    // What a program that was killed has left takes as much room as the shard.
    remove_unfinished(&shard)?;
    tracing::info!(file = %path.display(), shard = %shard.display(), "unpacking its pictures");
    let mut failed = None;
    let done = write_atomic_with(&shard, |file| {
        unpack(path, file, written).map_err(|error| {
            failed = Some(error);
            std::io::Error::other("it cannot be unpacked")
        })
    });
    match (failed, done) {
        (Some(error), _) => Err(error),
        (None, done) => Ok(done.map(|()| shard)?),
    }
}

/// Writes the pictures and captions of all rows, and sets the time of the file.
fn unpack(path: &Path, file: &File, written: SystemTime) -> Result<()> {
    let failed = file_error(path);
    let mut tar = Builder::new(BufWriter::new(file));
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).map_err(&failed)
    };
    let mut others = 0_u64;
    let is_wanted = |column: &Type| [PICTURES, "caption", "text"].contains(&column.name());
    rows::each(path, is_wanted, |number, row| {
        let missing = || wrong(path, number, "it has no column `image` with `bytes`, as `datasets` writes pictures");
        let picture =
            rows::group(row, PICTURES).and_then(|picture| rows::bytes(picture, "bytes")).ok_or_else(missing)?;
        let said = rows::caption(row).map_err(|reason| wrong(path, number, reason))?;
        let Some(ending) = ending(picture) else {
            others += 1;
            return Ok(());
        };
        add(format!("{number:09}.{ending}"), picture)?;
        add(format!("{number:09}.txt"), said.as_bytes())
    })?;
    if others > 0 {
        tracing::warn!(file = %path.display(), others, "pictures that are no PNG, JPEG or WebP are left out");
    }
    tar.into_inner().and_then(|mut inner| inner.flush()).map_err(&failed)?;
    file.set_modified(written).map_err(&failed)
}

/// How the name of a picture ends, by its first bytes.
fn ending(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("jpg"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}
