//! What a server counts, for Prometheus.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::store::Depth;

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    model: String,
    state: String,
}

/// Which answer a request got.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

/// The counters of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    jobs: Family<Ended, Counter>,
    images: Counter,
    refused: Counter,
    waited: Histogram,
    drawn: Histogram,
    waiting: Gauge,
    running: Gauge,
    kept: Gauge,
    kept_bytes: Gauge,
    /// How long a job takes, as the last ones did.
    pace: Mutex<Duration>,
}

/// Bounds of the histograms, in seconds.
const SECONDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("ediffi");
        let (requests, jobs, images, refused) =
            (Family::default(), Family::default(), Counter::default(), Counter::default());
        let (waited, drawn) = (Histogram::new(SECONDS), Histogram::new(SECONDS));
        let (waiting, running, kept, kept_bytes) =
            (Gauge::default(), Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("requests", "Requests by route and status", requests.clone());
        registry.register("jobs", "Jobs that are over, by model and state", jobs.clone());
        registry.register("images", "Finished pictures", images.clone());
        registry.register("jobs_refused", "Jobs that found the queue full", refused.clone());
        registry.register_with_unit("job_waited", "How long jobs waited", Unit::Seconds, waited.clone());
        registry.register_with_unit("job_drawn", "How long jobs were drawn", Unit::Seconds, drawn.clone());
        registry.register("jobs_waiting", "Jobs that wait", waiting.clone());
        registry.register("jobs_running", "Jobs that are drawn", running.clone());
        registry.register("jobs_kept", "Jobs that are over and kept", kept.clone());
        registry.register_with_unit("jobs_kept_pictures", "Pictures that are kept", Unit::Bytes, kept_bytes.clone());
        let pace = Mutex::default();
        Self { registry, requests, jobs, images, refused, waited, drawn, waiting, running, kept, kept_bytes, pace }
    }

    pub(crate) fn request(&self, route: &str, status: u16) {
        self.requests.get_or_create(&Answered { route: route.to_owned(), status }).inc();
    }

    pub(crate) fn waited(&self, time: Duration) {
        self.waited.observe(time.as_secs_f64());
    }

    pub(crate) fn image(&self) {
        self.images.inc();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn ended(&self, model: &str, state: &str, drawn: Duration) {
        self.jobs.get_or_create(&Ended { model: model.to_owned(), state: state.to_owned() }).inc();
        self.drawn.observe(drawn.as_secs_f64());
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        *pace = if pace.is_zero() { drawn } else { pace.mul_f64(0.8) + drawn.mul_f64(0.2) };
    }

    /// How long a job takes, by those that were drawn last; 0 before the first.
    pub(crate) fn pace(&self) -> Duration {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, in the text format of OpenMetrics.
    pub(crate) fn text(&self, depth: Depth) -> Result<String, std::fmt::Error> {
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.waiting, depth.waiting as u64);
        set(&self.running, depth.running as u64);
        set(&self.kept, depth.kept as u64);
        set(&self.kept_bytes, depth.bytes);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
