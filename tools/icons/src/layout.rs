//! Where objects go: arrangements, places, sizes.

use crate::config::SamplerConfig;
use crate::dice::Dice;

/// How the objects of a scene stand to each other. The caption is written from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// One object, in the middle or in a named place.
    Single(Option<Place>),
    /// Objects from left to right.
    Row,
    /// Objects from top to bottom.
    Column,
    /// Objects anywhere, none over another.
    Scattered,
}

/// A named place of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The words after the object: "in the top left corner".
    pub words: &'static str,
    /// -1 left, 0 middle, 1 right.
    pub across: i8,
    /// -1 top, 0 middle, 1 bottom.
    pub down: i8,
}

/// The named places.
pub const PLACES: [Place; 8] = [
    Place { words: "in the top left corner", across: -1, down: -1 },
    Place { words: "in the top right corner", across: 1, down: -1 },
    Place { words: "in the bottom left corner", across: -1, down: 1 },
    Place { words: "in the bottom right corner", across: 1, down: 1 },
    Place { words: "at the top", across: 0, down: -1 },
    Place { words: "at the bottom", across: 0, down: 1 },
    Place { words: "on the left", across: -1, down: 0 },
    Place { words: "on the right", across: 1, down: 0 },
];

/// Centre and size of one object, in sides of the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot {
    /// Centre from the left.
    pub x: f32,
    /// Centre from the top.
    pub y: f32,
    /// The longer side.
    pub size: f32,
}

/// Space kept free between an object and the picture's edge.
const MARGIN: f32 = 0.02;

/// So often are scattered objects laid out anew, while they overlap. Two of 0.46 are apart in one draw of a hundred.
const TRIES: usize = 2_000;

/// Finds a spot for each of `count` (1 to 3) objects, in the arrangement's order.
pub fn place(config: &SamplerConfig, arrangement: Arrangement, count: usize, dice: &mut Dice) -> Vec<Spot> {
    let sizes = match (arrangement, count) {
        (Arrangement::Single(Some(_)), _) => config.sizes.placed,
        (Arrangement::Single(None), _) => config.sizes.one,
        (_, 0..=2) => config.sizes.two,
        _ => config.sizes.three,
    };
    if arrangement == Arrangement::Scattered
        && let Some(spots) = (0..TRIES).find_map(|_| scatter(sizes, count, dice))
    {
        return spots;
    }
    (0..count)
        .map(|place| {
            let size = dice.between(sizes);
            let along = (place as f32 + 0.5) / count as f32;
            let (x, y) = match arrangement {
                Arrangement::Single(None) => (0.5, 0.5),
                Arrangement::Single(Some(place)) => {
                    (0.5 + 0.27 * f32::from(place.across), 0.5 + 0.27 * f32::from(place.down))
                }
                // Scattered objects that found no room stand in a row.
                Arrangement::Row | Arrangement::Scattered => (along, 0.5),
                Arrangement::Column => (0.5, along),
            };
            // Along the line each object stays in its own part, across it the whole picture is free.
            let part = 1.0 / count as f32;
            let (free_x, free_y) = match arrangement {
                Arrangement::Single(_) => (1.0, 1.0),
                Arrangement::Row | Arrangement::Scattered => (part, 1.0),
                Arrangement::Column => (1.0, part),
            };
            Spot {
                x: stray(x, free_x, size, config.jitter, dice),
                y: stray(y, free_y, size, config.jitter, dice),
                size,
            }
        })
        .collect()
}

/// Spots anywhere in the picture, if they do not overlap.
fn scatter(sizes: [f32; 2], count: usize, dice: &mut Dice) -> Option<Vec<Spot>> {
    let mut spots: Vec<Spot> = Vec::with_capacity(count);
    for _ in 0..count {
        let size = dice.between(sizes);
        let edge = (size / 2.0 + MARGIN).min(0.5);
        let spot = Spot { x: dice.between([edge, 1.0 - edge]), y: dice.between([edge, 1.0 - edge]), size };
        let apart = |other: &Spot| (spot.x - other.x).abs().max((spot.y - other.y).abs()) >= (size + other.size) / 2.0;
        if !spots.iter().all(apart) {
            return None;
        }
        spots.push(spot);
    }
    Some(spots)
}

/// Moves a centre by up to `jitter`, staying in the free part around it and inside the picture.
fn stray(centre: f32, free: f32, size: f32, jitter: f32, dice: &mut Dice) -> f32 {
    let slack = ((free - size) / 2.0 - MARGIN / 2.0).clamp(0.0, jitter);
    let edge = (size / 2.0 + MARGIN).min(0.5);
    (centre + dice.between([-slack, slack])).clamp(edge, 1.0 - edge)
}
