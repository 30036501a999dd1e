//! The picture half of CLIP.

use ediffi_core::nn::{Conv2d, Embedding, LayerNorm, Linear};
use ediffi_core::weights::{Init, Scope};
use ediffi_core::{Error, Result};
use tch::{Device, Kind, Tensor};

use super::config::{ClipVisionConfig, in_range};
use super::transformer::{Attending, ClipOutput, Transformer};

/// The picture half of CLIP. Parameters are named as in published files: `vision_model...`, `visual_projection.weight`.
#[derive(Debug)]
pub struct ClipVisionNetwork {
    config: ClipVisionConfig,
    kind: Kind,
    patches: Conv2d,
    class: Tensor,
    positions: Embedding,
    norm_before: LayerNorm,
    transformer: Transformer,
    norm_after: LayerNorm,
    projection: Option<Linear>,
}

impl ClipVisionNetwork {
    /// Builds the network from its parameters, with a projection to `projection_dim` if there is one. It computes in the
    /// precision `kind`.
    ///
    /// # Errors
    /// [`Error::NetworkConfig`] for dimensions that make no network, or the errors of `scope`.
    pub fn new(
        mut scope: Scope<'_>,
        config: &ClipVisionConfig,
        projection_dim: Option<i64>,
        kind: Kind,
    ) -> Result<Self> {
        config.validate()?;
        projection_dim.map_or(Ok(()), |dim| in_range("projection_dim", dim))?;
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let side = config.image_size / config.patch_size;
        // Start values of the class and the positions: Radford et al. 2021, released code.
        let std = (width as f64).powf(-0.5);
        let mut model = scope.at("vision_model");
        let mut embeddings = model.at("embeddings");
        let patches = Conv2d::patches(embeddings.at("patch_embedding"), 3, width, config.patch_size)?;
        let class = embeddings.weight("class_embedding", &[width], Init::Normal { std })?;
        let positions = Embedding::new(embeddings.at("position_embedding"), side * side + 1, width, std)?;
        // The spelling is that of the published files.
        let norm_before = LayerNorm::new(model.at("pre_layrnorm"), width, eps)?;
        let transformer = Transformer::new(model.at("encoder"), &config.dimensions(), Attending::All)?;
        let norm_after = LayerNorm::new(model.at("post_layernorm"), width, eps)?;
        let project = |dim| Linear::without_bias(scope.at("visual_projection"), width, dim, Init::fan_in(width));
        let projection = projection_dim.map(project).transpose()?;
        let config = config.clone();
        Ok(Self { config, kind, patches, class, positions, norm_before, transformer, norm_after, projection })
    }

    /// The dimensions it was built from.
    #[must_use]
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// The device of the network.
    #[must_use]
    pub fn device(&self) -> Device {
        self.class.device()
    }

    /// Embeds pictures of the network's size. Their channels have to be normalised by CLIP's mean and standard deviation.
    ///
    /// # Shapes
    /// `pixels`: [n, 3, image_size, image_size] → [n, projection] f32, or [n, width] without projection; not normalised
    ///
    /// # Errors
    /// Pictures of another size.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        Ok(self.outputs(pixels)?.pooled)
    }

    /// As [`forward`](Self::forward), but returns the embeddings of the patches, too.
    ///
    /// # Shapes
    /// `pixels`: [n, 3, image_size, image_size]
    ///
    /// # Errors
    /// Pictures of another size.
    pub fn outputs(&self, pixels: &Tensor) -> Result<ClipOutput> {
        let (penultimate, tokens) = self.transformer.forward_last_two(self.embed(pixels)?)?;
        let class = self.norm_after.forward(&tokens.f_select(1, 0)?)?;
        ClipOutput::new(&tokens, &penultimate, &class, self.projection.as_ref())
    }

    /// The input of the first layer and the output of each layer, without a norm.
    ///
    /// # Shapes
    /// `pixels`: [n, 3, image_size, image_size] → `num_hidden_layers` + 1 times [n, 1 + patches, width] f32
    ///
    /// # Errors
    /// Pictures of another size.
    pub fn hidden_states(&self, pixels: &Tensor) -> Result<Vec<Tensor>> {
        self.transformer.states(self.embed(pixels)?)
    }

    /// # Shapes
    /// `pixels`: [n, 3, image_size, image_size] → [n, 1 + patches, width]
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let (n, channels, height, width) = pixels.size4()?;
        let side = self.config.image_size;
        if (channels, height, width) != (3, side, side) {
            let (expected, got) = (vec![n, 3, side, side], pixels.size());
            return Err(Error::EmbeddingShape { name: "clip picture", expected, got });
        }
        let patches = self.patches.forward(&pixels.f_to_kind(self.kind)?)?.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let class = self.class.f_to_kind(self.kind)?.f_expand([n, 1, self.config.hidden_size], false)?;
        let x = Tensor::f_cat(&[&class, &patches], 1)?.f_add(&self.positions.weight().f_to_kind(self.kind)?)?;
        self.norm_before.forward(&x)
    }
}
