//! The configurations of encoders whose other files are sound: the first byte says which one is read.
#![no_main]

use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
use ediffi_encoders::clip::Preprocess;
use ediffi_encoders::{Clip, T5};
use ediffi_fuzz::{Room, checked, fixture, peak, target};

target!(run);

const FOLDER: &str = "ediffi-encoders/tests/fixtures";
const READ: [&str; 4] =
    ["t5/config.json", "clip/config.json", "clip/preprocessor_config.json", "clip/processor_config.json"];

thread_local! {
    static ROOM: (Room, [Vec<u8>; 4]) = {
        let files = ["t5/model.safetensors", "t5/tokenizer.json", "clip/model.safetensors", "clip/tokenizer.json"];
        let room = Room::with(&files.map(|name| (format!("{FOLDER}/{name}"), name)).each_ref().map(|(a, b)| (a.as_str(), *b)));
        // The last file is not part of the fixtures: it may hold nothing.
        let sound = READ.map(|name| std::fs::read(fixture(&format!("{FOLDER}/{name}"))).unwrap_or_else(|_| b"{}".to_vec()));
        READ.iter().zip(&sound).for_each(|(name, bytes)| drop(room.put(name, bytes)));
        (room, sound)
    };
}

fn run(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let which = usize::from(which) % READ.len();
    let runtime = Runtime::new(DeviceChoice::Cpu, Precision::F32).unwrap();
    ROOM.with(|(room, sound)| {
        room.put(READ[which], data);
        let open = || match which {
            0 => drop(checked(T5::open(&room.path().join("t5"), runtime)).map(|t5| checked(t5.encode(&["a cat"], 8)))),
            1 => drop(
                checked(Clip::open(&room.path().join("clip"), runtime))
                    .map(|clip| checked(clip.encode_text(&["a cat"], 8))),
            ),
            _ => drop(checked(Preprocess::of_folder(&room.path().join("clip"), 16))),
        };
        let ((), bytes) = peak(open);
        assert!(bytes <= (64 << 20) + 256 * data.len(), "a configuration of {} bytes took {bytes}", data.len());
        room.put(READ[which], &sound[which]);
    });
}
