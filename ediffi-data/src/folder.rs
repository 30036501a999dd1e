//! A folder of pictures.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use ediffi_encoders::{PICTURE_BYTES, PictureError};
use ediffi_train::dataset::{Dataset, Sample};
use rayon::prelude::*;

use crate::caption::{self, LONGEST};
use crate::error::{file_error, sample_error};
use crate::file::beginning;
use crate::fingerprint::Fingerprint;
use crate::table::{self, Rows};
use crate::{Error, Result, picture};

/// The pictures of a folder and the folders in it, in the order of their paths: files that end in `.png`, `.jpg`, `.jpeg` or `.webp`.
/// Names that begin with a dot are passed over.
///
/// What is said of them stands in one table, `metadata.jsonl` or `metadata.csv`, or beside each: `cat.txt`, or else `cat.json` with the key
/// `caption` or `text`, for `cat.jpg`. All captions are read when it is opened, and kept in memory.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    items: Vec<Item>,
    fingerprint: String,
}

/// A picture.
#[derive(Debug)]
struct Item {
    /// Its path from the root, with `/` between folders.
    name: String,
    /// Bytes of its file.
    length: u64,
    caption: String,
}

impl Folder {
    /// Finds the pictures of a folder, and reads what is said of them.
    ///
    /// # Errors
    /// [`Error::NoCaption`] with the first picture of which nothing is said (an empty caption is one), [`Error::Caption`],
    /// [`Error::Table`] also for a row without a picture, [`Error::Twice`] for two pictures that share a caption file and for two tables,
    /// [`Error::Folder`] for a link to a folder, a table in a folder below and a name that is no UTF-8, [`Error::Empty`],
    /// [`Error::File`].
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let table = table::find(root)?;
        let names = pictures(root)?;
        let items = match table {
            Some(table) => of_table(root, &table, names)?,
            None => beside(root, names)?,
        };
        if items.is_empty() {
            return Err(Error::Empty { what: root.display().to_string() });
        }
        let mut fingerprint = Fingerprint::new("folder");
        items.iter().for_each(|item| fingerprint.sample(&item.name, item.length, &item.caption));
        Ok(Self { root: root.to_owned(), items, fingerprint: fingerprint.finish() })
    }

    fn item(&self, index: usize) -> Result<&Item> {
        self.items.get(index).ok_or(Error::Number { index, len: self.items.len() })
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let item = self.item(index)?;
        let path = self.root.join(&item.name);
        if item.length > PICTURE_BYTES {
            return Err(PictureError::File(item.length).into());
        }
        let bytes = beginning(&path, item.length + 1)?;
        if bytes.len() as u64 != item.length {
            return Err(Error::Folder { path, reason: "it was written to since the data were opened" });
        }
        let pixels = picture::decode(&bytes)?;
        let (width, height) = pixels.dimensions();
        Ok(Sample { pixels: pixels.into_raw(), width, height, caption: item.caption.clone() })
    }

    fn size_of(&self, index: usize) -> Result<(u32, u32)> {
        let path = self.root.join(&self.item(index)?.name);
        picture::size(|most| beginning(&path, most.min(PICTURE_BYTES)))
    }
}

impl Dataset for Folder {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn sample(&self, index: usize) -> ediffi_train::Result<Sample> {
        self.read(index).map_err(|source| sample_error(self.name(index), source))
    }

    fn name(&self, index: usize) -> String {
        self.items.get(index).map_or_else(|| format!("number {index}"), |item| item.name.clone())
    }

    fn caption(&self, index: usize) -> ediffi_train::Result<String> {
        let caption = self.item(index).map(|item| item.caption.clone());
        caption.map_err(|source| sample_error(self.name(index), source))
    }

