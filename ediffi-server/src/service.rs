//! What every interface of the server asks for: submit, watch, wait, cancel.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use ediffi::{Limits, Pipeline, Request};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::auth::Tokens;
use crate::job::{Job, JobEvent, JobId, JobImage, JobPreview, JobState};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::refusal::Refusal;
use crate::store::{Depth, JobStore, NewJob, StoreError};

/// What the handlers of all interfaces share. A copy is the same service.
#[derive(Debug, Clone)]
pub(crate) struct Service(Arc<Shared>);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) models: Arc<[Model]>,
    pub(crate) store: Arc<dyn JobStore>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tokens: Tokens,
    pub(crate) limits: Limits,
    pub(crate) body_bytes: usize,
    /// Threads that draw.
    pub(crate) runners: usize,
}

impl std::ops::Deref for Service {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Service {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// Does what may wait for a disk, a lock or a tokenizer, on a thread that may.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let service = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&service)).await;
        done.map_err(|error| Refusal::Internal(error.to_string()))
    }

    /// The model of this name, or the first one.
    pub(crate) fn model(&self, name: Option<&str>) -> Result<&Model, Refusal> {
        let Some(name) = name else {
            return self.models.first().ok_or_else(|| Refusal::Internal("the server has no model".to_owned()));
        };
        let found = self.models.iter().find(|model| model.info.id == name);
        found.ok_or_else(|| Refusal::UnknownModel(name.to_owned()))
    }

    /// Asks a model what needs no drawing.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        model: Option<String>,
        ask: impl FnOnce(&Pipeline) -> ediffi::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.aside(move |service| service.model(model.as_deref())?.ask(ask)).await?
    }

    /// Checks a request and puts it into the queue.
    pub(crate) async fn submit(
        &self,
        client: String,
        model: Option<String>,
        request: Request,
        previews: usize,
    ) -> Result<Job, Refusal> {
        self.submit_as(client, model, request, previews, false).await
    }

    async fn submit_as(
        &self,
        client: String,
        model: Option<String>,
        request: Request,
        previews: usize,
        attended: bool,
    ) -> Result<Job, Refusal> {
        self.aside(move |service| {
            let model = service.model(model.as_deref())?;
            model.ask(|pipeline| pipeline.validate(&request))?;
            // Its limits hold. A damaged picture is told now, and not when its turn has come.
            expect_whole(&request)?;
            let (model, request) = (model.info.id.clone(), Arc::new(request));
            let new = NewJob { client, model, request, previews, attended };
            service.store.submit(new).map_err(|error| service.refused(error))
        })
        .await?
    }

    /// A full queue says when to come again.
    fn refused(&self, error: StoreError) -> Refusal {
        let waiting = match error {
            StoreError::Full { waiting } | StoreError::ClientFull { waiting } => waiting,
            other => return other.into(),
        };
        self.metrics.refused();
        let message = error.to_string();
        let pace = self.metrics.pace().max(Duration::from_secs(1));
        let turns = u32::try_from(waiting.div_ceil(self.runners.max(1))).unwrap_or(u32::MAX);
        Refusal::Full { message, retry_after: pace.saturating_mul(turns).min(Duration::from_secs(600)) }
    }

    /// As [`submit`](Self::submit), for a client who waits for the answer. The job is cancelled when the client is gone, which is when what
    /// is returned is dropped, or when it is not even returned.
    pub(crate) async fn submit_attended(
        &self,
        client: String,
        model: Option<String>,
        request: Request,
        previews: usize,
    ) -> Result<(Job, CancelOnDrop), Refusal> {
        let service = self.clone();
        // It goes on without the client, and its result is dropped then.
        let submitted = tokio::spawn(async move {
            let job = service.submit_as(client, model, request, previews, true).await?;
            let cancel = CancelOnDrop { service: service.clone(), id: job.id };
            Ok((job, cancel))
        });
        submitted.await.map_err(|error| Refusal::Internal(error.to_string()))?
    }

    /// A job.
    pub(crate) async fn job(&self, id: JobId) -> Result<Job, Refusal> {
        self.aside(move |service| service.store.job(id)).await??.ok_or(Refusal::NoJob)
    }

    /// The jobs of a client, newest first.
    pub(crate) async fn jobs(&self, client: String) -> Result<Vec<Job>, Refusal> {
        Ok(self.aside(move |service| service.store.jobs(&client)).await??)
    }

    /// How full the queue is.
    pub(crate) async fn depth(&self) -> Result<Depth, Refusal> {
        Ok(self.aside(|service| service.store.depth()).await??)
    }

    /// A finished picture: its PNG file.
    pub(crate) async fn picture(&self, id: JobId, index: usize) -> Result<Bytes, Refusal> {
        self.aside(move |service| service.store.picture(id, index)).await??.ok_or(Refusal::NoPicture)
    }

    /// The finished pictures of a job, in their order: PNG files.
    pub(crate) async fn pictures(&self, job: &Job) -> Result<Vec<(JobImage, Bytes)>, Refusal> {
        let mut images = job.images.clone();
        images.sort_unstable_by_key(|image| image.index);
        let mut pictures = Vec::with_capacity(images.len());
        for image in images {
            let file = self.picture(job.id, image.index).await?;
            pictures.push((image, file));
        }
        Ok(pictures)
    }

    /// What happens to a job, from now to its end.
    pub(crate) async fn watch(&self, id: JobId) -> Result<Watch, Refusal> {
        let (job, events) = self.aside(move |service| service.store.watch(id)).await??.ok_or(Refusal::NoJob)?;
        Ok(Watch { service: self.clone(), id, first: Some(job), events: Some(events) })
    }

    /// Waits until a job is over. One that has not finished is an error.
    pub(crate) async fn wait(&self, id: JobId) -> Result<Job, Refusal> {
        self.wait_and_see(id, |_| ()).await
    }

    /// As [`wait`](Self::wait), with what is done with each preview.
    pub(crate) async fn wait_and_see(&self, id: JobId, mut see: impl FnMut(JobPreview)) -> Result<Job, Refusal> {
        let mut watch = self.watch(id).await?;
        while let Some(event) = watch.next().await {
            match event {
                JobEvent::Job(job) if job.state == JobState::Finished => return Ok(*job),
                JobEvent::Job(job) if job.state.is_over() => return Err(Refusal::of_job(job.state, job.error)),
                JobEvent::Preview(preview) => see(preview),
                _ => {}
            }
        }
        // It was removed, or this server ends and another one goes on with the job.
        self.job(id).await.and(Err(Refusal::Stopping))
    }
}

