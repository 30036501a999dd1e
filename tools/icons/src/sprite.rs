//! Sprites: drawings parsed once and kept as trees, drawn straight at any size.

use std::collections::HashMap;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use crate::error::{IconsError, Result};
use crate::icon_set::IconSet;
use crate::pack::Pack;

/// One parsed drawing.
#[derive(Debug)]
pub struct Sprite {
    /// The drawing.
    pub tree: Tree,
    /// Left, top, width and height of what it covers, in SVG units.
    pub bounds: [f32; 4],
}

/// Every drawing of a pack, parsed.
#[derive(Debug, Default)]
pub struct Sprites {
    by_style: HashMap<IconSet, HashMap<String, Sprite>>,
}

impl Sprites {
    /// Parses a pack.
    pub fn parse(pack: &Pack) -> Result<Self> {
        let mut by_style: HashMap<IconSet, HashMap<String, Sprite>> = HashMap::new();
        for packed in &pack.sprites {
            let tree = parse(&packed.svg, &packed.concept, packed.style)?;
            let sprite = Sprite { tree, bounds: packed.bounds };
            by_style.entry(packed.style).or_default().insert(packed.concept.clone(), sprite);
        }
        Ok(Self { by_style })
    }

    /// The drawing of a concept.
    pub fn get(&self, concept: &str, style: IconSet) -> Result<&Sprite> {
        self.by_style
            .get(&style)
            .and_then(|sprites| sprites.get(concept))
            .ok_or_else(|| IconsError::SpriteMissing { concept: concept.to_owned(), style: style.word() })
    }
}

/// Measures what a drawing covers: left, top, width and height in SVG units, to 1/512 of its longer side.
///
/// The box comes from a render and not from the geometry, since a drawing may hold transparent or clipped shapes.
///
/// # Errors
/// [`IconsError::Svg`] for invalid SVG, [`IconsError::EmptySprite`] when nothing is drawn.
pub fn bounds(svg: &str, concept: &str, style: IconSet) -> Result<[f32; 4]> {
    extent(svg, concept, style, 0.0)
}

/// Whether a drawing has stray shapes outside its own picture, which a scene must not show.
pub fn overflows(svg: &str, concept: &str, style: IconSet) -> Result<bool> {
    let size = parse(svg, concept, style)?.size();
    let [left, top, width, height] = extent(svg, concept, style, 0.5)?;
    // An edge that lies on the picture's border may smear over one pixel of the measuring render.
    let slack = size.width().max(size.height()) / 128.0;
    Ok(left < -slack || top < -slack || left + width > size.width() + slack || top + height > size.height() + slack)
}

/// What a drawing covers within its picture and a margin around it, in longer sides.
fn extent(svg: &str, concept: &str, style: IconSet, margin: f32) -> Result<[f32; 4]> {
    const SIDE: u32 = 512;
    // Alpha below this is not visible.
    const FAINT: u8 = 8;
    let empty = || IconsError::EmptySprite { concept: concept.to_owned(), style: style.word() };
    let tree = parse(svg, concept, style)?;
    let longer = tree.size().width().max(tree.size().height());
    let scale = SIDE as f32 / (longer * (1.0 + 2.0 * margin));
    let shift = longer * margin;
    let mut pixmap = Pixmap::new(SIDE, SIDE).ok_or_else(empty)?;
    let transform = Transform::from_translate(shift, shift).post_scale(scale, scale);
    resvg::render(&tree, transform, &mut pixmap.as_mut());

    let (mut left, mut top, mut right, mut bottom) = (SIDE, SIDE, 0, 0);
    for (y, row) in (0..).zip(pixmap.pixels().chunks_exact(SIDE as usize)) {
        for (x, pixel) in (0..).zip(row) {
            if pixel.alpha() > FAINT {
                (left, right) = (left.min(x), right.max(x + 1));
                (top, bottom) = (top.min(y), bottom.max(y + 1));
            }
        }
    }
    if right <= left || bottom <= top {
        return Err(empty());
    }
    let place = |pixels: u32| pixels as f32 / scale - shift;
    Ok([place(left), place(top), (right - left) as f32 / scale, (bottom - top) as f32 / scale])
}

fn parse(svg: &str, concept: &str, style: IconSet) -> Result<Tree> {
    Tree::from_str(svg, &Options::default()).map_err(|source| IconsError::Svg {
        concept: concept.to_owned(),
        style: style.word(),
        source,
    })
}
