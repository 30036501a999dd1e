//! Finds a phrase in the prompt, by characters.
//!
//! Token ids would not do: a comma or a capital letter changes them, so a phrase could be missed without notice.

use std::ops::Range;

use crate::{Error, Occurrence, Result};

/// A character of the folded text, which is in lower case and has one space for each run of white space.
struct Folded {
    character: char,
    /// Its place in the original text.
    source: usize,
}

fn fold(text: &str) -> Vec<Folded> {
    let mut folded: Vec<Folded> = Vec::new();
    for (source, original) in text.chars().enumerate() {
        if !original.is_whitespace() {
            // One character may become two in lower case; both have the same source.
            folded.extend(original.to_lowercase().map(|character| Folded { character, source }));
        } else if folded.last().is_none_or(|last| last.character != ' ') {
            folded.push(Folded { character: ' ', source });
        }
    }
    folded
}

/// Whether a character belongs to a word. Combining accents do.
fn in_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || ('\u{300}'..='\u{36f}').contains(&character)
}

/// Whether `left` and `right` stand in the same word. A phrase cannot end between them.
fn joined(left: char, right: char) -> bool {
    // Kana and CJK ideographs: a phrase may end after any of them.
    let spaceless = |c: char| ('\u{3040}'..='\u{30ff}').contains(&c) || ('\u{3400}'..='\u{9fff}').contains(&c);
    in_word(left) && in_word(right) && !spaceless(left) && !spaceless(right)
}

