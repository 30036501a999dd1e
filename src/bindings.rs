//! Binding a canvas to the tokens of a prompt.

use std::sync::Arc;

use ediffi_paint::{Binding, Painter};

use crate::embeddings::{Source, Spans, text_tokens};
use crate::{Pipeline, Request, Result};

impl Pipeline {
    /// Which tokens of which encoder each region of a request's canvas takes, in the order of the regions; none without a
    /// canvas. Tokenizers are opened for it, weights are not.
    ///
    /// ```no_run
    /// use ediffi::{Canvas, Pipeline, Region, Request};
    ///
    /// let pipeline = Pipeline::open("models/icons")?;
    /// let canvas = Canvas::new([Region::rectangle("red apple", (64, 64), 0..32, 0..64)?])?;
    /// for binding in pipeline.bindings(&Request::new("a red apple left of a cat").canvas(canvas))? {
    ///     for bound in &binding.encoders {
    ///         println!("`{}` is {:?} of {}: {:?}", binding.phrase, bound.tokens, bound.encoder, bound.pieces);
    ///     }
    /// }
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pipeline::painter`].
    pub fn bindings(&self, request: &Request) -> Result<Vec<Binding>> {
        Ok(self.painter(request)?.map_or_else(Vec::new, |painter| painter.bindings().to_vec()))
    }

    /// What a request's canvas does to the attention of the first stage's networks, for programs that run stages themselves
    /// ([`CascadeJob::paint`](ediffi_cascade::CascadeJob::paint)); none without a canvas. Tokenizers are opened for it, weights
    /// are not.
    ///
    /// # Errors
    /// As [`Pipeline::validate`]; [`Error::Paint`](crate::Error::Paint) for a phrase that no encoder reads.
    pub fn painter(&self, request: &Request) -> Result<Option<Painter>> {
        self.validate(request)?;
        let Some(first) = self.shapes.first() else { return Ok(None) };
        self.bound(request, &self.encoders.columns(&Source::of(request), first.needs)?)
    }

    /// The canvas bound to these columns of the first stage's networks.
    pub(crate) fn bound(&self, request: &Request, columns: &[(&'static str, Spans)]) -> Result<Option<Painter>> {
        let Some(canvas) = &request.canvas else { return Ok(None) };
        let painter = Painter::new(canvas, &text_tokens(&request.prompt, columns))?;
        Ok(Some(match &self.paint_weight {
            Some(weight) => painter.with_weight(Arc::clone(weight)),
            None => painter,
        }))
    }
}
