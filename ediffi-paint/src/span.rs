//! Finds a phrase in the prompt, by characters.
//!
//! Token ids would not do: a comma or a capital letter changes them, so a phrase could be missed without notice.

use std::ops::Range;

use unicode_normalization::char::{canonical_combining_class, decompose_canonical};

use crate::limits::{LISTED_WORDS, SUGGESTED};
use crate::{Error, Occurrence, Result};

/// A character of the folded text, which is in lower case, in normal form D (accents are characters of their own, in one
/// order), and has one space for each run of white space. So text and phrase may come in any normal form.
struct Folded {
    character: char,
    /// Its place in the original text.
    source: usize,
    /// Whether it belongs to a word. A combining accent belongs where its letter does: that of `≠` to none.
    in_word: bool,
}

fn fold(text: &str) -> Vec<Folded> {
    let mut folded: Vec<Folded> = Vec::with_capacity(text.len());
    for (source, original) in text.chars().enumerate() {
        if !original.is_whitespace() {
            // One character may become several; all have the same source.
            decompose_canonical(original, |part| {
                for character in part.to_lowercase() {
                    let letter = folded.last().filter(|last| is_accent(character) && last.character != ' ');
                    let in_word = letter.map_or_else(|| starts_word(character), |letter| letter.in_word);
                    folded.push(Folded { character, source, in_word });
                }
            });
        } else if folded.last().is_none_or(|last| last.character != ' ') {
            folded.push(Folded { character: ' ', source, in_word: false });
        }
    }
    // Accents on one letter that do not touch may be written in any order.
    for accents in folded.chunk_by_mut(|a, b| is_accent(a.character) && is_accent(b.character)) {
        accents.sort_by_key(|folded| canonical_combining_class(folded.character));
    }
    folded
}

/// Whether a character changes the one before it.
fn is_accent(character: char) -> bool {
    canonical_combining_class(character) != 0
}

/// Whether a character belongs to a word wherever it stands. A combining accent does where it has no letter.
fn starts_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || is_accent(character)
}

/// Whether `left` and `right`, neighbours in a folded text, cannot be parted: they stand in the same word, come from one
/// character, or are a sign and its accent. A phrase cannot end between them.
fn joined(left: &Folded, right: &Folded) -> bool {
    // Kana and CJK ideographs: a phrase may end after any of them.
    let spaceless = |c: char| ('\u{3040}'..='\u{30ff}').contains(&c) || ('\u{3400}'..='\u{9fff}').contains(&c);
    let (a, b) = (left.character, right.character);
    let accent = a != ' ' && is_accent(b);
    left.source == right.source || accent || (left.in_word && right.in_word && !spaceless(a) && !spaceless(b))
}

/// For each beginning of `phrase`, by its length less one, how long its longest proper end is that is a beginning, too (Knuth,
/// Morris and Pratt 1977).
fn borders(phrase: &[Folded]) -> Vec<usize> {
    let mut borders = Vec::with_capacity(phrase.len());
    let mut length = 0;
    for (index, Folded { character, .. }) in phrase.iter().enumerate() {
        if index > 0 {
            length = extended(phrase, &borders, length, *character);
        }
        borders.push(length);
    }
    borders
}

/// How many characters of `phrase` the text ends with, after `character`, where it was `matched` before.
fn extended(phrase: &[Folded], borders: &[usize], mut matched: usize, character: char) -> usize {
    while phrase.get(matched).is_none_or(|next| next.character != character) {
        match matched.checked_sub(1).and_then(|last| borders.get(last)) {
            Some(&shorter) => matched = shorter,
            None => return 0,
        }
    }
    matched + 1
}

/// Every place where `phrase` stands in `text` as whole words: ranges of characters (not bytes), from left to right.
///
/// Upper and lower case are the same, and so are spaces of any length, and an accented letter that is one character and one
/// that is two. Places do not overlap: `a a` stands once in `a a a`. An empty phrase is found nowhere. The time grows with the
/// lengths of text and phrase, not with their product.
///
/// ```
/// assert_eq!(ediffi_paint::find("A cat, two cats and a Cat", "cat"), [2..5, 22..25]);
/// ```
#[must_use]
pub fn find(text: &str, phrase: &str) -> Vec<Range<usize>> {
    let (text, phrase) = (fold(text), fold(phrase.trim()));
    if phrase.is_empty() {
        return Vec::new();
    }
    let borders = borders(&phrase);
    let (mut found, mut matched, mut free) = (Vec::new(), 0, 0);
    for (last, Folded { character, .. }) in text.iter().enumerate() {
        matched = extended(&phrase, &borders, matched, *character);
        let start = last + 1 - matched;
        if matched < phrase.len() || start < free {
            continue;
        }
        let parted = |left: Option<usize>| {
            let pair = left.and_then(|left| text.get(left).zip(text.get(left + 1)));
            pair.is_none_or(|(left, right)| !joined(left, right))
        };
        if parted(start.checked_sub(1)) && parted(Some(last)) {
            // Accents may have changed places.
            let sources = text.get(start..=last).unwrap_or_default().iter().map(|folded| folded.source);
            let (from, to) = sources.fold((usize::MAX, 0), |(from, to), source| (from.min(source), to.max(source)));
            found.push(from..to + 1);
            free = last + 1;
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
        let mut words = words(text);
        let (nearest, more) = (nearest(&words, phrase), words.len().saturating_sub(LISTED_WORDS));
        words.truncate(LISTED_WORDS);
        return Err(Error::PhraseNotFound { phrase: phrase.to_owned(), nearest, words, more });
    }
    match occurrence {
        Occurrence::All | Occurrence::Span { .. } => Ok(found),
        Occurrence::Nth(nth) => match nth.checked_sub(1).and_then(|index| found.get(index)) {
            Some(span) => Ok(vec![span.clone()]),
            None => Err(Error::OccurrenceNotFound { phrase: phrase.to_owned(), occurrence: nth, found: found.len() }),
        },
    }
}

/// The words of the prompt that are spelt most like `phrase`, as many as it has. `None` if no words are much like it, or if the
/// phrase is too long for a slip of the pen.
fn nearest(words: &[String], phrase: &str) -> Option<String> {
    let (longest, most) = SUGGESTED;
    let length = |text: &str| text.chars().take(2 * longest + 1).count();
    let (own, words) = (length(phrase), words.get(..most).unwrap_or(words));
    if own > longest {
        return None;
    }
    let count = phrase.split_whitespace().count().clamp(1, words.len().max(1));
    let likeness = |text: &str| strsim::normalized_damerau_levenshtein(&text.to_lowercase(), &phrase.to_lowercase());
    // Less than half alike is another word, not a slip; texts of which one is twice as long as the other are less than half alike.
    let near = |text: &String| (own.div_ceil(2)..=2 * own).contains(&length(text));
    let candidates = words.windows(count).map(|words| words.join(" ")).filter(near);
    let best = candidates.map(|text| (likeness(&text), text)).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= 0.5).map(|(_, text)| text)
}

