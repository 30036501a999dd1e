//! What the renderer promises: exact windows, true masks, the same scene at every size.
#![allow(clippy::unwrap_used, reason = "helper functions of a test file")]

mod common;

use rayon::prelude::*;
use train_icons::background::Background;
use train_icons::colour::Colour;
use train_icons::config::SamplerConfig;
use train_icons::error::IconsError;
use train_icons::icon_set::IconSet;
use train_icons::render::{MAX_SIZE, Renderer};
use train_icons::sampler::Sampler;
use train_icons::scene::{Object, Scene};
use train_icons::split::Split;

fn renderer() -> Renderer {
    Renderer::new(&common::pack()).unwrap()
}

fn scenes(count: u64) -> Vec<Scene> {
    let sampler = Sampler::new(common::only_tiny(SamplerConfig::all())).unwrap();
    (0..count).map(|index| sampler.scene(1, index, Split::Train).unwrap()).collect()
}

fn alone(concept: &str, style: IconSet, size: f32) -> Scene {
    let ink = style.is_mono().then_some(Colour::Blue);
    let object = Object { concept: concept.to_owned(), x: 0.5, y: 0.5, size, rotation: 0.0, ink, span: 0..1 };
    Scene { caption: concept.to_owned(), style, background: Background::Plain(Colour::Yellow), objects: vec![object] }
}

fn crop(picture: &[u8], size: usize, x: usize, y: usize, side: usize) -> Vec<u8> {
    (y..y + side).flat_map(|row| picture[(row * size + x) * 3..][..side * 3].to_vec()).collect()
}

fn pixel(picture: &[u8], size: usize, x: usize, y: usize) -> [u8; 3] {
    picture[(y * size + x) * 3..][..3].try_into().unwrap()
}

/// What the objects of a scene cover, 0 to 255: all that white and black do not show through.
fn mask(renderer: &Renderer, scene: &Scene, size: u32) -> Vec<u8> {
    let [white, black] = [Colour::White, Colour::Black].map(|colour| {
        let background = Background::Plain(colour);
        renderer.render(&Scene { background, ..scene.clone() }, size).unwrap()
    });
    let apart = f64::from(255 - Colour::Black.background()[0]);
    let cover = |(white, black): (&u8, &u8)| 255.0 * (1.0 - (f64::from(*white) - f64::from(*black)) / apart);
    white.iter().zip(&black).step_by(3).map(|pair| cover(pair).round() as u8).collect()
}

#[test]
fn a_window_is_the_same_as_the_crop_of_the_whole() {
    let renderer = renderer();
    for (number, scene) in scenes(40).iter().enumerate() {
        for (size, side) in [(256_usize, 64_usize), (300, 77), (64, 64)] {
            let whole = renderer.render(scene, size as u32).unwrap();
            assert_eq!(whole.len(), size * size * 3);
            let free = size - side + 1;
            let (x, y) = (number * 7919 % free, number * 104_729 % free);
            let window = renderer.render_crop(scene, size as u32, x as u32, y as u32, side as u32).unwrap();
            assert!(window == crop(&whole, size, x, y, side), "{} at {size}, window ({x}, {y})", scene.caption);
        }
    }
}

#[test]
fn every_size_shows_the_same_scene() {
    let renderer = renderer();
    for scene in scenes(30) {
        let small = renderer.render(&scene, 64).unwrap();
        for factor in [4_usize, 16] {
            let size = 64 * factor;
            let large = renderer.render(&scene, size as u32).unwrap();
            let mut difference = 0.0;
            for (place, &value) in small.iter().enumerate() {
                let (channel, x, y) = (place % 3, place / 3 % 64, place / 192);
                let block = (0..factor * factor).map(|part| {
                    let (dx, dy) = (part % factor, part / factor);
                    f64::from(large[((y * factor + dy) * size + x * factor + dx) * 3 + channel])
                });
                difference += (block.sum::<f64>() / (factor * factor) as f64 - f64::from(value)).abs();
            }
            let mean = difference / small.len() as f64;
            assert!(mean < 1.0, "{}: mean difference {mean} of 255", scene.caption);
        }
    }
}

