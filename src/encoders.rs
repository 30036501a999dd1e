//! The encoders of a pipeline: looked at when it is opened, loaded when they are needed.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ediffi_core::files::path_inside;
use ediffi_core::folders::Identity;
use ediffi_core::runtime::Runtime;
use ediffi_encoders::{
    Clip, ClipConfig, ClipText, ClipVision, Encoded, Fingerprint, T5, T5Config, T5Weights, TextTokenizer,
};

use crate::deepfloyd::{PublishedText, clean};
use crate::embeddings::{EncodedText, EncodedTokens, Source, Spans};
use crate::lazy::{get_or_load, get_or_make};
use crate::manifest::{MANIFEST_FILE, Manifest};
use crate::on_cpu::to_cpu;
use crate::published::unusable;
use crate::stable_diffusion::{LatentText, PublishedClip};
use crate::unclip::PublishedVision;
use crate::validate::Encoders;
use crate::{Embeddings, Error, Event, Observer, Problem, Result};
use ediffi_core::unet::EmbeddingShapes;
use seen_style::{Eye, has_pictures, style_of};

mod files;
mod latent;
mod seen_style;
mod style;

/// What is known of the encoders without loading them.
#[derive(Debug)]
pub(crate) struct EncoderSet {
    t5: Option<T5Files>,
    clip: Option<(PathBuf, ClipConfig)>,
    /// CLIP as Stable Diffusion and unCLIP read it.
    latent: Vec<LatentText>,
    /// CLIP's picture half of unCLIP.
    vision: Option<PublishedVision>,
    needs: EmbeddingShapes,
    runtime: Runtime,
    t5_weights: T5Weights,
    /// For the length of prompts; opened when first needed, and small enough to stay.
    t5_tokenizer: OnceCell<TextTokenizer>,
    /// That of each CLIP.
    clip_tokenizers: OnceCell<Vec<TextTokenizer>>,
    clip_fingerprint: OnceCell<Fingerprint>,
    /// The folders of the model.
    folders: Option<Arc<Identity>>,
}

/// The text encoders of a published model.
#[derive(Debug)]
pub(crate) enum PublishedEncoders {
    /// DeepFloyd IF's, if a folder has it.
    T5(Option<PublishedText>),
    /// Stable Diffusion's.
    Clip(Vec<LatentText>),
    /// unCLIP's, with that of pictures if a folder has it.
    UnClip(LatentText, Option<PublishedVision>),
}

/// How T5 is stored and read.
#[derive(Debug)]
enum T5Files {
    /// As this library's networks take it: embeddings end with the text.
    Own(PathBuf, T5Config),
    /// As DeepFloyd IF's do: padding is embedded too, nothing is the empty text, and captions are cleaned if so wished.
    Published(PublishedText, bool),
}

/// The encoders in memory.
#[derive(Debug, Default)]
pub(crate) struct LoadedEncoders {
    t5: Option<T5>,
    clip: Option<Clip>,
    /// Those of Stable Diffusion and unCLIP by number.
    latent: BTreeMap<usize, ClipText>,
    /// That of unCLIP's pictures.
    vision: Option<ClipVision>,
}

impl EncoderSet {
    fn new(t5: Option<T5Files>, clip: Option<(PathBuf, ClipConfig)>, needs: EmbeddingShapes, runtime: Runtime) -> Self {
        let (t5_tokenizer, clip_tokenizers, clip_fingerprint) = Default::default();
        let t5_weights = T5Weights::Full;
        let latent = Vec::new();
        Self {
            t5,
            clip,
            latent,
            vision: None,
            needs,
            runtime,
            t5_weights,
            t5_tokenizer,
            clip_tokenizers,
            clip_fingerprint,
            folders: None,
        }
    }

    /// With T5's weights held as `weights` says.
    pub(crate) fn with_t5_weights(self, t5_weights: T5Weights) -> Self {
        Self { t5_weights, ..self }
    }

