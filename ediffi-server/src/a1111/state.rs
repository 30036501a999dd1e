//! What A1111 keeps for everybody, kept for each client: the model that it chose, and its jobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Refused;
use super::info::timestamp;
use super::settings::chosen;
use crate::auth::Client;
use crate::fields::{Fields, Wrong};
use crate::job::{Job, JobId, JobPreview, JobState, now};
use crate::refusal::Refusal;
use crate::service::Service;

/// The most clients whose choice is remembered.
const CHOICES: usize = 4096;

/// What the handlers share.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) service: Service,
    /// The models that clients chose.
    choices: Arc<Mutex<HashMap<String, String>>>,
    /// The latest previews of jobs that clients of this replica wait for: JPEG files in base64.
    previews: Arc<Mutex<HashMap<JobId, String>>>,
}

/// Shows the previews of a job in `progress` until it is dropped.
#[derive(Debug)]
pub(super) struct Shown {
    previews: Arc<Mutex<HashMap<JobId, String>>>,
    id: JobId,
}

impl Shown {
    pub(super) fn set(&self, preview: JobPreview) {
        // Without the begin of a data URL.
        if let Some((_, file)) = preview.data_url.split_once(',') {
            self.previews.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id, file.to_owned());
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.previews.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl Desk {
    pub(super) fn new(service: Service) -> Self {
        Self { service, choices: Arc::default(), previews: Arc::default() }
    }

    /// Shows a job's previews to those who ask for the progress.
    pub(super) fn shown(&self, id: JobId) -> Shown {
        Shown { previews: Arc::clone(&self.previews), id }
    }

    fn preview(&self, id: JobId) -> Option<String> {
        self.previews.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The model that a client chose.
    pub(super) fn choice(&self, Client(client): &Client) -> Option<String> {
        self.choices.lock().unwrap_or_else(PoisonError::into_inner).get(client).cloned()
    }

    fn choose(&self, Client(client): Client, model: String) -> Result<(), Refusal> {
        let mut choices = self.choices.lock().unwrap_or_else(PoisonError::into_inner);
        if choices.len() >= CHOICES && !choices.contains_key(&client) {
            let message = "too many clients have chosen a model: name it in `override_settings`";
            return Err(Refusal::invalid(message));
        }
        choices.insert(client, model);
        Ok(())
    }

    /// The jobs of a client that are not over, the one that came first at the begin.
    async fn jobs(&self, Client(client): Client) -> Result<Vec<Job>, Refusal> {
        let mut jobs = self.service.jobs(client).await?;
        jobs.retain(|job| !job.state.is_over());
        jobs.reverse();
        Ok(jobs)
    }
}

/// How `progress` is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Whether to leave out the picture.
    #[serde(default)]
    skip_current_image: bool,
}

/// How far the client's job has come that is drawn, or the next one.
pub(super) async fn progress(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(Asked { skip_current_image }) = asked.map_err(|rejection| Refusal::invalid(rejection.body_text()))?;
    let jobs = desk.jobs(client).await?;
    let job = jobs.iter().find(|job| job.state == JobState::Running).or(jobs.first());
    let state = |job: &Job| {
        json!({
            "skipped": false,
            "interrupted": false,
            "stopping_generation": false,
            "job": job.id,
            "job_count": jobs.len(),
            "job_timestamp": timestamp(job.created),
            "job_no": 0,
            "sampling_step": job.progress.step,
            "sampling_steps": job.progress.steps,
        })
    };
    let nothing = json!({
        "skipped": false, "interrupted": false, "stopping_generation": false, "job": "", "job_count": 0,
        "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
    });
    let text = job.map(|job| match job.position {
        Some(place) => format!("waiting, place {place}"),
        None => job.progress.stage.clone(),
    });
    Ok(Json(json!({
        "progress": job.map_or(0.0, |job| job.progress.fraction),
        "eta_relative": job.map_or(0.0, eta),
        "state": job.map_or(nothing, state),
        "current_image": job.filter(|_| !skip_current_image).and_then(|job| desk.preview(job.id)),
        "textinfo": text,
    })))
}

/// The seconds that are left if it goes on as it did.
fn eta(job: &Job) -> f64 {
    let Some(started) = job.started else { return 0.0 };
    let fraction = job.progress.fraction;
    if fraction > 0.0 { (now() - started).max(0.0) * (1.0 - fraction) / fraction } else { 0.0 }
}

/// Cancels the jobs of the client that are not over. Who waits for one gets what was finished.
pub(super) async fn interrupt(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
) -> Result<Json<Value>, Refused> {
    for job in desk.jobs(client).await? {
        desk.service.aside(move |service| service.store.cancel(job.id)).await?.map_err(Refusal::from)?;
    }
    Ok(Json(json!({})))
}

/// The models.
pub(super) async fn models(State(desk): State<Desk>) -> Json<Value> {
    let told = |id: &String| json!({ "title": id, "model_name": id, "hash": null, "sha256": null, "filename": id, "config": null });
    Json(desk.service.models.iter().map(|model| told(&model.info.id)).collect())
}

/// The only setting that there is.
pub(super) async fn options(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
) -> Result<Json<Value>, Refused> {
    let chosen = desk.choice(&client);
    let model = &desk.service.model(chosen.as_deref())?.info.id;
    Ok(Json(json!({ "sd_model_checkpoint": model })))
}

/// Chooses the model of this client's requests.
pub(super) async fn set_options(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refused> {
    let mut fields = Fields::of_json(&body?)?;
    let model = chosen(fields.value("sd_model_checkpoint"))?;
    fields.finish()?;
    let model = model.ok_or_else(|| Wrong::missing("sd_model_checkpoint"))?;
    let id = desk.service.model(Some(&model))?.info.id.clone();
    desk.choose(client, id)?;
    Ok(Json(json!({})))
}
