//! Pictures that are edited, and what is asked of each.

use ediffi::{Canvas, EditPicture, Region};
use image::{GrayImage, Luma, RgbImage};
use train_icons::caption::{Content, Phrase, write};
use train_icons::colour::Colour;
use train_icons::concepts::{SMALL, find};
use train_icons::config::SamplerConfig;
use train_icons::dice::Dice;
use train_icons::icon_set::IconSet;
use train_icons::layout::Arrangement;
use train_icons::render::Renderer;
use train_icons::scene::{Object, Scene};
use train_icons::split::{is_held_out_cell, is_held_out_pair};

use crate::error::{Error, Result};
use crate::judge::network::SIDE;
use crate::placed::{Area, Placed, placed};

/// Seed of what is put in the place of an object, and of other styles.
const SEED: u64 = 0x6564_6974_6501;
/// Stream of the dice.
const OTHERS: u64 = 31;
/// How many new objects and styles are tried for a picture.
const CHOICES: u64 = 1_000;

/// A true picture of two objects, and another object that takes the place of one of them.
#[derive(Debug, Clone)]
pub struct Case {
    /// The two objects, in their boxes.
    pub placed: Placed,
    /// Which of the two goes.
    pub place: usize,
    /// The object that goes, and where it is.
    pub old: (Object, Area),
    /// The object that stays, and where it is.
    pub other: (Object, Area),
    /// The concept that comes.
    pub new: &'static str,
    /// Another style than that of the picture, which has never been held out of these objects.
    pub style: IconSet,
}

/// `count` cases of objects that met in training. The same count always gives the same.
pub fn cases(count: usize, reads: impl Fn(&str) -> Result<bool>) -> Result<Vec<Case>> {
    let mut cases = Vec::with_capacity(count);
    let styles = SamplerConfig::small().styles;
    // A quarter of them are of held-out pairs, which are another question, and some objects were never shown in another style.
    let placed = placed(count * 2, &reads)?.into_iter().filter(|placed| !placed.held_out);
    for (number, placed) in (0_u64..).zip(placed) {
        let mut dice = Dice::new(SEED, number, OTHERS);
        let ([a, b], [first, second]) = (placed.scene.objects.as_slice(), placed.areas) else {
            return Err(Error::Candidates { what: "a scene of two objects", tried: 1 });
        };
        let pairs = [(a.clone(), first), (b.clone(), second)];
        let place = usize::from(dice.chance(0.5));
        let [old, other] = if place == 0 { pairs } else { swapped(pairs) };
        for _ in 0..CHOICES {
            let (new, style) = (dice.pick(&SMALL).unwrap_or(""), dice.pick(&styles).unwrap_or(IconSet::Noto));
            let case = Case { placed: placed.clone(), place, old: old.clone(), other: other.clone(), new, style };
            if case.is_fair() && reads(&case.caption()?)? && reads(&case.in_other_style()?)? {
                cases.push(case);
                break;
            }
        }
        if cases.len() == count {
            return Ok(cases);
        }
    }
    Err(Error::Candidates { what: "an edit that the model knows", tried: CHOICES })
}

fn swapped<T>([first, second]: [T; 2]) -> [T; 2] {
    [second, first]
}

impl Case {
    /// Whether training has shown all that is asked for.
    fn is_fair(&self) -> bool {
        let scene = &self.placed.scene;
        let other = &self.other.0.concept;
        let strange = |concept: &str, style| is_held_out_cell(concept, style);
        let new = scene.objects.iter().all(|object| object.concept != self.new);
        let styles =
            self.style != scene.style && !scene.objects.iter().any(|object| strange(&object.concept, self.style));
        new && styles && !is_held_out_pair(self.new, other) && !strange(self.new, scene.style)
    }

    /// The caption of the picture as it is to be: with the new object, in the picture's style.
    pub fn caption(&self) -> Result<String> {
        self.written([self.new, &self.other.0.concept], self.placed.scene.style)
    }

    /// The caption of the picture as it is.
    pub fn before(&self) -> Result<String> {
        self.written([&self.old.0.concept, &self.other.0.concept], self.placed.scene.style)
    }