    /// Looks at the encoders of a model folder whose networks take `needs`.
    pub(crate) fn open(folder: &Path, manifest: &Manifest, needs: EmbeddingShapes, runtime: Runtime) -> Result<Self> {
        let wrong = |key: &str, what: &str, got: i64, taken: i64| Error::Manifest {
            path: folder.join(MANIFEST_FILE),
            key: key.to_owned(),
            reason: format!("its {what} is {got}, the networks of the stages take {taken}"),
        };
        let t5 = match &manifest.encoders.t5 {
            None => None,
            Some(path) => {
                let path = path_inside(folder, path)?;
                let config = T5::read_config(&path).map_err(Error::of_config)?;
                if let Some(t5) = needs.t5.filter(|t5| t5.width != config.d_model) {
                    return Err(wrong("encoders.t5", "d_model", config.d_model, t5.width));
                }
                Some(T5Files::Own(path, config))
            }
        };
        let clip = match &manifest.encoders.clip {
            None => None,
            Some(path) => {
                let path = path_inside(folder, path)?;
                let config = Clip::read_config(&path).map_err(Error::of_config)?;
                let (hidden, projection) = (config.text_config.hidden_size, config.projection_dim);
                if let Some(clip) = needs.clip_text.filter(|clip| clip.width != hidden) {
                    return Err(wrong("encoders.clip", "text_config.hidden_size", hidden, clip.width));
                }
                let pooled = needs.clip_text.and_then(|clip| clip.pooled).filter(|&pooled| pooled != projection);
                if let Some(taken) = pooled.or(needs.clip_image.filter(|&image| image != projection)) {
                    return Err(wrong("encoders.clip", "projection_dim", projection, taken));
                }
                Some((path, config))
            }
        };
        Ok(Self::new(t5, clip, needs, runtime))
    }

    /// The encoder of a published folder.
    pub(crate) fn published(
        folder: &Path,
        text: PublishedEncoders,
        clean_captions: bool,
        needs: EmbeddingShapes,
        runtime: Runtime,
    ) -> Result<Self> {
        let text = match text {
            PublishedEncoders::T5(text) => text,
            PublishedEncoders::Clip(text) => {
                return Ok(Self { latent: text, ..Self::new(None, None, needs, runtime) });
            }
            PublishedEncoders::UnClip(text, vision) => {
                return Ok(Self { latent: vec![text], vision, ..Self::new(None, None, needs, runtime) });
            }
        };
        let width = text.as_ref().zip(needs.t5).filter(|(text, needed)| text.config.d_model != needed.width);
        if let Some((text, needed)) = width {
            let (own, needed) = (text.config.d_model, needed.width);
            let reason = format!("its text_encoder has d_model {own}, the networks of the stages take {needed}");
            return Err(unusable(folder, reason));
        }
        let t5 = text.map(|text| T5Files::Published(text, clean_captions));
        Ok(Self::new(t5, None, needs, runtime))
    }

    /// What T5 reads in the place of `text`.
    fn prepared(&self, text: &str) -> String {
        match &self.t5 {
            Some(T5Files::Published(_, true)) => clean(text),
            Some(T5Files::Published(_, false)) => text.trim().to_lowercase(),
            _ => text.to_owned(),
        }
    }

