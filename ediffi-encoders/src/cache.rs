//! Embeddings in files, so that a text is encoded once.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use ediffi_core::files::read_bytes;
use ediffi_core::weights;
use safetensors::Dtype;
use serde::de::DeserializeOwned;
use tch::{Kind, Tensor};

use crate::batch::lengths;
use crate::encoded::{Encoded, EncodedClip, Padding};
use crate::fingerprint::Fingerprint;
use crate::{Error, Result};

const FORMAT: &str = "ediffi-encoded/2";

/// The kind of CLIP's embeddings, as the header of a file and errors name it.
const CLIP: &str = "tokens and pooled embeddings of CLIP";

/// How a stored file names the padding: it stays as it is.
fn words(padding: Padding) -> &'static str {
    match padding {
        Padding::Zeros => "tokens with zeros after the end of a text",
        Padding::Embedded => "tokens with embedded filling after the end of a text",
    }
}

impl Encoded {
    /// Writes the embeddings of `texts` to a safetensors file, with the texts, their lengths and the model that made them.
    ///
    /// # Errors
    /// [`Error::CacheFile`] if there are not as many texts as embeddings, or a file that cannot be written.
    pub fn save(&self, path: &Path, model: &Fingerprint, texts: &[&str]) -> Result<()> {
        let (kind, tensors) = (words(self.padding), &[("tokens", &self.tokens)][..]);
        let (mask, spans, truncated) = (&self.mask, &self.spans, &self.truncated);
        write(path, model, texts, &Parts { kind, tensors, mask, spans, truncated })
    }

    /// Reads the texts and embeddings that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::OtherModel`] if another model than `model` made the embeddings; [`Error::OtherEncoding`] if they have another
    /// padding; [`Error::CacheFile`] if the file holds something else or is damaged; a file that cannot be read.
    pub fn load(path: &Path, model: &Fingerprint, padding: Padding) -> Result<(Vec<String>, Self)> {
        let mut kept = read(path, model, words(padding))?;
        let tokens = kept.per_token("tokens")?;
        let Kept { texts, mask, spans, truncated, .. } = kept;
        Ok((texts, Self { tokens, padding, mask, spans, truncated }))
    }
}

impl EncodedClip {
    /// As [`Encoded::save`].
    ///
    /// # Errors
    /// As [`Encoded::save`].
    pub fn save(&self, path: &Path, model: &Fingerprint, texts: &[&str]) -> Result<()> {
        let tensors = &[("tokens", &self.tokens), ("penultimate", &self.penultimate), ("pooled", &self.pooled)][..];
        let (mask, spans, truncated) = (&self.mask, &self.spans, &self.truncated);
        write(path, model, texts, &Parts { kind: CLIP, tensors, mask, spans, truncated })
    }

    /// As [`Encoded::load`].
    ///
    /// # Errors
    /// As [`Encoded::load`].
    pub fn load(path: &Path, model: &Fingerprint) -> Result<(Vec<String>, Self)> {
        let mut kept = read(path, model, CLIP)?;
        let (tokens, penultimate) = (kept.per_token("tokens")?, kept.per_token("penultimate")?);
        let pooled = kept.tensor("pooled")?;
        if pooled.dim() != 2 || pooled.size().first() != Some(&(kept.texts.len() as i64)) {
            return Err(kept.damaged(format!("`pooled` is {:?}, there are {} texts", pooled.size(), kept.texts.len())));
        }
        let Kept { texts, mask, spans, truncated, .. } = kept;
        Ok((texts, Self { tokens, penultimate, pooled, mask, spans, truncated }))
    }
}

type Spans = Vec<Vec<Option<Range<usize>>>>;

fn damaged(path: &Path, reason: String) -> Error {
    Error::CacheFile { path: path.to_owned(), reason }
}

/// The parts of embeddings that are written.
struct Parts<'a> {
    kind: &'a str,
    tensors: &'a [(&'a str, &'a Tensor)],
    mask: &'a Tensor,
    spans: &'a Spans,
    truncated: &'a [Option<String>],
}

