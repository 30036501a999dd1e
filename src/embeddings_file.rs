//! Embeddings in a safetensors file, whose header holds what they were made from.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::{files, weights};
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::embeddings::{EncodedText, EncodedTokens, Source, Spans};
use crate::{Embeddings, Error};

/// The format it says it has.
const FORMAT: &str = "ediffi-embeddings/1";

impl Embeddings {
    /// Writes the embeddings, and what they were made from, to a safetensors file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> crate::Result<()> {
        let path = path.as_ref();
        let json = |source| Error::Json { path: path.to_owned(), source };
        let mut tensors = named(&self.prompt, "prompt");
        let mut texts = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
        texts.insert("source".to_owned(), serde_json::to_string(&self.source).map_err(json)?);
        let own = [("prompt".to_owned(), Some(&self.prompt)), ("negative".to_owned(), self.negative.as_ref())];
        let others = self.further.iter().enumerate().map(|(index, text)| (further(index), Some(text)));
        for (name, text) in own.into_iter().chain(others) {
            for (encoder, tokens) in text.into_iter().flat_map(EncodedText::tokens) {
                let spans = serde_json::to_string(&tokens.spans).map_err(json)?;
                texts.insert(format!("{name}.{encoder}.spans"), spans);
            }
        }
        tensors.extend(self.negative.iter().flat_map(|negative| named(negative, "negative")));
        for (index, text) in self.further.iter().enumerate() {
            tensors.extend(named(text, &further(index)));
        }
        tensors.extend(self.style.iter().map(|style| ("style.clip_image".to_owned(), style.shallow_clone())));
        Ok(weights::save(path, &tensors, texts)?)
    }

    /// Reads a file that [`Embeddings::save`] wrote.
    ///
    /// # Errors
    /// [`Error::ReadFile`], or [`Error::EmbeddingsFile`] for a file that holds something else or is damaged.
    pub fn load(path: impl AsRef<Path>) -> crate::Result<Self> {
        let path = path.as_ref();
        let bytes = files::read_bytes(path)?;
        File::parse(&bytes)
            .and_then(|file| file.embeddings())
            .map_err(|reason| Error::EmbeddingsFile { path: path.to_owned(), reason })
    }
}

/// The name of a further text in the file.
fn further(index: usize) -> String {
    format!("further.{index}")
}

/// The tensors of one text with their names in the file.
fn named(text: &EncodedText, name: &str) -> Vec<(String, Tensor)> {
    let tokens = text.tokens().map(|(name, encoded)| (name, encoded.tokens.shallow_clone()));
    let pooled = text.clip_pooled.iter().map(|pooled| ("clip_text_pooled", pooled.shallow_clone()));
    tokens.chain(pooled).map(|(part, tensor)| (format!("{name}.{part}"), tensor)).collect()
}

/// A file of embeddings while it is read. Its errors are reasons: the caller knows the path.
struct File<'a> {
    tensors: SafeTensors<'a>,
    texts: HashMap<String, String>,
}

