//! Tokenizers: from texts to token ids, and to the characters that each token stands for.

use std::ops::Range;
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

mod charsmap;
mod growth;
mod open;
mod sentencepiece;
mod settings;
mod spiece;

use crate::{Error, Result};
#[cfg(feature = "hub")]
pub(crate) use open::beside;
use open::{CLIP_END, CLIP_START, Cutter, T5_END};
#[cfg(feature = "hub")]
pub(crate) use settings::FILES as SETTINGS;
use settings::Family;

/// A batch of texts as token ids, all truncated or padded to the same length. A column is the position of a token.
#[derive(Debug)]
pub struct Tokens {
    /// [n, tokens] i64, on the CPU.
    pub ids: Tensor,
    /// [n, tokens] bool, on the CPU: true up to and including the token that ends the text.
    pub mask: Tensor,
    /// For each text and column, the characters (not bytes) of the text that the token stands for; `None` for the tokens of
    /// start, end and padding.
    pub spans: Vec<Vec<Option<Range<usize>>>>,
    /// For each text, its end if that did not fit; `None` if the whole text did.
    pub truncated: Vec<Option<String>>,
}

/// An id and the characters it stands for.
type Token = (i64, Option<Range<usize>>);

/// A tokenizer, read from its published files, with the special tokens that an encoder puts around a text.
///
/// The ids are those of the original tokenizers. For T5 these are the ids of SentencePiece, from `spiece.model` and from a
/// `tokenizer.json` made of it; for CLIP those of `transformers`. Special tokens that are written out in a text do not count
/// as special, so a prompt cannot end itself early.
#[derive(Debug)]
pub struct TextTokenizer {
    path: PathBuf,
    cutter: Cutter,
    start: Option<i64>,
    end: i64,
    padding: i64,
    /// The padding as texts write it, where it is a sign of theirs: every one is the token of the padding then, as in transformers.
    written_padding: Option<String>,
    most: i64,
}

/// The most tokens of a text for an encoder without a limit of its own; eDiff-I uses 113 of T5.
const MOST: i64 = 4096;

impl TextTokenizer {
    /// Opens T5's tokenizer. The token `end` follows a text, and `padding` pads it. `path` is a `tokenizer.json`, a
    /// `spiece.model`, or a folder with one of them, here or in a folder `tokenizer` beside it.
    ///
    /// # Errors
    /// A file that is missing or no tokenizer. [`Error::TokenizerMismatch`] if the token `end` is not `</s>`, or if the
    /// tokenizer has more tokens than the network has rows (`vocabulary`), or fewer than a quarter as many. [`Error::Setting`] for a
    /// setting in a file beside it that would give other tokens.
    pub fn t5(path: &Path, end: i64, padding: i64, vocabulary: i64) -> Result<Self> {
        let path = open::find(path, &["tokenizer.json", "spiece.model"])?;
        let cutter = guarded(&path, || open::t5(&path))?;
        let this = Self { path, cutter, start: None, end, padding, written_padding: None, most: MOST };
        this.check("shared.weight", vocabulary)?;
        let named = this.special(end);
        if named.as_deref() != Some(T5_END) {
            let named = named.map(|piece| format!(" but `{piece}`")).unwrap_or_default();
            return Err(this.mismatch(format!("token {end}, which is to end a text, is not `</s>`{named}")));
        }
        settings::check(
            &this.path,
            &Family {
                classes: &["T5Tokenizer", "T5TokenizerFast", "MT5Tokenizer", "MT5TokenizerFast"],
                start: None,
                end: T5_END,
                padding: this.special(padding),
                lowercase: false,
                id: &|token| this.cutter.id(token),
            },
        )?;
        Ok(this)
    }

    /// Opens CLIP's tokenizer. A text becomes `<|startoftext|>`, its own tokens and `<|endoftext|>`, at most `most` in all.
    /// `<|endoftext|>` also pads it; as attention is causal, the padding does not matter. `path` is a `tokenizer.json`, a
    /// `vocab.json` with `merges.txt` beside it, or a folder with one of them, here or in a folder `tokenizer` beside it.
    ///
    /// # Errors
    /// A file that is missing or no tokenizer. [`Error::TokenizerMismatch`] if it lacks one of the two special tokens, or has
    /// more tokens than the network has rows (`vocabulary`), or fewer than a quarter as many; [`Error::Setting`] for a setting in a
    /// file beside it that would give other tokens.
    pub fn clip(path: &Path, vocabulary: i64, most: i64) -> Result<Self> {
        let path = open::find(path, &["tokenizer.json", "vocab.json"])?;
        let cutter = guarded(&path, || open::clip(&path))?;
        let id = |token: &str| {
            let reason = || format!("it has no token {token}");
            cutter.id(token).ok_or_else(|| Error::TokenizerMismatch { path: path.clone(), reason: reason() })
        };
        let (start, end) = (id(CLIP_START)?, id(CLIP_END)?);
        let this = Self { path, cutter, start: Some(start), end, padding: end, written_padding: None, most };
        this.check("text_model.embeddings.token_embedding.weight", vocabulary)?;
        settings::check(
            &this.path,
            &Family {
                classes: &["CLIPTokenizer", "CLIPTokenizerFast"],
                start: Some(CLIP_START),
                end: CLIP_END,
                // Attention is causal.
                padding: None,
                lowercase: true,
                id: &|token| this.cutter.id(token),
            },
        )?;
        Ok(this)
    }