#[test]
fn a_mask_covers_what_geometry_says() {
    let renderer = renderer();
    let area = |mask: &[u8]| mask.iter().map(|&value| f64::from(value) / 255.0).sum::<f64>();
    for style in IconSet::ALL {
        // A disc whose diameter is half the side, and a rectangle of half the side by a quarter.
        let disc = mask(&renderer, &alone("apple", style, 0.5), 128);
        assert!((area(&disc) / (std::f64::consts::PI * 32.0 * 32.0) - 1.0).abs() < 0.02);
        let rectangle = mask(&renderer, &alone("star", style, 0.5), 128);
        assert!((area(&rectangle) / (64.0 * 32.0) - 1.0).abs() < 0.02);
        for y in 0..128 {
            for x in 0..128 {
                let inside = (33..95).contains(&x) && (49..79).contains(&y);
                let outside = !(31..97).contains(&x) || !(47..81).contains(&y);
                let value = rectangle[y * 128 + x];
                assert!((!inside || value == 255) && (!outside || value == 0), "({x}, {y}) is {value}");
            }
        }
    }
}

#[test]
fn masks_and_background_account_for_every_pixel() {
    let renderer = renderer();
    for scene in scenes(30) {
        let picture = renderer.render(&scene, 96).unwrap();
        let covered = mask(&renderer, &scene, 96);
        for y in 0..96 {
            for x in 0..96 {
                if covered[y * 96 + x] == 0 {
                    let expected = scene.background.pixel(x as u32, y as u32, 96);
                    assert_eq!(pixel(&picture, 96, x, y), expected, "{}", scene.caption);
                }
            }
        }
    }
}

#[test]
fn ink_is_chosen_by_the_scene_and_colours_by_the_drawing() {
    let renderer = renderer();
    let ink = renderer.render(&alone("apple", IconSet::Ink, 0.5), 64).unwrap();
    assert_eq!(pixel(&ink, 64, 32, 32), Colour::Blue.ink());
    let flat = renderer.render(&alone("apple", IconSet::Flat, 0.5), 64).unwrap();
    assert_eq!(pixel(&flat, 64, 32, 32), [0xd0, 0x10, 0x20]);
    assert_eq!(pixel(&flat, 64, 1, 1), Colour::Yellow.background());
}

#[test]
fn a_turned_object_keeps_its_area() {
    let renderer = renderer();
    let mut scene = alone("star", IconSet::Flat, 0.5);
    scene.objects[0].rotation = 90.0;
    let mask = mask(&renderer, &scene, 128);
    // Upright, the rectangle is 64 high and 32 wide.
    assert_eq!((mask[34 * 128 + 64], mask[64 * 128 + 34]), (255, 0));
}

#[test]
fn threads_share_a_renderer() {
    let renderer = renderer();
    let scenes = scenes(40);
    let draw = |scene: &Scene| renderer.render(scene, 64).unwrap();
    let together: Vec<_> = scenes.par_iter().map(draw).collect();
    assert!(together == scenes.iter().map(draw).collect::<Vec<_>>());
}

#[test]
fn patterns_show_both_tones() {
    for pattern in Background::PATTERNS {
        for colour in Colour::ALL {
            let background = pattern(colour);
            let [base, second] = background.tones();
            let pixels: Vec<_> = (0..64 * 64).map(|place| background.pixel(place % 64, place / 64, 64)).collect();
            for tone in [base, second] {
                assert!(pixels.contains(&tone), "{background:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let renderer = renderer();
    let scene = alone("apple", IconSet::Flat, 0.5);
    for (size, x, y, side) in [(64, 1, 0, 64), (64, 0, u32::MAX, 2), (64, 0, 0, 0), (MAX_SIZE + 1, 0, 0, 1)] {
        let window = renderer.render_crop(&scene, size, x, y, side);
        assert!(matches!(window, Err(IconsError::Window { .. })), "{size} {x} {y} {side}");
    }
    let missing = renderer.render(&alone("banana", IconSet::Flat, 0.5), 64);
    assert!(matches!(missing, Err(IconsError::SpriteMissing { concept, style: "flat" }) if concept == "banana"));
}

#[test]
fn an_object_outside_the_picture_draws_nothing() {
    let renderer = renderer();
    let mut scene = alone("apple", IconSet::Flat, 0.3);
    for far in [-3.0, 9.0, f32::NAN, f32::INFINITY] {
        scene.objects[0].x = far;
        let picture = renderer.render(&scene, 64).unwrap();
        assert!(picture.chunks(3).all(|pixel| pixel == Colour::Yellow.background()));
    }
}
