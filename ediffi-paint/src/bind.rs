//! Finds the text tokens of each phrase through their character offsets.

use std::ops::Range;

use crate::{Canvas, Error, Region, Result, locate};

/// The tokens that a text encoder made of the prompt, as plain data: this crate knows no tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct TextTokens<'a> {
    /// The name of the encoder in messages and reports: `t5` or `clip`.
    pub encoder: &'a str,
    /// The text to which the offsets refer: the prompt as the tokenizer got it, after any cleaning.
    pub text: &'a str,
    /// The characters (not bytes) of `text` that each token covers; `None` or an empty range for special and padding
    /// tokens. There is one element for each token that the network sees, padding included.
    pub offsets: &'a [Option<Range<usize>>],
}

/// The tokens that a region paints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The phrase of the region.
    pub phrase: String,
    /// The tokens of each encoder, in the order of the encoders.
    pub encoders: Vec<BoundTokens>,
}

/// The tokens of one encoder that belong to a phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundTokens {
    /// The name of the encoder.
    pub encoder: String,
    /// Where the phrase stands in the text of the encoder, in characters.
    pub spans: Vec<Range<usize>>,
    /// The numbers of the tokens that overlap these places, counted from 0, in rising order. Empty if the encoder cut the
    /// prompt off before the phrase.
    pub tokens: Vec<usize>,
    /// The text that each of these tokens covers, without spaces around it.
    pub pieces: Vec<String>,
}

