//! `ediffi vary`: what is in a picture, drawn otherwise.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Edit, EditPicture, Error, Pipeline, Request, Style, StyleImage};

use super::failure::Failure;
use super::options::Options;
use crate::tell::tell;

/// Draw what is in a picture otherwise, as the model's CLIP sees it. Each seed is another one.
#[derive(Args)]
pub(crate) struct Vary {
    /// The picture: PNG or JPEG.
    picture: PathBuf,
    /// What it shows (default: the prompt that the picture holds); an empty one is none.
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
        if self.options.settings.style().is_some() {
            let reason = "--style: what CLIP sees in the picture stands in its place; `edit` takes both";
            return Err(Failure::usage(reason));
        }
        let style = Style::from(StyleImage::open(&self.picture)?).strength(self.seen);
        let prompt = self.prompt.clone().or_else(|| self.held()).filter(|prompt| !prompt.trim().is_empty());
        let request = prompt.map_or_else(Request::unconditional, Request::new).style(style);
        let begun = request.edit(Edit::new(EditPicture::open(&self.picture)?).strength(self.strength));
        let (mut request, pipeline) = self.options.ready(begun, &[&self.picture])?;
        if self.strength == 1.0 {
            let size = size(&pipeline, &request);
            request.edit = None;
            (request.width, request.height) = size;
        }
        self.options.output.draw(&pipeline, &request)
    }

    /// The prompt that the picture holds. A picture of somebody else holds none.
    fn held(&self) -> Option<String> {
        let file = std::fs::read(&self.picture).ok().filter(|file| file.starts_with(b"\x89PNG"))?;
        match Request::from_png_bytes(&file) {
            Ok(request) => Some(request.prompt),
            Err(Error::PngWithoutRequest) => None,
            Err(error) => {
                tell(&format!("{}: its prompt is not taken: {error}", self.picture.display()));
                None
            }
        }
    }
}

/// Width and height of what a request that begins with a picture draws; its own for a model that edits none.
fn size(pipeline: &Pipeline, request: &Request) -> (Option<u32>, Option<u32>) {
    let drawn = pipeline.plan(request).ok().and_then(|plan| plan.last().map(|last| (last.width, last.height)));
    drawn.map_or((request.width, request.height), |(width, height)| (Some(width), Some(height)))
}
