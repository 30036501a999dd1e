//! The embedding of a style, kept and used without the pictures.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::{files, weights};
use safetensors::Dtype;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tch::{Kind, Tensor};

use crate::{Error, Result, base64};

/// The format that its file says it has.
const FORMAT: &str = "ediffi-style/1";

/// The name of the one tensor of its file.
const TENSOR: &str = "clip_image";

/// The CLIP image embedding of a style, and which CLIP made it.
///
/// [`Pipeline::encode_style`](crate::Pipeline::encode_style) makes one. A request takes it in the place of a picture and gives
/// exactly the same result, in a few kilobytes instead of some hundred. A model with another CLIP refuses it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StyleEmbedding {
    #[serde(serialize_with = "write_values", deserialize_with = "read_values")]
    values: Vec<f32>,
    clip: String,
    fingerprint: String,
}

impl StyleEmbedding {
    pub(crate) fn new(values: Vec<f32>, clip: &str, fingerprint: &str) -> Self {
        Self { values, clip: clip.to_owned(), fingerprint: fingerprint.to_owned() }
    }

    /// The embedding.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The name of the CLIP that made it, which is that of its folder.
    #[must_use]
    pub fn clip(&self) -> &str {
        &self.clip
    }

    /// What tells this CLIP from others: the digest of its [`Fingerprint`](ediffi_encoders::Fingerprint).
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Name and fingerprint of the CLIP that made it, for messages.
    pub(crate) fn made_by(&self) -> String {
        format!("`{}` ({})", self.clip, self.fingerprint.get(..12).unwrap_or(&self.fingerprint))
    }

    /// Writes it to a safetensors file: a tensor `clip_image` [1, width], with the CLIP's name and fingerprint in the
    /// header.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let texts = [("format", FORMAT), ("clip", &self.clip), ("fingerprint", &self.fingerprint)];
        let texts = texts.map(|(key, text)| (key.to_owned(), text.to_owned()));
        let tensor = Tensor::f_from_slice(&self.values)?.f_unsqueeze(0)?;
        Ok(weights::save(path.as_ref(), &[(TENSOR.to_owned(), tensor)], HashMap::from(texts))?)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::ReadFile`], or [`Error::StyleFile`] for a file that holds something else or is damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = files::read_bytes(path)?;
        Self::parse(&bytes).map_err(|reason| Error::StyleFile { path: path.to_owned(), reason })
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let (texts, tensors) = weights::parse(bytes).map_err(|error| error.to_string())?;
        match texts.get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(other) => return Err(format!("its format is `{other}`, this version reads `{FORMAT}`")),
            None => return Err("its header names no format".to_owned()),
        }
        let named = |key: &str| texts.get(key).ok_or_else(|| format!("its header has no `{key}`"));
        let view = tensors.tensor(TENSOR).map_err(|_| format!("it has no `{TENSOR}`"))?;
        let &[1, width] = view.shape() else { return Err(format!("`{TENSOR}` is {:?}, not [1, width]", view.shape())) };
        if view.dtype() != Dtype::F32 {
            return Err(format!("`{TENSOR}` is {:?}, not F32", view.dtype()));
        }
        let values = from_bytes(view.data()).filter(|values| values.len() == width);
        let values = values.ok_or_else(|| format!("`{TENSOR}` holds a number that is not finite"))?;
        Ok(Self::new(values, named("clip")?, named("fingerprint")?))
    }

    /// # Shapes
    /// → [1, width]
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(&self.values)?.f_unsqueeze(0)?)
    }

    /// The numbers of `tensor`, f32 on the CPU.
    pub(crate) fn values_of(tensor: &Tensor) -> Result<Vec<f32>> {
        let tensor = tensor.f_flatten(0, -1)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut values = vec![0.0_f32; tensor.numel()];
        let count = values.len();
        tensor.f_copy_data(&mut values, count)?;
        Ok(values)
    }
}

impl std::fmt::Debug for StyleEmbedding {
    /// Leaves the numbers out: they would bury everything else.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StyleEmbedding({} values by {})", self.values.len(), self.made_by())
    }
}

/// Finite numbers from their bytes, lowest first.
fn from_bytes(bytes: &[u8]) -> Option<Vec<f32>> {
    let (fours, []) = bytes.as_chunks::<4>() else { return None };
    let values: Vec<f32> = fours.iter().map(|four| f32::from_le_bytes(*four)).collect();
    values.iter().all(|value| value.is_finite()).then_some(values)
}

/// As bytes in base64: to the bit, and a third as long as decimal digits.
fn write_values<S: Serializer>(values: &[f32], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    base64::serialize(&bytes, serializer)
}

fn read_values<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<f32>, D::Error> {
    from_bytes(&base64::deserialize(deserializer)?)
        .ok_or_else(|| serde::de::Error::custom("a style embedding is finite f32 numbers of 4 bytes each"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::tests::ramp;

    fn embedding() -> StyleEmbedding {
        StyleEmbedding::new(vec![0.1, -7.25, 1e-20], "clip", &"0123456789abcdef".repeat(4))
    }

    #[test]
    fn a_file_gives_back_what_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ink.safetensors");
        embedding().save(&path).unwrap();
        assert_eq!(StyleEmbedding::load(&path).unwrap(), embedding());
        assert_eq!(format!("{:?}", embedding()), "StyleEmbedding(3 values by `clip` (0123456789ab))");
        assert_eq!(StyleEmbedding::values_of(&embedding().tensor().unwrap()).unwrap(), embedding().values());
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ink.safetensors");
        let reason = |path: &Path| match StyleEmbedding::load(path) {
            Err(Error::StyleFile { reason, path: named }) if named == path => reason,
            other => panic!("{other:?}"),
        };
        embedding().save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        reason(&path);
        let header = |texts: &[(&str, &str)]| texts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let whole = [("format", FORMAT), ("clip", "clip"), ("fingerprint", "f")];
        let named = |name: &str, tensor: Tensor| [(name.to_owned(), tensor)];
        let said = |tensors: &[(String, Tensor)], texts: &[(&str, &str)]| {
            weights::save(&path, tensors, header(texts)).unwrap();
            reason(&path)
        };
        let sound = named(TENSOR, ramp(&[1, 3], 0.5));
        assert!(said(&sound, &[]).contains("no format"));
        assert!(said(&sound, &[("format", "ediffi-style/9")]).contains("ediffi-style/9"));
        assert!(said(&sound, &whole[..2]).contains("`fingerprint`"));
        assert!(said(&named("x", ramp(&[1, 3], 0.5)), &whole).contains("no `clip_image`"));
        assert!(said(&named(TENSOR, ramp(&[2, 3], 0.5)), &whole).contains("[2, 3]"));
        assert!(said(&named(TENSOR, ramp(&[1, 3], 0.5).to_kind(Kind::Half)), &whole).contains("F16"));
        assert!(said(&named(TENSOR, ramp(&[1, 3], f32::NAN)), &whole).contains("not finite"));
        assert!(matches!(StyleEmbedding::load(folder.path().join("none")), Err(Error::ReadFile { .. })));
    }

    #[test]
    fn json_holds_every_bit() {
        let json = serde_json::to_string(&embedding()).unwrap();
        assert_eq!(serde_json::from_str::<StyleEmbedding>(&json).unwrap(), embedding());
        let spoiled = json.replace("\"values\":\"", "\"values\":\"AA");
        assert!(serde_json::from_str::<StyleEmbedding>(&spoiled).is_err());
    }
}
