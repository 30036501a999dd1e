//! What a prompt may mean: the renders that its picture is compared with.
//!
//! A prompt fixes neither places nor, at times, the style. Bytes, edges and contours hardly depend on places, but very much on
//! the style. So a picture is compared with the median over renders of the scene that its prompt was written for, in every
//! style that the prompt leaves open.

use train_icons::colour::{Colour, Rgb, contrast};
use train_icons::concepts;
use train_icons::config::SamplerConfig;
use train_icons::dice::Dice;
use train_icons::icon_set::IconSet;
use train_icons::scene::{Object, Scene};

use crate::error::Result;
use crate::wanted::Wanted;

/// An ink shows on a background from this contrast on (WCAG 2.2, success criterion 1.4.11), as in the sampler.
const SHOWS: f64 = 3.0;
/// How far the objects of a redrawn scene are moved at most, in sides of the picture.
const MOVED: f32 = 0.05;
/// Stream of the dice of redrawn scenes.
const REDRAWN: u64 = 29;

/// The scene, then the same scene in every other style of the data that its caption leaves open and whose drawings have the
/// colours that it names.
pub fn truths(scene: &Scene) -> Result<Vec<Scene>> {
    let wanted = Wanted::of(scene);
    let mut scenes = vec![scene.clone()];
    if wanted.style.is_some() {
        return Ok(scenes);
    }
    for style in SamplerConfig::small().styles {
        if style != scene.style
            && let Some(other) = drawn_in(scene, &wanted, style)?
        {
            scenes.push(other);
        }
    }
    Ok(scenes)
}

/// The scene in another style, if that can be what the caption says.
fn drawn_in(scene: &Scene, wanted: &Wanted, style: IconSet) -> Result<Option<Scene>> {
    let mut other = Scene { style, ..scene.clone() };
    for (object, wanted) in other.objects.iter_mut().zip(&wanted.objects) {
        let own = concepts::find(&object.concept)?.colour_in(style);
        object.ink = style.is_mono().then(|| wanted.colour.unwrap_or_else(|| plain(scene.background.tones())));
        if !style.is_mono() && wanted.colour.is_some_and(|colour| own != Some(colour)) {
            return Ok(None);
        }
    }
    Ok(Some(other))
}

/// The ink that goes without saying: black, or white where black does not show.
fn plain(tones: [Rgb; 2]) -> Colour {
    let shows = tones.iter().all(|&tone| contrast(Colour::Black.ink(), tone) >= SHOWS);
    if shows { Colour::Black } else { Colour::White }
}

/// The two tones of the background that a picture of the scene has to have; `None` if its caption leaves them open.
pub fn tones(scene: &Scene) -> Option<[Rgb; 2]> {
    Wanted::of(scene).background.map(|_| scene.background.tones())
}

/// What a perfect model might draw for a prompt: one of [`truths`], its objects moved together by up to 5 % of the side. Measured like a
/// picture, it says what the measures are at their best.
pub fn redrawn(scene: &Scene, seed: u64) -> Result<Scene> {
    let mut dice = Dice::new(seed, 0, REDRAWN);
    let scenes = truths(scene)?;
    let place = (dice.unit() * scenes.len() as f64) as usize;
    let mut other = scenes.into_iter().nth(place).unwrap_or_else(|| scene.clone());
    let axes: [fn(&mut Object) -> &mut f32; 2] = [|object| &mut object.x, |object| &mut object.y];
    for axis in axes {
        let moved = dice.between([-MOVED, MOVED]);
        let room = other.objects.iter_mut().map(|object| {
            let half = object.size / 2.0;
            let centre = *axis(object);
            if moved < 0.0 { centre - half } else { 1.0 - half - centre }
        });
        let room = room.fold(MOVED, f32::min).max(0.0);
        other.objects.iter_mut().for_each(|object| *axis(object) += moved.clamp(-room, room));
    }
    Ok(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::prompts;

    #[test]
    fn a_named_style_is_one_render_and_an_open_one_several() {
        let prompts = prompts(200).unwrap();
        let mut several = 0;
        for prompt in &prompts {
            let scenes = truths(&prompt.scene).unwrap();
            assert_eq!(scenes[0], prompt.scene);
            let named = prompt.wanted.style.is_some();
            assert!(scenes.len() == 1 || !named, "{}", prompt.scene.caption);
            several += usize::from(scenes.len() > 1);
            for other in &scenes[1..] {
                assert!(other.objects.iter().all(|object| object.ink.is_some() == other.style.is_mono()));
                let colours = prompt
                    .wanted
                    .objects
                    .iter()
                    .zip(&other.objects)
                    .filter_map(|(wanted, object)| Some((wanted.colour?, object)));
                for (colour, object) in colours {
                    let own = concepts::find(&object.concept).unwrap().colour_in(other.style);
                    assert_eq!(object.ink.or(own), Some(colour), "{}", prompt.scene.caption);
                }
            }
        }
        // The captions of three scenes in ten leave the style out.
        assert!((30..=80).contains(&several), "{several}");
    }

    #[test]
    fn what_is_redrawn_is_elsewhere_and_still_inside() {
        for prompt in prompts(60).unwrap() {
            let other = redrawn(&prompt.scene, prompt.seed).unwrap();
            let styles: Vec<IconSet> = truths(&prompt.scene).unwrap().iter().map(|scene| scene.style).collect();
            assert!(styles.contains(&other.style));
            for (object, before) in other.objects.iter().zip(&prompt.scene.objects) {
                let (dx, dy) = (object.x - before.x, object.y - before.y);
                assert!((dx, dy) != (0.0, 0.0) && dx.abs() <= MOVED && dy.abs() <= MOVED);
                for centre in [object.x, object.y] {
                    assert!(centre - object.size / 2.0 > -1e-6 && centre + object.size / 2.0 < 1.0 + 1e-6);
                }
            }
        }
    }
}
