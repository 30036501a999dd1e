//! The network of a prior.

use std::sync::atomic::{AtomicU64, Ordering};

use tch::{Device, Kind, Tensor};

use super::config::PriorConfig;
use crate::conditioning::Conditioning;
use crate::nn::{Activation, LayerNorm, Linear, add_to, attend_masked, merge_heads, split_heads};
use crate::unet::parts::{Sinusoids, TimeEmbedding};
use crate::unet::{EmbeddingShapes, KeysValues};
use crate::weights::{Init, Scope};
use crate::{Error, Result};

/// What is added to the scores of tokens that do not count (diffusers' `PriorTransformer`).
const LEFT_OUT: f64 = -10_000.0;

/// Epsilon of all norms (the default of torch).
const EPS: f64 = 1e-5;

/// How many times as wide as a token the hidden layer is.
const EXPANSION: i64 = 4;

/// Tokens that a step computes: noise level, noisy embedding, and the one that becomes the answer.
const STEP: i64 = 3;

/// The network F of a prior. Parameters carry the names of diffusers' `PriorTransformer`.
#[derive(Debug)]
pub struct Prior {
    /// Tells its contexts from those of other networks.
    id: u64,
    config: PriorConfig,
    kind: Kind,
    time: TimeEmbedding,
    text: Linear,
    pooled: Linear,
    noisy: Linear,
    positions: Tensor,
    answer: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    out: Linear,
    mean: Tensor,
    std: Tensor,
}

/// What a prior derives from a text before the first step: it does not change while sampling. Only the network that made it takes it.
#[derive(Debug)]
pub struct PriorContext {
    network: u64,
    /// Keys and values of the text in each layer.
    keys_values: Vec<KeysValues>,
    /// What is added to the scores of a step, [rows, 1, step, text and step].
    mask: Tensor,
}

impl Prior {
    /// Builds a network from its parameters; it computes in `kind`.
    ///
    /// # Errors
    /// Dimensions that make no network, or parameters that cannot be had.
    pub fn new(mut scope: Scope<'_>, config: &PriorConfig, kind: Kind) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        config.validate()?;
        let &PriorConfig { width, pooled, tokens, heads, layers, activation, .. } = config;
        let inner = config.inner();
        let sinusoids = Sinusoids { width: inner, multiply_first: true };
        let names = ["time_embedding.linear_1", "time_embedding.linear_2"];
        let init = Init::Normal { std: 0.02 };
        let layer = |index| Layer::new(scope.at(&format!("transformer_blocks.{index}")), inner, heads);
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            config: *config,
            kind,
            time: TimeEmbedding::new(scope.again(), names, sinusoids, inner, activation)?,
            text: Linear::new(scope.at("encoder_hidden_states_proj"), width, inner)?,
            pooled: Linear::new(scope.at("embedding_proj"), pooled, inner)?,
            noisy: Linear::new(scope.at("proj_in"), width, inner)?,
            positions: scope.weight("positional_embedding", &[1, tokens + 1 + STEP, inner], init)?,
            answer: scope.weight("prd_embedding", &[1, 1, inner], init)?,
            layers,
            norm: LayerNorm::new(scope.at("norm_out"), inner, EPS)?,
            out: Linear::precise(scope.at("proj_to_clip_embeddings"), inner, width)?,
            mean: scope.weight_f32("clip_mean", &[1, width], Init::Zeros)?,
            std: scope.weight_f32("clip_std", &[1, width], Init::Ones)?,
        })
    }

    /// Its dimensions.
    #[must_use]
    pub fn config(&self) -> &PriorConfig {
        &self.config
    }

    /// Where the network computes.
    #[must_use]
    pub fn device(&self) -> Device {
        self.positions.device()
    }

    /// Tokens and pooled text, [rows, tokens + 1, inner], and what is added to the scores of each, [rows, 1, 1, tokens + 1].
    fn prefix(&self, conditioning: &Conditioning, rows: i64) -> Result<(Tensor, Tensor)> {
        let PriorConfig { width, pooled: pooled_width, tokens, .. } = self.config;
        let needed = |name: &'static str, given: Option<&Tensor>, shape: &[i64]| -> Result<Tensor> {
            let given = EmbeddingShapes::checked(name, given, shape)?.ok_or(Error::EmbeddingNeeded(name))?;
            Ok(given.f_to_device(self.device())?)
        };
        let text = needed("clip_text", conditioning.clip_text.as_ref(), &[rows, tokens, width])?;
        let pooled = needed("clip_text_pooled", conditioning.clip_text_pooled.as_ref(), &[rows, pooled_width])?;
        let absent = text.f_eq(0.0)?.f_all_dim(-1, false)?;
        let mask = Tensor::f_zeros([rows, tokens], (Kind::Float, self.device()))?.f_masked_fill(&absent, LEFT_OUT)?;
        let mask = mask.f_constant_pad_nd([0, 1])?.f_reshape([rows, 1, 1, tokens + 1])?;
        let words = self.text.forward(&text.f_to_kind(self.kind)?)?;
        let whole = self.pooled.forward(&pooled.f_to_kind(self.kind)?)?.f_unsqueeze(1)?;
        Ok((self.placed(&[&words, &whole], 0)?, mask))
    }

    /// Tokens one after the other at the positions from `first`.
    fn placed(&self, tokens: &[&Tensor], first: i64) -> Result<Tensor> {
        let tokens = Tensor::f_cat(tokens, 1)?;
        let positions = self.positions.f_narrow(1, first, tokens.size3()?.1)?;
        Ok(tokens.f_add(&positions.f_to_kind(self.kind)?)?)
    }

    /// What the network derives from the text of `conditioning` for `rows` embeddings, once for a whole generation. A token that is all zeros
    /// does not count: it stands behind the end of a text.
    ///
    /// # Errors
    /// A text that is not there, or of another shape.
    pub fn context(&self, conditioning: &Conditioning, rows: i64) -> Result<PriorContext> {
        let (mut x, columns) = self.prefix(conditioning, rows)?;
        let backwards = self.backwards(x.size3()?.1)?;
        let mask = columns.f_add(&backwards)?;
        let mut keys_values = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let (next, own) = layer.forward(&x, None, &mask)?;
            x = next;
            keys_values.push(own);
        }
        let own = self.backwards(STEP)?.f_expand([rows, 1, STEP, STEP], false)?;
        let columns = columns.f_expand([rows, 1, STEP, self.config.tokens + 1], false)?;
        Ok(PriorContext { network: self.id, keys_values, mask: Tensor::f_cat(&[columns, own], 3)? })
    }

    /// What keeps each of `tokens` from those after it, [1, 1, tokens, tokens].
    fn backwards(&self, tokens: i64) -> Result<Tensor> {
        let all = Tensor::f_full([1, 1, tokens, tokens], LEFT_OUT, (Kind::Float, self.device()))?;
        Ok(all.f_triu(1)?)
    }

    /// F(x; c_noise, context). The inputs may be on another device; the result is where `x` is.
    ///
    /// # Shapes
    /// `x`: [rows, width] f32, `c_noise`: `[rows]` f32 → [rows, width] f32
    ///
    /// # Errors
    /// [`Error::ForeignContext`] for a context that another network made, or shapes that do not fit.
    pub fn forward(&self, x: &Tensor, c_noise: &Tensor, context: &PriorContext) -> Result<Tensor> {
        self.forward_tapped(x, c_noise, context, |_, _| {})
    }

    /// [`forward`](Self::forward), showing `tap` what every layer gives for the tokens of a step.
    pub(super) fn forward_tapped(
        &self,
        x: &Tensor,
        c_noise: &Tensor,
        context: &PriorContext,
        mut tap: impl FnMut(usize, &Tensor),
    ) -> Result<Tensor> {
        if context.network != self.id {
            return Err(Error::ForeignContext);
        }
        let (home, rows) = (x.device(), x.size2()?.0);
        let noisy = self.noisy.forward(&x.f_to_device(self.device())?.f_to_kind(self.kind)?)?.f_unsqueeze(1)?;
        let level = self.time.forward(&c_noise.f_to_device(self.device())?)?.f_to_kind(self.kind)?.f_unsqueeze(1)?;
        let answer = self.answer.f_to_kind(self.kind)?.f_expand([rows, 1, self.config.inner()], false)?;
        let mut h = self.placed(&[&level, &noisy, &answer], self.config.tokens + 1)?;
        for (index, (layer, text)) in self.layers.iter().zip(&context.keys_values).enumerate() {
            h = layer.forward(&h, Some(text), &context.mask)?.0;
            tap(index, &h);
        }
        let answer = h.f_select(1, STEP - 1)?.f_to_kind(Kind::Float)?;
        Ok(self.out.forward(&self.norm.forward(&answer)?)?.f_to_device(home)?)
    }

    /// The image embeddings of what was drawn: the network draws them with the mean and the spread that they have taken away.
    ///
    /// # Shapes
    /// `drawn`: [rows, width] → the same, f32
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn finish(&self, drawn: &Tensor) -> Result<Tensor> {
        let drawn = drawn.f_to_device(self.device())?.f_to_kind(Kind::Float)?;
        Ok(drawn.f_mul(&self.std)?.f_add(&self.mean)?)
    }
}

