//! Encoding: the first half of a generation.

use std::time::{Duration, Instant};

use ediffi_core::exit;
use ediffi_core::guard::guarded;

use crate::embeddings::Source;
use crate::observer::Outside;
use crate::pipeline::State;
use crate::{Embeddings, Observer, Pipeline, Request, Result, Style, StyleEmbedding, validate};

impl Pipeline {
    /// Encodes prompt, negative prompt and style of a request, to draw them later with [`Pipeline::sample`]. Its other
    /// settings are checked but not used.
    ///
    /// ```no_run
    /// use ediffi::{Embeddings, Pipeline, Request};
    ///
    /// let pipeline = Pipeline::open("models/icons")?;
    /// pipeline.encode(&Request::new("a red apple"))?.save("apple.safetensors")?;
    ///
    /// let embeddings = Embeddings::load("apple.safetensors")?;
    /// for seed in 0..10 {
    ///     let generation = pipeline.sample(&embeddings, &embeddings.request().seed(seed))?;
    ///     generation.images[0].save(format!("apple-{seed}.png"))?;
    /// }
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pipeline::validate`]; [`Error::Encoders`](crate::Error::Encoders) for an encoder that cannot be loaded or run;
    /// [`Error::Busy`](crate::Error::Busy).
    pub fn encode(&self, request: &Request) -> Result<Embeddings> {
        let (_inside, _no_grad) = (exit::enter(), tch::no_grad_guard());
        self.validate(request)?;
        let request = &*request.settled()?;
        guarded(|| Ok(self.embed(&mut *self.state()?, request, &mut Outside(&mut ()), self.keep_encoders)?.0))
    }

    /// Encodes a style (the mean of its references), so that many requests can use it without the pictures. Its strength is
    /// not part of the embedding.
    ///
    /// ```no_run
    /// use ediffi::{Pipeline, Request, StyleEmbedding, StyleImage};
    ///
    /// let pipeline = Pipeline::open("models/icons")?;
    /// pipeline.encode_style(StyleImage::open("ink.png")?)?.save("ink.safetensors")?;
    ///
    /// let request = Request::new("a red apple").style(StyleEmbedding::load("ink.safetensors")?);
    /// pipeline.generate(&request)?;
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) for a style that the model cannot take;
    /// [`Error::Encoders`](crate::Error::Encoders) for a CLIP that cannot be loaded or run;
    /// [`Error::Busy`](crate::Error::Busy).
    pub fn encode_style(&self, style: impl Into<Style>) -> Result<StyleEmbedding> {
        let (_inside, _no_grad) = (exit::enter(), tch::no_grad_guard());
        let request = Request::unconditional().style(style);
        let references = request.style.as_ref().map_or(&[][..], |style| &style.references);
        validate::validate_style(&request, self.abilities(true), || self.encoders.foreign_styles(Some(references)))?;
        guarded(|| self.encoders.encode_style(&mut self.state()?.loaded, self.keep_encoders, references))
    }

    /// The embeddings of a request that was checked, and how long the encoders took. With `keep` they stay in memory.
    pub(crate) fn embed(
        &self,
        state: &mut State,
        request: &Request,
        observer: &mut dyn Observer,
        keep: bool,
    ) -> Result<(Embeddings, Duration)> {
        let source = Source::of(request);
        if let Some(embeddings) = state.recent.get(&source) {
            return Ok((embeddings, Duration::ZERO));
        }
        let started = Instant::now();
        let embeddings = self.encoders.encode(&mut state.loaded, keep, &source, observer)?;
        state.recent.put(&embeddings);
        Ok((embeddings, started.elapsed()))
    }
}
