//! Generation: from a request, or from embeddings, to pictures.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ediffi_cascade::{StageEvent, StageJob, StageObserver};
use ediffi_core::guard::guarded;
use ediffi_core::nn::ScoreBias;
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::seed::image_seeds;
use tch::{Device, Tensor};

use crate::pipeline::State;
use crate::{
    Embeddings, Event, GeneratedImage, Generation, Observer, Pipeline, Preview, Request, Result, StagePlan,
    StageReport, validate,
};

/// Where noise comes from that is not drawn from the images' seeds, by the name of the stage and the seeds of the images:
/// see [`Pipeline::sample_from`].
pub type StageNoise<'a> = dyn FnMut(&str, &[u64]) -> Box<dyn NoiseSource> + 'a;

impl Pipeline {
    /// Makes the images of a request.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`](crate::Error::InvalidRequest) with everything that is wrong with the request, before anything is loaded;
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
        let _no_grad = tch::no_grad_guard();
        self.validate(request)?;
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
        let _no_grad = tch::no_grad_guard();
        validate::validate(request, self.abilities(false), Vec::new())?;
        embeddings.check(request, self.needs)?;
        guarded(|| self.draw(&mut *self.state()?, embeddings, request, noise, observer, Duration::ZERO))
    }

    /// Stage by stage, and in each batch by batch: so with `Residency::All` a stage's
    /// weights are loaded once, however many images there are. With a relay every batch visits the plan's experts again.
    fn draw(
        &self,
        state: &mut State,
        embeddings: &Embeddings,
        request: &Request,
        mut noise: Option<&mut StageNoise<'_>>,
        observer: &mut dyn Observer,
        encoding: Duration,
    ) -> Result<Generation> {
        let plans = self.plans(state, request)?;
        let painter = match self.shapes.first() {
            Some(first) => self.bound(request, &embeddings.columns(first.needs))?,
            None => None,
        };
        let seeds = image_seeds(request.seed, request.images);
        let unconditional = embeddings.unconditional();
        let mut conditional = embeddings.conditioning();
        conditional.clip_image = styled(conditional.clip_image, request)?;
        let mut pictures: Vec<Option<Tensor>> = seeds.chunks(self.batch).map(|_| None).collect();
        let mut reports = Vec::with_capacity(plans.len());
        for (index, ((plan, shape), stage)) in
            plans.iter().zip(&self.shapes).zip(state.cascade.stages_mut()).enumerate()
        {
            let started = Instant::now();
            let (settings, tiling) = shape.with(request.stages.get(&shape.name));
            let selected = [stage.select(&conditional), stage.select(&unconditional)];
            let batches = pictures.len();
            let mut watch = Watch {
                observer: &mut *observer,
                plan,
                index,
                stages: plans.len(),
                first: 0,
                batch: 0,
                batches,
                started,
            };
            let mut run = || -> Result<()> {
                for (batch, (seeds, picture)) in seeds.chunks(self.batch).zip(&mut pictures).enumerate() {
                    (watch.batch, watch.first) = (batch, batch * self.batch);
                    let [conditioning, unconditional] =
                        [selected[0].repeated(seeds.len() as i64)?, selected[1].repeated(seeds.len() as i64)?];
                    let job = StageJob {
                        conditioning: &conditioning,
                        unconditional: &unconditional,
                        seeds,
                        stage_index: index as u64,
                        height: i64::from(plan.height),
                        width: i64::from(plan.width),
                        low_res: picture.as_ref(),
                        settings: settings.clone(),
                        paint: painter.as_ref().filter(|_| index == 0).map(|painter| painter as &dyn ScoreBias),
                        tiling,
                    };
                    *picture = Some(match &mut noise {
                        Some(noise) => stage.sample_from(job, noise(&shape.name, seeds).as_mut(), &mut watch)?,
                        None => stage.sample(job, &mut watch)?,
                    });
                }
                Ok(())
            };
            let result = run();
            if stage.residency() != Residency::All {
                stage.release();
            }
            result?;
            reports.push(StageReport { plan: plan.clone(), elapsed: started.elapsed() });
        }
        if let Some(enlarger) = self.enlarger.as_ref().filter(|_| plans.len() == self.shapes.len()) {
            for picture in pictures.iter_mut().flatten() {
                if observer.cancelled() {
                    return Err(crate::Error::Cancelled);
                }
                *picture = enlarger.enlarge(picture)?;
            }
        }
        let plan = plans.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let images = images(&pictures, request, &plan)?;
        tracing::debug!(images = images.len(), "generated");
        Ok(Generation { images, stages: reports, encoding })
    }
}

/// The style embedding at the strength that the request asks for: at 0 it is the zeros that stand for no style.
fn styled(style: Option<Tensor>, request: &Request) -> Result<Option<Tensor>> {
    let strength = request.style.as_ref().map_or(1.0, |style| style.strength);
    Ok(style.map(|style| style.f_mul_scalar(strength)).transpose()?)
}

fn images(batches: &[Option<Tensor>], request: &Request, plan: &str) -> Result<Vec<GeneratedImage>> {
    let mut images = Vec::with_capacity(request.images);
    for batch in batches.iter().flatten() {
        let batch = batch.f_to_device(Device::Cpu)?;
        for row in 0..batch.size4()?.0 {
            let row = batch.f_get(row)?;
            // Its own storage: a row that is kept must not keep its batch.
            let mut own = row.f_empty_like()?;
            own.f_copy_(&row)?;
            images.push(GeneratedImage::new(own, request.only(images.len()), plan.to_owned())?);
        }
    }
    Ok(images)
}

/// Makes the events of a pipeline of those of its stages.
struct Watch<'a> {
    observer: &'a mut dyn Observer,
    plan: &'a StagePlan,
    index: usize,
    stages: usize,
    /// The first image of the batch.
    first: usize,
    batch: usize,
    batches: usize,
    started: Instant,
}

impl StageObserver for Watch<'_> {
    fn event(&mut self, event: &StageEvent<'_>) -> ControlFlow<()> {
        let StagePlan { stage, width, height, plan } = self.plan;
        let (batch, batches, width, height) = (self.batch, self.batches, *width, *height);
        match *event {
            // A stage of several batches starts with the first and is finished with the last.
            StageEvent::StageStarted { .. } if batch == 0 => {
                let (index, stages) = (self.index, self.stages);
                self.observer.event(&Event::StageStarted { stage, index, stages, width, height, plan, batches })
            }
            StageEvent::ExpertSwitched { expert, interval, .. } => {
                self.observer.event(&Event::ExpertSwitched { stage, expert, interval })
            }
            StageEvent::Step { index, steps, sigma, denoised, .. } => {
                let preview = Preview::new(self.first, denoised);
                self.observer.event(&Event::Step { stage, batch, batches, index, steps, sigma, preview })
            }
            StageEvent::StageFinished { .. } if batch + 1 == batches => {
                self.observer.event(&Event::StageFinished { stage, elapsed: self.started.elapsed() })
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn cancelled(&mut self) -> bool {
        self.observer.cancelled()
    }
}
