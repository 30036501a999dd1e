//! What the judge says about a picture.

use train_icons::colour::Colour;
use train_icons::icon_set::IconSet;

/// An object that the judge sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// What it is: a name of [`train_icons::concepts::SMALL`].
    pub concept: String,
    /// How sure the judge is, from 0 to 1.
    pub confidence: f32,
    /// Centre from the left, in sides of the picture.
    pub x: f32,
    /// Centre from the top.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
    /// The colour it most looks like. For a drawing without one colour that captions would name it means nothing.
    pub colour: Colour,
}

/// What the judge says about one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The objects, the surest first.
    pub detections: Vec<Detection>,
    /// The style.
    pub style: IconSet,
    /// How sure it is of the style, from 0 to 1.
    pub style_confidence: f32,
    /// The colour of the background.
    pub background: Colour,
    /// What pictures are compared by; see `crate::frechet`.
    pub features: Vec<f32>,
}

/// One thing that was asked: whether it is right.
pub(crate) fn right(yes: bool) -> (f64, f64) {
    (f64::from(u8::from(yes)), 1.0)
}

/// The surest detection that fits each object; none is used twice.
pub(crate) fn matched<'a, T>(
    objects: &[T],
    detections: &'a [Detection],
    fits: impl Fn(&T, &Detection) -> bool,
) -> Vec<Option<&'a Detection>> {
    let mut free: Vec<&Detection> = detections.iter().collect();
    let of = |object: &T| Some(free.remove(free.iter().position(|detection| fits(object, detection))?));
    objects.iter().map(of).collect()
}
