//! A server: its settings, its threads, its routes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ediffi::{DeviceChoice, Limits, PipelineBuilder};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::a1111;
use crate::api;
use crate::auth::Tokens;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::openai;
use crate::origin;
use crate::page;
use crate::runner::Runner;
use crate::service::{Service, Shared};
use crate::store::{JobStore, Keep, LocalStore, StoreError};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// It has no model.
    #[error("the server has no model")]
    NoModel,
    /// Two models have one name.
    #[error("two models are called `{0}`")]
    SameName(String),
    /// A model cannot be opened.
    #[error("model `{id}`: {source}")]
    Model {
        /// Its name.
        id: String,
        /// Why.
        source: Box<ediffi::Error>,
    },
    /// The queue cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread cannot be started.
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// Nobody would be asked for a token, and the address can be reached from other machines.
    #[error("{0} can be reached from other machines: set a token, or listen on 127.0.0.1")]
    Open(SocketAddr),
    /// The listener failed.
    #[error("the server cannot listen")]
    Listen(#[source] std::io::Error),
}

/// The settings of a [`Server`]. The default has no model: add one.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServerBuilder {
    models: Vec<(String, PipelineBuilder, Vec<String>)>,
    devices: Vec<DeviceChoice>,
    tokens: Vec<(String, String)>,
    keep: Keep,
    folder: Option<PathBuf>,
    limits: Limits,
    body_bytes: usize,
    loaded: usize,
    longest: Duration,
    grace: Duration,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            devices: vec![DeviceChoice::Auto],
            tokens: Vec::new(),
            keep: Keep::default(),
            folder: None,
            limits: Limits { images: 16, ..Limits::default() },
            body_bytes: 32 << 20,
            loaded: 1,
            longest: Duration::from_secs(3600),
            grace: Duration::from_secs(30),
        }
    }
}

impl ServerBuilder {
    /// Adds a model under a name. The first one is the default. Its device is that of the server.
    pub fn model(mut self, id: impl Into<String>, builder: PipelineBuilder) -> Self {
        self.models.push((id.into(), builder, Vec::new()));
        self
    }

    /// Prompts that show what the model added last draws. A page may offer them.
    pub fn prompts(mut self, prompts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        if let Some((_, _, of_model)) = self.models.last_mut() {
            *of_model = prompts.into_iter().map(Into::into).collect();
        }
        self
    }

    /// Sets the devices: each draws one job at a time (default: the best one).
    pub fn devices(mut self, devices: impl IntoIterator<Item = DeviceChoice>) -> Self {
        self.devices = devices.into_iter().collect();
        self
    }

    /// Lets in who sends this token, as the client `name`. With no token everybody is let in, and each address is a client.
    pub fn token(mut self, name: impl Into<String>, token: impl Into<String>) -> Self {
        self.tokens.push((name.into(), token.into()));
        self
    }

    /// Sets how much may wait, and what is kept for how long.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    /// Keeps jobs and pictures in this folder, where they survive the end of the server (default: in memory).
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets the most that a request may ask for (default: that of the library, with 16 images).
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the longest body of a request (default: 32 MiB).
    pub fn body_bytes(mut self, bytes: usize) -> Self {
        self.body_bytes = bytes;
        self
    }

    /// Sets how many models each device has in memory at the most (default: 1). The one used last makes room.
    pub fn loaded_models(mut self, models: usize) -> Self {
        self.loaded = models;
        self
    }

    /// Sets how long a job may be drawn (default: an hour).
    pub fn longest_job(mut self, time: Duration) -> Self {
        self.longest = time;
        self
    }

    /// Sets how long the jobs that run may take to finish when [`Server::serve`] ends (default: 30 seconds).
    pub fn grace(mut self, time: Duration) -> Self {
        self.grace = time;
        self
    }

    /// Opens the models, whose weights are loaded with the first job, and starts the threads.
    ///
    /// # Errors
    /// [`ServerError::NoModel`], [`ServerError::SameName`], [`ServerError::Model`], [`ServerError::Store`], [`ServerError::Thread`].
    pub fn start(self) -> Result<Server, ServerError> {
        let store: Arc<dyn JobStore> = match &self.folder {
            Some(folder) => Arc::new(LocalStore::on_disk(folder, self.keep.clone())?),
            None => Arc::new(LocalStore::in_memory(self.keep.clone())),
        };
        self.start_with(store)
    }