/// Tokens attend to each other and those before, then each goes through a hidden layer (diffusers' `BasicTransformerBlock`).
#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    expand: Linear,
    contract: Linear,
    heads: i64,
}

impl Layer {
    fn new(mut scope: Scope<'_>, width: i64, heads: i64) -> Result<Self> {
        Ok(Self {
            norm1: LayerNorm::new(scope.at("norm1"), width, EPS)?,
            q: Linear::new(scope.at("attn1.to_q"), width, width)?,
            k: Linear::new(scope.at("attn1.to_k"), width, width)?,
            v: Linear::new(scope.at("attn1.to_v"), width, width)?,
            out: Linear::zeroed(scope.at("attn1.to_out.0"), width, width)?,
            norm2: LayerNorm::new(scope.at("norm3"), width, EPS)?,
            expand: Linear::new(scope.at("ff.net.0.proj"), width, EXPANSION * width)?,
            contract: Linear::zeroed(scope.at("ff.net.2"), EXPANSION * width, width)?,
            heads,
        })
    }

    /// What the layer makes of `x`, which comes after the tokens whose keys and values are `before`, and the keys and values of `x`.
    fn forward(&self, x: &Tensor, before: Option<&KeysValues>, mask: &Tensor) -> Result<(Tensor, KeysValues)> {
        let normed = self.norm1.forward(x)?;
        let split = |map: &Linear| split_heads(&map.forward(&normed)?, self.heads);
        let (q, own) = (split(&self.q)?, KeysValues { keys: split(&self.k)?, values: split(&self.v)? });
        let all = match before {
            Some(KeysValues { keys, values }) => KeysValues {
                keys: Tensor::f_cat(&[keys, &own.keys], 2)?,
                values: Tensor::f_cat(&[values, &own.values], 2)?,
            },
            None => own.shallow_clone(),
        };
        let attended = attend_masked(&q, &all.keys, &all.values, Some(mask))?;
        let x = add_to(self.out.forward(&merge_heads(&attended)?)?, x)?;
        let hidden = Activation::Gelu.apply_to(self.expand.forward(&self.norm2.forward(&x)?)?)?;
        Ok((add_to(self.contract.forward(&hidden)?, &x)?, own))
    }
}
