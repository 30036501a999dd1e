//! txt2img and img2img.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ediffi::{Request, StagePlan};
use serde::Serialize;

use super::answer::Refused;
use super::info::{self, Drawn};
use super::picture::Given;
use super::settings::Settings;
use super::state::Desk;
use crate::auth::Client;
use crate::fields::{Fields, Raw, Wrong, raw};
use crate::refusal::Refusal;
use crate::service::Service;

/// After how many steps `progress` has another picture.
const PREVIEWS: usize = 4;

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// PNG files in base64.
    images: Vec<String>,
    /// The request.
    parameters: Raw,
    /// A text of JSON.
    info: String,
}

pub(super) async fn txt2img(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer>, Refused> {
    let settings = Settings::read(Fields::of_json(&body?)?)?;
    draw(desk, client, settings, None).await
}

pub(super) async fn img2img(
    State(desk): State<Desk>,
    Extension(client): Extension<Client>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer>, Refused> {
    let mut fields = Fields::of_json(&body?)?;
    let repeated = [fields.rest().get("init_images").cloned(), fields.rest().get("mask").cloned()];
    let given = Given::read(&mut fields)?;
    let mut settings = Settings::read(fields)?;
    for (name, value) in ["init_images", "mask"].into_iter().zip(repeated) {
        let value = match value.filter(|_| given.repeated) {
            Some(value) => value,
            None => raw(&())?,
        };
        settings.parameters.insert(name.to_owned(), value);
    }
    draw(desk, client, settings, Some(given)).await
}

/// Draws, and waits for it. A client that goes away cancels the job.
async fn draw(desk: Desk, client: Client, settings: Settings, given: Option<Given>) -> Result<Json<Answer>, Refused> {
    let service = &desk.service;
    let model = settings.checkpoint.clone().or_else(|| desk.choice(&client));
    let id = service.model(model.as_deref())?.info.id.clone();
    let images = settings.batch_size.saturating_mul(settings.rounds);
    let Settings { steps, guidance, solver, scheduler, send_images, .. } = settings;
    let strength = given.as_ref().map(|_| settings.strength);
    let mut request = written(&settings, images)?;
    if let Some(given) = given {
        let size = (settings.width, settings.height);
        let strength = strength.flatten();
        let edit = service.aside(move |service| given.edit(strength, size, &service.limits)).await??;
        request = request.edit(edit);
    }
    // Steps, guidance, solver and schedule are those of the stage that draws first: it decides what is drawn. A schedule is laid over
    // all of its noise levels, of which an edit runs through the last ones.
    let mut whole = request.clone();
    if let Some(edit) = &mut whole.edit {
        edit.strength = Some(1.0);
    }
    let first = plan(service, &id, &whole).await?.into_iter().next();
    if let Some(first) = first {
        if let Some(steps) = steps {
            request = request.steps(&first.stage, steps);
        }
        if let Some(scale) = guidance {
            request = request.guidance(&first.stage, scale);
        }
        if let Some(solver) = solver {
            request = request.solver(&first.stage, solver);
        }
        let sigmas: Vec<f64> = first.plan.steps().iter().map(|step| step.sigma).filter(|sigma| *sigma > 0.0).collect();
        if let (Some(max), Some(min)) = (sigmas.first(), sigmas.last())
            && let Some(schedule) = scheduler.between(*min, *max)
        {
            request = request.schedule(&first.stage, schedule);
        }
    }
    let (job, cancel) = service.submit_attended(client.0, Some(id.clone()), request.clone(), PREVIEWS).await?;
    let shown = desk.shown(job.id);
    let job = match service.wait_and_see(job.id, |preview| shown.set(preview)).await {
        Ok(job) => job,
        // Who interrupts gets what was finished until then.
        Err(Refusal::Cancelled) => service.job(job.id).await?,
        Err(refusal) => return Err(refusal.into()),
    };
    drop((cancel, shown));
    let pictures = service.pictures(&job).await?;
    let first = plan(service, &id, &request).await?.into_iter().next();
    let drawn = Drawn {
        settings: &settings,
        job: &job,
        first: first.as_ref(),
        strength: request.edit.map(|edit| edit.strength),
    };
    let info = info::text(&drawn);
    let files: Vec<String> =
        if send_images { pictures.iter().map(|(_, file)| STANDARD.encode(file)).collect() } else { Vec::new() };
    Ok(Json(Answer { images: files, parameters: settings.parameters, info }))
}

/// The request, without a picture and without settings of a stage.
fn written(settings: &Settings, images: usize) -> Result<Request, Wrong> {
    let Settings { prompt, negative_prompt, partial, seed, width, height, .. } = settings;
    let mut request = partial.clone().request(Some(prompt.clone()))?.seed(*seed).images(images);
    if !negative_prompt.is_empty() {
        request = request.negative_prompt(negative_prompt.clone());
    }
    // A1111 draws an empty prompt.
    request.unconditional |= prompt.trim().is_empty();
    (request.width, request.height) = (*width, *height);
    Ok(request)
}

/// What the stages would do.
async fn plan(service: &Service, model: &str, request: &Request) -> Result<Vec<StagePlan>, Refusal> {
    let request = request.clone();
    service.ask(Some(model.to_owned()), move |pipeline| pipeline.plan(&request)).await
}
