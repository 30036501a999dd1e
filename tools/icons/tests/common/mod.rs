//! A tiny sprite pack of hand-written drawings, so that the tests need no installed packages.
#![allow(dead_code, reason = "each test file uses a part of it")]

use train_icons::config::SamplerConfig;
use train_icons::icon_set::IconSet;
use train_icons::pack::{Pack, PackedSprite};
use train_icons::sprite;

/// The concepts of the tiny pack. Nothing of the first three is held out.
pub const CONCEPTS: [&str; 4] = ["apple", "star", "cat", "moon"];

/// A drawing in a 10 by 10 picture; coloured, or in the current colour for a style of one colour.
pub fn drawing(concept: &str, style: IconSet) -> String {
    let colour = if style.is_mono() { "currentColor" } else { "#d01020" };
    let shape = match concept {
        // a disc of radius 4
        "apple" => "<circle cx=\"5\" cy=\"5\" r=\"4\" fill=\"INK\"/>".to_owned(),
        // twice as wide as high
        "star" => "<rect x=\"1\" y=\"3\" width=\"8\" height=\"4\" fill=\"INK\"/>".to_owned(),
        // curves, a stroke, and a group that is drawn on a layer of its own
        "cat" => "<g opacity=\"0.8\"><path d=\"M1 9C2 1 4 1 5 5S8 1 9 9Z\" fill=\"INK\"/>\
                  <path d=\"M2 8Q5 2 8 8\" fill=\"none\" stroke=\"INK\"/></g>"
            .to_owned(),
        _ => "<path d=\"M7 1A4.5 4.5 0 1 0 9 7A3.5 3.5 0 1 1 7 1Z\" fill=\"INK\"/>".to_owned(),
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"10\" height=\"10\" viewBox=\"0 0 10 10\" color=\"#000\">{}</svg>",
        shape.replace("INK", colour)
    )
}

/// A pack of every test concept in every style.
pub fn pack() -> Pack {
    pack_of(&CONCEPTS)
}

/// A pack of these concepts in every style; those that have no drawing of their own are moons.
pub fn pack_of(concepts: &[&str]) -> Pack {
    let cells = concepts.iter().flat_map(|&concept| IconSet::ALL.map(|style| (concept, style)));
    let sprites = cells.map(|(concept, style)| {
        let svg = drawing(concept, style);
        let bounds = sprite::bounds(&svg, concept, style).unwrap();
        PackedSprite { concept: concept.to_owned(), style, bounds, svg }
    });
    Pack::new(Vec::new(), sprites.collect())
}

/// A preset with the concepts of the tiny pack alone.
pub fn only_tiny(mut config: SamplerConfig) -> SamplerConfig {
    config.concepts = CONCEPTS.map(str::to_owned).to_vec();
    config
}
