//! Where the samples of a shard lie.

use serde::{Deserialize, Serialize};

use crate::file::Stamp;

/// The format it says it has.
const FORMAT: &str = "ediffi-shard-index/1";

/// A part of the shard: its first byte and how many there are.
pub(super) type Span = (u64, u64);

/// The index of one shard.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    format: String,
    /// That of the shard it was made of.
    pub(super) stamp: Stamp,
    /// Of the names, lengths and captions of its samples.
    pub(super) digest: String,
    pub(super) samples: Vec<Entry>,
}

/// A picture and its caption.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The name that its files have, up to the first dot.
    pub(super) key: String,
    pub(super) picture: Span,
    pub(super) caption: Span,
    /// Whether the caption stands in JSON.
    pub(super) json: bool,
}

impl Index {
    pub(super) fn new(stamp: Stamp, digest: String, samples: Vec<Entry>) -> Self {
        Self { format: FORMAT.to_owned(), stamp, digest, samples }
    }

    /// The index that `bytes` are, if they are one of a shard with this stamp.
    pub(super) fn parse(bytes: &[u8], stamp: Stamp) -> Option<Self> {
        let index: Self = serde_json::from_slice(bytes).ok()?;
        let fits = index.format == FORMAT && index.stamp == stamp;
        let inside = |&(offset, length): &Span| lies_inside((offset, length), stamp.length);
        let whole = index.samples.iter().all(|entry| inside(&entry.picture) && inside(&entry.caption));
        (fits && whole).then_some(index)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        // Texts and numbers alone: there is nothing that JSON has not.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Whether a part lies in a file of `length` bytes.
pub(super) fn lies_inside((offset, bytes): Span, length: u64) -> bool {
    offset.checked_add(bytes).is_some_and(|end| end <= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_another_shard_or_with_places_outside_is_none() {
        let stamp = Stamp { length: 100, modified: (3, 4) };
        let entry = |picture| Entry { key: "a".to_owned(), picture, caption: (90, 10), json: false };
        let index = |picture| Index::new(stamp, "ab".to_owned(), vec![entry(picture)]);
        let whole = index((0, 90));
        assert_eq!(Index::parse(&whole.to_json(), stamp), Some(index((0, 90))));
        for other in [Stamp { length: 101, ..stamp }, Stamp { modified: (3, 5), ..stamp }] {
            assert_eq!(Index::parse(&whole.to_json(), other), None);
        }
        for outside in [(0, 101), (u64::MAX, 2), (101, 0)] {
            assert_eq!(Index::parse(&index(outside).to_json(), stamp), None, "{outside:?}");
        }
        assert_eq!(Index::parse(b"v1.2 3", stamp), None);
    }
}