    /// As [`start`](Self::start), with a queue of its own kind.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(self, store: Arc<dyn JobStore>) -> Result<Server, ServerError> {
        let mut models: Vec<Model> = Vec::new();
        for (id, builder, prompts) in self.models {
            if models.iter().any(|model| model.info.id == id) {
                return Err(ServerError::SameName(id));
            }
            let builder = builder.limits(self.limits.clone());
            models.push(
                Model::open(&id, builder, prompts)
                    .map_err(|source| ServerError::Model { id, source: source.into() })?,
            );
        }
        if models.is_empty() {
            return Err(ServerError::NoModel);
        }
        let (models, metrics): (Arc<[Model]>, _) = (models.into(), Arc::new(Metrics::new()));
        let tokens = Tokens::new(self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str())));
        let mut threads = Vec::new();
        for device in &self.devices {
            let (models, store, metrics) = (Arc::clone(&models), Arc::clone(&store), Arc::clone(&metrics));
            let (device, loaded, longest) = (*device, self.loaded, self.longest);
            let runner = Runner { device, models, store, metrics, loaded, longest, open: Default::default() };
            threads.push(runner.start().map_err(ServerError::Thread)?);
        }
        let (limits, body_bytes, runners) = (self.limits, self.body_bytes, threads.len());
        let service = Service::new(Shared { models, store, metrics, tokens, limits, body_bytes, runners });
        Ok(Server { service, threads: Arc::new(Mutex::new(threads)), grace: self.grace })
    }
}

/// Draws for many clients, over one queue. A copy is the same server.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ediffi::Pipeline;
/// use ediffi_server::Server;
///
/// let server = Server::builder().model("icons", Pipeline::builder(ediffi::icons()?)).start()?;
/// // On its own, or mounted in a program of your own: `server.router()` is a router of axum.
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// server.serve(listener, std::future::pending()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) service: Service,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    pub(crate) grace: Duration,
}

impl Server {
    /// The settings of a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// All routes. It serves paths from the root.
    pub fn router(&self) -> Router {
        let service = &self.service;
        Router::new()
            .route("/healthz", get(async || "alive\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .merge(page::router())
            .merge(api::page())
            .with_state(service.clone())
            .nest("/api/v1", api::router(service))
            .nest("/v1", openai::router(service))
            .nest("/sdapi/v1", a1111::router(service))
            .layer(DefaultBodyLimit::max(service.body_bytes))
            .layer(middleware::from_fn(origin::same_origin))
            .layer(middleware::from_fn_with_state(service.clone(), count))
            .layer(RequestBodyTimeoutLayer::new(SLOWEST_BODY))
            .layer(CatchPanicLayer::new())
            .layer(TraceLayer::new_for_http())
    }

    /// Takes no more jobs, and waits until those that run are over, for no longer than `grace`. What still runs then is given up. Jobs that
    /// wait or are given up are kept for the next start where the queue is on disk; else they fail. The thread waits.
    ///
    /// # Errors
    /// Those of the queue.
    pub fn shutdown(&self, grace: Duration) -> Result<(), StoreError> {
        let store = &self.service.store;
        store.stop(false)?;
        let ends = Instant::now() + grace;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // A thread ends with the job that it draws.
        while !threads.iter().all(JoinHandle::is_finished) && Instant::now() < ends {
            std::thread::sleep(Duration::from_millis(20));
        }
        store.stop(true)?;
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that draws has panicked");
            }
        }
        Ok(())
    }
}

/// The longest pause in the body of a request.
const SLOWEST_BODY: Duration = Duration::from_secs(30);

/// Whether jobs are taken.
async fn ready(State(service): State<Service>) -> Response {
    match service.depth().await {
        Ok(depth) => format!("ready: {} waiting, {} running\n", depth.waiting, depth.running).into_response(),
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", refusal.message())).into_response(),
    }
}

/// What the server counts.
async fn metrics(State(service): State<Service>) -> Response {
    let depth = match service.depth().await {
        Ok(depth) => depth,
        Err(refusal) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", refusal.message())).into_response(),
    };
    match service.metrics.text(depth) {
        Ok(text) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Counts the answer to a request, by its route.
async fn count(State(service): State<Service>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    service.metrics.request(&route, response.status().as_u16());
    response
}
