//! Prompts of two objects, each with a box that it shall be painted into, and whether it is there.

use ediffi::{Canvas, Region};
use serde::{Deserialize, Serialize};
use train_icons::config::{Mix, SamplerConfig};
use train_icons::dice::Dice;
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::scene::Scene;
use train_icons::split::{Split, is_held_out_cell};

use crate::error::Result;
use crate::judge::network::SIDE;
use crate::judge::{Detection, Verdict};
use crate::prompts::next;

/// Seed of the scenes; the generator's seeds are small numbers.
const SEED: u64 = 0x7061_696E_7401;
/// Seed of the first picture.
const PICTURES: u64 = 2_000_000;
/// Stream of a scene's dice beside the sampler's own.
const BOXES: u64 = 23;
/// Every so manieth prompt is of a pair that never met in training.
const HELD_OUT_EVERY: usize = 4;
/// Side of a box, in sides of the picture: what objects of two have in training, with a little room.
const SIDES: [f32; 2] = [0.42, 0.5];
/// How much of its box a rendered object fills.
const FILLS: f32 = 0.95;

/// An upright rectangle, in sides of the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

impl Area {
    /// What the judge saw as an area.
    pub fn of(seen: &Detection) -> Self {
        let (width, height) = (seen.width, seen.height);
        Self { x: seen.x - width / 2.0, y: seen.y - height / 2.0, width, height }
    }

    /// Whether a point lies in it.
    pub fn holds(&self, x: f32, y: f32) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }

    /// What two areas share.
    fn shared(&self, other: &Self) -> f32 {
        let along = |a: f32, length: f32, b: f32, other: f32| ((a + length).min(b + other) - a.max(b)).max(0.0);
        along(self.x, self.width, other.x, other.width) * along(self.y, self.height, other.y, other.height)
    }

    /// Intersection over union.
    pub fn iou(&self, other: &Self) -> f32 {
        let shared = self.shared(other);
        let union = self.width * self.height + other.width * other.height - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }
}

/// A prompt with its boxes.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The scene whose caption is the prompt: "a cat and a tree, ink style", of two different objects.
    pub scene: Scene,
    /// Where each object of the scene shall be. They do not overlap.
    pub areas: [Area; 2],
    /// Whether the two never met in training.
    pub held_out: bool,
    /// Seed of the picture.
    pub seed: u64,
}

/// `count` prompts that `reads` accepts (a model whose encoders are short reads not all captions), a quarter of them of
/// held-out pairs. The same count always gives the same prompts, boxes and seeds.
///
/// The prompts join their objects by "and": a relation in words would contradict the boxes.
///
/// # Errors
/// A configuration of the sampler without held-out scenes; those of `reads`;
/// [`Error::Candidates`](crate::error::Error::Candidates) when it accepts nothing.
pub fn placed(count: usize, reads: impl Fn(&str) -> Result<bool>) -> Result<Vec<Placed>> {
    let mix = Mix { two: 1.0, ..Mix::default() };
    let trained = Sampler::new(SamplerConfig { mix, ..SamplerConfig::small() })?;
    let held = Sampler::new(SamplerConfig::small())?;
    let (mut of_trained, mut of_held_out) = (0, 0);
    let mut found = Vec::with_capacity(count);
    for number in 0..count {
        let held_out = number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1;
        let from = if held_out { &mut of_held_out } else { &mut of_trained };
        let (index, scene) = next("a prompt that the model reads", from, |index| {
            let scene = if held_out {
                held.scene(SEED + 1, index, Split::HeldOut)?
            } else {
                trained.scene(SEED, index, Split::Train)?
            };
            Ok((joined(&scene) && reads(&scene.caption)?).then_some((index, scene)))
        })?;
        let mut dice = Dice::new(SEED + u64::from(held_out), index, BOXES);
        let areas = boxes(&mut dice);
        found.push(Placed { scene, areas, held_out, seed: PICTURES + number as u64 });
    }
    Ok(found)
}

