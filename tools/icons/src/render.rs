//! Drawing scenes: any size, whole pictures and windows of them.

use resvg::tiny_skia::{Pixmap, PremultipliedColorU8, Transform};

use crate::background::Background;
use crate::colour::{Colour, Rgb};
use crate::error::{IconsError, Result};
use crate::icon_set::IconSet;
use crate::pack::Pack;
use crate::scene::{Object, Scene};
use crate::sprite::{Sprite, Sprites};

/// The largest side of a picture, in pixels.
pub const MAX_SIZE: u32 = 8192;

/// Side of the tiles that drawings are made in, in pixels.
const TILE: u32 = 64;

/// Draws scenes. It can be shared between threads.
#[derive(Debug)]
pub struct Renderer {
    sprites: Sprites,
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy)]
struct Window {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    /// The side of the whole picture.
    size: u32,
}

impl Renderer {
    /// A renderer that draws with the sprites of a pack.
    pub fn new(pack: &Pack) -> Result<Self> {
        Ok(Self { sprites: Sprites::parse(pack)? })
    }

    /// Draws a scene: `size * size * 3` bytes, rows from the top, RGB.
    ///
    /// # Errors
    /// [`IconsError::SpriteMissing`], or [`IconsError::Window`] when `size` is zero or too large.
    pub fn render(&self, scene: &Scene, size: u32) -> Result<Vec<u8>> {
        self.window(scene, Window::new(0, 0, size, size)?)
    }

    /// Draws a square window of the picture that [`Renderer::render`] gives at `size`, pixel for pixel the same:
    /// `crop * crop * 3` bytes.
    ///
    /// # Errors
    /// [`IconsError::Window`] when the window is empty or leaves the picture, and the errors of [`Renderer::render`].
    pub fn render_crop(&self, scene: &Scene, size: u32, x: u32, y: u32, crop: u32) -> Result<Vec<u8>> {
        self.window(scene, Window::new(x, y, crop, size)?)
    }

    fn window(&self, scene: &Scene, window: Window) -> Result<Vec<u8>> {
        let mut pixels = paint(scene.background, window);
        for object in &scene.objects {
            self.draw(object, scene.style, window, &mut pixels)?;
        }
        Ok(pixels)
    }

    /// Draws one object over the pixels of a window.
    ///
    /// The drawing is made tile by tile on a grid that belongs to the picture, never to the window: the rasteriser
    /// rounds a clipped or shifted path a little differently, and a window must show exactly what the picture shows.
    fn draw(&self, object: &Object, style: IconSet, window: Window, pixels: &mut [u8]) -> Result<()> {
        let sprite = self.sprites.get(&object.concept, style)?;
        let ink = object.ink.filter(|_| style.is_mono()).map(Colour::ink);
        for tile in window.tiles() {
            let Some(area) = tile.around(object) else { continue };
            let Some(seen) = area.meet(window) else { continue };
            let mut pixmap = area.pixmap()?;
            resvg::render(&sprite.tree, transform(object, sprite, area), &mut pixmap.as_mut());
            for y in seen.y..seen.y + seen.height {
                let row = (y - window.y) * window.width;
                for x in seen.x..seen.x + seen.width {
                    let place = 3 * (row + x - window.x) as usize;
                    if let (Some(over), Some(pixel)) =
                        (pixmap.pixel(x - area.x, y - area.y), pixels.get_mut(place..place + 3))
                    {
                        lay(pixel, over, ink);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Window {
    fn new(x: u32, y: u32, side: u32, size: u32) -> Result<Self> {
        let fits = |start: u32| start.checked_add(side).is_some_and(|end| end <= size);
        if side == 0 || size > MAX_SIZE || !fits(x) || !fits(y) {
            return Err(IconsError::Window { x, y, width: side, height: side, size });
        }
        Ok(Self { x, y, width: side, height: side, size })
    }

    /// The tiles of the picture's grid that this window touches.
    fn tiles(self) -> impl Iterator<Item = Self> {
        let range = |start: u32, length: u32| start / TILE..(start + length).div_ceil(TILE);
        let side = move |start: u32| TILE.min(self.size - start);
        let columns = range(self.x, self.width);
        range(self.y, self.height).flat_map(move |row| {
            columns.clone().map(move |column| {
                let (x, y) = (column * TILE, row * TILE);
                Self { x, y, width: side(x), height: side(y), size: self.size }
            })
        })
    }

    /// The part of this window that an object can touch.
    fn around(self, object: &Object) -> Option<Self> {
        let side = self.size as f32;
        // The longer side bounds both; turned, the diagonal does. Two pixels are for smoothed edges.
        let turned = if object.rotation == 0.0 { 1.0 } else { std::f32::consts::SQRT_2 };
        let reach = object.size * turned / 2.0 * side + 2.0;
        let low = |centre: f32| (centre * side - reach).floor().clamp(0.0, side) as u32;
        let high = |centre: f32| (centre * side + reach).ceil().clamp(0.0, side) as u32;
        let (x, y) = (low(object.x), low(object.y));
        let (width, height) = (high(object.x).saturating_sub(x), high(object.y).saturating_sub(y));
        self.meet(Self { x, y, width, height, size: self.size })
    }

    /// What two windows of one picture share.
    fn meet(self, other: Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let right = (self.x + self.width).min(other.x + other.width);
        let bottom = (self.y + self.height).min(other.y + other.height);
        (x < right && y < bottom).then(|| Self { x, y, width: right - x, height: bottom - y, size: self.size })
    }

    fn pixmap(self) -> Result<Pixmap> {
        let Self { x, y, width, height, size } = self;
        Pixmap::new(width, height).ok_or(IconsError::Window { x, y, width, height, size })
    }
}

/// From a drawing's units to the pixels of a window.
fn transform(object: &Object, sprite: &Sprite, window: Window) -> Transform {
    let [left, top, width, height] = sprite.bounds;
    let side = window.size as f32;
    let scale = object.size * side / width.max(height);
    Transform::from_translate(-(left + width / 2.0), -(top + height / 2.0))
        .post_scale(scale, scale)
        .post_rotate(object.rotation)
        .post_translate(object.x * side - window.x as f32, object.y * side - window.y as f32)
}

fn paint(background: Background, window: Window) -> Vec<u8> {
    let rows = window.y..window.y + window.height;
    let pixel = |y| (window.x..window.x + window.width).flat_map(move |x| background.pixel(x, y, window.size));
    rows.flat_map(pixel).collect()
}

/// Lays a pixel of a drawing over the picture: in its own colour, or in one ink.
fn lay(pixel: &mut [u8], over: PremultipliedColorU8, ink: Option<Rgb>) {
    let alpha = u32::from(over.alpha());
    let colour = match ink {
        Some(ink) => ink.map(|channel| u32::from(channel) * alpha),
        None => [over.red(), over.green(), over.blue()].map(|channel| u32::from(channel) * 255),
    };
    for (channel, colour) in pixel.iter_mut().zip(colour) {
        *channel = ((colour + u32::from(*channel) * (255 - alpha) + 127) / 255).min(255) as u8;
    }
}
