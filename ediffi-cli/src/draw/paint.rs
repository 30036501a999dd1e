//! `ediffi paint`: a painted canvas and its phrases become a picture.

use std::path::PathBuf;

use clap::Args;
use ediffi::{Canvas, ColourReading, LayoutGuidance, Palette, Picture, Request, Strength};
use serde::Deserialize;

use super::failure::Failure;
use super::options::Options;
use crate::tell::tell;

/// Draw what is painted: each colour of a canvas is a phrase of the prompt.
#[derive(Args)]
pub(crate) struct Paint {
    /// A picture in which each region has a colour of its own, on white or on nothing.
    canvas: PathBuf,
    /// Prompt, colours and phrases, in JSON.
    ///
    /// As {"prompt": "a red apple", "palette": {"entries": [{"colour": [255, 0, 0], "phrase": "red apple"}]}}.
    regions: PathBuf,
    /// Pull the picture to where its words belong, this strongly.
    ///
    /// They are looked for in their regions, and each early step takes longer.
    #[arg(long, value_name = "SCALE")]
    layout: Option<f64>,
    /// Say which tokens of which encoder each region takes.
    #[arg(long)]
    tokens: bool,
    #[command(flatten)]
    options: Options,
}

/// What the file of regions says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Regions {
    prompt: String,
    palette: Palette,
    #[serde(default)]
    strength: Strength,
}

impl Paint {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let named = |error: &dyn std::fmt::Display| format!("{}: {error}", self.regions.display());
        let json = std::fs::read(&self.regions).map_err(|error| named(&error))?;
        let Regions { prompt, palette, strength } =
            serde_json::from_slice(&json).map_err(|error| Failure::usage(named(&error)))?;
        let picture = Picture::open(&self.canvas)?.into_rgba();
        let both = || format!("{} by {}", self.canvas.display(), self.regions.display());
        let read = Canvas::from_transparent(&picture, &palette);
        let ColourReading { canvas, unmatched, stray, .. } =
            read.map_err(|error| Failure::usage(format!("{}: {error}", both())))?;
        for colour in &unmatched.colours {
            let (colour, pixels) = (colour.colour, colour.pixels);
            tell(&format!("{colour:?} is near no colour of the palette: {pixels} pixels are not painted"));
        }
        for stray in &stray {
            tell(&format!("`{}` has {} stray pixels beside its region", stray.phrase, stray.pixels));
        }
        let layout = self.layout.map(LayoutGuidance::new).or(strength.layout);
        let canvas = canvas.with_strength(Strength { layout, ..strength }).map_err(|error| {
            let of = if self.layout.is_some() { "--layout".to_owned() } else { self.regions.display().to_string() };
            Failure::usage(format!("{of}: {error}"))
        })?;
        let request = Request::new(prompt).canvas(canvas);
        let (request, pipeline) = self.options.ready(request, &[&self.canvas, &self.regions])?;
        if self.tokens {
            for binding in pipeline.bindings(&request)? {
                for bound in &binding.encoders {
                    let (encoder, tokens, pieces) = (&bound.encoder, &bound.tokens, bound.pieces.join(" "));
                    tell(&format!("{}: {encoder} {tokens:?} {pieces}", binding.phrase));
                }
            }
        }
        self.options.output.draw(&pipeline, &request)
    }
}
