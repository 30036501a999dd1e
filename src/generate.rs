//! Generation: from a request, or from embeddings, to pictures.

use std::time::Duration;

use ediffi_cascade::{CascadeJob, StageNoise};
use ediffi_core::exit;
use ediffi_core::guard::guarded;
use ediffi_core::nn::ScoreBias;
use ediffi_core::seed::image_seeds;
use tch::Tensor;

use crate::collector::Collector;
use crate::generation::Origin;
use crate::observer::Outside;
use crate::pipeline::State;
use crate::{Embeddings, Generation, Observer, Pipeline, Request, Result, validate};

impl Pipeline {
    /// Makes the images of a request.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) with everything that is wrong with the request, before anything is loaded;
    /// [`Error::StyleImage`](crate::Error::StyleImage) for a picture of the style whose pixels are damaged;
    /// [`Error::Encoders`](crate::Error::Encoders) and [`Error::Cascade`](crate::Error::Cascade) for files that cannot be loaded and networks that cannot be run, the
    /// latter naming stage and expert; [`Error::Busy`](crate::Error::Busy).
    pub fn generate(&self, request: &Request) -> Result<Generation> {
        self.generate_with(request, &mut ())
    }

    /// Makes the images of a request, watched by an observer, which may stop it.
    ///
    /// ```no_run
    /// use std::ops::ControlFlow;
    ///
    /// use ediffi::{Event, Pipeline, Request};
    ///
    /// let pipeline = Pipeline::open("models/icons")?;
    /// let mut watch = |event: &Event<'_>| {
    ///     if let Event::Step { stage, index, steps, .. } = event {
    ///         println!("{stage}: {} of {steps}", index + 1);
    ///     }
    ///     ControlFlow::Continue(())
    /// };
    /// pipeline.generate_with(&Request::new("a red apple"), &mut watch)?;
    /// # Ok::<(), ediffi::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pipeline::generate`], and [`Error::Cancelled`](crate::Error::Cancelled) if the observer says so, within one evaluation of a network.
    pub fn generate_with(&self, request: &Request, observer: &mut dyn Observer) -> Result<Generation> {
        let (_inside, _no_grad) = (exit::enter(), tch::no_grad_guard());
        let observer = &mut Outside(observer);
        self.validate(request)?;
        let request = &*request.settled()?;
        guarded(|| {
            let state = &mut *self.state()?;
            let (embeddings, encoding) = self.embed(state, request, observer)?;
            self.draw(state, &embeddings, request, None, observer, encoding)
        })
    }

    /// Makes the images of a request whose texts and style are encoded already; no encoder is needed.
    ///
    /// The request has to be for the same texts and style: [`Embeddings::request`] is one to start from.
    ///
    /// # Errors
    /// As [`Pipeline::generate`]; [`Error::EmbeddingsOfAnother`](crate::Error::EmbeddingsOfAnother) and [`Error::EmbeddingsShape`](crate::Error::EmbeddingsShape).
    pub fn sample(&self, embeddings: &Embeddings, request: &Request) -> Result<Generation> {
        self.sample_with(embeddings, request, &mut ())
    }

    /// As [`Pipeline::sample`], watched by an observer, which may stop it.
    ///
    /// # Errors
    /// As [`Pipeline::sample`], and [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn sample_with(
        &self,
        embeddings: &Embeddings,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Generation> {
        self.sample_any(embeddings, request, None, observer)
    }

    /// As [`Pipeline::sample_with`] with noise from elsewhere, to repeat a picture that another program has drawn and kept
    /// the noise of. `noise` is asked once for every stage and batch, with the stage's name and the seeds of the images; what
    /// it gives is asked for the noise of the start, that of the smaller picture if the stage adds one, and those of the
    /// steps.
    ///
    /// # Errors
    /// As [`Pipeline::sample_with`], and those of the noise.
    pub fn sample_from(
        &self,
        embeddings: &Embeddings,
        request: &Request,
        noise: &mut StageNoise<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Generation> {
        self.sample_any(embeddings, request, Some(noise), observer)
    }

    fn sample_any(
        &self,
        embeddings: &Embeddings,
        request: &Request,
        noise: Option<&mut StageNoise<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<Generation> {
        let (_inside, _no_grad) = (exit::enter(), tch::no_grad_guard());
        let observer = &mut Outside(observer);
        validate::validate(request, self.abilities(false), || Ok(Vec::new()))?;
        let request = &*request.settled()?;
        embeddings.check(request, self.needs)?;
        guarded(|| self.draw(&mut *self.state()?, embeddings, request, noise, observer, Duration::ZERO))
    }

    fn draw(
        &self,
        state: &mut State,
        embeddings: &Embeddings,
        request: &Request,
        noise: Option<&mut StageNoise<'_>>,
        observer: &mut dyn Observer,
        encoding: Duration,
    ) -> Result<Generation> {
        let stages = self.plans(state, request)?;
        let painter = match self.shapes.first() {
            Some(first) => self.bound(request, &embeddings.columns(first.needs))?,
            None => None,
        };
        let [mut conditioning, mut unconditional] = [embeddings.conditioning(), embeddings.unconditional()];
        if let Some(first) = stages.first() {
            let micro = request.micro.unwrap_or_default();
            let size = (first.width, first.height);
            [conditioning.micro, unconditional.micro] =
                [self.encoders.micro(&micro, size, false)?, self.encoders.micro(&micro, size, true)?];
        }
        conditioning.clip_image = styled(conditioning.clip_image, request)?;
        let seeds = image_seeds(request.seed, request.images);
        let job = CascadeJob {
            unconditional: &unconditional,
            batch: self.drawing.batch,
            rows: self.rows,
            paint: painter.as_ref().map(|painter| painter as &dyn ScoreBias),
            noise: noise.map(|noise| noise as &mut StageNoise<'_>),
            ..CascadeJob::new(&stages, &conditioning, &seeds)
        };
        let plan = stages.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let origin = Origin { plan, made: self.made_by(state, &stages)? };
        let mut collector = Collector::new(observer, request, origin, self.drawing.keep_floats);
        let drawn = state.cascade.run(job, &mut collector);
        let Collector { images, stages, failure, .. } = collector;
        match failure {
            Some(failure) => return Err(failure),
            None => drawn?,
        }
        tracing::debug!(images = images.len(), "generated");
        Ok(Generation { images, stages, encoding })
    }
}

/// The style embedding at the strength that the request asks for: at 0 it is the zeros that stand for no style.
fn styled(style: Option<Tensor>, request: &Request) -> Result<Option<Tensor>> {
    let strength = request.style.as_ref().map_or(1.0, |style| style.strength);
    Ok(style.map(|style| style.f_mul_scalar(strength)).transpose()?)
}
