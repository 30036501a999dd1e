//! The words of a prompt, and a phrase of it behind a zero byte: tokenizers, the cleaning of captions, and where a phrase stands.
#![no_main]

use ediffi::{Canvas, Pipeline, Region, Request};
use ediffi_encoders::TextTokenizer;
use ediffi_fuzz::{checked, fixture, target};

target!(run);

struct Readers {
    icons: Pipeline,
    published: Pipeline,
    tokenizers: [TextTokenizer; 2],
}

thread_local! {
    static READERS: Readers = {
        let open = |folder: &str| Pipeline::open(fixture(folder)).unwrap();
        let t5 = TextTokenizer::t5(&fixture("models/icons/t5/tokenizer.json"), 1, 0, 248).unwrap();
        let clip = TextTokenizer::clip(&fixture("ediffi-encoders/tests/fixtures/clip/tokenizer.json"), 595, 24).unwrap();
        let (icons, published) = (open("models/icons"), open("ediffi-core/tests/fixtures/deepfloyd/stage-1"));
        Readers { icons, published, tokenizers: [t5, clip] }
    };
}

fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (prompt, phrase) = text.split_once('\0').unwrap_or((text, ""));
    READERS.with(|readers| {
        for tokenizer in &readers.tokenizers {
            let Some(tokens) = checked(tokenizer.encode(&[prompt], 24)) else { continue };
            let characters = prompt.chars().count();
            let mut end = 0;
            for span in tokens.spans.iter().flatten().flatten() {
                assert!(span.start < span.end && span.end <= characters, "{span:?} of {characters} characters");
                assert!(span.start >= end || span.end >= end, "{span:?} comes after a token that ends at {end}");
                end = span.end;
            }
        }
        let mut request = Request::new(prompt);
        if let Some(canvas) =
            Region::rectangle(phrase, (4, 4), 0..2, 0..2).ok().and_then(|region| Canvas::new([region]).ok())
        {
            request = request.canvas(canvas);
        }
        let _ = checked(readers.icons.validate(&request));
        let _ = checked(readers.published.validate(&request.negative_prompt(phrase).truncate(true)));
    });
}
