//! `ediffi edit` and `ediffi enlarge`: from a picture to a picture.

use std::path::{Path, PathBuf};

use clap::Args;
use ediffi::{Canvas, Edit, EditPicture, LayoutGuidance, Margins, Region, Request, Strength};

use super::failure::Failure;
use super::once::expect_once;
use super::options::Options;
use crate::tell::tell;

/// Draw a picture anew, more or less, or a part of it.
#[derive(Args)]
pub(crate) struct EditCommand {
    /// The picture: PNG or JPEG.
    picture: PathBuf,
    /// What it shall show then.
    prompt: String,
    /// How much is drawn anew, 0 to 1 (default: 0.7; with a mask 1).
    #[arg(long, value_name = "SHARE")]
    strength: Option<f64>,
    /// What is drawn anew: white. All else stays as it is.
    #[arg(long, value_name = "IMAGE")]
    mask: Option<PathBuf>,
    /// Draw what lies beside it, so far, as left=64,right=64.
    #[arg(long, value_name = "SIDE=PIXELS", value_delimiter = ',', value_parser = margin, conflicts_with = "mask")]
    extend: Vec<(Side, u32)>,
    /// With a mask: go back up in noise, steps and times as 5x2.
    ///
    /// So what is new fits what stays; 5x2 goes 5 steps back, twice at each place.
    #[arg(long, value_name = "LENGTHxCOUNT", value_parser = jumps)]
    jumps: Option<(usize, usize)>,
    /// Words of the prompt that belong where it is drawn anew.
    ///
    /// This is paint-with-words.
    #[arg(long, value_name = "WORDS")]
    paint: Option<String>,
    /// With --paint: pull the picture to where the words belong.
    ///
    /// They are looked for in their place, and the picture is pulled this strongly.
    #[arg(long, value_name = "SCALE", requires = "paint")]
    layout: Option<f64>,
    #[command(flatten)]
    options: Options,
}

impl EditCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if self.paint.is_some() && self.mask.is_none() && self.extend.is_empty() {
            return Err(Failure::usage("--paint wants --mask or --extend: words belong where something is drawn anew"));
        }
        let asked = margins(&self.extend)?;
        let picture = EditPicture::open(&self.picture)?;
        let mask = self.mask.as_ref().map(EditPicture::open).transpose()?;
        let read: Vec<&Path> = std::iter::once(&self.picture).chain(&self.mask).map(PathBuf::as_path).collect();
        // The request without its edit: what is drawn of a larger canvas has its proportions.
        let (request, pipeline) = self.options.ready(Request::new(&self.prompt), &read)?;
        let mut edit = if self.extend.is_empty() {
            let mut edit = Edit::new(picture);
            edit.mask = mask;
            edit
        } else {
            let drawn = pipeline.margins(&request, &picture, asked);
            if drawn != asked {
                let Margins { left, top, right, bottom } = drawn;
                let sides = [("left", left), ("top", top), ("right", right), ("bottom", bottom)];
                let margins = sides.into_iter().filter(|(_, pixels)| *pixels > 0);
                let margins: Vec<String> = margins.map(|(side, pixels)| format!("{side}={pixels}")).collect();
                tell(&format!("--extend {}: so the picture keeps its proportions", margins.join(",")));
            }
            Edit::outpaint(&picture, drawn).map_err(|error| Failure::usage(format!("--extend: {error}")))?
        };
        edit.strength = self.strength;
        if let Some((length, count)) = self.jumps {
            edit = edit.jumps(length, count);
        }
        let canvas = self.paint.as_deref().map(|words| self.painted(words, &edit)).transpose()?;
        let request = canvas.into_iter().fold(request.edit(edit), Request::canvas);
        self.options.output.draw(&pipeline, &request)
    }

    /// Words of the prompt, where it is drawn anew.
    fn painted(&self, words: &str, edit: &Edit) -> Result<Canvas, Failure> {
        let mask = edit.mask.as_ref().ok_or("there is no mask to paint in")?;
        let layout = self.layout.map(LayoutGuidance::new);
        let named = |error: ediffi::Error| match &self.mask {
            Some(path) => Failure::of_file(error, path),
            None => error.into(),
        };
        let region = Region::from_image(words, &mask.mask().map_err(named)?)?;
        let canvas = Canvas::new([region]).map_err(|error| Failure::usage(format!("--paint: {error}")))?;
        let canvas = canvas.with_strength(Strength { layout, ..Strength::default() });
        canvas.map_err(|error| Failure::usage(format!("--layout: {error}")))
    }
}

/// A side of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Left,
    Top,
    Right,
    Bottom,
}

/// `left=64`.
fn margin(text: &str) -> Result<(Side, u32), String> {
    let (side, pixels) = text.split_once('=').ok_or("expected SIDE=PIXELS")?;
    let side = match side {
        "left" => Side::Left,
        "top" => Side::Top,
        "right" => Side::Right,
        "bottom" => Side::Bottom,
        other => return Err(format!("`{other}` is not left, top, right or bottom")),
    };
    Ok((side, pixels.parse().map_err(|error| format!("{pixels}: {error}"))?))
}

fn margins(extended: &[(Side, u32)]) -> Result<Margins, Failure> {
    expect_once("--extend", extended.iter().map(|(side, _)| format!("{side:?}").to_lowercase()))?;
    let mut margins = Margins::default();
    for &(side, pixels) in extended {
        match side {
            Side::Left => margins.left = pixels,
            Side::Top => margins.top = pixels,
            Side::Right => margins.right = pixels,
            Side::Bottom => margins.bottom = pixels,
        }
    }
    Ok(margins)
}

/// `5x2`.
fn jumps(text: &str) -> Result<(usize, usize), String> {
    let both = text.split_once('x').and_then(|(length, count)| Some((length.parse().ok()?, count.parse().ok()?)));
    both.ok_or_else(|| "expected LENGTHxCOUNT".to_owned())
}

/// Enlarge a picture by super-resolution.
#[derive(Args)]
pub(crate) struct Enlarge {
    /// The picture: PNG or JPEG.
    picture: PathBuf,
    /// What it shows, if that is to help.
    prompt: Option<String>,
    /// The stage to begin with (default: the first that enlarges it).
    ///
    /// That is the first of super-resolution that draws no less than the picture has.
    #[arg(long, value_name = "STAGE")]
    first_stage: Option<String>,
    #[command(flatten)]
    options: Options,
}

impl Enlarge {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let picture = EditPicture::open(&self.picture)?;
        let request = self.prompt.as_ref().map_or_else(Request::unconditional, Request::new);
        let (request, pipeline) = self.options.ready(request.edit(Edit::new(picture)), &[&self.picture])?;
        let first = self.first_stage.clone().or_else(|| pipeline.enlarged_from(&request).map(str::to_owned));
        let first = first.ok_or_else(|| {
            let last = request.last_stage.as_ref().map_or(String::new(), |last| format!(" up to `{last}`"));
            Failure::usage(format!("the model has no stage of super-resolution{last}"))
        })?;
        self.options.output.draw(&pipeline, &request.first_stage(first))
    }
}
