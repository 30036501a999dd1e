//! The text half of CLIP.

use ediffi_core::nn::{Embedding, LayerNorm, Linear};
use ediffi_core::weights::{Init, Scope};
use ediffi_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use super::config::{ClipTextConfig, in_range};
use super::transformer::{Attending, ClipOutput, Transformer};

/// The text half of CLIP. Parameters are named as in published files: `text_model...`, `text_projection.weight`.
#[derive(Debug)]
pub struct ClipTextNetwork {
    config: ClipTextConfig,
    kind: Kind,
    tokens: Embedding,
    positions: Embedding,
    transformer: Transformer,
    norm: LayerNorm,
    projection: Option<Linear>,
}

impl ClipTextNetwork {
    /// Builds the network from its parameters, with a projection to `projection_dim` if there is one: the text encoders of
    /// latent diffusion models have none. It computes in the
    /// precision `kind`.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] for dimensions that make no network, or the errors of `scope`.
    pub fn new(mut scope: Scope<'_>, config: &ClipTextConfig, projection_dim: Option<i64>, kind: Kind) -> Result<Self> {
        config.validate()?;
        projection_dim.map_or(Ok(()), |dim| in_range("projection_dim", dim))?;
        let width = config.hidden_size;
        let mut model = scope.at("text_model");
        // Start values of the tables: Radford et al. 2021, released code.
        let tokens = Embedding::new(model.at("embeddings.token_embedding"), config.vocab_size, width, 0.02)?;
        let positions =
            Embedding::new(model.at("embeddings.position_embedding"), config.max_position_embeddings, width, 0.01)?;
        let transformer = Transformer::new(model.at("encoder"), &config.dimensions(), Attending::Before)?;
        let norm = LayerNorm::new(model.at("final_layer_norm"), width, config.layer_norm_eps)?;
        let project = |dim| Linear::without_bias(scope.at("text_projection"), width, dim, Init::fan_in(width));
        let projection = projection_dim.map(project).transpose()?;
        Ok(Self { config: config.clone(), kind, tokens, positions, transformer, norm, projection })
    }

    /// The dimensions it was built from.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The device of the network.
    #[must_use]
    pub fn device(&self) -> Device {
        self.tokens.weight().device()
    }

    /// Embeds texts. Attention is causal, so the padding after a text does not change its embedding.
    ///
    /// # Shapes
    /// `ids`: [n, tokens] i64
    ///
    /// # Errors
    /// More tokens than the network has positions, an id outside the table, or shapes that do not fit.
    pub fn forward(&self, ids: &Tensor) -> Result<ClipOutput> {
        let (n, _) = ids.size2()?;
        let (penultimate, last) = self.transformer.forward_last_two(self.embed(ids)?)?;
        let tokens = self.norm.forward(&last)?;
        let width = self.config.hidden_size;
        let end = text_end(ids, self.config.eos_token_id)?.f_reshape([n, 1, 1])?.f_expand([n, 1, width], false)?;
        let end = tokens.f_gather(1, &end, false)?.f_squeeze_dim(1)?;
        ClipOutput::new(&tokens, &penultimate, &end, self.projection.as_ref())
    }

    /// The input of the first layer and the output of each layer, without the final norm.
    ///
    /// # Shapes
    /// `ids`: [n, tokens] i64 → `num_hidden_layers` + 1 times [n, tokens, width] f32
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn hidden_states(&self, ids: &Tensor) -> Result<Vec<Tensor>> {
        self.transformer.states(self.embed(ids)?)
    }

    /// # Shapes
    /// `ids`: [n, tokens] → [n, tokens, width]
    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let (n, tokens) = ids.size2()?;
        let most = self.config.max_position_embeddings;
        if tokens > most {
            return Err(Error::EmbeddingShape { name: "clip text", expected: vec![n, most], got: vec![n, tokens] });
        }
        let positions = self.positions.weight().f_narrow(0, 0, tokens)?;
        Ok(self.tokens.forward(ids)?.f_add(&positions)?.f_to_kind(self.kind)?)
    }
}

/// The position at which each text ends: that of its first `eos`. OpenAI's files wrongly have an `eos` of 2; then it is the
/// first position of the greatest id, since the token that ends a text is the last of their vocabulary. A text without an
/// end ends at its last position.
///
/// # Shapes
/// `ids`: [n, tokens] → [n]
fn text_end(ids: &Tensor, eos: i64) -> Result<Tensor> {
    let tokens = ids.size2()?.1;
    let is_end = if eos == 2 { ids.f_eq_tensor(&ids.f_amax(-1, true)?)? } else { ids.f_eq(eos)? };
    // The least index of all ends; which of several equal values argmax returns is not defined.
    let index = Tensor::f_arange(tokens, (Kind::Int64, ids.device()))?.f_expand_as(ids)?;
    Ok(index.f_masked_fill(&is_end.f_logical_not()?, tokens - 1)?.f_amin(-1, false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(ids: &[[i64; 6]], eos: i64) -> Vec<i64> {
        let ids = Tensor::from_slice2(ids);
        Vec::try_from(text_end(&ids, eos).unwrap()).unwrap()
    }

    #[test]
    fn a_text_ends_at_its_first_end_token() {
        let ids = [[90, 4, 7, 5, 7, 7], [90, 7, 7, 7, 7, 7], [90, 1, 2, 3, 4, 7]];
        assert_eq!(ends(&ids, 7), [2, 1, 5]);
    }

    #[test]
    fn an_end_token_of_two_stands_for_the_first_greatest_id() {
        let ids = [[98, 4, 99, 2, 99, 99], [98, 99, 0, 0, 0, 0], [98, 2, 2, 2, 2, 99]];
        assert_eq!(ends(&ids, 2), [2, 1, 5]);
    }

    #[test]
    fn a_text_without_end_ends_at_its_last_token() {
        assert_eq!(ends(&[[90, 1, 2, 3, 4, 5]], 7), [5]);
    }
}
