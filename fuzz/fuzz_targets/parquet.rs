//! Data in Parquet files: a table of captions, and pictures with their captions.
#![no_main]

use ediffi_data::{Folder, open};
use ediffi_fuzz::{Room, checked, target};
use ediffi_train::dataset::Dataset;

target!(run);

thread_local! {
    static ROOM: Room = {
        let room = Room::with(&[("ediffi-paint/tests/fixtures/transparent.png", "table/a.png")]);
        let picture = std::fs::read(room.path().join("table/a.png")).unwrap();
        room.put("table/b/c.png", &picture);
        room.put("table/d.png", &picture);
        room
    };
}

fn run(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    ROOM.with(|room| match which % 2 {
        0 => {
            room.put("table/metadata.parquet", rest);
            if let Some(data) = checked(Folder::open(room.path().join("table"))) {
                look(&data);
            }
        }
        _ => {
            let path = room.put("pictures.parquet", rest);
            // The shard is of the input before.
            let shard = path.with_extension("parquet.tar");
            for kept in [shard.with_extension("tar.idx"), shard] {
                let _ = std::fs::remove_file(kept);
            }
            if let Some(data) = checked(open(&path.display().to_string())) {
                look(&*data);
            }
        }
    });
}

/// Reads what is said of each sample; the target `dataset` reads pictures.
fn look(data: &dyn Dataset) {
    assert!(!data.is_empty() && data.fingerprint().len() == 64);
    for index in 0..data.len() {
        assert!(checked(data.caption(index)).is_some());
    }
}
