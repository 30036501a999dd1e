//! Embeddings: a text and a style, encoded once and sampled many times.

use std::ops::Range;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_paint::TextTokens;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::style::StyleReference;
use crate::{Error, Request, Result, StagePrompt, Style};

/// For each token, the characters of the text that it covers; none for special and padding tokens.
pub(crate) type Spans = Vec<Option<Range<usize>>>;

/// The embeddings of a request's prompt, negative prompt, further prompts and style.
///
/// [`Pipeline::encode`](crate::Pipeline::encode) makes them; [`save`](Self::save) and [`load`](Self::load) keep them in a
/// safetensors file. [`Pipeline::sample`](crate::Pipeline::sample) draws them with any seed, size and settings, without an
/// encoder.
#[derive(Debug)]
pub struct Embeddings {
    pub(crate) source: Source,
    pub(crate) prompt: EncodedText,
    pub(crate) negative: Option<EncodedText>,
    /// Those of the source's further texts.
    pub(crate) further: Vec<EncodedText>,
    /// [1, width]
    pub(crate) style: Option<Tensor>,
}

/// What embeddings are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: Option<String>,
    /// The texts beside these two, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) further: Vec<String>,
    pub(crate) unconditional: bool,
    pub(crate) truncate: bool,
    pub(crate) style: Option<Vec<StyleReference>>,
}

/// One text as the encoders see it. What no network of the model takes is `None`.
#[derive(Debug, Default)]
pub(crate) struct EncodedText {
    pub(crate) t5: Option<EncodedTokens>,
    pub(crate) clip: Option<EncodedTokens>,
    /// [1, width]
    pub(crate) clip_pooled: Option<Tensor>,
}

/// The tokens of one encoder.
#[derive(Debug)]
pub(crate) struct EncodedTokens {
    /// [1, tokens, width], f32 on the CPU
    pub(crate) tokens: Tensor,
    pub(crate) spans: Spans,
}

impl Source {
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            further: further_texts(request),
            unconditional: request.unconditional,
            truncate: request.truncate,
            style: request.style.as_ref().map(|style| style.references.clone()),
        }
    }
}

/// The texts of a request beside prompt and negative prompt, each once.
fn further_texts(request: &Request) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let stages = request.stage_prompts.values().flat_map(StagePrompt::texts);
    for text in request.mix.iter().map(|mix| &mix.prompt).chain(stages) {
        if *text != request.prompt && request.negative_prompt.as_ref() != Some(text) && !texts.contains(text) {
            texts.push(text.clone());
        }
    }
    texts
}

