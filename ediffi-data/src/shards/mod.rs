//! Shards of WebDataset.

mod build;
mod index;
mod list;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ediffi_core::files::write_with_folders;
use ediffi_encoders::{PICTURE_BYTES, PictureError};
use ediffi_train::dataset::{Dataset, Sample};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{file_error, sample_error};
use crate::file::{Stamp, name_of, part};
use crate::fingerprint::Fingerprint;
use crate::unpack::{is_named, shard_of, unpacked};
use crate::{Error, Result, caption, picture};
use index::{Entry, Index, Span};
use list::expand;

/// Tar files whose files of one name, up to the first dot, are a sample: `000017.jpg` (or `.jpeg`, `.png`, `.webp`) and `000017.txt`, or else
/// `000017.json` with the key `caption` or `text`, as WebDataset and img2dataset write them. Other files are passed over.
///
/// Parquet files with pictures (columns `image`, with `bytes`, and `caption` or `text`), as Hugging Face's `datasets` writes them, are unpacked once, to
/// `NAME.parquet.tar` beside each.
///
/// Where everything lies is written into an index once, `NAME.tar.idx` beside each shard or in a folder, and read from there until the shard is
/// another: so each sample is read where it lies, in any order. The index is in memory, about 100 bytes for a sample.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    /// How many samples there are up to the end of each shard.
    ends: Vec<usize>,
    fingerprint: String,
}

/// A tar file.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    index: Index,
}

impl Shards {
    /// Opens shards by their names with lists in braces, such as `data/{000000..000009}.tar` or `{a,b}.tar`, or a folder of them, in the order of
    /// their names. What indices are missing is written: into the folder `indices`, or beside the shards. Where they cannot be
    /// written, a warning says so, and the shards are read once more the next time.
    ///
    /// # Errors
    /// [`Error::Braces`], [`Error::NoCaption`] with the first picture without a caption, [`Error::Twice`] for two pictures of one name in one
    /// shard, [`Error::Caption`], [`Error::Shard`] for one that is damaged, cut short or compressed, [`Error::Empty`], [`Error::File`].
    pub fn open(shards: &str, indices: Option<&Path>) -> Result<Self> {
        let folder = Path::new(shards);
        let paths = if folder.is_dir() {
            in_folder(folder)?.read()?
        } else {
            expand(shards)?.into_iter().map(PathBuf::from).collect()
        };
        Self::of_paths(shards, paths, indices)
    }

    fn of_paths(what: &str, paths: Vec<PathBuf>, indices: Option<&Path>) -> Result<Self> {
        // The first that fails is the first of the list, whichever thread meets it.
        let open = |path: PathBuf| {
            let path = if is_named(&path) { unpacked(&path)? } else { path };
            Ok(Shard { index: load(&path, indices)?, path })
        };
        let shards: Vec<Result<Shard>> = paths.into_par_iter().map(open).collect();
        let shards = shards.into_iter().collect::<Result<Vec<_>>>()?;
        let mut fingerprint = Fingerprint::new("shards");
        let mut end = 0;
        let mut ends = Vec::with_capacity(shards.len());
        for shard in &shards {
            fingerprint.text(&shard.name());
            fingerprint.text(&shard.index.digest);
            end += shard.index.samples.len();
            ends.push(end);
        }
        if end == 0 {
            return Err(Error::Empty { what: what.to_owned() });
        }
        Ok(Self { shards, ends, fingerprint: fingerprint.finish() })
    }

    fn entry(&self, index: usize) -> Result<(&Shard, &Entry)> {
        let number = self.ends.partition_point(|&end| end <= index);
        let before = number.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |&end| end);
        let found = self.shards.get(number).and_then(|shard| Some((shard, shard.index.samples.get(index - before)?)));
        found.ok_or(Error::Number { index, len: self.len() })
    }

    fn caption_of(&self, index: usize) -> Result<String> {
        let (shard, entry) = self.entry(index)?;
        let bytes = shard.read(entry.caption, u64::MAX)?;
        let said = if entry.json { caption::of_json(&bytes) } else { caption::of_text(bytes) };
        said.map_err(|reason| Error::Caption { name: shard.called(entry), reason })
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let (shard, entry) = self.entry(index)?;
        if entry.picture.1 > PICTURE_BYTES {
            return Err(PictureError::File(entry.picture.1).into());
        }
        let pixels = picture::decode(&shard.read(entry.picture, u64::MAX)?)?;
        let (width, height) = pixels.dimensions();
        Ok(Sample { pixels: pixels.into_raw(), width, height, caption: self.caption_of(index)? })
    }

    fn size_of(&self, index: usize) -> Result<(u32, u32)> {
        let (shard, entry) = self.entry(index)?;
        picture::size(|most| shard.read(entry.picture, most.min(PICTURE_BYTES)))
    }
}

