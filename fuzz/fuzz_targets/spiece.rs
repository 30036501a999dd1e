//! `spiece.model`, the file of a SentencePiece model, and the texts that it cuts.
#![no_main]

use ediffi_encoders::TextTokenizer;
use ediffi_fuzz::{Room, checked, peak, target};

target!(run);

const ROWS: i64 = 512;
const TEXTS: [&str; 5] = [
    "",
    "a red apple",
    "\u{e9}t\u{e9} \u{2460} \u{fb01} \u{732b}\u{1F34E}\u{301}  \t.",
    "\u{2581}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

thread_local! {
    static ROOM: Room = Room::new();
}

fn run(data: &[u8]) {
    let path = ROOM.with(|room| room.put("spiece.model", data));
    let (read, bytes) = peak(|| checked(TextTokenizer::t5(&path, 1, 0, ROWS)));
    assert!(bytes <= (1 << 16) + 256 * data.len(), "a model of {} bytes took {bytes}", data.len());
    let Some(tokenizer) = read else { return };
    for text in TEXTS {
        let (tokens, bytes) = peak(|| checked(tokenizer.encode(&[text], 24)));
        assert!(bytes <= 16 << 20, "{text:?} took {bytes}");
        let Some(tokens) = tokens else { continue };
        for span in tokens.spans.iter().flatten().flatten() {
            assert!(span.start < span.end && span.end <= text.chars().count(), "{span:?} of {text:?}");
        }
        let ids = Vec::<i64>::try_from(tokens.ids.flatten(0, -1)).unwrap();
        assert!(ids.iter().all(|id| (0..ROWS).contains(id)), "{ids:?}");
    }
}
