//! `ediffi edit` and `ediffi enlarge`: from a picture to a picture.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Edit, EditPicture, Request};

use super::failure::Failure;
use super::options::Options;
use super::output::expect_other;

/// Draw a picture anew, more or less, or a part of it.
#[derive(Args)]
pub(crate) struct EditCommand {
    /// The picture: PNG or JPEG.
    picture: PathBuf,
    /// What it shall show then.
    prompt: String,
    /// How much is drawn anew, from 0 to 1 (default: 0.7, or 1 with a mask).
    #[arg(long, value_name = "SHARE")]
    strength: Option<f64>,
    /// What is drawn anew: white. All else stays as it is.
    #[arg(long, value_name = "IMAGE")]
    mask: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl EditCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        expect_other(&self.options.output, &self.picture)?;
        let mut edit = Edit::new(EditPicture::open(&self.picture)?);
        edit.strength = self.strength;
        edit.mask = self.mask.as_ref().map(EditPicture::open).transpose()?;
        self.options.draw(Request::new(&self.prompt).edit(edit))
    }
}

/// Enlarge a picture by super-resolution.
#[derive(Args)]
pub(crate) struct Enlarge {
    /// The picture: PNG or JPEG.
    picture: PathBuf,
    /// What it shows, if that is to help.
    prompt: Option<String>,
    /// The stage to begin with (default: the first of super-resolution that draws no less than the picture has).
    #[arg(long, value_name = "STAGE")]
    first_stage: Option<String>,
    #[command(flatten)]
    options: Options,
}

impl Enlarge {
    pub(super) fn run(&self) -> Result<(), Failure> {
        expect_other(&self.options.output, &self.picture)?;
        let picture = EditPicture::open(&self.picture)?;
        let request = self.prompt.as_ref().map_or_else(Request::unconditional, Request::new);
        let (request, pipeline) = self.options.ready(request.edit(Edit::new(picture)))?;
        let first = self.first_stage.clone().or_else(|| pipeline.enlarged_from(&request).map(str::to_owned));
        let first = first.ok_or("the model has no stage of super-resolution")?;
        self.options.output.draw(&pipeline, &request.first_stage(first))
    }
}