impl Dataset for Shards {
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or_default()
    }

    fn sample(&self, index: usize) -> ediffi_train::Result<Sample> {
        self.read(index).map_err(|source| sample_error(self.name(index), source))
    }

    fn name(&self, index: usize) -> String {
        self.entry(index).map_or_else(|_| format!("number {index}"), |(shard, entry)| shard.called(entry))
    }

    fn caption(&self, index: usize) -> ediffi_train::Result<String> {
        self.caption_of(index).map_err(|source| sample_error(self.name(index), source))
    }

    fn size(&self, index: usize) -> ediffi_train::Result<(u32, u32)> {
        self.size_of(index).map_err(|source| sample_error(self.name(index), source))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

impl Shard {
    /// The name of the file, wherever it lies.
    fn name(&self) -> String {
        name_of(&self.path)
    }

    /// What a sample is called in messages.
    fn called(&self, entry: &Entry) -> String {
        format!("{}: {}", self.name(), entry.key)
    }

    /// The first `most` bytes of a file in the shard. It is opened for each, as there may be more shards than a program may have open.
    fn read(&self, (offset, length): Span, most: u64) -> Result<Vec<u8>> {
        let file = File::open(&self.path).map_err(file_error(&self.path))?;
        if Stamp::of(&file).map_err(file_error(&self.path))? != self.index.stamp {
            return Err(Error::Shard {
                path: self.path.clone(),
                reason: "it was written to since it was opened".to_owned(),
            });
        }
        part(&file, offset, length.min(most)).map_err(file_error(&self.path))
    }
}

/// The shards of a folder.
#[derive(Debug, Default)]
pub(crate) struct InFolder {
    /// Those that are read, by name.
    pub(crate) found: Vec<PathBuf>,
    /// One that is compressed, if there is any.
    pub(crate) compressed: Option<PathBuf>,
}

impl InFolder {
    /// Those that are read, in a folder that is one of shards.
    ///
    /// # Errors
    /// [`Error::Shard`] for one that is compressed.
    pub(crate) fn read(self) -> Result<Vec<PathBuf>> {
        let reason = "samples cannot be found in a compressed shard: unpack it to a .tar first".to_owned();
        self.compressed.map_or(Ok(self.found), |path| Err(Error::Shard { path, reason }))
    }
}

/// The shards of a folder, by name.
pub(crate) fn in_folder(folder: &Path) -> Result<InFolder> {
    let InFolder { mut found, mut compressed } = InFolder::default();
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = entry.map_err(file_error(folder))?.path();
        let name = name_of(&path).to_ascii_lowercase();
        if [".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"].iter().any(|ending| name.ends_with(ending)) {
            compressed = Some(path);
            continue;
        }
        if (name.ends_with(".tar") && !name.starts_with('.')) || is_named(&path) {
            found.push(path);
        }
    }
    // What was unpacked is found by what it was unpacked from.
    let unpacked: Vec<PathBuf> = found.iter().filter(|path| is_named(path)).map(|path| shard_of(path)).collect();
    found.retain(|path| !unpacked.contains(path));
    found.sort_unstable();
    Ok(InFolder { found, compressed })
}

/// The index of a shard: the one that is kept, or a new one.
fn load(path: &Path, indices: Option<&Path>) -> Result<Index> {
    let file = File::open(path).map_err(file_error(path))?;
    let stamp = Stamp::of(&file).map_err(file_error(path))?;
    let kept = kept_at(path, indices);
    if let Some(index) = fs::read(&kept).ok().and_then(|bytes| Index::parse(&bytes, stamp)) {
        return Ok(index);
    }
    tracing::info!(shard = %path.display(), "reading where its samples lie");
    let index = build::build(path, &file, stamp)?;
    if let Err(error) = write_with_folders(&kept, &index.to_json()) {
        tracing::warn!(%error, "the index of a shard cannot be kept, and is made anew the next time: name a folder for indices");
    }
    Ok(index)
}

/// Where the index of a shard is kept.
fn kept_at(path: &Path, indices: Option<&Path>) -> PathBuf {
    let name = name_of(path);
    match indices {
        None => path.with_file_name(format!("{name}.idx")),
        // Shards of one name may lie in several folders.
        Some(folder) => {
            let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
            let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            folder.join(format!("{name}.{digits}.idx"))
        }
    }
}
