//! `ediffi again`: the request of a picture made earlier, drawn once more.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Provenance, Request};

use super::failure::Failure;
use super::model::Model;
use super::output::{Output, expect_other};
use super::settings::Settings;

/// Draw the request that a picture holds, with other settings if some are given.
#[derive(Args)]
pub(crate) struct Again {
    /// A PNG that ediffi wrote.
    picture: PathBuf,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    model: Model,
}

impl Again {
    pub(super) fn run(&self) -> Result<(), Failure> {
        expect_other(&self.output, &self.picture)?;
        let request = self.settings.apply(Request::from_png(&self.picture)?)?;
        let pipeline = self.model.open()?;
        pipeline.validate(&request)?;
        // Pictures of earlier versions do not say what made them.
        if let Ok(made) = Provenance::from_png(&self.picture) {
            for difference in made.differences(&pipeline.provenance(&request)?) {
                eprintln!("another picture may come out: {difference}");
            }
        }
        self.output.draw(&pipeline, &request)
    }
}
