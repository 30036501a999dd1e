//! The index of weights in several files.
#![no_main]

use ediffi_core::weights::{WeightsFile, shards};
use ediffi_fuzz::{Room, checked, peak, target};

target!(run);

thread_local! {
    static ROOM: Room = {
        let shard = |name: &'static str| ("ediffi-encoders/tests/fixtures/t5/model.safetensors", name);
        Room::with(&[shard("model-00001-of-00002.safetensors"), shard("model-00002-of-00002.safetensors")])
    };
}

fn run(data: &[u8]) {
    ROOM.with(|room| {
        let index = room.put("model.safetensors.index.json", data);
        let (read, bytes) = peak(|| checked(shards(&index, |name| Some(name.to_owned()))));
        assert!(bytes <= (1 << 16) + 256 * data.len(), "an index of {} bytes took {bytes}", data.len());
        for file in read.into_iter().flatten() {
            assert_eq!(file.parent(), Some(room.path()), "{} is outside", file.display());
        }
        let _ = checked(WeightsFile::open(&index, |name| Some(name.to_owned())));
    });
}
