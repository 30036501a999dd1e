//! A scene: everything that a picture and its caption say, as plain data.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::background::Background;
use crate::colour::Colour;
use crate::icon_set::IconSet;

/// A captioned scene. It can be drawn at any resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// What the scene shows, in words.
    pub caption: String,
    /// The style of every object.
    pub style: IconSet,
    /// What lies behind the objects.
    pub background: Background,
    /// The objects, in drawing order.
    pub objects: Vec<Object>,
}

/// One object of a scene.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// What it is: a name of the table in [`crate::concepts`].
    pub concept: String,
    /// Centre from the left, in sides of the picture.
    pub x: f32,
    /// Centre from the top, in sides of the picture.
    pub y: f32,
    /// The longer side of what the drawing covers, in sides of the picture.
    pub size: f32,
    /// Turn about the centre, clockwise, in degrees.
    pub rotation: f32,
    /// The colour it is drawn in, for a style of one colour; ignored by the others.
    pub ink: Option<Colour>,
    /// Where the caption names it: a range of characters (Unicode scalar values), without the article. The objects of
    /// "two stars" share one range.
    pub span: Range<usize>,
}

impl Scene {
    /// The words of the caption that name an object; empty when there is no such object.
    pub fn phrase(&self, object: usize) -> String {
        self.objects.get(object).map_or_else(String::new, |object| {
            self.caption.chars().skip(object.span.start).take(object.span.len()).collect()
        })
    }
}
