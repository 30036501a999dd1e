//! What goes into a network and what comes out: all that the other crates ask of one.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::conditioning::Conditioning;
use crate::{Error, Result};

/// Token embeddings of one encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Number of tokens that a text is padded to.
    pub tokens: i64,
    /// Width of an embedding.
    pub width: i64,
}

/// CLIP's text embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipText {
    /// Number of tokens that a text is padded to.
    pub tokens: i64,
    /// Width of a token embedding.
    pub width: i64,
    /// Width of the pooled and projected embedding, which the network adds to the noise embedding, if it takes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooled: Option<i64>,
}

/// The embeddings that a network takes, and their shapes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbeddingShapes {
    /// T5 tokens.
    pub t5: Option<Tokens>,
    /// CLIP text tokens and their pooled embedding.
    pub clip_text: Option<ClipText>,
    /// Width of CLIP's projected image embedding.
    pub clip_image: Option<i64>,
    /// How many numbers are said of a picture ([`Conditioning::micro`]).
    pub micro: Option<i64>,
}

impl EmbeddingShapes {
    /// What two networks take together.
    ///
    /// # Errors
    /// The name of the first embedding that both take in different shapes.
    pub fn union(self, other: Self) -> std::result::Result<Self, &'static str> {
        type Either<T> = std::result::Result<Option<T>, &'static str>;
        fn either<T: PartialEq>(a: Option<T>, b: Option<T>, name: &'static str) -> Either<T> {
            if a.is_some() && b.is_some() && a != b { Err(name) } else { Ok(a.or(b)) }
        }
        Ok(Self {
            t5: either(self.t5, other.t5, "T5")?,
            clip_text: either(self.clip_text, other.clip_text, "CLIP text")?,
            clip_image: either(self.clip_image, other.clip_image, "CLIP image")?,
            micro: either(self.micro, other.micro, "micro")?,
        })
    }

    /// Whether a text has any effect.
    #[must_use]
    pub fn has_text(&self) -> bool {
        self.t5.is_some() || self.clip_text.is_some()
    }

    /// The shape of the embedding that a [`Conditioning`] calls `name`, for `rows` pictures; `None` where it is not taken.
    #[must_use]
    pub fn shape(&self, name: &str, rows: i64) -> Option<Vec<i64>> {
        match name {
            "t5" => self.t5.map(|t5| vec![rows, t5.tokens, t5.width]),
            "clip_text" => self.clip_text.map(|clip| vec![rows, clip.tokens, clip.width]),
            "clip_text_pooled" => self.clip_text.and_then(|clip| clip.pooled).map(|pooled| vec![rows, pooled]),
            "micro" => self.micro.map(|numbers| vec![rows, numbers]),
            "clip_image" => self.clip_image.map(|width| vec![rows, width]),
            _ => None,
        }
    }

    /// Those of the embeddings that the network takes.
    #[must_use]
    pub fn select(&self, conditioning: &Conditioning) -> Conditioning {
        conditioning.filtered(|name| self.shape(name, 1).is_some())
    }

    /// The embedding `name` as it was given, if its shape is `expected`.
    pub(crate) fn checked<'a>(
        name: &'static str,
        given: Option<&'a Tensor>,
        expected: &[i64],
    ) -> Result<Option<&'a Tensor>> {
        match given {
            Some(x) if x.size() != expected => {
                Err(Error::EmbeddingShape { name, expected: expected.to_vec(), got: x.size() })
            }
            given => Ok(given),
        }
    }
}

/// The inputs and outputs of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// Channels of the noisy picture, and of the estimate: 3 for RGB.
    pub channels: i64,
    /// Whether the network also predicts, in as many channels again, where between its bounds the variance of a DDPM step
    /// lies.
    pub variance: bool,
    /// Whether the network sees an enlarged smaller picture: super-resolution.
    pub low_res: bool,
    /// The embeddings that it takes.
    pub embeddings: EmbeddingShapes,
    /// Height and width of a picture have to be multiples of this.
    pub size_multiple: i64,
    /// Whether the network is told how much noise was added to the smaller picture ([`Conditioning::noise_level`]).
    pub noise_level: bool,
}

impl Io {
    /// Refuses a conditioning that the network would ignore in part, or that lacks the smaller picture.
    pub(super) fn check(&self, conditioning: &Conditioning) -> Result<()> {
        let taken = |name: &str| match name {
            "low_res" => true,
            "noise_level" => self.noise_level,
            embedding => self.embeddings.shape(embedding, 1).is_some(),
        };
        if let Some((name, _)) = conditioning.named().find(|(name, _)| !taken(name)) {
            return Err(Error::EmbeddingNotTaken(name));
        }
        let given = conditioning.low_res.is_some();
        if given == self.low_res { Ok(()) } else { Err(Error::LowRes { given }) }
    }
}
