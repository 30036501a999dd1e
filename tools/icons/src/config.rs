//! What the sampler may draw, and how often.

use serde::{Deserialize, Serialize};

use crate::colour::Colour;
use crate::concepts;
use crate::error::{IconsError, Result};
use crate::icon_set::IconSet;

/// What the sampler may draw, and how often. Probabilities are in [0, 1], lengths in sides of the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// Names of the concepts, from [`concepts::ALL`].
    pub concepts: Vec<String>,
    /// The styles, all equally likely.
    pub styles: Vec<IconSet>,
    /// How often a scene has which arrangement.
    pub mix: Mix,
    /// Sizes, as [smallest, largest].
    pub sizes: Sizes,
    /// How often two different objects stand anywhere, wherever they do not overlap, instead of in a line. The caption then joins the two
    /// by "and", which says nothing about places: what lets a canvas of paint-with-words say it. Sizes and places are drawn together until they
    /// fit, so large pairs are rarer than in a line.
    pub scattered: f64,
    /// The farthest an object strays from its place, along each axis.
    pub jitter: f32,
    /// The largest turn of an object to either side, in degrees.
    pub rotation: f32,
    /// Background colours beside white.
    pub backgrounds: Vec<Colour>,
    /// How often a background is white.
    pub white: f64,
    /// How often a background that the caption names has a pattern.
    pub patterned: f64,
    /// Inks beside black, for the styles of one colour.
    pub inks: Vec<Colour>,
    /// How often such an object is black (or white, where black would not show).
    pub black: f64,
    /// How often the caption names the natural colour of an object.
    pub mention_colour: f64,
    /// How often the caption names the size of a single small or big object.
    pub mention_size: f64,
    /// How often the caption leaves the background out (it is then plain, and mostly white).
    pub omit_background: f64,
    /// How often the caption leaves the style out.
    pub omit_style: f64,
    /// How often the caption has another form than "objects on a background, style".
    pub paraphrase: f64,
}

/// Relative weights of the arrangements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// One object in the middle.
    pub one: f64,
    /// One small object in a named place ("in the top left corner").
    pub placed: f64,
    /// Two different objects, side by side, one above the other, or scattered.
    pub two: f64,
    /// Three different objects in a line.
    pub three: f64,
    /// Two or three of the same ("three apples").
    pub same: f64,
}

/// Smallest and largest size by arrangement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// A single object in the middle.
    pub one: [f32; 2],
    /// A single object in a named place.
    pub placed: [f32; 2],
    /// Two objects.
    pub two: [f32; 2],
    /// Three objects.
    pub three: [f32; 2],
}

impl SamplerConfig {
    /// The data of the shipped model: 36 simple concepts, three styles, mostly one object near the middle or two that do not overlap.
    ///
    /// Its variety is low on purpose: a small model that sees a million pictures learns few things well.
    pub fn small() -> Self {
        Self {
            concepts: concepts::SMALL.iter().map(|&name| name.to_owned()).collect(),
            styles: vec![IconSet::Noto, IconSet::Flat, IconSet::Ink],
            mix: Mix { one: 0.45, placed: 0.0, two: 0.47, three: 0.03, same: 0.05 },
            sizes: Sizes { one: [0.62, 0.85], placed: [0.3, 0.4], two: [0.38, 0.46], three: [0.27, 0.31] },
            scattered: 0.35,
            jitter: 0.05,
            rotation: 0.0,
            backgrounds: vec![Colour::Red, Colour::Yellow, Colour::Green, Colour::Blue, Colour::Purple, Colour::Pink],
            white: 0.25,
            patterned: 0.15,
            inks: vec![Colour::Red, Colour::Green, Colour::Blue, Colour::Purple],
            black: 0.7,
            mention_colour: 0.3,
            mention_size: 0.0,
            omit_background: 0.3,
            omit_style: 0.3,
            paraphrase: 0.25,
        }
    }

    /// Everything: every concept, all four styles, one to three objects, places, sizes, turns and all the colours.
    pub fn all() -> Self {
        Self {
            concepts: concepts::ALL.iter().map(|concept| concept.name.to_owned()).collect(),
            styles: IconSet::ALL.to_vec(),
            mix: Mix { one: 0.30, placed: 0.10, two: 0.35, three: 0.15, same: 0.10 },
            sizes: Sizes { one: [0.40, 0.85], placed: [0.26, 0.40], two: [0.30, 0.46], three: [0.22, 0.31] },
            scattered: 0.35,
            jitter: 0.05,
            rotation: 8.0,
            backgrounds: Colour::ALL.into_iter().filter(|&colour| colour != Colour::White).collect(),
            white: 0.15,
            patterned: 0.3,
            inks: Colour::ALL.into_iter().filter(|colour| !matches!(colour, Colour::Black | Colour::White)).collect(),
            black: 0.4,
            mention_colour: 0.3,
            mention_size: 0.4,
            omit_background: 0.3,
            omit_style: 0.3,
            paraphrase: 0.5,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`IconsError::UnknownConcept`], or [`IconsError::Config`] with everything else that is wrong.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        for name in &self.concepts {
            concepts::find(name)?;
        }
        if self.concepts.is_empty() {
            problems.push("no concepts".to_owned());
        }
        if self.styles.is_empty() {
            problems.push("no styles".to_owned());
        }
        for (name, probability) in [
            ("scattered", self.scattered),
            ("white", self.white),
            ("patterned", self.patterned),
            ("black", self.black),
            ("mention_colour", self.mention_colour),
            ("mention_size", self.mention_size),
            ("omit_background", self.omit_background),
            ("omit_style", self.omit_style),
            ("paraphrase", self.paraphrase),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                problems.push(format!("`{name}` is {probability}, not a probability"));
            }
        }
        let weights = [self.mix.one, self.mix.placed, self.mix.two, self.mix.three, self.mix.same];
        if weights.iter().any(|weight| !weight.is_finite() || *weight < 0.0) || weights.iter().sum::<f64>() <= 0.0 {
            problems.push("`mix` needs weights that are not negative, with one above zero".to_owned());
        }
        for (name, [low, high], most) in [
            ("one", self.sizes.one, 1.0),
            ("placed", self.sizes.placed, 0.5),
            // In a line they keep clear of the edge (0.02) and of each other: 2 · 0.48 + 2 · 0.02 = 3 · 0.32 + 2 · 0.02 = 1.
            ("two", self.sizes.two, 0.48),
            ("three", self.sizes.three, 0.32),
        ] {
            if !(low > 0.0 && low <= high && high <= most) {
                problems.push(format!("`sizes.{name}` is [{low}, {high}], not a range within (0, {most:.2}]"));
            }
        }
        if !(0.0..=0.5).contains(&self.jitter) {
            problems.push(format!("`jitter` is {}, not within [0, 0.5]", self.jitter));
        }
        if !(0.0..=180.0).contains(&self.rotation) {
            problems.push(format!("`rotation` is {}, not within [0, 180]", self.rotation));
        }
        if problems.is_empty() { Ok(()) } else { Err(IconsError::Config { problem: problems.join("; ") }) }
    }
}
