//! Texts cut into the pieces of a SentencePiece Unigram model (Kudo 2018), as T5 does.

use std::fmt;
use std::ops::Range;

use tokenizers::Model;
use tokenizers::models::unigram::Unigram;

use super::charsmap::Charsmap;

/// What stands for a space before a word, in pieces.
const SPACE: char = '▁';

/// One entry of the vocabulary; its place is its id.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Logarithm of its probability.
    pub(super) score: f64,
    pub(super) kind: PieceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    /// Stands for what no other piece does.
    Unknown,
    /// Never found in a text, even if it is written there: the end of a text, filling.
    Unreachable,
    /// Always found in a text where it is written.
    UserDefined,
    /// One byte of a character that no other piece has.
    Byte,
}

/// A model: how texts are normalised, and the pieces they are cut into.
pub(super) struct SentencePiece {
    charsmap: Charsmap,
    unigram: Unigram,
    /// Whether a text begins as if a space stood before it.
    prefixed: bool,
}

impl fmt::Debug for SentencePiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentencePiece").field("unigram", &self.unigram).finish_non_exhaustive()
    }
}

impl SentencePiece {
    pub(super) fn new(
        pieces: Vec<Piece>,
        charsmap: Charsmap,
        byte_fallback: bool,
        prefixed: bool,
    ) -> Result<Self, String> {
        let unknown = pieces.iter().position(|piece| piece.kind == PieceKind::Unknown);
        let unknown = unknown.ok_or("it has no piece for what it does not know")?;
        let best = pieces.iter().filter(|p| p.kind == PieceKind::Normal).map(|p| p.score).fold(f64::MIN, f64::max);
        if pieces.iter().any(|piece| !piece.score.is_finite()) {
            return Err("the score of a piece is not a number".to_owned());
        }
        let entry = |piece: Piece| match piece.kind {
            PieceKind::Normal | PieceKind::Byte => (piece.text, piece.score),
            // A word never holds a space, so such a piece is never found.
            PieceKind::Unknown | PieceKind::Unreachable => (format!(" {}", piece.text), piece.score),
            // SentencePiece's score of such a piece: above that of any way to cut it.
            PieceKind::UserDefined => {
                let score = piece.text.chars().count() as f64 * best - 0.1;
                (piece.text, score)
            }
        };
        let vocabulary = pieces.into_iter().map(entry).collect();
        let unigram = Unigram::from(vocabulary, Some(unknown), byte_fallback).map_err(|error| error.to_string())?;
        Ok(Self { charsmap, unigram, prefixed })
    }

    /// How many ids there are.
    pub(super) fn pieces(&self) -> usize {
        self.unigram.get_vocab_size()
    }

    /// The ids of a text, each with the range of characters of the text that it stands for.
    pub(super) fn encode(&self, text: &str) -> tokenizers::Result<Vec<(u32, Range<usize>)>> {
        let normalised = self.charsmap.apply(text);
        let mut tokens = Vec::new();
        for (index, word) in normalised.split(|(c, _)| *c == ' ').filter(|word| !word.is_empty()).enumerate() {
            let prefixed = self.prefixed || index > 0;
            let first = word.first().map(|(_, range)| range.clone()).unwrap_or_default();
            // Each byte of the word with the characters of the text that it came from; nothing of it for the space.
            let space = prefixed.then_some((SPACE, first.start..first.start));
            let characters = space.iter().chain(word);
            let mut origins = Vec::with_capacity(4 * word.len() + 4);
            let mut written = String::with_capacity(4 * word.len() + 4);
            for (character, origin) in characters {
                written.push(*character);
                origins.extend(std::iter::repeat_n(origin, character.len_utf8()));
            }
            for token in self.unigram.tokenize(&written)? {
                let covered = origins.get(token.offsets.0..token.offsets.1).unwrap_or_default();
                let start = covered.iter().map(|range| range.start).min().unwrap_or(first.start);
                let end = covered.iter().map(|range| range.end).max().unwrap_or(first.start);
                tokens.push((token.id, start..end));
            }
        }
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(prefixed: bool) -> SentencePiece {
        let piece = |(text, score, kind): (&str, f64, PieceKind)| Piece { text: text.to_owned(), score, kind };
        let pieces = [
            ("<pad>", 0.0, PieceKind::Unreachable),
            ("</s>", 0.0, PieceKind::Unreachable),
            ("<unk>", 0.0, PieceKind::Unknown),
            ("▁", -4.0, PieceKind::Normal),
            ("▁a", -1.0, PieceKind::Normal),
            ("b", -2.0, PieceKind::Normal),
            ("bb", -5.0, PieceKind::Normal),
            ("é", -2.0, PieceKind::UserDefined),
        ];
        SentencePiece::new(pieces.map(piece).to_vec(), Charsmap::default(), false, prefixed).unwrap()
    }

    #[test]
    fn words_are_cut_into_the_likeliest_pieces() {
        let tokens = model(true).encode("  abb é </s> ").unwrap();
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        // "b" twice is likelier than "bb"; the end of a text, written out, is unknown.
        assert_eq!(ids, [4, 5, 5, 3, 7, 3, 2]);
        assert_eq!(tokens[1].1, 3..4);
        assert_eq!((tokens[3].1.clone(), tokens[4].1.clone(), tokens[6].1.clone()), (6..6, 6..7, 8..12));
        assert_eq!(model(false).encode("b a").unwrap().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [5, 4]);
    }

    #[test]
    fn a_model_without_an_unknown_piece_is_an_error() {
        let piece = Piece { text: "a".to_owned(), score: 0.0, kind: PieceKind::Normal };
        assert!(SentencePiece::new(vec![piece], Charsmap::default(), false, true).is_err());
        assert!(SentencePiece::new(Vec::new(), Charsmap::default(), false, true).is_err());
    }
}
