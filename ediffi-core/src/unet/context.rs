//! From embeddings to what the layers read: the tokens of cross-attention and the pooled vector (eDiff-I §4.2).

use tch::{Kind, Tensor};

use super::config::ContextConfig;
use crate::conditioning::Conditioning;
use crate::nn::{LayerNorm, Linear};
use crate::weights::{Init, Scope};
use crate::{Error, Result};

/// What one network derives from a [`Conditioning`] once, before the first step: it does not change while sampling.
#[derive(Debug)]
pub struct Context {
    /// Keys and values of every cross-attention layer, [rows, heads, tokens, d].
    pub(super) keys_values: Vec<(Tensor, Tensor)>,
    /// Sum of the pooled embeddings' projections, [rows, embedding width].
    pub(super) pooled: Option<Tensor>,
    /// The smaller picture, enlarged, [rows, 3, h, w].
    pub(super) low_res: Option<Tensor>,
    /// How many of the tokens are words: T5's, then CLIP's.
    pub(super) text_columns: i64,
}

impl Context {
    /// The same context for a window of the picture: the part of the smaller picture that lies there, and everything else
    /// as it is, sharing storage.
    ///
    /// # Errors
    /// A window that reaches outside of the picture.
    pub fn window(&self, top: i64, left: i64, height: i64, width: i64) -> Result<Self> {
        let cut = |x: &Tensor| x.f_narrow(2, top, height).and_then(|x| x.f_narrow(3, left, width));
        Ok(Self {
            keys_values: self.keys_values.iter().map(|(k, v)| (k.shallow_clone(), v.shallow_clone())).collect(),
            pooled: self.pooled.as_ref().map(Tensor::shallow_clone),
            low_res: self.low_res.as_ref().map(cut).transpose()?,
            text_columns: self.text_columns,
        })
    }
}

/// The projections of the embeddings to the widths of the network.
#[derive(Debug)]
pub(super) struct ContextEncoder {
    config: ContextConfig,
    t5: Option<Linear>,
    clip_text: Option<Linear>,
    clip_text_pooled: Option<Linear>,
    clip_image: Option<Linear>,
    clip_image_pooled: Option<Linear>,
    null: Tensor,
    norm: LayerNorm,
}

impl ContextEncoder {
    pub(super) fn new(mut scope: Scope<'_>, config: ContextConfig, embedding_width: i64) -> Result<Self> {
        let width = config.width;
        let mut project = |name: &str, from: Option<i64>, to: i64| -> Result<Option<Linear>> {
            from.map(|from| Linear::new(scope.at(name), from, to)).transpose()
        };
        Ok(Self {
            config,
            t5: project("t5", config.t5.map(|t| t.width), width)?,
            clip_text: project("clip_text", config.clip_text.map(|c| c.width), width)?,
            clip_text_pooled: project("clip_text_pooled", config.clip_text.map(|c| c.pooled), embedding_width)?,
            clip_image: project("clip_image", config.clip_image, width)?,
            clip_image_pooled: project("clip_image_pooled", config.clip_image, embedding_width)?,
            null: scope.weight("null", &[1, 1, width], Init::Normal { std: 1.0 })?,
            norm: LayerNorm::new(scope.at("norm"), width, 1e-5)?,
        })
    }

    pub(super) fn text_columns(&self) -> i64 {
        self.config.t5.map_or(0, |t| t.tokens) + self.config.clip_text.map_or(0, |c| c.tokens)
    }

    /// # Shapes
    /// → [rows, tokens, width]: T5 tokens, CLIP text tokens, CLIP image, learned null token; absent embeddings as zeros
    pub(super) fn tokens(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Tensor> {
        let options = (kind, self.null.device());
        let mut parts = Vec::with_capacity(4);
        let mut push = |name, layer: &Option<Linear>, shape: [i64; 3], given: Option<Tensor>| -> Result<()> {
            if let Some(layer) = layer {
                let x = match given {
                    Some(x) if x.size() == shape => x.f_to_device(options.1)?.f_to_kind(kind)?,
                    Some(x) => {
                        return Err(Error::EmbeddingShape { name, expected: shape.to_vec(), got: x.size() });
                    }
                    None => Tensor::f_zeros(shape, options)?,
                };
                parts.push(layer.forward(&x)?);
            }
            Ok(())
        };
        let share = |x: &Option<Tensor>| x.as_ref().map(Tensor::shallow_clone);
        let t5 = self.config.t5.map_or([0; 3], |t| [rows, t.tokens, t.width]);
        push("t5", &self.t5, t5, share(&conditioning.t5))?;
        let clip = self.config.clip_text.map_or([0; 3], |c| [rows, c.tokens, c.width]);
        push("clip_text", &self.clip_text, clip, share(&conditioning.clip_text))?;
        let image = conditioning.clip_image.as_ref().map(|x| x.f_unsqueeze(1)).transpose()?;
        push("clip_image", &self.clip_image, [rows, 1, self.config.clip_image.unwrap_or(0)], image)?;
        parts.push(self.null.f_to_kind(kind)?.f_expand([rows, 1, self.config.width], false)?);
        self.norm.forward(&Tensor::f_cat(&parts, 1)?)
    }

    /// # Shapes
    /// → [rows, embedding width]
    pub(super) fn pooled(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Option<Tensor>> {
        let pooled = self.config.clip_text.map(|c| c.pooled);
        let pairs = [
            ("clip_text_pooled", &self.clip_text_pooled, &conditioning.clip_text_pooled, pooled),
            ("clip_image", &self.clip_image_pooled, &conditioning.clip_image, self.config.clip_image),
        ];
        let mut sum: Option<Tensor> = None;
        for (name, layer, given, width) in pairs {
            let (Some(layer), Some(width)) = (layer, width) else { continue };
            let x = match given {
                Some(x) if x.size() != [rows, width] => {
                    return Err(Error::EmbeddingShape { name, expected: vec![rows, width], got: x.size() });
                }
                Some(x) => x.f_to_device(self.null.device())?.f_to_kind(kind)?,
                None => Tensor::f_zeros([rows, width], (kind, self.null.device()))?,
            };
            let projected = layer.forward(&x)?;
            sum = Some(match sum {
                Some(sum) => sum.f_add(&projected)?,
                None => projected,
            });
        }
        Ok(sum)
    }

    /// An embedding that the network has no place for is an error, not a silent no-op.
    pub(super) fn refuse(config: Option<&ContextConfig>, conditioning: &Conditioning) -> Result<()> {
        let given = [
            ("t5", conditioning.t5.is_some(), config.is_some_and(|c| c.t5.is_some())),
            ("clip_text", conditioning.clip_text.is_some(), config.is_some_and(|c| c.clip_text.is_some())),
            (
                "clip_text_pooled",
                conditioning.clip_text_pooled.is_some(),
                config.is_some_and(|c| c.clip_text.is_some()),
            ),
            ("clip_image", conditioning.clip_image.is_some(), config.is_some_and(|c| c.clip_image.is_some())),
        ];
        match given.into_iter().find(|(_, given, taken)| *given && !taken) {
            Some((name, ..)) => Err(Error::EmbeddingNotTaken { name }),
            None => Ok(()),
        }
    }
}
