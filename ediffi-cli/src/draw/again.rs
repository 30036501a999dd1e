//! `ediffi again`: the request of a picture made earlier, drawn once more.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Provenance, Request};

use super::failure::Failure;
use super::options::Options;
use crate::tell::tell;

/// Draw the request that a picture holds, with other settings if some are given.
#[derive(Args)]
pub(crate) struct Again {
    /// A PNG that ediffi wrote.
    picture: PathBuf,
    #[command(flatten)]
    options: Options,
}

impl Again {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let held = Request::from_png(&self.picture).map_err(|error| Failure::of_file(error, &self.picture))?;
        let (request, pipeline) = self.options.ready(held, &[&self.picture])?;
        pipeline.validate(&request)?;
        // Pictures of earlier versions do not say what made them.
        if let Ok(made) = Provenance::from_png(&self.picture) {
            for difference in made.differences(&pipeline.provenance(&request)?) {
                tell(&format!("another picture may come out: {difference}"));
            }
        }
        self.options.output.draw(&pipeline, &request)
    }
}
