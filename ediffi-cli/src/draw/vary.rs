//! `ediffi vary`: what is in a picture, drawn otherwise.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Edit, EditPicture, Request, Style, StyleImage};

use super::failure::Failure;
use super::options::Options;
use super::output::expect_other;

/// Draw what is in a picture otherwise, as the model's CLIP sees it. Each seed is another one.
#[derive(Args)]
pub(crate) struct Vary {
    /// The picture: PNG or JPEG.
    picture: PathBuf,
    /// What it shows (default: the prompt that the picture holds, if ediffi drew it); an empty one is none.
    prompt: Option<String>,
    /// How much of its layout is given up, from 0, nothing, to 1, all of it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    strength: f64,
    /// How much what CLIP sees counts, from 0.
    #[arg(long, value_name = "STRENGTH", default_value_t = 1.0)]
    seen: f64,
    #[command(flatten)]
    options: Options,
}

impl Vary {
    pub(super) fn run(&self) -> Result<(), Failure> {
        expect_other(&self.options.output, &self.picture)?;
        let style = Style::from(StyleImage::open(&self.picture)?).strength(self.seen);
        // A picture of somebody else holds no prompt.
        let held = || Request::from_png(&self.picture).ok().map(|request| request.prompt);
        let prompt = self.prompt.clone().or_else(held).filter(|prompt| !prompt.trim().is_empty());
        let mut request = prompt.map_or_else(Request::unconditional, Request::new).style(style);
        if self.strength != 1.0 {
            request = request.edit(Edit::new(EditPicture::open(&self.picture)?).strength(self.strength));
        }
        self.options.draw(request)
    }
}
