//! Files of encoded texts, those of T5 and those of CLIP: the first byte says which.
#![no_main]

use ediffi_encoders::{Clip, Encoded, EncodedClip, Fingerprint, Padding, T5};
use ediffi_fuzz::{Room, checked, fixture, peak, target};

target!(run);

thread_local! {
    static MODELS: (Room, Fingerprint, Fingerprint) = {
        let folder = |name: &str| fixture(&format!("ediffi-encoders/tests/fixtures/{name}"));
        let (t5, clip) = (T5::fingerprint(&folder("t5"), None).unwrap(), Clip::fingerprint(&folder("clip"), None).unwrap());
        (Room::new(), t5, clip)
    };
}

/// What stands in seeds in the place of a fingerprint.
const ZEROS: [u8; 64] = [b'0'; 64];

fn run(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    MODELS.with(|(room, t5, clip)| {
        let mut data = data.to_vec();
        if let Some(at) = data.windows(ZEROS.len()).position(|part| part == ZEROS) {
            let digest = if which % 2 == 0 { t5.digest() } else { clip.digest() };
            data[at..at + ZEROS.len()].copy_from_slice(digest.as_bytes());
        }
        let (path, again) = (room.put("encoded.safetensors", &data), room.path().join("again.safetensors"));
        let read = || match which % 2 {
            0 => {
                let Some((texts, read)) = checked(Encoded::load(&path, t5, Padding::Zeros)) else { return };
                let words: Vec<&str> = texts.iter().map(String::as_str).collect();
                checked(read.save(&again, t5, &words)).expect("what was read can be written");
                let (_, copy) =
                    checked(Encoded::load(&again, t5, Padding::Zeros)).expect("what was written can be read");
                assert_eq!(
                    (copy.tokens.size(), copy.spans, copy.truncated),
                    (read.tokens.size(), read.spans, read.truncated)
                );
            }
            _ => {
                let Some((texts, read)) = checked(EncodedClip::load(&path, clip)) else { return };
                let words: Vec<&str> = texts.iter().map(String::as_str).collect();
                checked(read.save(&again, clip, &words)).expect("what was read can be written");
                let (_, copy) = checked(EncodedClip::load(&again, clip)).expect("what was written can be read");
                assert_eq!(
                    (copy.pooled.size(), copy.spans, copy.truncated),
                    (read.pooled.size(), read.spans, read.truncated)
                );
            }
        };
        let ((), bytes) = peak(read);
        assert!(bytes <= (1 << 18) + 256 * data.len(), "a file of {} bytes took {bytes}", data.len());
    });
}
