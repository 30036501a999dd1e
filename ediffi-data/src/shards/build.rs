//! Reading where the samples of a shard lie.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::index::{Entry, Index, Span, lies_inside};
use crate::caption::{self, LONGEST};
use crate::file::{Stamp, name_of};
use crate::fingerprint::Fingerprint;
use crate::{Error, Result, picture};

/// What is found of a sample on the way through a shard.
#[derive(Debug, Default)]
struct Found {
    key: String,
    /// The ending of the picture, and where it lies.
    picture: Option<(String, Span)>,
    text: Option<Span>,
    json: Option<Span>,
    /// What the text says.
    of_text: Option<String>,
    /// What the JSON says, or why it says nothing: that matters only where there is no text.
    of_json: Option<Result<String, String>>,
}

/// Reads the shard from its beginning to its end; pictures are passed over.
pub(super) fn build(path: &Path, file: &File, stamp: Stamp) -> Result<Index> {
    let damaged = |reason: String| Error::Shard { path: path.to_owned(), reason };
    let broken = |error: std::io::Error| damaged(error.to_string());
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut samples: Vec<Found> = Vec::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path_bytes().into_owned();
        let name = String::from_utf8(name).map_err(|error| damaged(format!("a name is no UTF-8: {error}")))?;
        let span = (entry.raw_file_position(), entry.size());
        if !lies_inside(span, stamp.length) {
            return Err(damaged(format!("it is cut short in {name}")));
        }
        let Some((key, ending)) = split(&name) else { continue };
        let is_text = ending.eq_ignore_ascii_case("txt");
        if !is_text && !ending.eq_ignore_ascii_case("json") && !picture::is_read(ending) {
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() {
            return Err(damaged(format!("{name} is a link, sparse, or no file: shards hold whole files")));
        }
        let number = *numbers.entry(key.to_owned()).or_insert(samples.len());
        if number == samples.len() {
            samples.push(Found { key: key.to_owned(), ..Found::default() });
        }
        let Some(found) = samples.get_mut(number) else { continue };
        if picture::is_read(ending) {
            if let Some((first, _)) = found.picture.replace((ending.to_owned(), span)) {
                let called = |ending: &str| format!("{}: {key}.{ending}", name_of(path));
                let (first, second) = (called(&first), called(ending));
                return Err(Error::Twice { first, second, reason: "a sample has one picture" });
            }
            continue;
        }
        if span.1 > LONGEST {
            let name = format!("{}: {name}", name_of(path));
            return Err(Error::Caption { name, reason: format!("it has more than {LONGEST} bytes") });
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        if is_text {
            let said = caption::of_text(bytes);
            let wrong = |reason| Error::Caption { name: format!("{}: {name}", name_of(path)), reason };
            (found.text, found.of_text) = (Some(span), Some(said.map_err(wrong)?));
        } else {
            (found.json, found.of_json) = (Some(span), Some(caption::of_json(&bytes)));
        }
    }
    let mut fingerprint = Fingerprint::new("shard");
    let mut entries = Vec::with_capacity(samples.len());
    for found in samples {
        let name = || format!("{}: {}", name_of(path), found.key);
        let Some((ending, picture)) = found.picture else { continue };
        let (caption, json, said) = match (found.text, found.of_text, found.json, found.of_json) {
            (Some(span), Some(said), _, _) => (span, false, said),
            (_, _, Some(span), Some(said)) => {
                (span, true, said.map_err(|reason| Error::Caption { name: name() + ".json", reason })?)
            }
            _ => {
                return Err(Error::NoCaption {
                    name: name(),
                    expected: "a .txt or .json file of its name in the shard",
                });
            }
        };
        fingerprint.sample(&format!("{}.{ending}", found.key), picture.1, &said);
        entries.push(Entry { key: found.key, picture, caption, json });
    }
    Ok(Index::new(stamp, fingerprint.finish(), entries))
}

/// A name up to the first dot behind its folders, and what comes behind. None for names without a dot, and for hidden ones.
fn split(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name.get(base..)?.find('.')?;
    (dot > base).then(|| Some((name.get(..dot)?, name.get(dot + 1..)?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_name() {
        assert_eq!(split("a.jpg"), Some(("a", "jpg")));
        assert_eq!(split("./v1.0/000.cls.txt"), Some(("./v1.0/000", "cls.txt")));
        for none in ["a", "v1.0/a", "._a.jpg", "v/.a.jpg", ""] {
            assert_eq!(split(none), None, "{none}");
        }
    }
}
