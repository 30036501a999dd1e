//! The commands that draw, with what they have in common. They need libtorch: feature `draw`.

mod again;
mod bars;
mod batch;
mod doctor;
mod encode;
mod failure;
mod image;
mod limits;
mod located;
mod model;
mod models;
mod once;
mod options;
mod output;
mod paint;
mod picture;
mod plan;
mod rank;
mod serve;
mod settings;
mod terminal;
mod texts;
mod train;
mod training;
mod transport;
mod vary;

use clap::Subcommand;

pub(crate) use failure::Failure;

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Draw(image::Draw),
    Edit(picture::EditCommand),
    Paint(paint::Paint),
    Vary(vary::Vary),
    Enlarge(picture::Enlarge),
    Again(again::Again),
    Batch(batch::BatchCommand),
    Encode(encode::Encode),
    Sample(encode::Sample),
    Plan(plan::PlanCommand),
    Models(models::Models),
    Doctor(doctor::Doctor),
    Serve(serve::Serve),
    Train(train::Train),
}

impl Command {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Draw(draw) => draw.run(),
            Self::Edit(edit) => edit.run(),
            Self::Paint(paint) => paint.run(),
            Self::Vary(vary) => vary.run(),
            Self::Enlarge(enlarge) => enlarge.run(),
            Self::Again(again) => again.run(),
            Self::Batch(batch) => batch.run(),
            Self::Encode(encode) => encode.run(),
            Self::Sample(sample) => sample.run(),
            Self::Plan(plan) => plan.run(),
            Self::Models(models) => models.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Serve(serve) => serve.run(),
            Self::Train(train) => train.run(),
        }
    }
}