/// Every place where `phrase` stands in `text` as whole words: ranges of characters (not bytes), from left to right.
///
/// Upper and lower case are the same, and so are spaces of any length. Places do not overlap: `a a` stands once in
/// `a a a`. An empty phrase is found nowhere.
///
/// ```
/// assert_eq!(ediffi_paint::find("A cat, two cats and a Cat", "cat"), [2..5, 22..25]);
/// ```
#[must_use]
pub fn find(text: &str, phrase: &str) -> Vec<Range<usize>> {
    let text = fold(text);
    let phrase = fold(phrase.trim());
    let (Some(first), Some(last)) = (phrase.first(), phrase.last()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(candidate) = text.get(start..start + phrase.len()) {
        let same = candidate.iter().zip(&phrase).all(|(a, b)| a.character == b.character);
        let before =
            start.checked_sub(1).and_then(|i| text.get(i)).is_some_and(|b| joined(b.character, first.character));
        let after = text.get(start + phrase.len()).is_some_and(|a| joined(last.character, a.character));
        match (candidate.first(), candidate.last()) {
            (Some(from), Some(to)) if same && !before && !after => {
                found.push(from.source..to.source + 1);
                start += phrase.len();
            }
            _ => start += 1,
        }
    }
    found
}

/// The places in `text` that a region with this phrase and occurrence paints: ranges of characters, at least one.
///
/// # Errors
/// [`Error::PhraseNotFound`] with the words of the text, [`Error::OccurrenceNotFound`] and [`Error::SpanOutside`].
pub fn locate(text: &str, phrase: &str, occurrence: Occurrence) -> Result<Vec<Range<usize>>> {
    let found = match occurrence {
        Occurrence::Span { start, end } => {
            let characters = text.chars().count();
            let blank = || text.chars().skip(start).take(end - start).all(char::is_whitespace);
            if start >= end || end > characters || blank() {
                return Err(Error::SpanOutside { phrase: phrase.to_owned(), start, end, characters });
            }
            std::iter::once(start..end).collect()
        }
        Occurrence::All | Occurrence::Nth(_) => find(text, phrase),
    };
    if found.is_empty() {
        let words = words(text);
        return Err(Error::PhraseNotFound { phrase: phrase.to_owned(), nearest: nearest(&words, phrase), words });
    }
    match occurrence {
        Occurrence::All | Occurrence::Span { .. } => Ok(found),
        Occurrence::Nth(nth) => match nth.checked_sub(1).and_then(|index| found.get(index)) {
            Some(span) => Ok(vec![span.clone()]),
            None => Err(Error::OccurrenceNotFound { phrase: phrase.to_owned(), occurrence: nth, found: found.len() }),
        },
    }
}

/// The words of the prompt that are spelt most like `phrase`, as many as it has. `None` if no words are much like it.
fn nearest(words: &[String], phrase: &str) -> Option<String> {
    let count = phrase.split_whitespace().count().clamp(1, words.len().max(1));
    let likeness = |text: &str| strsim::normalized_damerau_levenshtein(&text.to_lowercase(), &phrase.to_lowercase());
    let candidates = words.windows(count).map(|words| words.join(" "));
    let best = candidates.map(|text| (likeness(&text), text)).max_by(|a, b| a.0.total_cmp(&b.0));
    // Less than half alike is another word, not a slip.
    best.filter(|(likeness, _)| *likeness >= 0.5).map(|(_, text)| text)
}

/// The words of a text, without the punctuation around them.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !in_word(c)))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pairs of first and one past the last character.
    fn places(text: &str, phrase: &str) -> Vec<(usize, usize)> {
        find(text, phrase).iter().map(|span| (span.start, span.end)).collect()
    }

    #[test]
    fn only_whole_words_count() {
        assert_eq!(places("cats, a cat's cat-flap", "cat"), [(8, 11), (14, 17)]);
        assert_eq!(places("concatenate cat_1", "cat"), []);
        assert_eq!(places("cafe\u{301}", "cafe"), []);
    }

    #[test]
    fn case_and_spaces_do_not_matter() {
        assert_eq!(places("A  RED\n apple", " red Apple "), [(3, 13)]);
    }

    #[test]
    fn ranges_count_characters_not_bytes() {
        assert_eq!(places("ein Äpfelchen, çà et là: chat", "CHAT"), [(25, 29)]);
        assert_eq!(places("İstanbul cat", "cat"), [(9, 12)]);
    }

    #[test]
    fn a_phrase_may_hold_punctuation() {
        assert_eq!(places("hello, world!", "hello, world"), [(0, 12)]);
        assert_eq!(places("wow!!", "!"), [(3, 4), (4, 5)]);
    }

    #[test]
    fn scripts_without_spaces_match_inside() {
        assert_eq!(places("一只猫和狗", "猫"), [(2, 3)]);
    }

    #[test]
    fn places_do_not_overlap() {
        assert_eq!(places("a a a", "a a"), [(0, 3)]);
    }

    #[test]
    fn an_empty_phrase_stands_nowhere() {
        assert_eq!(places("a cat", " "), []);
        assert_eq!(places("", "cat"), []);
    }

    #[test]
    fn an_occurrence_can_be_chosen() {
        let text = "a squirrel left of a squirrel";
        assert_eq!(locate(text, "squirrel", Occurrence::All).unwrap(), [2..10, 21..29]);
        assert_eq!(locate(text, "squirrel", Occurrence::Nth(2)).unwrap().first(), Some(&(21..29)));
    }

    #[test]
    fn characters_can_be_named_outright() {
        let text = "a cat, Käse";
        let locate = |start, end| locate(text, "the cheese", Occurrence::Span { start, end });
        assert_eq!(locate(7, 11).unwrap().first(), Some(&(7..11)));
        for (start, end) in [(7, 12), (3, 3), (5, 4), (6, 7)] {
            let error = locate(start, end).unwrap_err();
            assert!(matches!(error, Error::SpanOutside { characters: 11, .. }), "{error}");
        }
    }

    #[test]
    fn a_missing_occurrence_says_how_many_there_are() {
        for nth in [0, 3] {
            let error = locate("a cat and a cat", "cat", Occurrence::Nth(nth)).unwrap_err();
            assert!(matches!(error, Error::OccurrenceNotFound { found: 2, occurrence, .. } if occurrence == nth));
        }
    }

    #[test]
    fn a_missing_phrase_lists_the_words() {
        let error = locate("Two cats, -- and a dog.", "cat", Occurrence::All).unwrap_err();
        let text = "phrase `cat` is not in the prompt (did you mean `cats`?), whose words are: Two, cats, and, a, dog";
        assert_eq!(error.to_string(), text);
        let nearest = |phrase| match locate("a red aple beside the tree", phrase, Occurrence::All).unwrap_err() {
            Error::PhraseNotFound { nearest, .. } => nearest,
            error => panic!("{error}"),
        };
        assert_eq!(nearest("Red apple").as_deref(), Some("red aple"));
        assert_eq!(nearest("rocket"), None);
        assert_eq!(nearest("a red apple beside the tree and more"), Some("a red aple beside the tree".to_owned()));
        assert!(matches!(locate("", "x", Occurrence::All), Err(Error::PhraseNotFound { nearest: None, .. })));
    }

    proptest! {
        #[test]
        fn every_place_holds_the_phrase(text in "[a-cA-C ,é]{0,30}", phrase in "[a-c,é ]{1,4}") {
            let characters: Vec<char> = text.chars().collect();
            let plain = |s: &str| s.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
            let mut end = 0;
            for span in find(&text, &phrase) {
                prop_assert!(span.start >= end, "ordered and apart");
                end = span.end;
                let place: String = characters[span].iter().collect();
                prop_assert_eq!(plain(&place), plain(&phrase));
            }
        }

        #[test]
        fn every_word_of_a_text_is_found(text in "\\PC{0,40}") {
            for word in words(&text) {
                prop_assert!(!find(&text, &word).is_empty(), "{word:?} in {text:?}");
            }
        }
    }
}
