//! The settings beside a tokenizer that is sound: the first byte says whose, and which file.
#![no_main]

use ediffi_encoders::{Error, TextTokenizer};
use ediffi_fuzz::{Room, checked, peak, target};

target!(run);

const FOLDER: &str = "ediffi-encoders/tests/fixtures";
const FILES: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
const TEXT: &str = "a red apple left of a cat";
/// Rows of the tables that the tokenizers are for: T5's and CLIP's.
const ROWS: [i64; 2] = [64, 600];

thread_local! {
    static ROOM: (Room, [Vec<i64>; 2]) = {
        let tokenizers = ["t5/tokenizer.json", "clip/tokenizer.json"];
        let room = Room::with(&tokenizers.map(|name| (format!("{FOLDER}/{name}"), name)).each_ref().map(|(a, b)| (a.as_str(), *b)));
        let sound = [0, 1].map(|whose| ids(&open(&room, whose).unwrap()));
        (room, sound)
    };
}

fn open(room: &Room, whose: usize) -> Result<TextTokenizer, Error> {
    match whose {
        0 => TextTokenizer::t5(&room.path().join("t5"), 1, 0, ROWS[0]),
        _ => TextTokenizer::clip(&room.path().join("clip"), ROWS[1], 24),
    }
}

fn ids(tokenizer: &TextTokenizer) -> Vec<i64> {
    Vec::try_from(tokenizer.encode(&[TEXT], 24).unwrap().ids.flatten(0, -1)).unwrap()
}

fn run(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let (whose, file) = (usize::from(which) % 2, FILES[usize::from(which) / 2 % FILES.len()]);
    ROOM.with(|(room, sound)| {
        let path = room.put(&format!("{}/{file}", ["t5", "clip"][whose]), data);
        let (read, bytes) = peak(|| checked(open(room, whose)));
        assert!(bytes <= (64 << 20) + 256 * data.len(), "settings of {} bytes took {bytes}", data.len());
        // What is taken changes no token.
        if let Some(tokenizer) = read {
            assert_eq!(ids(&tokenizer), sound[whose], "{file} changes tokens");
        }
        std::fs::remove_file(path).unwrap();
    });
}
