//! `ediffi draw`: from a prompt to a picture.

use clap::Args;
use ediffi::Request;

use super::failure::Failure;
use super::model::Model;
use super::output::Output;
use super::settings::Settings;

/// Draw what a prompt says.
#[derive(Args)]
pub(crate) struct Draw {
    /// What the picture shall show.
    prompt: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    model: Model,
}

impl Draw {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let request = self.settings.apply(Request::new(&self.prompt))?;
        self.output.draw(&self.model.open()?, &request)
    }
}
