//! What every command that draws one request takes.

use clap::Args;
use ediffi::{Pipeline, Request};

use super::failure::Failure;
use super::model::Model;
use super::output::Output;
use super::settings::Settings;

/// How a request is drawn, where its pictures go, and on what model.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    pub(super) output: Output,
    #[command(flatten)]
    model: Model,
}

impl Options {
    /// The request with the settings in place of its own, and the model.
    pub(super) fn ready(&self, request: Request) -> Result<(Request, Pipeline), Failure> {
        Ok((self.settings.apply(request)?, self.model.open()?))
    }

    /// Draws a request with the settings in place of its own.
    pub(super) fn draw(&self, request: Request) -> Result<(), Failure> {
        let (request, pipeline) = self.ready(request)?;
        self.output.draw(&pipeline, &request)
    }
}
