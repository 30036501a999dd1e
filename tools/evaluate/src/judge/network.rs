//! What every network of a judge takes and says.

use tch::Tensor;
use train_icons::colour::Colour;
use train_icons::concepts::SMALL;
use train_icons::icon_set::IconSet;

/// Side of the pictures that it sees, in pixels.
pub const SIDE: i64 = 64;
/// Side of its maps: one cell is 4×4 pixels.
pub const CELLS: i64 = 16;
/// Classes of objects.
pub const CONCEPTS: i64 = SMALL.len() as i64;
/// Classes of colours.
pub const COLOURS: i64 = Colour::ALL.len() as i64;
/// Classes of styles.
pub const STYLES: i64 = IconSet::ALL.len() as i64;
/// Width of the features that pictures are compared by.
pub const FEATURES: i64 = 64;

/// Start of the centre heat map's bias: a sigmoid of 0.01, as nearly all cells hold no centre (Lin et al. 2017, "Focal
/// loss for dense object detection", §4.1).
pub(super) const RARE: f64 = -4.6;

/// Pictures reduced to what the judge sees: the mean of what falls into a pixel.
///
/// # Shapes
/// [n, 3, h, w] → [n, 3, 64, 64]
pub fn reduced(pictures: Tensor) -> crate::error::Result<Tensor> {
    let (_, _, height, width) = pictures.size4()?;
    if (height, width) == (SIDE, SIDE) { Ok(pictures) } else { Ok(pictures.f_adaptive_avg_pool2d([SIDE, SIDE])?) }
}

/// What the network says about pictures, as raw numbers.
#[derive(Debug)]
pub struct Output {
    /// Logits of "an object of this concept has its centre in this cell", [n, concepts, 16, 16].
    pub heat: Tensor,
    /// Centre within the cell (two numbers in cells) and the logarithm of width and height in sides of the picture,
    /// [n, 4, 16, 16].
    pub boxes: Tensor,
    /// Logits of the colour of the object whose centre is in the cell, [n, colours, 16, 16].
    pub colour: Tensor,
    /// Logits of the style of the object whose centre is in the cell, [n, styles, 16, 16].
    pub styles: Tensor,
    /// Logits of the style of the whole picture, [n, styles].
    pub style: Tensor,
    /// Logits of the colour of the background, [n, colours].
    pub background: Tensor,
    /// What pictures are compared by, [n, 64].
    pub features: Tensor,
}