/// Decodes what is edited.
fn expect_whole(request: &Request) -> Result<(), Refusal> {
    let Some(edit) = &request.edit else { return Ok(()) };
    for (name, picture) in [("picture", Some(&edit.picture)), ("mask", edit.mask.as_ref())] {
        if let Some(Err(error)) = picture.map(ediffi::EditPicture::pixels) {
            return Err(Refusal::invalid(format!("edit, the {name}: {error}")));
        }
    }
    Ok(())
}

/// Cancels a job when it is dropped; one that is over stays as it is. Of a client who waits for the answer, and may go away.
#[derive(Debug)]
pub(crate) struct CancelOnDrop {
    service: Service,
    id: JobId,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // The disk may be slow, and the thread belongs to all connections.
        let (store, id) = (Arc::clone(&self.service.store), self.id);
        let cancel = move || {
            if let Err(error) = store.cancel(id) {
                tracing::error!(%error, "a job whose client is gone cannot be cancelled");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(cancel)),
            Err(_) => cancel(),
        }
    }
}

/// What happens to a job, from now to its end.
#[derive(Debug)]
pub(crate) struct Watch {
    service: Service,
    id: JobId,
    first: Option<Job>,
    /// None behind the end.
    events: Option<Receiver<JobEvent>>,
}

impl Watch {
    /// The next event: first the job as it is, and last the job as it ended, or as it is when this server ends. None behind that.
    pub(crate) async fn next(&mut self) -> Option<JobEvent> {
        let job = match self.first.take() {
            Some(job) => job,
            None => match self.events.as_mut()?.recv().await {
                Ok(JobEvent::Job(job)) => *job,
                Ok(event) => return Some(event),
                // Too many at once: what counts is how it stands now.
                Err(RecvError::Lagged(_)) => self.service.job(self.id).await.ok()?,
                Err(RecvError::Closed) => {
                    self.events = None;
                    self.service.job(self.id).await.ok()?
                }
            },
        };
        if job.state.is_over() {
            self.events = None;
        }
        Some(JobEvent::Job(Box::new(job)))
    }

    /// Whether nothing comes any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.events.is_none()
    }
}