fn write(path: &Path, model: &Fingerprint, texts: &[&str], parts: &Parts<'_>) -> Result<()> {
    let lengths = lengths(parts.mask)?;
    if lengths.len() != texts.len() {
        return Err(damaged(path, format!("{} embeddings cannot be those of {} texts", lengths.len(), texts.len())));
    }
    let json = |source| ediffi_core::Error::Json { path: path.to_owned(), source };
    let mut header = HashMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("encoding".to_owned(), parts.kind.to_owned()),
        ("model".to_owned(), model.name().to_owned()),
        ("fingerprint".to_owned(), model.digest().to_owned()),
        ("texts".to_owned(), serde_json::to_string(texts).map_err(json)?),
        ("lengths".to_owned(), serde_json::to_string(&lengths).map_err(json)?),
        ("spans".to_owned(), serde_json::to_string(parts.spans).map_err(json)?),
        ("truncated".to_owned(), serde_json::to_string(parts.truncated).map_err(json)?),
    ]);
    if let Some(variant) = model.variant() {
        header.insert("variant".to_owned(), variant.to_owned());
    }
    let named = |(name, tensor): &(&str, &Tensor)| ((*name).to_owned(), tensor.shallow_clone());
    Ok(weights::save(path, &parts.tensors.iter().map(named).collect::<Vec<_>>(), header)?)
}

/// The content of a file.
struct Kept<'a> {
    path: &'a Path,
    tensors: HashMap<String, Tensor>,
    texts: Vec<String>,
    mask: Tensor,
    spans: Spans,
    truncated: Vec<Option<String>>,
}

impl Kept<'_> {
    fn damaged(&self, reason: String) -> Error {
        damaged(self.path, reason)
    }

    fn tensor(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| self.damaged(format!("it has no `{name}`")))
    }

    /// Takes a tensor [n, tokens, width], checked against texts and spans.
    fn per_token(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.tensor(name)?;
        match tensor.size().as_slice() {
            &[n, columns, _] if [n, columns] == self.mask.size().as_slice() => Ok(tensor),
            shape => Err(self.damaged(format!("`{name}` is {shape:?}, its spans are {:?}", self.mask.size()))),
        }
    }
}

fn read<'a>(path: &'a Path, model: &Fingerprint, kind: &str) -> Result<Kept<'a>> {
    let bytes = read_bytes(path)?;
    let (header, stored) = weights::parse(&bytes).map_err(|error| damaged(path, error.to_string()))?;
    match header.get("format").map(String::as_str) {
        Some(FORMAT) => {}
        Some(other) => return Err(damaged(path, format!("its format is `{other}`, this version reads `{FORMAT}`"))),
        None => return Err(damaged(path, "its header names no format".to_owned())),
    }
    let text = |key: &str| header.get(key).ok_or_else(|| damaged(path, format!("its header has no `{key}`")));
    let variant = header.get("variant").cloned();
    let made_by = Fingerprint::from_parts(text("model")?.clone(), variant, text("fingerprint")?.clone());
    if made_by != *model {
        let (made_by, wanted) = (made_by.to_string(), model.to_string());
        return Err(Error::OtherModel { path: path.to_owned(), made_by, wanted });
    }
    let kept = text("encoding")?;
    if kept != kind {
        let (kept, wanted) = (kept.clone(), kind.to_owned());
        return Err(Error::OtherEncoding { path: path.to_owned(), kept, wanted });
    }
    let texts: Vec<String> = parse(path, "texts", text("texts")?)?;
    let lengths: Vec<usize> = parse(path, "lengths", text("lengths")?)?;
    let spans: Spans = parse(path, "spans", text("spans")?)?;
    let truncated: Vec<Option<String>> = parse(path, "truncated", text("truncated")?)?;
    let columns = spans.first().map_or(0, Vec::len);
    let fits = |length: &usize| *length <= columns;
    if [lengths.len(), spans.len(), truncated.len()].iter().any(|&n| n != texts.len())
        || spans.iter().any(|row| row.len() != columns)
        || !lengths.iter().all(fits)
    {
        return Err(damaged(path, "its texts, lengths and spans do not fit each other".to_owned()));
    }
    let mask: Vec<bool> = lengths.iter().flat_map(|&length| (0..columns).map(move |column| column < length)).collect();
    let mask = Tensor::f_from_slice(&mask)?.f_reshape([texts.len() as i64, columns as i64])?.f_to_kind(Kind::Bool)?;
    let mut tensors = HashMap::new();
    for (name, view) in stored.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(damaged(path, format!("`{name}` is {:?}, not F32", view.dtype())));
        }
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        tensors.insert(name, Tensor::f_from_data_size(view.data(), &shape, Kind::Float)?);
    }
    Ok(Kept { path, tensors, texts, mask, spans, truncated })
}

fn parse<T: DeserializeOwned>(path: &Path, key: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| damaged(path, format!("`{key}`: {error}")))
}
