//! SentencePiece Unigram models (Kudo 2018), which T5 tokenizes with.

use std::collections::HashMap;
use std::ops::Range;

use super::charsmap::Charsmap;

/// The character that stands for a space before a word in pieces.
const SPACE: char = '▁';

/// One entry of the vocabulary. Its index is its id.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    /// The logarithm of its probability.
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    /// Stands for characters that no other piece has.
    Unknown,
    /// Never found in a text, even if it is written there, such as the end of a text and padding.
    Unreachable,
    /// Always found where it is written in a text.
    UserDefined,
    /// One byte of a character that no other piece has.
    Byte,
}

/// How much lower the score of an unknown piece is than the lowest of the known ones (SentencePiece, `unigram_model.cc`).
const UNKNOWN_PENALTY: f32 = 10.0;

/// A model: how texts are normalised, and the pieces that they are cut into.
///
/// The crate `tokenizers` has such a model, too. But it adds scores in f64 where SentencePiece adds them in f32, so it may
/// choose another of two equally likely ways to cut a text.
#[derive(Debug)]
pub(super) struct SentencePiece {
    charsmap: Charsmap,
    /// The pieces that can be found in a text.
    pieces: HashMap<String, Found>,
    /// The length of the longest of them in bytes.
    longest: usize,
    /// The pieces that are never found, by their ids.
    unreachable: HashMap<u32, String>,
    /// The number of ids.
    ids: usize,
    unknown: u32,
    unknown_score: f32,
    /// The ids of all bytes, if the model spells characters that no piece has in bytes.
    bytes: Option<Vec<u32>>,
    /// Whether a text is treated as if it began with a space.
    prefixed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    id: u32,
    score: f32,
}

impl SentencePiece {
    pub(super) fn new(
        all: Vec<Piece>,
        charsmap: Charsmap,
        byte_fallback: bool,
        prefixed: bool,
    ) -> Result<Self, String> {
        if all.iter().any(|piece| !piece.score.is_finite()) {
            return Err("the score of a piece is not a number".to_owned());
        }
        let normal = || all.iter().filter(|piece| piece.kind == PieceKind::Normal).map(|piece| piece.score);
        let (best, worst) = (normal().fold(f32::MIN, f32::max), normal().fold(f32::MAX, f32::min));
        let (mut pieces, mut unknown, mut spelled) = (HashMap::with_capacity(all.len()), None, HashMap::new());
        let mut unreachable = HashMap::new();
        let ids = all.len();
        for (id, piece) in all.into_iter().enumerate() {
            let id = u32::try_from(id).map_err(|_| "it has more pieces than ids")?;
            let score = match piece.kind {
                PieceKind::Normal => piece.score,
                // Above that of any way to cut it.
                PieceKind::UserDefined => piece.text.len() as f32 * best - 0.1,
                PieceKind::Unknown => {
                    unknown = unknown.or(Some(id));
                    continue;
                }
                PieceKind::Byte => {
                    spelled.insert(piece.text, id);
                    continue;
                }
                PieceKind::Unreachable => {
                    unreachable.insert(id, piece.text);
                    continue;
                }
            };
            if piece.text.is_empty() || pieces.insert(piece.text.clone(), Found { id, score }).is_some() {
                return Err(format!("its piece {id}, `{}`, is empty or not the first of its kind", piece.text));
            }
        }
        let bytes = (0..=255_u8).map(|byte| spelled.get(&format!("<0x{byte:02X}>")).copied()).collect();
        Ok(Self {
            charsmap,
            longest: pieces.keys().map(String::len).max().unwrap_or(0),
            pieces,
            unreachable,
            ids,
            unknown: unknown.ok_or("it has no piece for what it does not know")?,
            unknown_score: worst - UNKNOWN_PENALTY,
            bytes: if byte_fallback { bytes } else { None },
            prefixed,
        })
    }

    /// The number of ids.
    pub(super) fn ids(&self) -> usize {
        self.ids
    }