impl Embeddings {
    /// The first setting in which `source` differs from what these were made from.
    pub(crate) fn difference(&self, source: &Source) -> Option<&'static str> {
        let own = &self.source;
        [
            ("the prompt", own.prompt == source.prompt),
            ("the negative prompt", own.negative_prompt == source.negative_prompt),
            ("the further prompts", source.further.iter().all(|text| own.further.contains(text))),
            ("whether there is a prompt", own.unconditional == source.unconditional),
            ("whether a prompt may be truncated", own.truncate == source.truncate),
            ("the style references", own.style == source.style),
        ]
        .into_iter()
        .find_map(|(name, same)| (!same).then_some(name))
    }

    /// A request for what was encoded; set seed, size and the rest on it and give it to
    /// [`Pipeline::sample`](crate::Pipeline::sample). It mixes no other prompts in; those that were encoded may be.
    pub fn request(&self) -> Request {
        let Source { prompt, negative_prompt, unconditional, truncate, style, .. } = self.source.clone();
        let request = Request { negative_prompt, unconditional, truncate, ..Request::new(prompt) };
        match style {
            Some(references) => request.style(Style { references, strength: 1.0 }),
            None => request,
        }
    }

    /// The embeddings of prompt and style, one row each, f32 on the CPU.
    #[must_use]
    pub fn conditioning(&self) -> Conditioning {
        Conditioning { clip_image: self.style.as_ref().map(Tensor::shallow_clone), ..self.prompt.conditioning() }
    }

    /// The embeddings of the negative prompt; empty without one.
    #[must_use]
    pub fn unconditional(&self) -> Conditioning {
        self.negative.as_ref().map_or_else(Conditioning::default, EncodedText::conditioning)
    }

    /// The embeddings of one of the texts; empty for a blank one, and for one that was not encoded.
    pub(crate) fn text(&self, text: &str) -> Conditioning {
        let Source { prompt, negative_prompt, further, .. } = &self.source;
        if text == prompt {
            return self.prompt.conditioning();
        }
        if Some(text) == negative_prompt.as_deref() {
            return self.unconditional();
        }
        let found = further.iter().zip(&self.further).find(|(own, _)| *own == text);
        found.map_or_else(Conditioning::default, |(_, encoded)| encoded.conditioning())
    }

    /// A copy that shares storage.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            prompt: self.prompt.shallow_clone(),
            negative: self.negative.as_ref().map(EncodedText::shallow_clone),
            further: self.further.iter().map(EncodedText::shallow_clone).collect(),
            style: self.style.as_ref().map(Tensor::shallow_clone),
        }
    }

    /// Whether they can be drawn by networks that take `needs`, as `request` says.
    ///
    /// # Errors
    /// [`Error::EmbeddingsOfAnother`] and [`Error::EmbeddingsShape`].
    pub(crate) fn check(&self, request: &Request, needs: EmbeddingShapes) -> Result<()> {
        if let Some(differs) = self.difference(&Source::of(request)) {
            return Err(Error::EmbeddingsOfAnother(differs));
        }
        let further = self.further.iter().map(EncodedText::conditioning);
        for given in [self.conditioning(), self.unconditional()].into_iter().chain(further) {
            for (name, tensor) in given.named() {
                let (got, expected) = (tensor.size(), needs.shape(name, 1).unwrap_or_default());
                if got != expected {
                    return Err(Error::EmbeddingsShape { name, expected, got });
                }
            }
        }
        Ok(())
    }

    /// The prompt's tokens as paint-with-words takes them: those of every encoder that a network listens to. An encoder
    /// whose embedding is absent has columns all the same, of which none is a word.
    pub(crate) fn columns(&self, needs: EmbeddingShapes) -> Vec<(&'static str, Spans)> {
        let spans = |tokens: &Option<EncodedTokens>, count: i64| {
            let blank = vec![None; usize::try_from(count).unwrap_or(0)];
            tokens.as_ref().map_or(blank, |tokens| tokens.spans.clone())
        };
        let t5 = needs.t5.map(|t5| ("t5", spans(&self.prompt.t5, t5.tokens)));
        let clip = needs.clip_text.map(|clip| ("clip", spans(&self.prompt.clip, clip.tokens)));
        t5.into_iter().chain(clip).collect()
    }
}

/// [`Embeddings::columns`] beside the text on which they count.
pub(crate) fn text_tokens<'a>(prompt: &'a str, columns: &'a [(&'static str, Spans)]) -> Vec<TextTokens<'a>> {
    columns.iter().map(|(encoder, offsets)| TextTokens { encoder, text: prompt, offsets }).collect()
}

impl EncodedText {
    fn conditioning(&self) -> Conditioning {
        let tokens = |encoded: &Option<EncodedTokens>| encoded.as_ref().map(|encoded| encoded.tokens.shallow_clone());
        Conditioning {
            t5: tokens(&self.t5),
            clip_text: tokens(&self.clip),
            clip_text_pooled: self.clip_pooled.as_ref().map(Tensor::shallow_clone),
            ..Conditioning::default()
        }
    }

    fn shallow_clone(&self) -> Self {
        let tokens = |encoded: &Option<EncodedTokens>| {
            encoded.as_ref().map(|e| EncodedTokens { tokens: e.tokens.shallow_clone(), spans: e.spans.clone() })
        };
        Self {
            t5: tokens(&self.t5),
            clip: tokens(&self.clip),
            clip_pooled: self.clip_pooled.as_ref().map(Tensor::shallow_clone),
        }
    }