/// The words of a text, without the punctuation around them.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let trimmed = |piece: &str| {
        let folded = fold(piece);
        let sources = folded.iter().filter(|folded| folded.in_word).map(|folded| folded.source);
        let (first, last) = (sources.clone().min()?, sources.max()?);
        Some(piece.chars().skip(first).take(last + 1 - first).collect())
    };
    text.split_whitespace().filter_map(trimmed).collect()
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
    fn normal_forms_do_not_matter() {
        let (composed, decomposed) = ("Caf\u{e9} cr\u{e8}me", "Cafe\u{301} cre\u{300}me");
        for phrase in ["café", "cafe\u{301}", "CAFE\u{301}"] {
            assert_eq!(places(composed, phrase), [(0, 4)], "{phrase:?}");
            assert_eq!(places(decomposed, phrase), [(0, 5)], "{phrase:?}");
        }
        assert_eq!(places(decomposed, "crème"), [(6, 12)]);
        for text in [composed, decomposed] {
            assert_eq!(places(text, "cafe"), [], "a letter without its accent is another");
        }
        // Two accents that do not touch, in either order; a syllable of Hangul and its parts; a kana and its mark.
        assert_eq!(places("a\u{323}\u{302} \u{1ead}", "a\u{302}\u{323}"), [(0, 3), (4, 5)]);
        assert_eq!(places("\u{1100}\u{1161}\u{11a8} 각", "각"), [(0, 3), (4, 5)]);
        assert_eq!(places("각", "가"), [], "a part of a character is no place");
        assert_eq!((places("か\u{3099}", "か"), places("か\u{3099}", "が")), (vec![], vec![(0, 2)]));
    }

    #[test]
    fn the_accent_of_a_sign_is_no_part_of_a_word() {
        // Each sign is one character that is two in normal form D, the second a combining accent.
        for sign in ["\u{1fed}", "≠", "=\u{338}"] {
            let (text, length) = (format!("{sign}cat"), sign.chars().count());
            assert_eq!(words(&text), ["cat"], "{sign:?}");
            assert_eq!(places(&text, "cat"), [(length, length + 3)], "{sign:?}");
            assert_eq!(words(&format!("cat{sign}")), ["cat"], "{sign:?}");
        }
        assert_eq!(places("=\u{338}", "="), [], "a sign without its accent is another");
        assert_eq!(words("\u{301}cat"), ["\u{301}cat"], "an accent without a letter");
    }

    /// Work that grew with the square or the cube of the length would take hours here.
    #[test]
    fn long_texts_take_time_in_proportion() {
        let numbers = |n: usize| (0..n).map(|k| format!("{k:03}")).collect::<Vec<_>>().join(" ");
        let (text, phrase) = (numbers(60_000), format!("q{}", numbers(30_000)));
        let error = locate(&text, &phrase, Occurrence::All).unwrap_err();
        assert!(error.to_string().len() < 1000, "{error}");
        assert!(matches!(error, Error::PhraseNotFound { nearest: None, more: 59_976, .. }));
        let (text, phrase) = ("a".repeat(400_000), "a".repeat(200_000));
        assert_eq!(places(&text, &phrase), []);
        let error = locate(&text, &phrase, Occurrence::Nth(1)).unwrap_err().to_string();
        assert!(error.len() < 1000, "{error}");
        // One long word beside a short phrase.
        assert!(locate(&text, "aaa", Occurrence::All).unwrap_err().to_string().len() < 1000);
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

    /// Every place, found the slow way: the text is tried at every character.
    fn slow(text: &str, phrase: &str) -> Vec<Range<usize>> {
        let (text, phrase) = (fold(text), fold(phrase.trim()));
        let (mut found, mut start) = (Vec::new(), 0);
        while let Some(candidate) = text.get(start..start + phrase.len()).filter(|_| !phrase.is_empty()) {
            let same = candidate.iter().zip(&phrase).all(|(a, b)| a.character == b.character);
            let edge = |i: usize| i == 0 || i == text.len() || !joined(&text[i - 1], &text[i]);
            let end = start + phrase.len();
            if same && edge(start) && edge(end) {
                found.push(text[start].source..text[end - 1].source + 1);
                start = end;
            } else {
                start += 1;
            }
        }
        found
    }

    proptest! {
        #[test]
        fn the_fast_way_finds_what_the_slow_one_does(text in "[ab ,]{0,40}", phrase in "[ab ,]{1,6}") {
            prop_assert_eq!(find(&text, &phrase), slow(&text, &phrase));
        }

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
