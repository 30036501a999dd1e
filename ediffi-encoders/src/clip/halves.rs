//! The halves of CLIP, each opened from a folder by itself.

use std::path::Path;

use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{self, Lora, LoraPart, Original, Scope, Table, WeightsFile};
use tch::Tensor;

use super::config::{ClipTextConfig, ClipVisionConfig};
use super::file;
use super::names::{text_names, vision_names};
use super::preprocess::Preprocess;
use super::text::ClipTextNetwork;
use super::transformer::ClipOutput;
use super::vision::ClipVisionNetwork;
use crate::batch;
use crate::encoded::{EncodedClip, finite};
use crate::fingerprint::{Fingerprint, Identity};
use crate::tokenizer::TextTokenizer;
use crate::{Error, Result};

/// The text half of CLIP and its tokenizer.
///
/// The folder may hold a whole CLIP model or the text half alone (`CLIPTextModel`, `CLIPTextModelWithProjection`), as in
/// latent diffusion models. If the file has no projection, the pooled embedding is that of the token that ends the text.
#[derive(Debug)]
pub struct ClipText {
    network: ClipTextNetwork,
    tokenizer: TextTokenizer,
    identity: Identity,
}

impl ClipText {
    /// Opens a folder as [`Clip::open`](super::Clip::open) does.
    ///
    /// # Errors
    /// A file is missing or unreadable; weights or tokenizer do not fit the configuration.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        Self::open_variant(folder, None, runtime)
    }

    /// As [`open`](Self::open), but reads the weights of a `variant`, such as `fp16`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_variant(folder: &Path, variant: Option<&str>, runtime: Runtime) -> Result<Self> {
        let (config, projection) = file::text(folder)?;
        let tokenizer = tokenizer(folder, &config)?;
        Self::build(folder, variant, runtime, (&config, projection), tokenizer, &[])
    }

    fn build(
        folder: &Path,
        variant: Option<&str>,
        runtime: Runtime,
        (config, projection): (&ClipTextConfig, i64),
        tokenizer: TextTokenizer,
        loras: &[(Lora, LoraPart)],
    ) -> Result<Self> {
        let identity = Identity::open(folder, variant, text_names, config, &tokenizer)?;
        Self::of(identity, folder, runtime, (config, projection), tokenizer, loras)
    }

    /// An encoder of weights that are open.
    fn of(
        mut identity: Identity,
        folder: &Path,
        runtime: Runtime,
        (config, projection): (&ClipTextConfig, i64),
        tokenizer: TextTokenizer,
        loras: &[(Lora, LoraPart)],
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        identity.change(loras)?;
        let file = identity.weights();
        let projection = file.contains("text_projection.weight").then_some(projection);
        tracing::debug!(folder = %folder.display(), ?runtime, "opening the text half of clip");
        let network = file.build(runtime.device, runtime.kind, |scope| {
            ClipTextNetwork::new(scope, config, projection, runtime.kind)
        })?;
        Ok(Self { network, tokenizer, identity })
    }

    /// As [`open_variant`](Self::open_variant), with the padding that the tokenizer's files name, for
    /// [`encode_with_padding`](Self::encode_with_padding).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_padded(folder: &Path, variant: Option<&str>, runtime: Runtime) -> Result<Self> {
        Self::open_padded_with(folder, variant, &[], runtime)
    }

    /// As [`open_padded`](Self::open_padded), with LoRAs merged into the weights: of each file what it has for this part of a model.
    /// [`model`](Self::model) tells it from the encoder without them.
    ///
    /// # Errors
    /// As [`open`](Self::open); a LoRA that cannot be read or is of another base.
    pub fn open_padded_with(
        folder: &Path,
        variant: Option<&str>,
        loras: &[(Lora, LoraPart)],
        runtime: Runtime,
    ) -> Result<Self> {
        let (config, projection) = file::text(folder)?;
        let tokenizer = TextTokenizer::clip_padded(folder, config.vocab_size, config.max_position_embeddings)?;
        check_end(&tokenizer, config.eos_token_id)?;
        Self::build(folder, variant, runtime, (&config, projection), tokenizer, loras)
    }

    /// As [`open_padded_with`](Self::open_padded_with), with the weights of a checkpoint of one file, in the
    /// [original layout](ediffi_core::weights::Original) of Stable Diffusion: `part` is what they are there. Configuration and tokenizer are those
    /// of `folder`.
    ///
    /// # Errors
    /// As [`open_padded_with`](Self::open_padded_with).
    pub fn open_original(
        checkpoint: &Path,
        part: Original,
        folder: &Path,
        loras: &[(Lora, LoraPart)],
        runtime: Runtime,
    ) -> Result<Self> {
        let (config, projection) = file::text(folder)?;
        let tokenizer = TextTokenizer::clip_padded(folder, config.vocab_size, config.max_position_embeddings)?;
        check_end(&tokenizer, config.eos_token_id)?;
        let path = folder.join("config.json");
        let identity = Identity::original((checkpoint, part), text_names, &path, &config, &tokenizer)?;
        Self::of(identity, folder, runtime, (&config, projection), tokenizer, loras)
    }

    /// Whether a checkpoint holds the encoder that the configuration in `folder` describes. No tensor is read.
    ///
    /// # Errors
    /// As [`open_original`](Self::open_original).
    pub fn check_original(checkpoint: &Path, part: Original, folder: &Path) -> Result<()> {
        let (config, projection) = file::text(folder)?;
        let file = WeightsFile::original(checkpoint, part, text_names)?;
        let projection = file.contains("text_projection.weight").then_some(projection);
        let build = |scope: Scope<'_>| ClipTextNetwork::new(scope, &config, projection, tch::Kind::Float);
        Ok(file.check(&Table::of(build)?)?)
    }

    /// Reads the `config.json` of a folder, and the width of the space that the text is projected into, if the weights project it. Each key is
    /// read, or known to be without effect on embeddings.
    ///
    /// # Errors
    /// As [`Clip::read_config`](super::Clip::read_config).
    pub fn read_config(folder: &Path) -> Result<(ClipTextConfig, i64)> {
        file::text(folder)
    }

    /// The fingerprint of the model in a folder, without loading it.
    ///
    /// # Errors
    /// A file is missing or unreadable.
    pub fn fingerprint(folder: &Path, variant: Option<&str>) -> Result<Fingerprint> {
        let (config, _) = file::text(folder)?;
        let tokenizer = tokenizer(folder, &config)?;
        Identity::open(folder, variant, text_names, &config, &tokenizer)?.fingerprint().cloned()
    }

    /// The fingerprint of this model. [`EncodedClip::save`] stores it with embeddings.
    ///
    /// The first call takes about as long as reading the table of words.
    ///
    /// # Errors
    /// As [`T5::model`](crate::T5::model).
    pub fn model(&self) -> Result<&Fingerprint> {
        self.identity.fingerprint()
    }

    /// The dimensions of the network.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        self.network.config()
    }

    /// The tokenizer, for example to count tokens.
    #[must_use]
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Embeds texts, each truncated or padded to `tokens` tokens. The embeddings stay on the device of the network; those of
    /// the padding are zero.
    ///
    /// Texts of similar length are computed together, without most of the padding. So the embedding of a text does not depend
    /// on the other texts, except for rounding, and a short text is cheap.
    ///
    /// # Shapes
    /// → `EncodedClip::tokens` [texts, tokens, width], `EncodedClip::pooled` [texts, projection]
    ///
    /// # Errors
    /// As [`TextTokenizer::encode`]; an embedding that is not finite; an error of libtorch.
    pub fn encode(&self, texts: &[&str], tokens: i64) -> Result<EncodedClip> {
        let _guard = tch::no_grad_guard();
        let cut = self.tokenizer.encode(texts, tokens)?;
        let device = self.network.device();
        let [tokens, penultimate, pooled] = batch::run(&cut, device, |ids, _| {
            let output = self.network.forward(ids)?;
            Ok([output.tokens, output.penultimate, output.pooled])
        })?;
        Ok(EncodedClip {
            tokens: finite(tokens, "the CLIP text embedding")?,
            penultimate,
            pooled: finite(pooled, "the pooled CLIP text embedding")?,
            mask: cut.mask.f_to_device(device)?,
            spans: cut.spans,
            truncated: cut.truncated,
        })
    }

    /// As [`encode`](Self::encode), but with the network's own embeddings of the padding instead of zeros. Latent diffusion models were trained
    /// on all columns without a mask, and need these; open the encoder with [`open_padded`](Self::open_padded) for them.
    ///
    /// # Shapes
    /// → `EncodedClip::tokens` [texts, tokens, width], `EncodedClip::pooled` [texts, projection]
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_with_padding(&self, texts: &[&str], tokens: i64) -> Result<EncodedClip> {
        let _guard = tch::no_grad_guard();
        let cut = self.tokenizer.encode(texts, tokens)?;
        let device = self.network.device();
        let ids = cut.ids.f_to_device(device)?;
        // One by one, so that a row does not depend on its neighbours even where libtorch picks another kernel for more.
        let rows = (0..texts.len() as i64).map(|row| Ok(self.network.forward(&ids.f_narrow(0, row, 1)?)?));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let all = |part: fn(&ClipOutput) -> &Tensor, what| -> Result<Tensor> {
            let parts: Vec<&Tensor> = rows.iter().map(part).collect();
            Ok(finite(Tensor::f_cat(&parts, 0)?, what)?)
        };
        Ok(EncodedClip {
            tokens: all(|row| &row.tokens, "the CLIP text embedding")?,
            penultimate: all(|row| &row.penultimate, "the CLIP text embedding")?,
            pooled: all(|row| &row.pooled, "the pooled CLIP text embedding")?,
            mask: cut.mask.f_to_device(device)?,
            spans: cut.spans,
            truncated: cut.truncated,
        })
    }
}