    /// The texts to encode. A blank one is none: its embeddings are the zeros that training puts in the place of a text.
    /// Published networks know no zeros: there nothing is the empty text.
    fn texts<'a>(&self, source: &'a Source) -> Vec<(&'static str, &'a str)> {
        let negative = source.negative_prompt.as_deref();
        let further = source.further.iter().map(|text| (FURTHER, text.as_str()));
        if !self.latent.is_empty() || matches!(self.t5, Some(T5Files::Published(..))) {
            let own = [(PROMPT, source.prompt.as_str()), (NEGATIVE, negative.unwrap_or_default())];
            return own.into_iter().chain(further).collect();
        }
        let own = std::iter::once((PROMPT, source.prompt.as_str())).chain(negative.map(|text| (NEGATIVE, text)));
        own.chain(further).filter(|(_, text)| !text.trim().is_empty()).collect()
    }

    /// What they can do for the networks.
    pub(crate) fn abilities(&self) -> Encoders {
        let t5 = self.t5.is_some() && self.needs.t5.is_some();
        let clip = (self.clip.is_some() || !self.latent.is_empty()) && self.needs.clip_text.is_some();
        let image = self.clip.as_ref().is_some_and(|(_, clip)| clip.vision_config.is_some());
        Encoders { text: t5 || clip, image: image || self.vision.is_some() }
    }

    /// The prompts that some encoder cannot read to their end. The tokenizers are opened for it, the networks are not.
    pub(crate) fn too_long(&self, source: &Source) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for (which, text) in self.texts(source) {
            for (encoder, lost) in [("T5", self.lost_by_t5(text)?), ("CLIP", self.lost_by_clip(text)?)] {
                let Some(lost) = lost else { continue };
                if source.truncate {
                    tracing::warn!(which, encoder, lost, "the end of a text is left unread");
                } else {
                    problems.push(Problem::TooLong { which, encoder, lost });
                }
            }
        }
        Ok(problems)
    }

    /// Whether the cleaning of captions leaves nothing of a text: the picture would be one of nothing in particular.
    pub(crate) fn cleans_away(&self, text: &str) -> bool {
        matches!(self.t5, Some(T5Files::Published(..))) && self.prepared(text).is_empty()
    }

    fn lost_by_t5(&self, text: &str) -> Result<Option<String>> {
        let (Some(tokenizer), Some(t5)) = (self.t5_tokenizer()?, self.needs.t5) else { return Ok(None) };
        lost(tokenizer, &self.prepared(text), t5.tokens)
    }

    /// The longest end that one of them loses: their tokenizers may count in other ways.
    fn lost_by_clip(&self, text: &str) -> Result<Option<String>> {
        let Some(clip) = self.needs.clip_text else { return Ok(None) };
        let ends = self.clip_tokenizers()?.iter().map(|tokenizer| lost(tokenizer, text, clip.tokens));
        let ends = ends.collect::<Result<Vec<_>>>()?;
        Ok(ends.into_iter().flatten().max_by_key(String::len))
    }

    fn t5_tokenizer(&self) -> Result<Option<&TextTokenizer>> {
        let Some(files) = &self.t5 else { return Ok(None) };
        let open = || match files {
            T5Files::Own(folder, config) => {
                TextTokenizer::t5(folder, config.eos_token_id, config.pad_token_id, config.vocab_size)
            }
            T5Files::Published(text, _) => text.open_tokenizer(),
        };
        Ok(Some(get_or_make(&self.t5_tokenizer, || self.own(open()))?))
    }

    fn clip_tokenizers(&self) -> Result<&[TextTokenizer]> {
        let own = self.clip.iter().map(|(folder, ClipConfig { text_config: text, .. })| {
            TextTokenizer::clip(folder, text.vocab_size, text.max_position_embeddings)
        });
        let latent = self.latent.iter().flat_map(|latent| &latent.encoders).map(PublishedClip::open_tokenizer);
        let open = || self.own(latent.chain(own).collect::<ediffi_encoders::Result<Vec<_>>>());
        Ok(get_or_make(&self.clip_tokenizers, open)?)
    }

    /// That of the first CLIP.
    fn clip_tokenizer(&self) -> Result<Option<&TextTokenizer>> {
        Ok(self.clip_tokenizers()?.first())
    }

    /// The prompt's tokens as [`Embeddings`] have them for networks that take `needs`, without embedding them.
    pub(crate) fn columns(&self, source: &Source, needs: EmbeddingShapes) -> Result<Vec<(&'static str, Spans)>> {
        let blank = |count: i64| vec![None; usize::try_from(count).unwrap_or(0)];
        let spans = |tokenizer: Option<&TextTokenizer>, text: &str, count: i64| -> Result<Spans> {
            let Some(tokenizer) = tokenizer.filter(|_| !source.prompt.trim().is_empty()) else {
                return Ok(blank(count));
            };
            Ok(tokenizer.encode(&[text], count)?.spans.pop().unwrap_or_default())
        };
        let mut columns = Vec::with_capacity(2);
        if let Some(t5) = needs.t5 {
            let prepared = self.prepared(&source.prompt);
            let found = spans(self.t5_tokenizer()?, &prepared, t5.tokens)?;
            columns
                .push(("t5", if self.keeps_characters(&source.prompt, &prepared) { found } else { blank(t5.tokens) }));
        }
        if let Some(clip) = needs.clip_text {
            columns.push(("clip", spans(self.clip_tokenizer()?, &source.prompt, clip.tokens)?));
        }
        Ok(columns)
    }

    /// Whether the characters of what T5 reads are those of the prompt but for their case, so that its tokens can be found
    /// in it.
    fn keeps_characters(&self, text: &str, prepared: &str) -> bool {
        matches!(self.t5, Some(T5Files::Own(..))) || prepared == text.to_lowercase()
    }

    /// Encodes texts and style. One encoder is in memory at a time, unless `keep`.
    pub(crate) fn encode(
        &self,
        loaded: &mut LoadedEncoders,
        keep: bool,
        source: &Source,
        observer: &mut dyn Observer,
    ) -> Result<Embeddings> {
        let texts = self.texts(source);
        let mut encoded: Vec<EncodedText> = texts.iter().map(|_| EncodedText::default()).collect();
        let style;
        if let (Some(files), Some(needed)) = (&self.t5, self.needs.t5)
            && !texts.is_empty()
        {
            started("t5", observer)?;
            let t5 = get_or_load(&mut loaded.t5, || match files {
                T5Files::Own(folder, _) => self.own(T5::open_with(folder, None, self.t5_weights, self.runtime)),
                T5Files::Published(text, _) => self.own(text.load(self.t5_weights, self.runtime)),
            })?;
            for ((_, text), encoded) in texts.iter().zip(&mut encoded) {
                encoded.t5 = Some(match files {
                    T5Files::Own(..) => on_cpu(t5.encode(&[text], needed.tokens)?)?,
                    T5Files::Published(..) => {
                        let prepared = self.prepared(text);
                        let mut tokens = on_cpu(t5.encode_with_padding(&[&prepared], needed.tokens)?)?;
                        if !self.keeps_characters(text, &prepared) {
                            tokens.spans.fill(None);
                        }
                        tokens
                    }
                });
            }
            if !keep {
                loaded.t5 = None;
            }
        }
        if let Some(needed) = self.needs.clip_text.filter(|_| !self.latent.is_empty()) {
            self.encode_latent(needed, (loaded, keep), (&texts, &mut encoded), source, observer)?;
        }
        let reads = self.needs.clip_text.is_some() && !texts.is_empty();
        let references = source.style.as_deref().filter(|_| self.needs.clip_image.is_some()).unwrap_or_default();
        if let Some((folder, _)) = self.clip.as_ref().filter(|_| reads || has_pictures(references)) {
            started("clip", observer)?;
            let clip = get_or_load(&mut loaded.clip, || self.own(Clip::open(folder, self.runtime)))?;
            if let Some(needed) = self.needs.clip_text {
                for ((_, text), encoded) in texts.iter().zip(&mut encoded) {
                    encode_clip(clip, text, needed.tokens, encoded)?;
                }
            }
            style = style_of(references, loaded.clip.as_ref().map(Eye::Clip))?;
            if !keep {
                loaded.clip = None;
            }
        } else if let Some(files) = self.vision.as_ref().filter(|_| has_pictures(references)) {
            started("clip", observer)?;
            let vision = get_or_load(&mut loaded.vision, || self.own(files.load(self.runtime)))?;
            style = style_of(references, Some(Eye::Vision(vision)))?;
            if !keep {
                loaded.vision = None;
            }
        } else {
            style = style_of(references, None)?;
        }
        let (mut prompt, mut negative) = (EncodedText::default(), None);
        // What is blank was not encoded, and has the embeddings of nothing.
        let mut further: Vec<EncodedText> = source.further.iter().map(|_| EncodedText::default()).collect();
        for ((which, text), encoded) in texts.iter().zip(encoded) {
            match *which {
                PROMPT => prompt = encoded,
                NEGATIVE => negative = Some(encoded),
                _ => {
                    let place = source.further.iter().position(|own| own == text);
                    if let Some(place) = place.and_then(|place| further.get_mut(place)) {
                        *place = encoded;
                    }
                }
            }
        }
        Ok(Embeddings { source: source.clone(), prompt, negative, further, style })
    }
}

