//! Data of captioned pictures: a shard, a table, and embeddings that are kept.
#![no_main]

use std::path::Path;

use ediffi_data::embeddings::Embeddings;
use ediffi_data::{Folder, Shards};
use ediffi_fuzz::{Room, checked, target};
use ediffi_train::dataset::Dataset;

target!(run);

/// More samples take too long for every input.
const MOST: usize = 4;

/// The manifest beside a shard of embeddings.
const MANIFEST: &str = r#"{"format": "ediffi-rows/1", "data": "d", "encoder": "e", "samples": 3, "rows": 3}"#;

thread_local! {
    static ROOM: Room = {
        let room = Room::with(&[("ediffi-paint/tests/fixtures/transparent.png", "jsonl/a.png")]);
        let picture = std::fs::read(room.path().join("jsonl/a.png")).unwrap();
        room.put("csv/a.png", &picture);
        room.put("csv/b/c.png", &picture);
        room.put("rows/manifest.json", MANIFEST.as_bytes());
        room
    };
}

fn run(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    ROOM.with(|room| match which % 4 {
        0 => {
            let path = room.put("a.tar", rest);
            // The index is of the input before.
            let _ = std::fs::remove_file(room.path().join("a.tar.idx"));
            // Once by reading the shard, and once by its index.
            let open = || checked(Shards::open(&path.display().to_string(), None));
            let (first, second) = (open(), open());
            let fingerprint = |read: &Option<Shards>| read.as_ref().map(Dataset::fingerprint);
            assert_eq!(fingerprint(&first), fingerprint(&second));
            look(second);
        }
        1 => table(room.put("jsonl/metadata.jsonl", rest).parent()),
        2 => table(room.put("csv/metadata.csv", rest).parent()),
        _ => {
            let path = room.put("rows/rows-000000.safetensors", rest);
            let read = path.parent().and_then(|folder| checked(Embeddings::open(folder, "d", "e")));
            for sample in 0..3 {
                read.iter().for_each(|read| drop(checked(read.row(sample))));
            }
        }
    });
}

fn table(folder: Option<&Path>) {
    look(folder.and_then(|folder| checked(Folder::open(folder))));
}

/// Reads the first samples.
fn look(data: Option<impl Dataset>) {
    let Some(data) = data else { return };
    assert!(!data.is_empty() && data.fingerprint().len() == 64);
    for index in 0..data.len().min(MOST) {
        let size = checked(data.size(index));
        // Larger pictures take too long to be decoded for every input.
        if size.is_none_or(|(height, width)| u64::from(height) * u64::from(width) > 1 << 20) {
            continue;
        }
        if let Some(sample) = checked(data.sample(index)) {
            assert_eq!(Some((sample.height, sample.width)), size, "the header says another size");
            assert_eq!(sample.pixels.len() as u64, u64::from(sample.height) * u64::from(sample.width) * 3);
            assert_eq!(checked(data.caption(index)), Some(sample.caption));
        }
    }
    assert!(data.sample(data.len()).is_err());
}
