//! A job as clients see it.

use std::time::{SystemTime, UNIX_EPOCH};

use ediffi::Request;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Names a job. It cannot be guessed, and later jobs have larger ones.
pub type JobId = uuid::Uuid;

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It is drawn.
    Running,
    /// Its pictures are there.
    Finished,
    /// It failed. Pictures that were finished before are there.
    Failed,
    /// It was cancelled. Pictures that were finished before are there.
    Cancelled,
}

impl JobState {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Cancelled)
    }

    /// The word that stands for it in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The progress of a job: that of the library.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// From 0 to 1. Each stage counts alike, however long it takes.
    pub fraction: f64,
    /// The stage that runs; empty before the first and after the last.
    pub stage: String,
    /// Its position among the stages that run, from 0.
    pub stage_index: usize,
    /// How many stages run; 0 before the first.
    pub stages: usize,
    /// Finished steps of this stage, over all its batches.
    pub step: usize,
    /// Steps of this stage, over all its batches.
    pub steps: usize,
}

/// A finished picture of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobImage {
    /// Its position in the request, from 0.
    pub index: usize,
    /// Its seed.
    pub seed: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes of the PNG file.
    pub bytes: usize,
    /// Where the PNG file is.
    pub url: String,
}

/// What is wrong with a request, or why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// One word for programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// Each thing that is wrong with the request.
    #[serde(default)]
    pub problems: Vec<String>,
}

impl Failure {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), problems: Vec::new() }
    }

    /// An error of the library, with its causes. Problems of a request are listed.
    #[must_use]
    pub fn of(error: &ediffi::Error) -> Self {
        let code = match error {
            ediffi::Error::InvalidRequest { .. } | ediffi::Error::RequestJson(_) => "invalid_request",
            ediffi::Error::StyleImage(_) | ediffi::Error::EditPicture(_) | ediffi::Error::Paint(_) => "invalid_request",
            ediffi::Error::Cancelled => "cancelled",
            _ => "failed",
        };
        let problems = match error {
            ediffi::Error::InvalidRequest { problems } => problems.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let (mut message, mut source) = (error.to_string(), std::error::Error::source(error));
        while let Some(cause) = source {
            let said = cause.to_string();
            if !message.ends_with(&said) {
                message = format!("{message}: {said}");
            }
            source = cause.source();
        }
        Self { problems, ..Self::new(code, message) }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its name.
    #[schema(value_type = String)]
    pub id: JobId,
    /// The model that draws it.
    pub model: String,
    /// How far it has come.
    pub state: JobState,
    /// Its place in the queue while it waits; 1 is the next.
    pub position: Option<usize>,
    /// Its progress while it runs.
    pub progress: JobProgress,
    /// When it was submitted, in seconds since 1970.
    pub created: f64,
    /// When it was started.
    pub started: Option<f64>,
    /// When it was over.
    pub ended: Option<f64>,
    /// The prompt.
    pub prompt: String,
    /// The seed of its first picture.
    pub seed: u64,
    /// Its finished pictures.
    pub images: Vec<JobImage>,
    /// Why it failed.
    pub error: Option<Failure>,
}

impl Job {
    /// A job that has just been submitted.
    pub(crate) fn new(model: &str, request: &Request) -> Self {
        Self {
            id: JobId::now_v7(),
            model: model.to_owned(),
            state: JobState::Queued,
            position: None,
            progress: JobProgress::default(),
            created: now(),
            started: None,
            ended: None,
            prompt: request.prompt.clone(),
            seed: request.seed,
            images: Vec::new(),
            error: None,
        }
    }
}

/// A picture on its way, as a JPEG file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobPreview {
    /// The picture's position in the request, from 0.
    pub index: usize,
    /// The stage.
    pub stage: String,
    /// The step that is done, from 1.
    pub step: usize,
    /// Steps of the stage.
    pub steps: usize,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The file, as `data:image/jpeg;base64,`.
    pub data_url: String,
}

/// What happens to a job, as those who watch it are told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JobEvent {
    /// Its state or its place in the queue has changed.
    Job(Box<Job>),
    /// A step is done.
    Progress(JobProgress),
    /// A picture on its way.
    Preview(JobPreview),
    /// A picture is finished.
    Image(JobImage),
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
