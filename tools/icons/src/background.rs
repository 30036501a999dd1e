//! Backgrounds: plain colours and simple patterns, drawn by formula at any resolution.

use serde::{Deserialize, Serialize};

use crate::colour::{Colour, Rgb};

/// What lies behind the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    /// One colour.
    Plain(Colour),
    /// Diagonal stripes of a colour and its tint.
    Striped(Colour),
    /// A chessboard of a colour and its tint.
    Checkered(Colour),
    /// Dots of a colour's tint on the colour.
    Dotted(Colour),
}

impl Background {
    /// The patterns, each as a constructor.
    pub const PATTERNS: [fn(Colour) -> Self; 3] = [Self::Striped, Self::Checkered, Self::Dotted];

    /// The colour that names the background.
    pub fn colour(self) -> Colour {
        match self {
            Self::Plain(colour) | Self::Striped(colour) | Self::Checkered(colour) | Self::Dotted(colour) => colour,
        }
    }

    /// The words before "background": "blue", "blue striped".
    pub fn words(self) -> String {
        let colour = self.colour().word();
        match self {
            Self::Plain(_) => colour.to_owned(),
            Self::Striped(_) => format!("{colour} striped"),
            Self::Checkered(_) => format!("{colour} checkered"),
            Self::Dotted(_) => format!("{colour} dotted"),
        }
    }

    /// The two colours it is drawn in (the same one twice when it is plain).
    pub fn tones(self) -> [Rgb; 2] {
        let base = self.colour().background();
        match self {
            Self::Plain(_) => [base, base],
            _ => [base, tint(self.colour())],
        }
    }

    /// The colour of one pixel of a picture with `size` pixels a side.
    ///
    /// Edges are smoothed over one pixel. The result depends only on the pixel's place in the whole picture, so a
    /// window shows exactly what the whole picture shows there.
    pub fn pixel(self, x: u32, y: u32, size: u32) -> Rgb {
        let [base, second] = self.tones();
        let side = size as f32;
        let (u, v) = ((x as f32 + 0.5) / side, (y as f32 + 0.5) / side);
        let cover = |distance: f32| (distance * side + 0.5).clamp(0.0, 1.0);
        let amount = match self {
            Self::Plain(_) => return base,
            Self::Striped(_) => cover(band(u + v, 0.25) / std::f32::consts::SQRT_2),
            Self::Checkered(_) => {
                let (a, b) = (cover(band(u, 0.25)), cover(band(v, 0.25)));
                a * b + (1.0 - a) * (1.0 - b)
            }
            Self::Dotted(_) => {
                let (dx, dy) = (centred(u, 1.0 / 6.0), centred(v, 1.0 / 6.0));
                cover(0.045 - (dx * dx + dy * dy).sqrt())
            }
        };
        mix(base, second, amount)
    }
}

/// Signed distance from `t` to the edge of a band that fills half of every period: positive inside.
fn band(t: f32, period: f32) -> f32 {
    period * 0.25 - centred(t, period).abs()
}

/// The place of `t` in its period, from -period/2 to period/2.
fn centred(t: f32, period: f32) -> f32 {
    t - ((t / period).floor() + 0.5) * period
}

fn tint(colour: Colour) -> Rgb {
    match colour {
        Colour::White => [222, 225, 230],
        Colour::Black => [62, 62, 70],
        _ => mix(colour.background(), [255, 255, 255], 0.45),
    }
}

fn mix(a: Rgb, b: Rgb, amount: f32) -> Rgb {
    let channel = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * amount).round() as u8;
    [channel(a[0], b[0]), channel(a[1], b[1]), channel(a[2], b[2])]
}