    /// As [`clip`](Self::clip), with the token of the padding that the files beside it name, for networks that see the padding: those of
    /// latent diffusion models (`<|endoftext|>` where no file names one).
    ///
    /// # Errors
    /// As [`clip`](Self::clip), and [`Error::TokenizerMismatch`] for a padding that is no token.
    pub fn clip_padded(path: &Path, vocabulary: i64, most: i64) -> Result<Self> {
        let mut this = Self::clip(path, vocabulary, most)?;
        if let Some(token) = settings::padding(&this.path)? {
            let unknown =
                || this.mismatch(format!("its pad_token `{}` is no token", ediffi_core::brief::brief(&token)));
            this.padding = this.cutter.id(&token).ok_or_else(unknown)?;
            // Stable Diffusion 2 pads with `!`.
            let special = token.starts_with("<|") && token.ends_with("|>");
            let sign = !token.is_empty() && !special;
            this.written_padding = sign.then_some(token);
        }
        Ok(this)
    }

    /// The file of the tokenizer.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the token that ends a text.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The id of the token that pads a text.
    #[must_use]
    pub fn padding(&self) -> i64 {
        self.padding
    }

    /// The greatest id that it can give.
    pub(crate) fn greatest(&self) -> i64 {
        let own = match &self.cutter {
            Cutter::Pieces(pieces) => pieces.ids() as i64 - 1,
            Cutter::Pipeline(tokenizer) => tokenizer.get_vocab(true).into_values().max().map_or(0, i64::from),
        };
        own.max(self.end).max(self.padding)
    }

    /// Checks that it can be the tokenizer of a network with `rows` rows in the tensor `table`.
    ///
    /// An id without a row is an error on the CPU, and ends the process on CUDA. Some rows without an id are usual, less than
    /// 1 % in published models: tables are rounded up. A tokenizer that leaves three quarters of a table unused was made for
    /// another model.
    fn check(&self, table: &'static str, rows: i64) -> Result<()> {
        let (least, greatest) = (self.end.min(self.padding).min(0), self.greatest());
        if least < 0 || greatest >= rows || 4 * (greatest + 1) < rows {
            let reason = format!("it gives ids from {least} to {greatest}, the network has {rows} rows in {table}");
            return Err(self.mismatch(reason));
        }
        Ok(())
    }

    /// The text of a token that no text can reach.
    fn special(&self, id: i64) -> Option<String> {
        let id = u32::try_from(id).ok()?;
        match &self.cutter {
            Cutter::Pieces(pieces) => pieces.unreachable(id).map(str::to_owned),
            Cutter::Pipeline(tokenizer) => tokenizer.id_to_token(id),
        }
    }

    fn mismatch(&self, reason: String) -> Error {
        Error::TokenizerMismatch { path: self.path.clone(), reason }
    }

