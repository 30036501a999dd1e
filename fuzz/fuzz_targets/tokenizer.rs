//! The tokenizers of Hugging Face, and the texts that they cut. The first byte says which reader has the rest: T5's or CLIP's
//! `tokenizer.json`, or `vocab.json` and, behind a zero byte, `merges.txt`.
#![no_main]

use ediffi_encoders::TextTokenizer;
use ediffi_fuzz::{Room, checked, peak, target};

target!(run);

const ROWS: i64 = 600;
const TEXTS: [&str; 4] = [
    "",
    "a red apple",
    "\u{e9}t\u{e9} \u{2460} \u{fb01} \u{732b}\u{1F34E}\u{301}  \t.",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

thread_local! {
    static ROOM: Room = Room::new();
}

fn run(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let open = || {
        ROOM.with(|room| match which % 3 {
            0 => TextTokenizer::t5(&room.put("t5/tokenizer.json", data), 1, 0, ROWS),
            1 => TextTokenizer::clip(&room.put("clip/tokenizer.json", data), ROWS, 24),
            _ => {
                let (vocabulary, merges) = data.split_at(data.iter().position(|&byte| byte == 0).unwrap_or(data.len()));
                room.put("clip/merges.txt", merges.get(1..).unwrap_or_default());
                TextTokenizer::clip(&room.put("clip/vocab.json", vocabulary), ROWS, 24)
            }
        })
    };
    let (read, bytes) = peak(|| checked(open()));
    // A regular expression takes 10 MB at most.
    assert!(bytes <= (64 << 20) + 1024 * data.len(), "a tokenizer of {} bytes took {bytes}", data.len());
    let Some(tokenizer) = read else { return };
    for text in TEXTS {
        let (tokens, bytes) = peak(|| checked(tokenizer.encode(&[text], 24)));
        assert!(bytes <= 64 << 20, "{text:?} took {bytes}");
        let Some(tokens) = tokens else { continue };
        for span in tokens.spans.iter().flatten().flatten() {
            assert!(span.start < span.end && span.end <= text.chars().count(), "{span:?} of {text:?}");
        }
        let ids = Vec::<i64>::try_from(tokens.ids.flatten(0, -1)).unwrap();
        assert!(ids.iter().all(|id| (0..ROWS).contains(id)), "{ids:?}");
    }
}