/// The picture half of CLIP, with the preprocessing of pictures.
///
/// The folder may hold a whole CLIP model or the picture half alone (`CLIPVisionModel`, `CLIPVisionModelWithProjection`).
#[derive(Debug)]
pub struct ClipVision {
    network: ClipVisionNetwork,
    preprocess: Preprocess,
}

impl ClipVision {
    /// Opens a folder as [`Clip::open`](super::Clip::open) does, but without a tokenizer.
    ///
    /// # Errors
    /// A file is missing or unreadable; weights or preprocessing do not fit the configuration.
    pub fn open(folder: &Path, runtime: Runtime) -> Result<Self> {
        Self::open_variant(folder, None, runtime)
    }

    /// As [`open`](Self::open), but reads the weights of a `variant`, such as `fp16`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_variant(folder: &Path, variant: Option<&str>, runtime: Runtime) -> Result<Self> {
        let (config, projection) = file::vision(folder)?;
        let preprocess = Preprocess::of_folder(folder, config.image_size)?;
        Self::build(folder, variant, runtime, (&config, projection), preprocess)
    }

    /// As [`open_variant`](Self::open_variant), but prepares pictures as the file `preprocessor` says: folders of diffusers keep it beside the encoder.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_prepared(folder: &Path, preprocessor: &Path, variant: Option<&str>, runtime: Runtime) -> Result<Self> {
        let (config, projection) = file::vision(folder)?;
        let preprocess = Preprocess::open(preprocessor, config.image_size)?;
        Self::build(folder, variant, runtime, (&config, projection), preprocess)
    }

    /// Reads the `config.json` of a folder, and the width of the space that pictures are projected into, if the weights project them. Each key
    /// is read, or known to be without effect on embeddings.
    ///
    /// # Errors
    /// As [`Clip::read_config`](super::Clip::read_config).
    pub fn read_config(folder: &Path) -> Result<(ClipVisionConfig, i64)> {
        file::vision(folder)
    }

    fn build(
        folder: &Path,
        variant: Option<&str>,
        runtime: Runtime,
        (config, projection): (&ClipVisionConfig, i64),
        preprocess: Preprocess,
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let file = WeightsFile::open(&weights::find(folder, variant)?, vision_names)?;
        let projection = file.contains("visual_projection.weight").then_some(projection);
        tracing::debug!(folder = %folder.display(), ?runtime, "opening the picture half of clip");
        let network = file.build(runtime.device, runtime.kind, |scope| {
            ClipVisionNetwork::new(scope, config, projection, runtime.kind)
        })?;
        Ok(Self { network, preprocess })
    }

    /// The dimensions of the network.
    #[must_use]
    pub fn config(&self) -> &ClipVisionConfig {
        self.network.config()
    }

    /// The network, for the embeddings of patches.
    #[must_use]
    pub fn network(&self) -> &ClipVisionNetwork {
        &self.network
    }

    /// Makes pictures of any size into the input of the network: the middle square of each.
    ///
    /// # Shapes
    /// each picture: [3, height, width] RGB, u8 or f32 in [0, 1] → [n, 3, image_size, image_size] f32, on its device
    ///
    /// # Errors
    /// [`Error::EmptyBatch`] without pictures, [`Error::Picture`] for a tensor that is no picture.
    pub fn prepare(&self, pictures: &[Tensor]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        if pictures.is_empty() {
            return Err(Error::EmptyBatch("pictures"));
        }
        let prepared = pictures.iter().map(|picture| self.preprocess.apply(picture)).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_stack(&prepared, 0)?.f_to_device(self.network.device())?)
    }

    /// Embeds pictures of any size. The embeddings stay on the device of the network and are not normalised.
    ///
    /// # Shapes
    /// each picture: [3, height, width] RGB, u8 or f32 in [0, 1] → [n, projection] f32
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare); an embedding that is not finite; an error of libtorch.
    pub fn encode(&self, pictures: &[Tensor]) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        Ok(finite(self.network.forward(&self.prepare(pictures)?)?, "the CLIP picture embedding")?)
    }
}

fn tokenizer(folder: &Path, config: &ClipTextConfig) -> Result<TextTokenizer> {
    let tokenizer = TextTokenizer::clip(folder, config.vocab_size, config.max_position_embeddings)?;
    check_end(&tokenizer, config.eos_token_id)?;
    Ok(tokenizer)
}

/// Checks that the network finds the end of a text where the tokenizer puts it.
fn check_end(tokenizer: &TextTokenizer, eos: i64) -> Result<()> {
    let reason = if eos == 2 {
        // The network takes the greatest id for the end.
        (tokenizer.end() != tokenizer.greatest())
            .then(|| format!("<|endoftext|> is {}, which is not its greatest id", tokenizer.end()))
    } else {
        (tokenizer.end() != eos).then(|| format!("<|endoftext|> is {}, eos_token_id is {eos}", tokenizer.end()))
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(Error::TokenizerMismatch { path: tokenizer.path().to_owned(), reason }),
    }
}