/// Finds the tokens of every region of a canvas. The result has one element for each region, in their order.
///
/// A token belongs to a phrase if it covers one of its characters. If an encoder cut the prompt off before the phrase, the
/// phrase is painted for the other encoders, and a warning is logged.
///
/// # Errors
/// [`Error::PhraseNotFound`], [`Error::OccurrenceNotFound`] and [`Error::SpanOutside`] as for [`locate`];
/// [`Error::PhraseCutOff`] if no encoder has a token for a phrase; [`Error::TokenOffsets`] if offsets leave the text.
pub fn bind(canvas: &Canvas, encoders: &[TextTokens<'_>]) -> Result<Vec<Binding>> {
    encoders.iter().try_for_each(check_offsets)?;
    canvas.regions().iter().map(|region| bind_region(region, encoders)).collect()
}

fn bind_region(region: &Region, encoders: &[TextTokens<'_>]) -> Result<Binding> {
    let phrase = &region.phrase;
    let bound = |encoder: &TextTokens<'_>| {
        let spans = locate(encoder.text, phrase, region.occurrence)?;
        let tokens = overlapping(&spans, encoder.offsets);
        let pieces = tokens.iter().filter_map(|&token| encoder.offsets.get(token)?.clone());
        let pieces = pieces.map(|Range { start, end }| piece(encoder.text, start, end)).collect();
        Ok(BoundTokens { encoder: encoder.encoder.to_owned(), spans, tokens, pieces })
    };
    let encoders: Vec<BoundTokens> = encoders.iter().map(bound).collect::<Result<_>>()?;
    if encoders.iter().all(|encoder| encoder.tokens.is_empty()) {
        return Err(Error::PhraseCutOff(phrase.clone()));
    }
    for BoundTokens { encoder, tokens, .. } in &encoders {
        if tokens.is_empty() {
            tracing::warn!(phrase, encoder, "the prompt is cut off before a painted phrase");
        }
    }
    Ok(Binding { phrase: phrase.clone(), encoders })
}

fn piece(text: &str, start: usize, end: usize) -> String {
    text.chars().skip(start).take(end.saturating_sub(start)).collect::<String>().trim().to_owned()
}

/// The tokens that share a character with one of the spans.
fn overlapping(spans: &[Range<usize>], offsets: &[Option<Range<usize>>]) -> Vec<usize> {
    let shares = |token: &Range<usize>| {
        // An empty token covers no character.
        !token.is_empty() && spans.iter().any(|span| token.start < span.end && span.start < token.end)
    };
    let painted = |(index, token): (usize, &Option<Range<usize>>)| token.as_ref().filter(|t| shares(t)).map(|_| index);
    offsets.iter().enumerate().filter_map(painted).collect()
}

/// Checks that all offsets lie inside the text. Offsets in bytes, which would paint wrong tokens, usually do not.
fn check_offsets(encoder: &TextTokens<'_>) -> Result<()> {
    let characters = encoder.text.chars().count();
    for (index, token) in encoder.offsets.iter().enumerate() {
        if let Some(&Range { start, end }) = token.as_ref()
            && (start > end || end > characters)
        {
            return Err(Error::TokenOffsets { encoder: encoder.encoder.to_owned(), index, start, end, characters });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROMPT: &str = "a red apple and a cat";

    fn canvas(phrase: &str) -> Canvas {
        Canvas::new([Region::rectangle(phrase, (4, 4), 0..2, 0..4).unwrap()]).unwrap()
    }

    fn offsets(ranges: &[(usize, usize)]) -> Vec<Option<Range<usize>>> {
        ranges.iter().map(|&(start, end)| Some(start..end)).collect()
    }

    /// Word pieces with the space in front, as SentencePiece has them, and an end token.
    fn t5() -> Vec<Option<Range<usize>>> {
        let mut tokens = offsets(&[(0, 1), (1, 5), (5, 8), (8, 11), (11, 15), (15, 17), (17, 21)]);
        tokens.extend([None, None]);
        tokens
    }

    /// Whole words between a start and an end token with empty offsets.
    fn clip() -> Vec<Option<Range<usize>>> {
        offsets(&[(0, 0), (0, 1), (2, 5), (6, 11), (12, 15), (16, 17), (18, 21), (21, 21)])
    }

    fn tokens_of(phrase: &str) -> Vec<Vec<usize>> {
        let (t5, clip) = (t5(), clip());
        let encoders = [
            TextTokens { encoder: "t5", text: PROMPT, offsets: &t5 },
            TextTokens { encoder: "clip", text: PROMPT, offsets: &clip },
        ];
        let bindings = bind(&canvas(phrase), &encoders).unwrap();
        bindings[0].encoders.iter().map(|encoder| encoder.tokens.clone()).collect()
    }

    #[test]
    fn each_encoder_has_its_own_columns() {
        assert_eq!(tokens_of("red apple"), [vec![1, 2, 3], vec![2, 3]]);
        assert_eq!(tokens_of("Cat"), [vec![6], vec![6]]);
        assert_eq!(tokens_of("a"), [vec![0, 5], vec![1, 5]]);
    }

    #[test]
    fn a_binding_says_where_the_phrase_stands() {
        let clip = clip();
        let encoder = TextTokens { encoder: "clip", text: PROMPT, offsets: &clip };
        let [binding] = &bind(&canvas("red apple"), &[encoder]).unwrap()[..] else { panic!("one region") };
        let [bound] = &binding.encoders[..] else { panic!("one encoder") };
        assert_eq!((binding.phrase.as_str(), bound.encoder.as_str()), ("red apple", "clip"));
        assert_eq!((bound.spans.first(), bound.spans.len(), &bound.tokens[..]), (Some(&(2..11)), 1, &[2, 3][..]));
        assert_eq!(bound.pieces, ["red", "apple"]);
    }

    #[test]
    fn a_phrase_cut_off_in_one_encoder_is_painted_in_the_other() {
        let (t5, short) = (t5(), offsets(&[(0, 1), (2, 5)]));
        let t5 = TextTokens { encoder: "t5", text: PROMPT, offsets: &t5 };
        let clip = TextTokens { encoder: "clip", text: PROMPT, offsets: &short };
        let bindings = bind(&canvas("cat"), &[t5, clip]).unwrap();
        assert_eq!(bindings[0].encoders[0].tokens, [6]);
        assert!(bindings[0].encoders[1].tokens.is_empty());
        let error = bind(&canvas("cat"), &[clip]).unwrap_err();
        assert!(matches!(error, Error::PhraseCutOff(ref phrase) if phrase == "cat"), "{error}");
        assert!(matches!(bind(&canvas("cat"), &[]), Err(Error::PhraseCutOff { .. })));
    }

    #[test]
    fn a_phrase_that_is_not_there_is_an_error() {
        let t5 = t5();
        let t5 = TextTokens { encoder: "t5", text: PROMPT, offsets: &t5 };
        assert!(matches!(bind(&canvas("dog"), &[t5]), Err(Error::PhraseNotFound { .. })));
    }

    #[test]
    fn byte_offsets_are_an_error() {
        let bytes = offsets(&[(0, 6)]);
        let error = bind(&canvas("été"), &[TextTokens { encoder: "t5", text: "été!", offsets: &bytes }]).unwrap_err();
        assert_eq!(error.to_string(), "token 0 of encoder `t5` covers characters 0..6 of a text of 4");
    }

    proptest! {
        #[test]
        fn tokens_are_those_that_share_a_character(
            spans in prop::collection::vec((0_usize..20, 1_usize..6), 1..3),
            tokens in prop::collection::vec((0_usize..20, 0_usize..6), 0..12),
        ) {
            let spans: Vec<_> = spans.iter().map(|&(start, length)| start..start + length).collect();
            let tokens: Vec<_> = tokens.iter().map(|&(start, length)| Some(start..start + length)).collect();
            let painted = overlapping(&spans, &tokens);
            for (index, token) in tokens.iter().enumerate() {
                let shares = token.clone().unwrap().any(|character| spans.iter().any(|span| span.contains(&character)));
                prop_assert_eq!(painted.contains(&index), shares);
            }
        }
    }
}
