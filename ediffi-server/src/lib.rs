//! eDiff-I over HTTP: one queue for many clients, on any number of devices and models.
//!
//! A [`Server`] draws jobs with the crate [`ediffi`] and answers over HTTP. Its [`router`](Server::router) is one of axum: a program
//! mounts it beside its own routes, or lets [`Server::serve`] listen. The command `ediffi serve` does the latter.
//!
//! | path | for |
//! |---|---|
//! | `/api/v1` | jobs with progress, previews and cancel; plans; the tokens of a canvas ([described](https://spec.openapis.org/oas/v3.1.0) at `/api/v1/openapi.json`) |
//! | `/` | people who paint: the page, whose files are below `/assets` |
//! | `/v1/images/{generations,edits,variations}`, `/v1/models` | clients of OpenAI's images interface, with streams of partial pictures |
//! | `/sdapi/v1/{txt2img,img2img,progress,interrupt,samplers,schedulers,sd-models,options}` | clients of A1111's web UI |
//! | `/healthz`, `/readyz`, `/metrics` | who runs it |
//!
//! `docs/server.md` of the repository tells which fields of the two are honoured, which change nothing, and which are refused.
//!
//! # Jobs
//!
//! A job waits in a queue, is drawn, and is kept for a while with its pictures. Clients take turns, however many jobs each has sent.
//! A full queue is answered with 429 and the seconds after which to come again. Each device draws one job at a time. With
//! [`ServerBuilder::folder`] jobs and pictures are on disk: what was finished stays, and what was not is drawn again after a restart.

mod a1111;
mod api;
mod auth;
mod fields;
mod gate;
mod job;
mod listen;
mod metrics;
mod model;
mod openai;
mod origin;
mod page;
mod partial;
mod picture;
mod refusal;
mod runner;
mod server;
mod service;
mod store;
mod watcher;

pub use job::{Failure, Job, JobEvent, JobId, JobImage, JobPreview, JobProgress, JobState};
pub use model::{ModelInfo, PresetInfo, StageInfo};
pub use server::{Server, ServerBuilder, ServerError};
#[cfg(feature = "postgres")]
pub use store::PostgresStore;
pub use store::{Depth, JobStore, Keep, LocalStore, NewJob, Outcome, Stop, StoreError, TakenJob, Update};
