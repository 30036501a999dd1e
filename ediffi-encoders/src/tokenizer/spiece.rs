//! Reading `spiece.model`: the file of a SentencePiece model, in the encoding of protocol buffers.

use std::path::Path;

use ediffi_core::files::read_bytes;

use super::charsmap::Charsmap;
use super::sentencepiece::{Piece, PieceKind, SentencePiece};
use crate::{Error, Result};

/// Reads the model at `path`.
pub(super) fn read(path: &Path) -> Result<SentencePiece> {
    let bytes = read_bytes(path)?;
    parse(&bytes).map_err(|reason| Error::SentencePiece { path: path.to_owned(), reason })
}

/// The parts of `sentencepiece_model.proto` that concern the making of tokens.
fn parse(bytes: &[u8]) -> std::result::Result<SentencePiece, String> {
    let (mut pieces, mut charsmap, mut byte_fallback, mut prefixed) = (Vec::new(), Charsmap::default(), false, true);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(piece)) => pieces.push(self::piece(piece, pieces.len())?),
            (2, Value::Bytes(trainer)) => {
                for field in Fields(trainer) {
                    match field? {
                        // 1 is Unigram, the default.
                        (3, Value::Number(kind)) if kind != 1 => {
                            return Err(format!("its model is of type {kind}, only Unigram (1) is read"));
                        }
                        (35, Value::Number(fallback)) => byte_fallback = fallback != 0,
                        _ => {}
                    }
                }
            }
            (3, Value::Bytes(normalizer)) => {
                for field in Fields(normalizer) {
                    match field? {
                        (2, Value::Bytes(table)) => charsmap = Charsmap::parse(table)?,
                        (3, Value::Number(prefix)) => prefixed = prefix != 0,
                        (4 | 5, Value::Number(0)) => {
                            return Err("it keeps white space, which is not supported".to_owned());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    SentencePiece::new(pieces, charsmap, byte_fallback, prefixed)
}

fn piece(bytes: &[u8], index: usize) -> std::result::Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(text)) => {
                piece.text = String::from_utf8(text.to_vec()).map_err(|_| format!("piece {index} is not UTF-8"))?;
            }
            (2, Value::Bits32(bits)) => piece.score = f32::from_bits(bits),
            (3, Value::Number(kind)) => {
                piece.kind = match kind {
                    1 => PieceKind::Normal,
                    2 => PieceKind::Unknown,
                    3 | 5 => PieceKind::Unreachable,
                    4 => PieceKind::UserDefined,
                    6 => PieceKind::Byte,
                    _ => return Err(format!("piece {index} is of the unknown type {kind}")),
                };
            }
            _ => {}
        }
    }
    Ok(piece)
}

/// A value of a field in one of the four encodings that are in use.
enum Value<'a> {
    Number(u64),
    Bits32(u32),
    Bits64,
    Bytes(&'a [u8]),
}

/// The fields of a message: number and value.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next number of variable length: seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Bits64)?,
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bits32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = std::result::Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| "it is no SentencePiece model, or is cut short".to_owned());
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}
