//! What every command that draws one request takes.

use std::path::Path;

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
    pub(super) settings: Settings,
    #[command(flatten)]
    pub(super) output: Output,
    #[command(flatten)]
    model: Model,
}

impl Options {
    /// The request with the settings in place of its own, and the model. None of the files that were `read` for it, nor the style's, may be
    /// written over.
    pub(super) fn ready(&self, request: Request, read: &[&Path]) -> Result<(Request, Pipeline), Failure> {
        let request = self.settings.apply(request)?;
        let read = read.iter().copied().chain(self.settings.style());
        self.output.expect_others(read, request.images)?;
        Ok((request, self.model.open()?))
    }

    /// Draws a request with the settings in place of its own.
    pub(super) fn draw(&self, request: Request, read: &[&Path]) -> Result<(), Failure> {
        let (request, pipeline) = self.ready(request, read)?;
        self.output.draw(&pipeline, &request)
    }
}
