//! A file of embeddings.
#![no_main]

use ediffi::Embeddings;
use ediffi_fuzz::{Room, checked, peak, target};

target!(run);

thread_local! {
    static ROOM: Room = Room::new();
}

fn run(data: &[u8]) {
    ROOM.with(|room| {
        let path = room.put("embeddings.safetensors", data);
        let (read, bytes) = peak(|| checked(Embeddings::load(&path)));
        assert!(bytes <= (1 << 16) + 128 * data.len(), "a file of {} bytes took {bytes}", data.len());
        let Some(read) = read else { return };
        let again = room.path().join("again.safetensors");
        read.save(&again).unwrap();
        let copy = checked(Embeddings::load(&again)).expect("what was read can be written");
        assert!(copy.request() == read.request());
        let (a, b) = (copy.conditioning(), read.conditioning());
        for (a, b) in [(a.t5, b.t5), (a.clip_text, b.clip_text), (a.clip_text_pooled, b.clip_text_pooled)] {
            assert_eq!(a.map(|a| a.size()), b.map(|b| b.size()));
        }
    });
}
