//! Draws a request, and answers when it is done, or as it goes.

use axum::Json;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ediffi::{Error, Problem};
use serde_json::{Value, json};

use super::answer::Refused;
use super::asked::Asked;
use super::settings::Task;
use super::stream;
use super::usage::Usage;
use crate::auth::Client;
use crate::job::Job;
use crate::refusal::Refusal;
use crate::service::Service;

/// Draws. A client that goes away cancels the job.
pub(super) async fn draw(
    service: Service,
    Client(client): Client,
    headers: &HeaderMap,
    asked: Asked,
) -> Result<Response, Refused> {
    let Asked { settings, request, .. } = &asked;
    let previews = previews(&service, &asked).await;
    let submitted = service.submit_attended(client, settings.model.clone(), request.clone(), previews).await;
    let (job, cancel) = match submitted {
        Ok(submitted) => submitted,
        Err(refusal) => return Err(refused(&service, &asked, refusal).await),
    };
    let usage = Usage::of(&service, settings.model.clone(), request).await;
    if settings.stream {
        return stream::answer(service, job, asked, usage, cancel).await;
    }
    let job = service.wait(job.id).await.map_err(|refusal| Refused::from(refusal).job(job.id))?;
    answer(&service, headers, &job, &asked, usage).await
}

/// After how many steps to make a preview, so that each stage has as many as there are to be partial pictures.
async fn previews(service: &Service, asked: &Asked) -> usize {
    let partial = asked.settings.partial_images;
    if partial == 0 {
        return 0;
    }
    let request = asked.request.clone();
    let plans = service.ask(asked.settings.model.clone(), move |pipeline| pipeline.plan(&request)).await;
    let fewest = plans.unwrap_or_default().iter().map(|stage| stage.plan.steps().len()).min();
    (fewest.unwrap_or(1) / (partial + 1)).max(1)
}

/// A refusal that names the field, where it is one of the interface.
async fn refused(service: &Service, asked: &Asked, refusal: Refusal) -> Refused {
    let invalid = matches!(refusal, Refusal::Invalid(_));
    let refused = Refused::from(refusal);
    if !invalid {
        return refused;
    }
    let (request, model) = (asked.request.clone(), asked.settings.model.clone());
    let checked = service.ask(model, move |pipeline| Ok(pipeline.validate(&request).err())).await;
    let given = asked.settings.task != Task::Generation;
    match checked.ok().flatten() {
        Some(Error::InvalidRequest { problems }) => match problems.iter().find_map(|problem| field(problem, given)) {
            Some(field) => refused.param(field),
            None => refused,
        },
        // Damage of a picture is found after this check.
        None if given => refused.param("image"),
        _ => refused,
    }
}

/// The field that a problem is about.
fn field(problem: &Problem, given: bool) -> Option<&'static str> {
    Some(match problem {
        Problem::Size { .. } => "size",
        Problem::NoImages => "n",
        Problem::EmptyPrompt | Problem::NoTextEncoder("prompt") | Problem::TooLong { which: "prompt", .. } => "prompt",
        Problem::Edit(_) if given => "image",
        Problem::Limit { name: "images", .. } => "n",
        Problem::Limit { name: "pixels", .. } => "size",
        Problem::Limit { name: "edit_pixels", .. } if given => "image",
        Problem::Limit { name: "prompt_characters", field, .. } if field.starts_with("prompt") => "prompt",
        Problem::Limit { .. } => return None,
        _ => "ediffi",
    })
}

/// The finished pictures.
async fn answer(
    service: &Service,
    headers: &HeaderMap,
    job: &Job,
    asked: &Asked,
    usage: Option<Usage>,
) -> Result<Response, Refused> {
    let Asked { settings, .. } = asked;
    let mut data = Vec::with_capacity(job.images.len());
    let pictures = service.pictures(job).await?;
    let size = pictures.first().map(|(image, _)| format!("{}x{}", image.width, image.height));
    let seeds: Vec<u64> = pictures.iter().map(|(image, _)| image.seed).collect();
    for (image, file) in pictures {
        if settings.links {
            data.push(json!({ "url": link(headers, &image.url) }));
        } else {
            let format = settings.format;
            let file = service.aside(move |_| format.of_png(file).map(|file| STANDARD.encode(file))).await??;
            data.push(json!({ "b64_json": file }));
        }
    }
    let mut body = json!({
        "created": job.created as u64,
        "data": data,
        "background": "opaque",
        "output_format": settings.format.name(),
        "quality": asked.quality(),
        "size": size,
        "ediffi": { "job": job.id, "model": job.model, "seeds": seeds },
    });
    if let (Some(map), false) = (body.as_object_mut(), usage.is_none()) {
        map.insert("usage".to_owned(), Usage::json(usage));
    }
    Ok(Json::<Value>(body).into_response())
}

/// Where this client finds what is at a path.
fn link(headers: &HeaderMap, path: &str) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    text(HOST.as_str()).map_or_else(|| path.to_owned(), |host| format!("{scheme}://{host}{path}"))
}
