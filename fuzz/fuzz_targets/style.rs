//! A file of a style's embedding.
#![no_main]

use ediffi::StyleEmbedding;
use ediffi_fuzz::{Room, checked, peak, target};

target!(run);

thread_local! {
    static ROOM: Room = Room::new();
}

fn run(data: &[u8]) {
    ROOM.with(|room| {
        let path = room.put("style.safetensors", data);
        let (read, bytes) = peak(|| checked(StyleEmbedding::load(&path)));
        assert!(bytes <= (1 << 16) + 128 * data.len(), "a file of {} bytes took {bytes}", data.len());
        let Some(read) = read else { return };
        let again = room.path().join("again.safetensors");
        read.save(&again).unwrap();
        assert!(StyleEmbedding::load(&again).unwrap() == read, "a style comes back as another one");
        let json = serde_json::to_string(&read).unwrap();
        assert!(serde_json::from_str::<StyleEmbedding>(&json).unwrap() == read, "a style comes back as another one");
        assert!(format!("{read:?}").len() < 10_000);
    });
}
