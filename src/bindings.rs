//! What a canvas is bound to, before anything is drawn.

use ediffi_paint::{Binding, bind};

use crate::embeddings::{Source, text_tokens};
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
    /// As [`Pipeline::validate`]; [`Error::Paint`](crate::Error::Paint) for a phrase that no encoder reads.
    pub fn bindings(&self, request: &Request) -> Result<Vec<Binding>> {
        self.validate(request)?;
        let (Some(canvas), Some(first)) = (&request.canvas, self.shapes.first()) else { return Ok(Vec::new()) };
        let columns = self.encoders.columns(&Source::of(request), first.needs)?;
        Ok(bind(canvas, &text_tokens(&request.prompt, &columns))?)
    }
}