    /// Tokenizes texts, and truncates or pads each to `tokens` tokens. A truncated text keeps the token that ends it. An
    /// empty text has special tokens only.
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] without texts; [`Error::TokenCount`] for fewer `tokens` than the special ones or more than the
    /// encoder takes; [`Error::Tokenize`] for a text that the tokenizer refuses.
    pub fn encode(&self, texts: &[&str], tokens: i64) -> Result<Tokens> {
        let special = i64::from(self.start.is_some()) + 1;
        if tokens < special || tokens > self.most {
            return Err(Error::TokenCount { tokens, least: special, most: self.most });
        }
        if texts.is_empty() {
            return Err(Error::EmptyBatch("texts"));
        }
        let columns = tokens as usize;
        let (mut ids, mut mask) =
            (Vec::with_capacity(texts.len() * columns), Vec::with_capacity(texts.len() * columns));
        let (mut spans, mut truncated) = (Vec::with_capacity(texts.len()), Vec::with_capacity(texts.len()));
        for (index, text) in texts.iter().enumerate() {
            let body = self.body(text).map_err(|source| Error::Tokenize { index, source })?;
            let (kept, lost) = body.split_at(body.len().min(columns - special as usize));
            let mut row: Vec<Token> = Vec::with_capacity(columns);
            row.extend(self.start.map(|id| (id, None)));
            row.extend_from_slice(kept);
            row.push((self.end, None));
            mask.extend((0..columns).map(|column| column < row.len()));
            row.resize(columns, (self.padding, None));
            truncated.push(lost_text(text, kept, lost));
            ids.extend(row.iter().map(|(id, _)| *id));
            spans.push(row.into_iter().map(|(_, span)| span).collect());
        }
        let shape = [texts.len() as i64, tokens];
        Ok(Tokens {
            ids: Tensor::f_from_slice(&ids)?.f_reshape(shape)?,
            mask: Tensor::f_from_slice(&mask)?.f_reshape(shape)?.f_to_kind(Kind::Bool)?,
            spans,
            truncated,
        })
    }

    /// The tokens of the text itself. It is cut at every sign that pads.
    fn body(&self, text: &str) -> std::result::Result<Vec<Token>, tokenizers::Error> {
        let Some(sign) = &self.written_padding else { return self.piece(text) };
        let (mut body, mut from, width) = (Vec::new(), 0, sign.chars().count());
        for (index, piece) in text.split(sign.as_str()).enumerate() {
            if index > 0 {
                body.push((self.padding, Some(from..from + width)));
                from += width;
            }
            let moved = |span: Range<usize>| span.start + from..span.end + from;
            body.extend(self.piece(piece)?.into_iter().map(|(id, span)| (id, span.map(moved))));
            from += piece.chars().count();
        }
        Ok(body)
    }

    /// The tokens of a text, or of a piece of one.
    fn piece(&self, text: &str) -> std::result::Result<Vec<Token>, tokenizers::Error> {
        let tokens: Vec<(u32, Range<usize>)> = match &self.cutter {
            Cutter::Pieces(pieces) => pieces.encode(text),
            Cutter::Pipeline(tokenizer) => {
                let cut = || tokenizer.encode_char_offsets(text, false);
                let encoding = caught(cut).unwrap_or_else(|| Err("its rules gave up".into()))?;
                let spans = encoding.get_offsets().iter().map(|&(start, end)| start..end);
                encoding.get_ids().iter().copied().zip(spans).collect()
            }
        };
        let characters: Vec<char> = text.chars().collect();
        // Some vocabularies hold their special tokens among the pieces of words, where a text can reach them.
        let padding = Some(self.padding).filter(|_| self.written_padding.is_none());
        let special = |id: i64| id == self.end || Some(id) == padding || Some(id) == self.start;
        Ok(tokens
            .into_iter()
            .map(|(id, span)| (i64::from(id), visible(&characters, span)))
            .filter(|&(id, _)| !special(id))
            .collect())
    }
}

/// Runs `read`. Damaged files can make the tokenizer's parser panic; that becomes an error.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(read).unwrap_or_else(|| {
        let source = "its parser gave up".into();
        Err(Error::TokenizerFile { path: path.to_owned(), source })
    })
}

/// What `run` returns; `None` if the crate `tokenizers` panics in it, as some rules of a file make it do.
fn caught<T>(run: impl FnOnce() -> T) -> Option<T> {
    // What was being made is dropped with the panic. A tokenizer changes nothing of itself but what it keeps of words it has seen.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
}

/// `span` without the white space at its ends; `None` if nothing is left.
fn visible(characters: &[char], span: Range<usize>) -> Option<Range<usize>> {
    let covered = characters.get(span.clone())?;
    let before = covered.iter().take_while(|c| c.is_whitespace()).count();
    let after = covered.iter().rev().take_while(|c| c.is_whitespace()).count();
    (before < covered.len()).then(|| span.start + before..span.end - after)
}

/// The end of `text` that the tokens `lost` stand for.
fn lost_text(text: &str, kept: &[Token], lost: &[Token]) -> Option<String> {
    if lost.is_empty() {
        return None;
    }
    let start = lost.iter().find_map(|(_, span)| span.as_ref().map(|s| s.start));
    let end_of_kept = || kept.iter().rev().find_map(|(_, span)| span.as_ref().map(|s| s.end)).unwrap_or(0);
    let rest: String = text.chars().skip(start.unwrap_or_else(end_of_kept)).collect();
    Some(rest.trim_end().to_owned())
}