    fn size(&self, index: usize) -> ediffi_train::Result<(u32, u32)> {
        self.size_of(index).map_err(|source| sample_error(self.name(index), source))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// The paths of all pictures, sorted, from the root on.
fn pictures(root: &Path) -> Result<Vec<String>> {
    let (mut found, mut others) = (Vec::new(), 0_u64);
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let at = root.join(&folder);
        for entry in fs::read_dir(&at).map_err(file_error(&at))? {
            let entry = entry.map_err(file_error(&at))?;
            let path = entry.path();
            let wrong = |reason| Error::Folder { path: path.clone(), reason };
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| wrong("its name is no UTF-8: rename it"))?;
            if name.starts_with('.') {
                continue;
            }
            let name = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            let kind = entry.file_type().map_err(file_error(&path))?;
            if kind.is_dir() {
                folders.push(name);
            } else if kind.is_symlink() && path.is_dir() {
                return Err(wrong("links to folders are not followed, as they may go round: name the folder itself"));
            } else if !folder.is_empty() && table::NAMES.iter().any(|table| entry.file_name() == *table) {
                return Err(wrong("a table of captions lies in the folder that is opened, not in one below"));
            } else {
                let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
                others += u64::from(picture::is_other(ending));
                found.extend(picture::is_read(ending).then_some(name));
            }
        }
    }
    if others > 0 {
        let folder = root.display();
        tracing::warn!(%folder, others, "pictures that are no PNG, JPEG or WebP are left out");
    }
    found.sort_unstable();
    Ok(found)
}

/// The length of a picture's file.
fn length(root: &Path, name: &str) -> Result<u64> {
    let path = root.join(name);
    Ok(fs::metadata(&path).map_err(file_error(&path))?.len())
}

/// Pictures whose captions stand in a table.
fn of_table(root: &Path, table: &Path, names: Vec<String>) -> Result<Vec<Item>> {
    let mut rows: Rows = table::read(table)?;
    let item = |name: String| match rows.remove(&name) {
        Some(row) => Ok(Item { length: length(root, &name)?, name, caption: row.caption }),
        None => Err(Error::NoCaption { name, expected: "a row in the table of the folder" }),
    };
    let items = names.into_iter().map(item).collect::<Result<_>>()?;
    match rows.into_iter().next() {
        None => Ok(items),
        Some((name, row)) => {
            let reason = format!("there is no picture `{name}` (PNG, JPEG or WebP) in the folder");
            Err(Error::Table { path: table.to_owned(), line: row.line, reason })
        }
    }
}

/// Pictures whose captions lie beside them.
fn beside(root: &Path, names: Vec<String>) -> Result<Vec<Item>> {
    let mut stems: HashMap<&str, &str> = HashMap::new();
    for name in &names {
        if let Some(first) = stems.insert(stem(name), name) {
            let (first, second) = (first.to_owned(), name.clone());
            return Err(Error::Twice {
                first,
                second,
                reason: "pictures that share a caption file have to be told apart by a table",
            });
        }
    }
    // The first that fails is the first in the order of names, whichever thread meets it.
    let items: Vec<Result<Item>> = names
        .into_par_iter()
        .map(|name| Ok(Item { caption: caption_beside(root, &name)?, length: length(root, &name)?, name }))
        .collect();
    items.into_iter().collect()
}

/// A path without the ending of its file.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// What the text file beside a picture says, or else the JSON file.
fn caption_beside(root: &Path, name: &str) -> Result<String> {
    for ending in ["txt", "json"] {
        let file = format!("{}.{ending}", stem(name));
        let bytes = match beginning(&root.join(&file), LONGEST + 1) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
            read => read?,
        };
        let said = match (bytes.len() as u64 > LONGEST, ending) {
            (true, _) => Err(format!("it has more than {LONGEST} bytes")),
            (false, "txt") => caption::of_text(bytes),
            (false, _) => caption::of_json(&bytes),
        };
        return said.map_err(|reason| Error::Caption { name: file, reason });
    }
    Err(Error::NoCaption {
        name: name.to_owned(),
        expected: "a .txt or .json file of its name beside it, or a table in the folder",
    })
}