/// Whether a scene is of two different objects that its caption joins by "and".
fn joined(scene: &Scene) -> bool {
    let [a, b] = scene.objects.as_slice() else { return false };
    let (first, second) = if a.span.start < b.span.start { (a, b) } else { (b, a) };
    let length = second.span.start.saturating_sub(first.span.end);
    let between: String = scene.caption.chars().skip(first.span.end).take(length).collect();
    let cell = scene.objects.iter().any(|object| is_held_out_cell(&object.concept, scene.style));
    a.concept != b.concept && !cell && between.split_whitespace().next() == Some("and")
}

/// Two boxes that do not overlap.
fn boxes(dice: &mut Dice) -> [Area; 2] {
    loop {
        let [first, second] = [(); 2].map(|()| {
            let side = dice.between(SIDES);
            Area { x: dice.between([0.0, 1.0 - side]), y: dice.between([0.0, 1.0 - side]), width: side, height: side }
        });
        if first.shared(&second) == 0.0 {
            return [first, second];
        }
    }
}

impl Placed {
    /// The boxes as a canvas, each bound to the words of its object.
    pub fn canvas(&self) -> Result<Canvas> {
        let side = SIDE as u32;
        let pixel = |part: f32| (part * side as f32).round() as u32;
        let region = |(object, area): (usize, &Area)| {
            let (x, y) = (pixel(area.x)..pixel(area.x + area.width), pixel(area.y)..pixel(area.y + area.height));
            let region = Region::rectangle(self.scene.phrase(object), (side, side), x, y);
            let span = self.scene.objects.get(object).map(|object| object.span.clone()).unwrap_or_default();
            region.map(|region| region.span(span))
        };
        let regions = self.areas.iter().enumerate().map(region).collect::<std::result::Result<Vec<_>, _>>();
        Ok(regions.and_then(Canvas::new).map_err(ediffi::Error::from)?)
    }

    /// The scene with its objects in their boxes, drawn: what a perfect model would make.
    pub fn render(&self, renderer: &Renderer) -> Result<Vec<u8>> {
        let mut scene = self.scene.clone();
        for (object, area) in scene.objects.iter_mut().zip(&self.areas) {
            (object.x, object.y) = (area.x + area.width / 2.0, area.y + area.height / 2.0);
            object.size = FILLS * area.width;
        }
        Ok(renderer.render(&scene, SIDE as u32)?)
    }
}

/// What became of the objects of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// How many objects were seen anywhere.
    pub seen: u8,
    /// How many objects were seen with their centre in their box.
    pub inside: u8,
    /// Sum over the objects of the intersection over union of what was seen and the box; 0 of an object that was not seen.
    pub iou: f32,
    /// Whether the style is right, where the prompt names one.
    pub style: Option<bool>,
}

impl Outcome {
    /// Objects of a picture.
    pub const OBJECTS: f64 = 2.0;