    /// The encoders that read it, with their names in a file.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (&'static str, &EncodedTokens)> {
        [("t5", &self.t5), ("clip_text", &self.clip)].into_iter().filter_map(|(name, e)| Some((name, e.as_ref()?)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use image::RgbImage;

    use super::*;
    use crate::{Mix, StyleImage};

    pub(crate) fn ramp(shape: &[i64], start: f32) -> Tensor {
        let count = shape.iter().product::<i64>();
        let values: Vec<f32> = (0..count).map(|i| start + i as f32 * 0.37).collect();
        Tensor::from_slice(&values).view(shape)
    }

    fn text(start: f32) -> EncodedText {
        EncodedText {
            t5: Some(EncodedTokens { tokens: ramp(&[1, 3, 4], start), spans: vec![Some(0..1), Some(2..5), None] }),
            clip: None,
            clip_pooled: Some(ramp(&[1, 5], -start)),
        }
    }

    pub(crate) fn embeddings() -> Embeddings {
        let style = StyleImage::new(RgbImage::from_pixel(2, 2, image::Rgb([1, 2, 3]))).unwrap();
        let request = Request::new("a cat").negative_prompt("blur").style(style).mix(Mix::new("a dog"));
        let (prompt, negative, style) = (text(1.0), Some(text(9.0)), Some(ramp(&[1, 6], 0.5)));
        Embeddings { source: Source::of(&request), prompt, negative, further: vec![text(4.0)], style }
    }

    #[test]
    fn each_text_is_there_once() {
        let mut request = Request::new("a cat").negative_prompt("blur").mix(Mix::new("a dog")).mix(Mix::new("a cat"));
        request = request.stage_prompt("sr", "a dog").stage_prompt("top", "fur");
        request.stage_prompts.entry("top".to_owned()).or_default().negative_prompt = Some("blur".to_owned());
        assert_eq!(further_texts(&request), ["a dog", "fur"]);
    }

    /// What was encoded serves every request for some of it.
    #[test]
    fn a_text_is_found_by_its_words() {
        let embeddings = embeddings();
        let first = |text: &str| embeddings.text(text).t5.map(|t5| t5.double_value(&[0, 0, 0]));
        assert_eq!([first("a cat"), first("blur"), first("a dog")], [Some(1.0), Some(9.0), Some(4.0)]);
        assert_eq!(first("a fish"), None);
        assert_eq!(embeddings.difference(&Source::of(&embeddings.request().mix(Mix::new("a dog")))), None);
        assert_eq!(embeddings.difference(&Source::of(&embeddings.request())), None);
    }

    #[test]
    fn an_absent_encoder_has_columns_without_words() {
        let clip_text = Some(ediffi_core::unet::ClipText { tokens: 2, width: 4, pooled: Some(5) });
        let columns = embeddings().columns(EmbeddingShapes { clip_text, ..EmbeddingShapes::default() });
        assert_eq!(columns, [("clip", vec![None, None])]);
    }

    #[test]
    fn another_request_or_model_is_refused() {
        let embeddings = embeddings();
        let needs = EmbeddingShapes {
            t5: Some(ediffi_core::unet::Tokens { tokens: 3, width: 4 }),
            clip_text: Some(ediffi_core::unet::ClipText { tokens: 2, width: 4, pooled: Some(5) }),
            clip_image: Some(6),
            micro: None,
        };
        embeddings.check(&embeddings.request().seed(3).images(2), needs).unwrap();
        let differs = |request: Request| match embeddings.check(&request, needs) {
            Err(Error::EmbeddingsOfAnother(differs)) => differs,
            other => panic!("{other:?}"),
        };
        assert_eq!(differs(Request { prompt: "a dog".to_owned(), ..embeddings.request() }), "the prompt");
        assert_eq!(differs(embeddings.request().negative_prompt("noise")), "the negative prompt");
        assert_eq!(differs(embeddings.request().mix(Mix::new("a fish"))), "the further prompts");
        assert_eq!(differs(Request { style: None, ..embeddings.request() }), "the style references");
        let narrow = EmbeddingShapes { clip_image: Some(7), ..needs };
        let error = embeddings.check(&embeddings.request(), narrow).unwrap_err();
        assert_eq!(error.to_string(), "the clip_image embedding has shape [1, 6], the model takes [1, 7]");
    }
}
