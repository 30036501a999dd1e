//! `ediffi draw`: from a prompt to a picture.

use clap::Args;
use ediffi::Request;

use super::failure::Failure;
use super::options::Options;

/// Draw what a prompt says.
#[derive(Args)]
pub(crate) struct Draw {
    /// What the picture shall show.
    prompt: String,
    #[command(flatten)]
    options: Options,
}

impl Draw {
    pub(super) fn run(&self) -> Result<(), Failure> {
        self.options.draw(Request::new(&self.prompt), &[])
    }
}