    /// The caption of the picture as it is, in the other style.
    pub fn in_other_style(&self) -> Result<String> {
        self.written([&self.old.0.concept, &self.other.0.concept], self.style)
    }

    fn written(&self, concepts: [&str; 2], style: IconSet) -> Result<String> {
        let phrase = |name: &str| Ok::<_, Error>(Phrase { concept: find(name)?, count: 1, size: None, colour: None });
        let [first, second] = concepts.map(phrase);
        let phrases = [first?, second?];
        let (background, style) = (Some(self.placed.scene.background), Some(style));
        let content = Content { phrases: &phrases, arrangement: Arrangement::Scattered, background, style };
        Ok(write(&content, 0.0, &mut Dice::new(SEED, 0, OTHERS + 1)).0)
    }

    /// The true picture.
    pub fn picture(&self, renderer: &Renderer) -> Result<RgbImage> {
        rgb(self.placed.render(renderer)?)
    }

    /// The true picture of what inpainting is asked for: what a perfect model would make.
    pub fn truth(&self, renderer: &Renderer) -> Result<RgbImage> {
        let mut placed = self.placed.clone();
        if let Some(object) = placed.scene.objects.get_mut(self.place) {
            self.new.clone_into(&mut object.concept);
        }
        rgb(placed.render(renderer)?)
    }

    /// The true picture in the other style.
    pub fn restyled(&self, renderer: &Renderer) -> Result<RgbImage> {
        let mut placed = self.placed.clone();
        placed.scene = Scene { style: self.style, ..placed.scene };
        for object in &mut placed.scene.objects {
            // A style of one colour needs one.
            object.ink = object.ink.or(Some(Colour::Blue));
        }
        rgb(placed.render(renderer)?)
    }

    /// White where the object is that goes.
    pub fn mask(&self) -> Result<EditPicture> {
        Ok(EditPicture::new(&image::DynamicImage::from(area(self.old.1)).into_rgb8())?)
    }

    /// The words of the new object, painted where the old one is.
    pub fn painted(&self) -> Result<Canvas> {
        let canvas = Region::from_image(self.new, &area(self.old.1)).and_then(|region| Canvas::new([region]));
        Ok(canvas.map_err(ediffi::Error::from)?)
    }
}

/// White in an area, black elsewhere.
fn area(area: Area) -> GrayImage {
    let side = SIDE as u32;
    let middle = |place: u32| (place as f32 + 0.5) / side as f32;
    let inside = |x: u32, y: u32| area.holds(middle(x), middle(y));
    GrayImage::from_fn(side, side, |x, y| Luma([if inside(x, y) { 255_u8 } else { 0 }]))
}

fn rgb(bytes: Vec<u8>) -> Result<RgbImage> {
    RgbImage::from_raw(SIDE as u32, SIDE as u32, bytes).ok_or(Error::Worker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_asks_for_another_object_and_for_another_style() {
        let cases = cases(200, |_| Ok(true)).unwrap();
        assert_eq!(cases.len(), 200);
        assert!(cases.iter().any(|case| case.place == 0) && cases.iter().any(|case| case.place == 1));
        for case in &cases {
            let (caption, other) = (case.caption().unwrap(), case.in_other_style().unwrap());
            // As a word of its own: an apple is no part of a pineapple.
            let old = format!(" {} ", case.old.0.concept);
            assert!(caption.contains(case.new) && !caption.contains(&old), "{caption}");
            assert!(caption.contains(&case.other.0.concept) && caption.contains(case.placed.scene.style.word()));
            assert!(other.contains(&case.old.0.concept) && other.contains(case.style.word()), "{other}");
            assert!(SamplerConfig::small().styles.contains(&case.style) && case.style != case.placed.scene.style);
            let mask = case.mask().unwrap().pixels().unwrap();
            let white = mask.pixels().filter(|pixel| pixel.0 == [255; 3]).count() as f32;
            let area = case.old.1;
            assert!((white / 4096.0 - area.width * area.height).abs() < 0.02, "{white}");
        }
    }
}