    /// Compares what the judge saw with what was painted. Of several detections of one concept the surest counts.
    pub fn new(placed: &Placed, verdict: &Verdict) -> Self {
        let named = placed.scene.caption.contains(&format!("{} style", placed.scene.style.word()));
        let style = named.then_some(verdict.style == placed.scene.style);
        let mut outcome = Self { seen: 0, inside: 0, iou: 0.0, style };
        for (object, area) in placed.scene.objects.iter().zip(&placed.areas) {
            let Some(seen) = verdict.detections.iter().find(|seen| seen.concept == object.concept) else { continue };
            outcome.seen += 1;
            outcome.inside += u8::from(area.holds(seen.x, seen.y));
            outcome.iou += area.iou(&Area::of(seen));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use train_icons::colour::Colour;
    use train_icons::split::is_held_out_pair;

    use super::*;
    use crate::error::Error;
    use crate::prompts::CANDIDATES;

    #[test]
    fn prompts_are_of_two_objects_in_boxes_of_their_own() {
        let prompts = placed(40, |_| Ok(true)).unwrap();
        assert_eq!(prompts.len(), 40);
        assert_eq!(prompts.iter().filter(|prompt| prompt.held_out).count(), 10);
        for prompt in &prompts {
            let [a, b] = prompt.scene.objects.as_slice() else { panic!("{}", prompt.scene.caption) };
            assert!(prompt.scene.caption.contains(" and "), "{}", prompt.scene.caption);
            assert_eq!(is_held_out_pair(&a.concept, &b.concept), prompt.held_out, "{}", prompt.scene.caption);
            let [first, second] = prompt.areas;
            assert_eq!(first.shared(&second), 0.0);
            assert!(prompt.areas.iter().all(|area| area.x >= 0.0 && area.x + area.width <= 1.0 + 1e-6));
            let canvas = prompt.canvas().unwrap();
            assert_eq!((canvas.width(), canvas.height(), canvas.regions().len()), (64, 64, 2));
        }
        assert_ne!(prompts[0].areas, prompts[1].areas);
        let short = placed(8, |caption| Ok(caption.len() < 30)).unwrap();
        assert!(short.len() == 8 && short.iter().all(|prompt| prompt.scene.caption.len() < 30));
    }

    /// A model that reads nothing, and one that cannot be asked, end the search.
    #[test]
    fn a_search_without_an_end_is_an_error() {
        assert!(matches!(placed(2, |_| Ok(false)), Err(Error::Candidates { tried: CANDIDATES, .. })));
        let asked = std::cell::Cell::new(0);
        let broken = |_: &str| {
            asked.set(asked.get() + 1);
            Err(Error::Worker)
        };
        assert!(matches!(placed(2, broken), Err(Error::Worker)) && asked.get() == 1);
        assert!(placed(0, |_| Ok(false)).unwrap().is_empty());
    }

    #[test]
    fn overlaps_are_those_of_geometry() {
        let area = |x, y, width, height| Area { x, y, width, height };
        let square = area(0.0, 0.0, 0.5, 0.5);
        assert_eq!(square.iou(&square), 1.0);
        assert_eq!(square.iou(&area(0.5, 0.0, 0.5, 0.5)), 0.0);
        // A quarter of each: 1/16 of 2/4 − 1/16.
        assert!((square.iou(&area(0.25, 0.25, 0.5, 0.5)) - 1.0 / 7.0).abs() < 1e-6);
        assert!(square.holds(0.1, 0.4) && !square.holds(0.6, 0.1));
    }

    #[test]
    fn an_object_counts_where_it_is_seen() {
        let prompt = &placed(1, |_| Ok(true)).unwrap()[0];
        let at = |object: usize, area: &Area, shift: f32| Detection {
            concept: prompt.scene.objects[object].concept.clone(),
            confidence: 0.9,
            x: area.x + area.width / 2.0 + shift,
            y: area.y + area.height / 2.0,
            width: area.width,
            height: area.height,
            colour: Colour::Red,
        };
        let outcome = |detections: Vec<Detection>| {
            let (style, background) = (prompt.scene.style, prompt.scene.background.colour());
            Outcome::new(
                prompt,
                &Verdict { detections, style, style_confidence: 1.0, background, features: Vec::new() },
            )
        };
        let [first, second] = &prompt.areas;
        let right = outcome(vec![at(0, first, 0.0), at(1, second, 0.0)]);
        assert_eq!((right.seen, right.inside), (2, 2));
        assert!((right.iou - 2.0).abs() < 1e-5);
        let swapped = outcome(vec![at(0, second, 0.0), at(1, first, 0.0)]);
        assert_eq!((swapped.seen, swapped.inside, swapped.iou), (2, 0, 0.0));
        let one = outcome(vec![at(0, first, 0.0)]);
        assert_eq!((one.seen, one.inside), (1, 1));
        let aside = outcome(vec![at(0, first, 0.9)]);
        assert_eq!((aside.seen, aside.inside), (1, 0));
    }
}
