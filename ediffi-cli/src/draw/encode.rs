//! `ediffi encode` and `ediffi sample`: texts and style as a file of embeddings, and pictures of it.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Embeddings, Request, StyleImage};

use super::failure::Failure;
use super::model::Model;
use super::options::Options;
use super::output::{expect_file, expect_other, say};
use super::texts::Texts;

/// Encode texts and a style into a file, of which `sample` draws any number of pictures without an encoder.
#[derive(Args)]
pub(crate) struct Encode {
    /// What pictures of it show.
    prompt: String,
    #[command(flatten)]
    texts: Texts,
    /// A picture whose style to take.
    #[arg(long, value_name = "IMAGE")]
    style: Option<PathBuf>,
    /// Where to write.
    #[arg(long, default_value = "out.safetensors", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    model: Model,
}

impl Encode {
    pub(super) fn run(&self) -> Result<(), Failure> {
        expect_file(&self.out)?;
        if let Some(style) = &self.style {
            expect_other(&self.out, style)?;
        }
        let mut request = self.texts.apply(Request::new(&self.prompt))?;
        if let Some(style) = &self.style {
            request = request.style(StyleImage::open(style)?);
        }
        self.model.open()?.encode(&request)?.save(&self.out)?;
        say(&self.out.display().to_string())
    }
}

/// Draw the embeddings of a file that `encode` wrote. No encoder is loaded: other prompts have to be in the file, too.
#[derive(Args)]
pub(crate) struct Sample {
    /// The file.
    embeddings: PathBuf,
    #[command(flatten)]
    options: Options,
}

impl Sample {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let embeddings = Embeddings::load(&self.embeddings)?;
        let (request, pipeline) = self.options.ready(embeddings.request(), &[&self.embeddings])?;
        let sample = |observer: &mut dyn ediffi::Observer| pipeline.sample_with(&embeddings, &request, observer);
        self.options.output.draw_by(&pipeline, &request, sample)
    }
}