    /// The id of a piece that can be found in a text.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.pieces.get(piece).map(|found| found.id)
    }

    /// The text of a piece that is never found in a text, such as the token that ends one.
    pub(super) fn unreachable(&self, id: u32) -> Option<&str> {
        self.unreachable.get(&id).map(String::as_str)
    }

    /// The ids of a text, each with the characters of the text that it stands for.
    pub(super) fn encode(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        let normalised = self.charsmap.apply(text);
        // The whole text is cut at once: scores add up in f32, and where two ways are equally likely the sum before a word
        // decides between them.
        let (mut written, mut origins) = (String::with_capacity(text.len() + 3), Vec::with_capacity(text.len() + 3));
        let words = normalised.split(|(c, _)| *c == ' ').filter(|word| !word.is_empty());
        for (index, word) in words.enumerate() {
            let first = word.first().map_or(0, |(_, range)| range.start);
            // The space that stands before a word is nothing of it.
            let space = (self.prefixed || index > 0).then_some((SPACE, first..first));
            // Each byte with the characters of the text that it came from.
            for (character, origin) in space.iter().chain(word) {
                written.push(*character);
                origins.extend(std::iter::repeat_n(origin.clone(), character.len_utf8()));
            }
        }
        let mut tokens: Vec<(u32, Range<usize>)> = Vec::new();
        for (id, part) in self.cut(&written) {
            let covered = origins.get(part.clone()).unwrap_or_default();
            let start = covered.iter().map(|range| range.start).min().unwrap_or(0);
            let end = covered.iter().map(|range| range.end).max().unwrap_or(start);
            match (id, tokens.last_mut()) {
                (Some(id), _) => tokens.push((id, start..end)),
                // What is not known in a row is one unknown piece.
                (None, Some((last, span))) if self.bytes.is_none() && *last == self.unknown => span.end = end,
                (None, _) => tokens.extend(self.spell(written.get(part).unwrap_or_default(), start..end)),
            }
        }
        tokens
    }

    /// A character that no piece has.
    fn spell(&self, character: &str, span: Range<usize>) -> Vec<(u32, Range<usize>)> {
        let id = |byte: u8| self.bytes.as_ref().and_then(|ids| ids.get(usize::from(byte)).copied());
        let spelled: Option<Vec<u32>> = character.bytes().map(id).collect();
        spelled.unwrap_or_else(|| vec![self.unknown]).into_iter().map(|id| (id, span.clone())).collect()
    }

    /// The likeliest way to cut a text (Viterbi 1967): ids with their bytes, `None` for a character that no piece has.
    fn cut(&self, text: &str) -> Vec<(Option<u32>, Range<usize>)> {
        /// The best way to a place: its score, its last piece, and where that begins.
        type Step = Option<(f32, Option<u32>, usize)>;
        let mut best: Vec<Step> = vec![None; text.len() + 1];
        let better = |step: &mut Step, score: f32, id: Option<u32>, start: usize| {
            if step.is_none_or(|(other, ..)| score > other) {
                *step = Some((score, id, start));
            }
        };
        for (start, character) in text.char_indices() {
            let so_far = best.get(start).copied().flatten().map_or(0.0, |(score, ..)| score);
            let alone = start + character.len_utf8();
            let mut known = false;
            let ends = text[start..].char_indices().map(|(at, c)| start + at + c.len_utf8());
            for end in ends.take_while(|end| end - start <= self.longest) {
                if let (Some(found), Some(step)) = (self.pieces.get(&text[start..end]), best.get_mut(end)) {
                    better(step, found.score + so_far, Some(found.id), start);
                    known |= end == alone;
                }
            }
            if let (false, Some(step)) = (known, best.get_mut(alone)) {
                better(step, self.unknown_score + so_far, None, start);
            }
        }
        let (mut pieces, mut end) = (Vec::new(), text.len());
        while let Some((_, id, start)) = best.get(end).copied().flatten() {
            pieces.push((id, start..end));
            end = start;
        }
        pieces.reverse();
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(prefixed: bool) -> SentencePiece {
        let piece = |(text, score, kind): (&str, f32, PieceKind)| Piece { text: text.to_owned(), score, kind };
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
        let tokens = model(true).encode("  abb é </s> ");
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        // "b" twice is likelier than "bb"; the end of a text, written out, is unknown.
        assert_eq!(ids, [4, 5, 5, 3, 7, 3, 2]);
        assert_eq!(tokens[1].1, 3..4);
        assert_eq!((tokens[3].1.clone(), tokens[4].1.clone(), tokens[6].1.clone()), (6..6, 6..7, 8..12));
        assert_eq!(model(false).encode("b a").iter().map(|(id, _)| *id).collect::<Vec<_>>(), [5, 4]);
    }

    #[test]
    fn a_model_without_an_unknown_piece_is_an_error() {
        let piece = Piece { text: "a".to_owned(), score: 0.0, kind: PieceKind::Normal };
        assert!(SentencePiece::new(vec![piece], Charsmap::default(), false, true).is_err());
        assert!(SentencePiece::new(Vec::new(), Charsmap::default(), false, true).is_err());
    }

    #[test]
    fn unknown_characters_are_spelled_in_bytes_where_the_model_can() {
        let mut pieces = vec![Piece { text: "<unk>".to_owned(), score: 0.0, kind: PieceKind::Unknown }];
        pieces.extend((0..=255).map(|byte| Piece {
            text: format!("<0x{byte:02X}>"),
            score: 0.0,
            kind: PieceKind::Byte,
        }));
        pieces.push(Piece { text: "▁a".to_owned(), score: -1.0, kind: PieceKind::Normal });
        let model = SentencePiece::new(pieces, Charsmap::default(), true, true).unwrap();
        let ids: Vec<u32> = model.encode("aé").into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [257, 1 + 0xc3, 1 + 0xa9]);
    }
}
