//! `ediffi plan`: what a request would do.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use ediffi::Request;

use super::failure::Failure;
use super::model::Model;
use super::output::show;

/// Say which expert of which stage runs which step of a request in JSON. Nothing is loaded.
#[derive(Args)]
pub(crate) struct PlanCommand {
    /// A file with the request; `-` reads it from standard input.
    request: PathBuf,
    /// Write a line of JSON for each stage.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Model,
}

impl PlanCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut json = Vec::new();
        if self.request.as_os_str() == "-" {
            std::io::stdin().read_to_end(&mut json)?;
        } else {
            json = std::fs::read(&self.request).map_err(|error| format!("{}: {error}", self.request.display()))?;
        }
        let (pipeline, request) = (self.model.open()?, Request::from_json(&json)?);
        pipeline.validate(&request)?;
        show(&pipeline, &request, self.json)
    }
}
