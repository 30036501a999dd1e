//! Generation: from a request, or from embeddings, to pictures.

use std::time::Duration;

use ediffi_cascade::{CascadeJob, Edit, PriorJob, StageNoise, StagePlan};
use ediffi_core::exit;
use ediffi_core::guard::guarded;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::{Between, NoiseSource};
use ediffi_core::seed::image_seeds;
use tch::Tensor;

use crate::collector::{Collector, Wanted};
use crate::generation::Origin;
use crate::observer::Outside;
use crate::pipeline::State;
use crate::told::Texts;
use crate::{
    Embeddings, Error, GeneratedImage, Generation, Near, Observer, Pipeline, Problem, Request, Result, StageReport,
    pixels, shape, validate,
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
    /// the noise of; the request's seeds draw none then. `noise` is asked once for every stage and batch, with the stage's name and the seeds of the images; what
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
        if self.varies && validate::lacks_picture(request, &self.shapes) {
            return Err(Error::InvalidRequest { problems: vec![Problem::NoPicture] });
        }
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
        mut noise: Option<&mut StageNoise<'_>>,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<GeneratedImage>, Vec<StageReport>)> {
        let (Some(&Wanted { request, .. }), Some(first)) = (wanted.first(), embeddings.first()) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let plans = self.plans(state, request)?;
        let (prior, stages) = match plans.split_first() {
            Some((first, stages)) if first.embedding.is_some() => (Some(first), stages),
            _ => (None, plans.as_slice()),
        };
        let painter = match self.shapes.first() {
            Some(shape) => self.bound(request, &first.columns(shape.needs))?,
            None => None,
        };
        let (micro, size) =
            (request.micro.unwrap_or_default(), stages.first().map(|first| (first.width, first.height)));
        let micro = |negative| size.map_or(Ok(None), |size| self.encoders.micro(&micro, size, negative));
        let texts = Texts::of(wanted, embeddings, &[micro(false)?, micro(true)?])?;
        let seeds: Vec<u64> = wanted.iter().flat_map(|one| image_seeds(one.request.seed, one.request.images)).collect();
        let enlarges = shape::running(request, &self.shapes).first().is_some_and(|first| first.enlarges);
        let given =
            request.edit.as_ref().map(|edit| given(edit, if enlarges { seeds.len() } else { 1 })).transpose()?;
        let mut between = request.near.map(|near| between(near, &plans));
        let plan = plans.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let origin = Origin { plan, made: self.made_by(state, &plans)? };
        let before = usize::from(prior.is_some());
        let mut collector = Collector::new(observer, wanted, origin, self.drawing.keep_floats, before);
        let texts = match (prior, &mut state.prior) {
            (Some(plan), Some(prior)) => {
                let enlarges = state.cascade.enlarger().is_some() && whole(stages, state.cascade.stages().len());
                let noise = noise.as_mut().map(|noise| &mut **noise as &mut StageNoise<'_>);
                let images = {
                    let pairs = texts.pairs();
                    let job = PriorJob {
                        plan,
                        prompts: &pairs,
                        seeds: &seeds,
                        batch: self.drawing.batch,
                        rows: self.rows,
                        noise: noise.or(between.as_mut().map(|between| between as &mut StageNoise<'_>)),
                        stages: plans.len() + usize::from(enlarges),
                    };
                    prior.draw(job, &mut collector)?
                };
                texts.with_images(images)
            }
            _ => texts,
        };
        let (mixed, told, leaning) = (texts.mixed(), texts.told(), texts.leaning());
        let between = between.as_mut().map(|between| between as &mut StageNoise<'_>);
        let job = CascadeJob {
            unconditional: &texts.unconditional,
            mixed: &mixed,
            told: &told,
            told_experts: &leaning,
            batch: self.drawing.batch,
            rows: self.rows,
            paint: painter.as_ref().map(|painter| painter as &dyn ScoreBias),
            noise: noise.map(|noise| noise as &mut StageNoise<'_>).or(between),
            low_res: given.as_ref().filter(|_| enlarges).map(|(picture, _)| picture),
            edit: given.as_ref().filter(|_| !enlarges).map(|(picture, mask)| Edit { picture, mask: mask.as_ref() }),
            ..CascadeJob::new(stages, &texts.conditioning, &seeds)
        };
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

/// Whether the last of these stages is the last of all.
fn whole(stages: &[StagePlan], all: usize) -> bool {
    stages.last().is_some_and(|last| last.index + 1 == all)
}

/// Noise between that of a seed and the images' own, in these stages.
fn between(near: Near, stages: &[StagePlan]) -> impl FnMut(&str, &[u64]) -> Box<dyn NoiseSource> {
    let numbers: Vec<(String, u64)> = stages.iter().map(|plan| (plan.stage.clone(), plan.index as u64)).collect();
    move |stage, seeds| {
        let number = numbers.iter().find(|(name, _)| name == stage).map_or(0, |(_, number)| *number);
        Box::new(Between::new(near.seed, seeds, number, near.strength))
    }
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
