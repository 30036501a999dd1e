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
        let (name, read) = if self.request.as_os_str() == "-" {
            ("standard input".to_owned(), std::io::stdin().read_to_end(&mut json).map(|_| json))
        } else {
            (self.request.display().to_string(), std::fs::read(&self.request))
        };
        let json = read.map_err(|error| format!("{name}: {error}"))?;
        let request = Request::from_json(&json).map_err(|error| Failure::from(error).of(&name))?;
        let pipeline = self.model.open()?;
        pipeline.validate(&request)?;
        show(&pipeline, &request, self.json)
    }
}
