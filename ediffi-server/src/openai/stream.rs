//! Pictures on their way, as server-sent events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::unfold;
use serde_json::{Value, json};

use super::answer::Refused;
use super::asked::Asked;
use super::settings::Task;
use super::usage::Usage;
use crate::job::{Job, JobEvent, JobImage, JobPreview, JobState, now};
use crate::refusal::Refusal;
use crate::service::{CancelOnDrop, Service, Watch};

/// How often a comment is sent when nothing happens, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Answers with events. The job is cancelled when the client is gone.
pub(super) async fn answer(
    service: Service,
    job: Job,
    asked: Asked,
    usage: Option<Usage>,
    cancel: CancelOnDrop,
) -> Result<Response, Refused> {
    let watch = service.watch(job.id).await?;
    let sending = Sending {
        service,
        job,
        asked,
        usage,
        _cancel: cancel,
        watch,
        fraction: 0.0,
        partial: BTreeMap::new(),
        sent: BTreeSet::new(),
        ready: VecDeque::new(),
    };
    let next = async |mut sending: Sending| Some((Ok::<_, Infallible>(sending.next().await?), sending));
    Ok(Sse::new(unfold(sending, next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// What has been sent of a job, and what comes next.
struct Sending {
    service: Service,
    job: Job,
    asked: Asked,
    usage: Option<Usage>,
    _cancel: CancelOnDrop,
    watch: Watch,
    /// How far the job has come.
    fraction: f64,
    /// How many partial pictures each picture has had.
    partial: BTreeMap<usize, usize>,
    /// The finished pictures that were sent.
    sent: BTreeSet<usize>,
    ready: VecDeque<Event>,
}

impl Sending {
    async fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            let event = self.watch.next().await?;
            if let Err(refusal) = self.follow(event).await {
                let error = Refused::from(refusal).body;
                self.ready.push_back(named("error", &json!({ "type": "error", "error": error })));
            }
        }
        self.ready.pop_front()
    }

    async fn follow(&mut self, event: JobEvent) -> Result<(), Refusal> {
        match event {
            JobEvent::Progress(progress) => self.fraction = progress.fraction,
            JobEvent::Preview(preview) => self.preview(preview).await?,
            JobEvent::Image(image) => self.image(image).await?,
            JobEvent::Job(job) if job.state.is_over() => {
                // Those that were finished before anything failed, and that this one was too slow to hear of.
                for image in job.images {
                    self.image(image).await?;
                }
                if job.state != JobState::Finished {
                    return Err(Refusal::of_job(job.state, job.error));
                }
            }
            // This server ends, and another one goes on with the job.
            JobEvent::Job(_) if self.watch.has_ended() => return Err(Refusal::Stopping),
            JobEvent::Job(_) => {}
        }
        Ok(())
    }

    /// The partial pictures of a picture are spread evenly over the time it takes.
    async fn preview(&mut self, preview: JobPreview) -> Result<(), Refusal> {
        let wanted = self.asked.settings.partial_images;
        let had = self.partial.entry(preview.index).or_default();
        let due = self.fraction * (wanted as f64 + 1.0) >= *had as f64 + 1.0;
        if *had >= wanted || !due || self.fraction >= 1.0 || self.sent.contains(&preview.index) {
            return Ok(());
        }
        let number = *had;
        *had += 1;
        let format = self.asked.settings.format;
        let file = self.service.aside(move |_| {
            let (_, file) = preview.data_url.split_once(',').unwrap_or_default();
            let file = STANDARD.decode(file).map_err(|error| Refusal::Internal(error.to_string()))?;
            Ok::<_, Refusal>(STANDARD.encode(format.of_jpeg(file)?))
        });
        let mut body = self.body("partial_image", file.await??);
        if let Some(map) = body.as_object_mut() {
            map.insert("partial_image_index".to_owned(), number.into());
            map.insert("size".to_owned(), self.size().into());
        }
        self.send("partial_image", &body);
        Ok(())
    }

    async fn image(&mut self, image: JobImage) -> Result<(), Refusal> {
        if !self.sent.insert(image.index) {
            return Ok(());
        }
        let (format, id, index) = (self.asked.settings.format, self.job.id, image.index);
        let file = self.service.picture(id, index).await?;
        let file = self.service.aside(move |_| format.of_png(file).map(|file| STANDARD.encode(file))).await??;
        let mut body = self.body("completed", file);
        if let Some(map) = body.as_object_mut() {
            map.insert("size".to_owned(), format!("{}x{}", image.width, image.height).into());
            map.insert("ediffi".to_owned(), json!({ "job": id, "index": index, "seed": image.seed }));
            if self.usage.is_some() {
                map.insert("usage".to_owned(), Usage::json(self.usage));
            }
        }
        self.send("completed", &body);
        Ok(())
    }

    fn body(&self, event: &str, b64_json: String) -> Value {
        json!({
            "type": format!("{}.{event}", self.name()),
            "b64_json": b64_json,
            "background": "opaque",
            "created_at": now() as u64,
            "output_format": self.asked.settings.format.name(),
            "quality": self.asked.quality(),
        })
    }

    /// The size that was asked for.
    fn size(&self) -> String {
        match (self.asked.request.width, self.asked.request.height) {
            (Some(width), Some(height)) => format!("{width}x{height}"),
            _ => "auto".to_owned(),
        }
    }

    fn name(&self) -> &'static str {
        if self.asked.settings.task == Task::Generation { "image_generation" } else { "image_edit" }
    }

    fn send(&mut self, event: &str, body: &Value) {
        self.ready.push_back(named(&format!("{}.{event}", self.name()), body));
    }
}

/// An event with JSON on one line.
fn named(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
