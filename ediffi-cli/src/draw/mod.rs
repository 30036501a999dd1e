//! The commands that draw, with what they have in common. They need libtorch: feature `draw`.

mod again;
mod bars;
mod batch;
mod failure;
mod image;
mod model;
mod models;
mod options;
mod output;
mod picture;
mod plan;
mod rank;
mod serve;
mod settings;

use clap::Subcommand;

pub(crate) use failure::Failure;

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Draw(image::Draw),
    Edit(picture::EditCommand),
    Enlarge(picture::Enlarge),
    Again(again::Again),
    Batch(batch::BatchCommand),
    Plan(plan::PlanCommand),
    Models(models::Models),
    Serve(serve::Serve),
}

impl Command {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Draw(draw) => draw.run(),
            Self::Edit(edit) => edit.run(),
            Self::Enlarge(enlarge) => enlarge.run(),
            Self::Again(again) => again.run(),
            Self::Batch(batch) => batch.run(),
            Self::Plan(plan) => plan.run(),
            Self::Models(models) => models.run(),
            Self::Serve(serve) => serve.run(),
        }
    }
}
