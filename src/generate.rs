//! Generation: from a request, or from embeddings, to pictures.

use std::time::Duration;

use ediffi_cascade::{CascadeJob, Edit, StageNoise};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::exit;
use ediffi_core::guard::guarded;
use ediffi_core::nn::ScoreBias;
use ediffi_core::seed::image_seeds;
use tch::Tensor;

use crate::collector::{Collector, Wanted};
use crate::generation::Origin;
use crate::observer::Outside;
use crate::pipeline::State;
use crate::{
    Embeddings, GeneratedImage, Generation, Observer, Pipeline, Request, Result, StageReport, pixels, shape, validate,
};

impl Pipeline {
    /// Makes the images of a request.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) with everything that is wrong with the request, before anything is loaded;
    /// [`Error::StyleImage`](crate::Error::StyleImage) and [`Error::EditPicture`](crate::Error::EditPicture) for pictures whose pixels are damaged;
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
            let (embeddings, encoding) = self.embed(state, request, observer, self.keep_encoders)?;
            self.draw_one(state, &embeddings, request, None, observer, encoding)
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
        guarded(|| self.draw_one(&mut *self.state()?, embeddings, request, noise, observer, Duration::ZERO))
    }

    fn draw_one(
        &self,
        state: &mut State,
        embeddings: &Embeddings,
        request: &Request,
        noise: Option<&mut StageNoise<'_>>,
        observer: &mut dyn Observer,
        encoding: Duration,
    ) -> Result<Generation> {
        let wanted = [Wanted { request, first: 0 }];
        let (images, stages) = self.draw(state, &wanted, &[embeddings], noise, observer)?;
        Ok(Generation { images, stages, encoding })
    }

    /// Draws the images of requests that are drawn alike, but for their texts, styles and seeds. The embeddings are one for each request.
    pub(crate) fn draw(
        &self,
        state: &mut State,
        wanted: &[Wanted<'_>],
        embeddings: &[&Embeddings],
        noise: Option<&mut StageNoise<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<GeneratedImage>, Vec<StageReport>)> {
        let (Some(&Wanted { request, .. }), Some(first)) = (wanted.first(), embeddings.first()) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let stages = self.plans(state, request)?;
        let painter = match self.shapes.first() {
            Some(shape) => self.bound(request, &first.columns(shape.needs))?,
            None => None,
        };
        let (mut conditioning, mut unconditional) = rows(wanted, embeddings)?;
        if let Some(first) = stages.first() {
            let micro = request.micro.unwrap_or_default();
            let size = (first.width, first.height);
            [conditioning.micro, unconditional.micro] =
                [self.encoders.micro(&micro, size, false)?, self.encoders.micro(&micro, size, true)?];
        }
        let seeds: Vec<u64> = wanted.iter().flat_map(|one| image_seeds(one.request.seed, one.request.images)).collect();
        let enlarges = shape::running(request, &self.shapes).first().is_some_and(|first| first.enlarges);
        let given =
            request.edit.as_ref().map(|edit| given(edit, if enlarges { seeds.len() } else { 1 })).transpose()?;
        let job = CascadeJob {
            unconditional: &unconditional,
            batch: self.drawing.batch,
            rows: self.rows,
            paint: painter.as_ref().map(|painter| painter as &dyn ScoreBias),
            noise: noise.map(|noise| noise as &mut StageNoise<'_>),
            low_res: given.as_ref().filter(|_| enlarges).map(|(picture, _)| picture),
            edit: given.as_ref().filter(|_| !enlarges).map(|(picture, mask)| Edit { picture, mask: mask.as_ref() }),
            ..CascadeJob::new(&stages, &conditioning, &seeds)
        };
        let plan = stages.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let origin = Origin { plan, made: self.made_by(state, &stages)? };
        let mut collector = Collector::new(observer, wanted, origin, self.drawing.keep_floats);
        let drawn = state.cascade.run(job, &mut collector);
        let Collector { images, stages, failure, .. } = collector;
        match failure {
            Some(failure) => return Err(failure),
            None => drawn?,
        }
        tracing::debug!(images = images.len(), "generated");
        Ok((images, stages))
    }
}

/// Embeddings of what is drawn and of what guidance leads away from, a row for each image; one row for all images of a single request.
fn rows(wanted: &[Wanted<'_>], embeddings: &[&Embeddings]) -> Result<(Conditioning, Conditioning)> {
    let both = wanted.iter().zip(embeddings).map(|(Wanted { request, .. }, embeddings)| {
        let mut conditioning = embeddings.conditioning();
        conditioning.clip_image = styled(conditioning.clip_image, request)?;
        let images = if wanted.len() == 1 { 1 } else { request.images as i64 };
        Ok((conditioning, embeddings.unconditional(), images))
    });
    let both = both.collect::<Result<Vec<_>>>()?;
    let conditional: Vec<_> = both.iter().map(|(conditional, _, images)| (conditional, *images)).collect();
    let unconditional: Vec<_> = both.iter().map(|(_, unconditional, images)| (unconditional, *images)).collect();
    Ok((Conditioning::gathered(&conditional)?, Conditioning::gathered(&unconditional)?))
}

/// Picture and mask of an edit.
///
/// # Shapes
/// → [rows, 3, h, w] in [-1, 1], [1, 1, h, w] in [0, 1]
fn given(edit: &crate::Edit, rows: usize) -> Result<(Tensor, Option<Tensor>)> {
    let picture = pixels::of_rgb(&edit.picture.pixels()?)?.f_expand([rows as i64, -1, -1, -1], false)?;
    let mask = edit.mask.as_ref().map(|mask| pixels::of_mask(&mask.mask()?)).transpose()?;
    Ok((picture, mask))
}

/// The style embedding at the strength that the request asks for: at 0 it is the zeros that stand for no style.
fn styled(style: Option<Tensor>, request: &Request) -> Result<Option<Tensor>> {
    let strength = request.style.as_ref().map_or(1.0, |style| style.strength);
    Ok(style.map(|style| style.f_mul_scalar(strength)).transpose()?)
}
