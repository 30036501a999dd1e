//! What the judge learns from: scenes that the generator never sees, with the truth about them.

use std::collections::HashMap;

use train_icons::background::Background;
use train_icons::colour::{Colour, contrast};
use train_icons::concepts::{self, SMALL};
use train_icons::config::{Mix, SamplerConfig};
use train_icons::dice::Dice;
use train_icons::icon_set::IconSet;
use train_icons::pack::Pack;
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::scene::{Object, Scene};
use train_icons::split::Split;

use super::network::SIDE;
use crate::error::{Error, Result};

/// Seed of the scenes that the judge is trained on; the generator's seeds are small numbers.
pub const TRAINING: u64 = 0x6A75_6467_6501;
/// Seed of the scenes that it is checked on.
pub const CHECK: u64 = 0x6A75_6467_6502;

/// Stream of a scene's dice beside the sampler's own.
const FREE: u64 = 17;
/// An ink shows on a background from this contrast on, as in the sampler (WCAG 2.2, success criterion 1.4.11).
const SHOWS: f64 = 3.0;

/// The truth about one object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// Position of its concept in [`SMALL`].
    pub concept: usize,
    /// Centre from the left, in sides of the picture.
    pub x: f32,
    /// Centre from the top.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
    /// Position in [`Colour::ALL`] of the colour that captions would name, if it has one.
    pub colour: Option<usize>,
}

/// How a scene was laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As the generator's training data are.
    Trained,
    /// As what is held out from the generator: an unseen concept in a style, an unseen pair.
    HeldOut,
    /// Freely, more varied than both.
    Free,
}

/// A picture with the truth about it.
#[derive(Debug, Clone)]
pub struct Example {
    /// How it was laid out.
    pub layout: Layout,
    /// The scene.
    pub scene: Scene,
    /// 64 × 64 RGB bytes.
    pub pixels: Vec<u8>,
    /// Its objects.
    pub objects: Vec<Truth>,
}

/// Makes examples; a pure function of a seed and an index. It can be shared between threads.
#[derive(Debug)]
pub struct Examples {
    renderer: Renderer,
    sampler: Sampler,
    /// Width and height of each drawing, in its longer sides.
    shapes: HashMap<(String, IconSet), [f32; 2]>,
}

/// How often the scenes that are like the generator's show one object, two, three, or the same several times. A judge that is trained or
/// checked anew is compared with older ones, so this does not follow the generator's data, nor are objects scattered but in the free half.
const MIX: Mix = Mix { one: 0.65, placed: 0.0, two: 0.30, three: 0.02, same: 0.03 };

impl Examples {
    /// Examples drawn with the sprites of a pack.
    pub fn new(pack: &Pack) -> Result<Self> {
        let shapes = pack.sprites.iter().map(|sprite| {
            let [_, _, width, height] = sprite.bounds;
            let longer = width.max(height);
            ((sprite.concept.clone(), sprite.style), [width / longer, height / longer])
        });
        let sampler = Sampler::new(SamplerConfig { mix: MIX, scattered: 0.0, ..SamplerConfig::small() })?;
        let renderer = Renderer::new(pack)?;
        Ok(Self { renderer, sampler, shapes: shapes.collect() })
    }

    /// Example `index`: half of them are laid out freely, more varied than the generator's data; a quarter each are scenes
    /// like those it trains on and like those held out from it.
    pub fn example(&self, seed: u64, index: u64) -> Result<Example> {
        let mut dice = Dice::new(seed, index, FREE);
        let (layout, scene) = match dice.unit() {
            kind if kind < 0.5 => (Layout::Free, free(&mut dice)),
            kind if kind < 0.75 => (Layout::Trained, self.sampler.scene(seed, index, Split::Train)?),
            _ => (Layout::HeldOut, self.sampler.scene(seed, index, Split::HeldOut)?),
        };
        let pixels = self.renderer.render(&scene, SIDE as u32)?;
        let objects = scene.objects.iter().map(|object| self.truth(object, scene.style)).collect::<Result<_>>()?;
        Ok(Example { layout, scene, pixels, objects })
    }

    fn truth(&self, object: &Object, style: IconSet) -> Result<Truth> {
        let unknown =
            || Error::Setting { what: "concept", reason: format!("the judge does not know `{}`", object.concept) };
        let concept = SMALL.iter().position(|name| *name == object.concept).ok_or_else(unknown)?;
        let [width, height] = self.shapes.get(&(object.concept.clone(), style)).copied().unwrap_or([1.0, 1.0]);
        let natural = concepts::find(&object.concept)?.colour_in(style);
        let colour = object.ink.filter(|_| style.is_mono()).or(natural);
        Ok(Truth {
            concept,
            x: object.x,
            y: object.y,
            width: width * object.size,
            height: height * object.size,
            colour: colour.map(|colour| colour as usize),
        })
    }
}

/// A scene laid out freely: one to four objects that hardly touch, anywhere, on any background.
fn free(dice: &mut Dice) -> Scene {
    // The generator has no vintage drawings: the judge knows them, so that it can tell what is none of the others.
    let styles = [(0.3, IconSet::Noto), (0.3, IconSet::Flat), (0.25, IconSet::Ink), (0.15, IconSet::Vintage)];
    let style = dice.weighted(styles).unwrap_or(IconSet::Noto);
    let colour = dice.pick(&Colour::ALL).unwrap_or(Colour::White);
    let colour = if dice.chance(0.3) { Colour::White } else { colour };
    let background = if dice.chance(0.3) {
        dice.pick(&Background::PATTERNS).map_or(Background::Plain(colour), |pattern| pattern(colour))
    } else {
        Background::Plain(colour)
    };
    let shows = |ink: &Colour| background.tones().iter().all(|&tone| contrast(ink.ink(), tone) >= SHOWS);
    let inks: Vec<Colour> = Colour::ALL.into_iter().filter(shows).collect();
    let count = dice.weighted([(0.38, 1_u32), (0.36, 2), (0.16, 3), (0.08, 4), (0.02, 0)]).unwrap_or(1);
    let sizes = match count {
        1 => [0.4, 0.9],
        2 => [0.34, 0.5],
        _ => [0.26, 0.36],
    };
    let same = dice.chance(0.15).then(|| dice.pick(&SMALL)).flatten();
    let mut objects: Vec<Object> = Vec::new();
    for _ in 0..count {
        let concept = same.or_else(|| dice.pick(&SMALL)).unwrap_or("apple");
        // A place where it covers little of the others; where there is none, the scene has one object less.
        let spot = (0..40).find_map(|_| {
            let size = dice.between(sizes);
            let edge = (size / 2.0).min(0.5);
            let (x, y) = (dice.between([edge, 1.0 - edge]), dice.between([edge, 1.0 - edge]));
            let apart = |other: &Object| (other.x - x).abs().max((other.y - y).abs()) > 0.45 * (other.size + size);
            objects.iter().all(apart).then_some((x, y, size))
        });
        let Some((x, y, size)) = spot else { break };
        let ink = style.is_mono().then(|| dice.pick(&inks)).flatten();
        let rotation = dice.between([-5.0, 5.0]);
        objects.push(Object { concept: concept.to_owned(), x, y, size, rotation, ink, span: 0..0 });
    }
    Scene { caption: String::new(), style, background, objects }
}