impl<'a> File<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let (texts, tensors) = weights::parse(bytes).map_err(|error| error.to_string())?;
        match texts.get("format").map(String::as_str) {
            Some(FORMAT) => Ok(Self { tensors, texts }),
            Some(other) => Err(format!("its format is `{other}`, this version reads `{FORMAT}`")),
            None => Err("its header names no format".to_owned()),
        }
    }

    fn embeddings(&self) -> Result<Embeddings, String> {
        let source: Source = self.json("source")?;
        // Published models have one for no text, too.
        let negative = self.tensors.names().iter().any(|name| name.starts_with("negative."));
        let negative = (negative || source.negative_prompt.is_some()).then(|| self.text("negative")).transpose()?;
        let style = self.tensor("style.clip_image", 2)?;
        if style.is_some() && source.style.is_none() {
            return Err("it has a style embedding without style references".to_owned());
        }
        let further = (0..source.further.len()).map(|index| self.text(&further(index))).collect::<Result<_, _>>()?;
        Ok(Embeddings { prompt: self.text("prompt")?, negative, further, style, source })
    }

    fn text(&self, name: &str) -> Result<EncodedText, String> {
        Ok(EncodedText {
            t5: self.encoded(&format!("{name}.t5"))?,
            clip: self.encoded(&format!("{name}.clip_text"))?,
            clip_pooled: self.tensor(&format!("{name}.clip_text_pooled"), 2)?,
        })
    }

    fn encoded(&self, name: &str) -> Result<Option<EncodedTokens>, String> {
        let Some(tokens) = self.tensor(name, 3)? else { return Ok(None) };
        let spans: Spans = self.json(&format!("{name}.spans"))?;
        if tokens.size().get(1).is_some_and(|&count| usize::try_from(count) != Ok(spans.len())) {
            return Err(format!("`{name}` has {:?} tokens, but {} spans", tokens.size(), spans.len()));
        }
        Ok(Some(EncodedTokens { tokens, spans }))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T, String> {
        let text = self.texts.get(key).ok_or_else(|| format!("its header has no `{key}`"))?;
        serde_json::from_str(text).map_err(|error| format!("`{key}`: {error}"))
    }

    fn tensor(&self, name: &str, dimensions: usize) -> Result<Option<Tensor>, String> {
        let Ok(view) = self.tensors.tensor(name) else { return Ok(None) };
        if view.dtype() != Dtype::F32 || view.shape().len() != dimensions || view.shape().first() != Some(&1) {
            return Err(format!("`{name}` is {:?} {:?}, which is no embedding", view.dtype(), view.shape()));
        }
        let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, Kind::Float).map_err(|error| error.to_string())?;
        Ok(Some(tensor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;
    use crate::embeddings::tests::{embeddings, ramp};
    use ediffi_core::unet::EmbeddingShapes;

    fn saved(embeddings: &Embeddings) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cat.safetensors");
        embeddings.save(&path).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_gives_back_what_was_saved() {
        let embeddings = embeddings();
        let (_folder, path) = saved(&embeddings);
        let read = Embeddings::load(&path).unwrap();
        assert_eq!(read.source, embeddings.source);
        assert_eq!(read.request(), embeddings.request());
        for (a, b) in [
            (read.conditioning(), embeddings.conditioning()),
            (read.unconditional(), embeddings.unconditional()),
            (read.text("a dog"), embeddings.text("a dog")),
        ] {
            assert!(a.clip_text.is_none());
            for (a, b) in [(a.t5, b.t5), (a.clip_text_pooled, b.clip_text_pooled), (a.clip_image, b.clip_image)] {
                assert_eq!(a.is_some(), b.is_some());
                assert!(a.zip(b).is_none_or(|(a, b)| a.equal(&b)));
            }
        }
        let needs = EmbeddingShapes {
            t5: Some(ediffi_core::unet::Tokens { tokens: 3, width: 4 }),
            ..EmbeddingShapes::default()
        };
        assert_eq!(read.columns(needs), [("t5", vec![Some(0..1), Some(2..5), None])]);
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let (folder, path) = saved(&embeddings());
        let reason = |path: &Path| match Embeddings::load(path) {
            Err(Error::EmbeddingsFile { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let whole = std::fs::read(&path).unwrap();
        let cut = folder.path().join("cut");
        std::fs::write(&cut, &whole[..whole.len() - 9]).unwrap();
        reason(&cut);
        let foreign = folder.path().join("foreign.safetensors");
        weights::save(&foreign, &[("x".to_owned(), ramp(&[2], 0.0))], HashMap::new()).unwrap();
        assert!(reason(&foreign).contains("no format"));
        let texts = |source: &str| {
            HashMap::from([("format".to_owned(), FORMAT.to_owned()), ("source".to_owned(), source.to_owned())])
        };
        let later = HashMap::from([("format".to_owned(), "ediffi-embeddings/2".to_owned())]);
        weights::save(&foreign, &[], later).unwrap();
        assert!(reason(&foreign).contains("ediffi-embeddings/2"));
        weights::save(&foreign, &[], texts("{\"prompt\": 3}")).unwrap();
        assert!(reason(&foreign).contains("`source`"));
        let source = serde_json::to_string(&Source::of(&Request::new("a"))).unwrap();
        weights::save(&foreign, &[("prompt.t5".to_owned(), ramp(&[2, 3], 0.0))], texts(&source)).unwrap();
        assert!(reason(&foreign).contains("prompt.t5"));
        weights::save(&foreign, &[("prompt.t5".to_owned(), ramp(&[1, 3, 2], 0.0))], texts(&source)).unwrap();
        assert!(reason(&foreign).contains("prompt.t5.spans"));
        assert!(matches!(Embeddings::load(folder.path().join("none")), Err(Error::ReadFile { .. })));
    }
}
