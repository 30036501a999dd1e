//! How a plan is carried out.

use std::path::PathBuf;
use std::time::Duration;

use ediffi_core::runtime::Runtime;
use ediffi_train::run::Begin;

/// How a plan is carried out.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of checkpoints, logs, sheets, trained networks and the model.
    pub folder: PathBuf,
    /// What to do with a run that is already there.
    pub begin: Begin,
    /// Train these alone (`base.shared`, …); all if it is empty. Several machines can train networks of one parent.
    pub only: Vec<String>,
    /// Where and in which precision to compute.
    pub runtime: Runtime,
    /// The most threads that compute, and that decode pictures; as many as there are cores if there is none.
    pub threads: Option<usize>,
    /// Time between checkpoints: the most that a kill may cost.
    pub checkpoint_every: Duration,
    /// Steps between sheets of samples, besides the one at the end; 0 for none at all.
    pub sheet_steps: u64,
    /// A folder of embeddings that [`encode_captions`](crate::encode_captions) wrote, in place of the encoders.
    pub embeddings: Option<PathBuf>,
}

impl Options {
    /// Those of a run in `folder` that goes on with what is there.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, runtime: Runtime) -> Self {
        Self {
            folder: folder.into(),
            begin: Begin::Resume,
            only: Vec::new(),
            runtime,
            threads: None,
            checkpoint_every: Duration::from_secs(180),
            sheet_steps: 1000,
            embeddings: None,
        }
    }
}

/// Whether everything that was asked for is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is.
    Trained,
    /// The observer stopped it. The same call goes on from there.
    Stopped,
}