const PROMPT: &str = "prompt";
const NEGATIVE: &str = "negative prompt";
const FURTHER: &str = "further prompt";

fn started(encoder: &str, observer: &mut dyn Observer) -> Result<()> {
    let stop = observer.cancelled() || observer.event(&Event::EncoderStarted { encoder }).is_break();
    if stop { Err(Error::Cancelled) } else { Ok(()) }
}

/// One text: each is encoded alone, so that its embedding does not depend on the other one.
fn on_cpu(mut encoded: Encoded) -> Result<EncodedTokens> {
    Ok(EncodedTokens { tokens: to_cpu(&encoded.tokens)?, spans: encoded.spans.pop().unwrap_or_default() })
}

fn encode_clip(clip: &Clip, text: &str, tokens: i64, into: &mut EncodedText) -> Result<()> {
    let mut encoded = clip.encode_text(&[text], tokens)?;
    let spans = encoded.spans.pop().unwrap_or_default();
    into.clip = Some(EncodedTokens { tokens: to_cpu(&encoded.tokens)?, spans });
    into.clip_pooled = Some(to_cpu(&encoded.pooled)?);
    Ok(())
}

fn lost(tokenizer: &TextTokenizer, text: &str, tokens: i64) -> Result<Option<String>> {
    Ok(tokenizer.encode(&[text], tokens)?.truncated.pop().flatten())
}
