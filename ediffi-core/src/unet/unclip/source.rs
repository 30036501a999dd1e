//! What unCLIP's decoder derives from CLIP's embeddings of a text and of an image.

use tch::{Kind, Tensor};

use crate::conditioning::Conditioning;
use crate::nn::{LayerNorm, Linear};
use crate::unet::context::{ContextSource, Encoded};
use crate::unet::io::{ClipText, EmbeddingShapes};
use crate::weights::{Init, Scope};
use crate::{Error, Result};

/// What is added to the scores of tokens that do not count (diffusers' `UNet2DConditionModel`).
const LEFT_OUT: f64 = -10_000.0;

/// Epsilon of the norm of the text (the default of torch).
const EPS: f64 = 1e-5;

/// Projects both embeddings to tokens and to what is added to the noise embedding (diffusers' `UnCLIPTextProjModel`; Ramesh et al. 2022,
/// section 2.1).
#[derive(Debug)]
pub(super) struct TextProjection {
    text: ClipText,
    image_tokens: i64,
    /// What stands for no image: Karlo's guidance leans away from it.
    nothing: Tensor,
    pooled: Linear,
    image: Linear,
    tokens_of_image: Linear,
    tokens_of_text: Linear,
    norm: LayerNorm,
}

impl TextProjection {
    /// Of `text` and of images, which become `image_tokens` tokens. `widths`: of a token, and of the noise embedding.
    pub(super) fn new(
        mut scope: Scope<'_>,
        text: ClipText,
        image_tokens: i64,
        (width, embedding_width): (i64, i64),
    ) -> Result<Self> {
        let clip = text.width;
        let nothing =
            scope.weight("learned_classifier_free_guidance_embeddings", &[clip], Init::Normal { std: 1.0 })?;
        let to_time = "clip_image_embeddings_project_to_time_embeddings";
        let to_tokens = image_tokens.saturating_mul(width);
        Ok(Self {
            text,
            image_tokens,
            nothing,
            pooled: Linear::new(scope.at("embedding_proj"), clip, embedding_width)?,
            image: Linear::new(scope.at(to_time), clip, embedding_width)?,
            tokens_of_image: Linear::new(scope.at("clip_extra_context_tokens_proj"), clip, to_tokens)?,
            tokens_of_text: Linear::new(scope.at("encoder_hidden_states_proj"), clip, width)?,
            norm: LayerNorm::new(scope.at("text_encoder_hidden_states_norm"), width, EPS)?,
        })
    }

    /// The embedding of the image, with what stands for none in the rows where it is zeros or not there.
    fn image(&self, given: Option<&Tensor>, rows: i64, kind: Kind) -> Result<Tensor> {
        let shape = [rows, self.text.width];
        let nothing = self.nothing.f_to_kind(kind)?.f_unsqueeze(0)?.f_expand(shape, false)?;
        let Some(given) = EmbeddingShapes::checked("clip_image", given, &shape)? else { return Ok(nothing) };
        let given = given.f_to_device(self.nothing.device())?;
        let absent = given.f_eq(0.0)?.f_all_dim(-1, true)?;
        Ok(nothing.f_where_self(&absent, &given.f_to_kind(kind)?)?)
    }
}

impl ContextSource for TextProjection {
    /// Columns are the words of the text, then the tokens of the image. A token of the text that is all zeros does not count: it stands behind
    /// the end of a text.
    fn encode(&self, conditioning: &Conditioning, rows: i64, kind: Kind) -> Result<Encoded> {
        let ClipText { tokens, width, .. } = self.text;
        let device = self.nothing.device();
        let needed = |name: &'static str, given: Option<&Tensor>, shape: &[i64]| -> Result<Tensor> {
            let given = EmbeddingShapes::checked(name, given, shape)?.ok_or(Error::EmbeddingNeeded(name))?;
            Ok(given.f_to_device(device)?)
        };
        let text = needed("clip_text", conditioning.clip_text.as_ref(), &[rows, tokens, width])?;
        let pooled = needed("clip_text_pooled", conditioning.clip_text_pooled.as_ref(), &[rows, width])?;
        let image = self.image(conditioning.clip_image.as_ref(), rows, kind)?;
        let absent = text.f_eq(0.0)?.f_all_dim(-1, false)?;
        let mask = Tensor::f_zeros([rows, tokens], (Kind::Float, device))?.f_masked_fill(&absent, LEFT_OUT)?;
        let mask = mask.f_constant_pad_nd([0, self.image_tokens])?.f_reshape([rows, 1, 1, -1])?;
        let added = self.image.forward(&image)?.f_add(&self.pooled.forward(&pooled.f_to_kind(kind)?)?)?;
        let words = self.norm.forward(&self.tokens_of_text.forward(&text.f_to_kind(kind)?)?)?;
        // As they were published, the numbers of a token stand apart.
        let seen = self.tokens_of_image.forward(&image)?.f_reshape([rows, -1, self.image_tokens])?;
        let tokens_of_both = Tensor::f_cat(&[words, seen.f_transpose(1, 2)?], 1)?;
        Ok(Encoded { pooled: Some(added), tokens: tokens_of_both, text_columns: tokens, mask: Some(mask) })
    }
}
