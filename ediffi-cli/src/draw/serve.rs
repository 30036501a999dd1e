//! `ediffi serve`: many clients, over HTTP.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ediffi::{DeviceChoice, Limits};
use ediffi_server::{Keep, Server, ServerBuilder};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use super::model::{Computing, device};
use super::output::say;

/// A server that does not answer for so long is taken for dead by those that share its queue.
#[cfg(feature = "postgres")]
const LEASE: Duration = Duration::from_secs(5);

/// The most images of one request, unless `--limit` says otherwise: other clients wait for them.
const IMAGES: usize = 16;

/// What the shipped model draws well: objects, their styles, colours and backgrounds, and where two of them stand.
const PROMPTS: [&str; 8] = [
    "a red apple, noto style",
    "a cat on a yellow background, noto style",
    "a star, flat style",
    "a fish, ink style",
    "a house, noto style",
    "a rocket on a white background, flat style",
    "a cat left of a dog",
    "a tree next to a house, flat style",
];

/// Draw for many clients, over HTTP, until Ctrl-C.
#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen; port 0 is a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// A file with a client's name and its token on each line.
    ///
    /// Needed where other machines can reach the address.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Keep jobs and pictures in this folder, where they survive a restart.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Share the queue in this PostgreSQL database.
    ///
    /// With other servers. It is named as postgresql://USER@HOST/NAME.
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "URL", env = "EDIFFI_QUEUE", hide_env_values = true, conflicts_with = "keep")]
    queue_in: Option<String>,
    /// Minutes that a finished job is kept.
    #[arg(long, default_value_t = 60, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
    keep_for: u64,
    /// Jobs that may wait.
    #[arg(long, default_value_t = 64, value_name = "JOBS")]
    queue: usize,
    /// Jobs of one client that may wait.
    #[arg(long, default_value_t = 16, value_name = "JOBS")]
    queue_of_client: usize,
    /// A folder, or NAME=FOLDER (else $EDIFFI_MODEL, or the shipped).
    ///
    /// There may be several models; the first is what a client gets that names none.
    #[arg(long, value_name = "FOLDER", help_heading = "Model")]
    model: Vec<String>,
    /// Where to compute: auto, cpu, cuda, cuda:1.
    ///
    /// There may be several devices; each has one job at a time.
    #[arg(long, default_value = "auto", value_parser = device, help_heading = "Model")]
    device: Vec<DeviceChoice>,
    /// Models that each device has in memory at the most.
    #[arg(long, default_value_t = 1, value_name = "MODELS", help_heading = "Model")]
    loaded: usize,
    #[command(flatten)]
    computing: Computing,
}

impl Serve {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let colours = std::io::stderr().is_terminal();
        let told = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
        // Where nobody reads what is told, its own complaint of that would be a panic.
        told.log_internal_errors(false).init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        // Before models are opened: an address may be taken.
        let named = |error: std::io::Error| format!("--listen {}: {error}", self.listen);
        let listener = runtime.block_on(TcpListener::bind(self.listen)).map_err(named)?;
        let server = self.start()?;
        say(&format!("http://{}/", listener.local_addr().map_err(named)?))?;
        let served = runtime.block_on(server.serve(listener, asked_to_stop()));
        // Connections end before what they ask.
        drop(runtime);
        Ok(served?)
    }

    fn start(&self) -> Result<Server, Failure> {
        let builder = self.builder()?;
        #[cfg(feature = "postgres")]
        if let Some(database) = &self.queue_in {
            let store = ediffi_server::PostgresStore::connect(database, self.kept(), LEASE)?;
            return Ok(builder.start_with(std::sync::Arc::new(store))?);
        }
        Ok(builder.start()?)
    }

    fn kept(&self) -> Keep {
        let for_long = Duration::from_secs(self.keep_for.saturating_mul(60));
        Keep { queue: self.queue, queue_of_client: self.queue_of_client, for_long, ..Keep::default() }
    }

    fn builder(&self) -> Result<ServerBuilder, Failure> {
        // The server's own limits take the place of those of its models.
        let limits = self.computing.limits(&Limits { images: IMAGES, ..Limits::default() })?;
        let mut builder = Server::builder().limits(limits).keep(self.kept()).loaded_models(self.loaded);
        builder = builder.devices(self.device.iter().copied());
        if let Some(folder) = &self.keep {
            builder = builder.folder(folder);
        }
        for model in &self.model {
            let (name, folder) = model.split_once('=').map_or_else(
                || (name_of(Path::new(model)), model.as_str()),
                |(name, folder)| (name.to_owned(), folder),
            );
            builder = builder.model(name, self.computing.builder(folder.into())?);
        }
        if self.model.is_empty() {
            let folder = ediffi::icons()?;
            builder = builder.model(name_of(&folder), self.computing.builder(folder)?).prompts(PROMPTS);
        }
        for (name, token) in self.tokens.as_deref().map(tokens).transpose()?.unwrap_or_default() {
            builder = builder.token(name, token);
        }
        Ok(builder)
    }
}

/// A model is called as its folder is.
fn name_of(folder: &Path) -> String {
    folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Names and tokens. Lines that begin with `#`, and empty ones, are none.
fn tokens(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let named = |reason: &str| Failure::refused(vec![format!("{}: {reason}", path.display())]);
    let text = std::fs::read_to_string(path).map_err(|error| named(&error.to_string()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(name), Some(token), None) => Ok((name.to_owned(), token.to_owned())),
            _ => Err(named("each line is a client's name and its token")),
        }
    };
    let tokens: Vec<_> = lines.map(pair).collect::<Result<_, _>>()?;
    // An empty file would let everybody in.
    if tokens.is_empty() { Err(named("there is no token in it")) } else { Ok(tokens) }
}

/// Ready at Ctrl-C, or when the process is asked to end.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut ends) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = ends.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
