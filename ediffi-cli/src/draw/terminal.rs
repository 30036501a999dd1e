//! Pictures in a terminal, by the protocols of kitty, iTerm2 and sixel.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use ediffi::RgbImage;
use image::ImageFormat;
use image::imageops::thumbnail;

use super::failure::Failure;

/// The longest side of a picture that is shown, in pixels.
const SHOWN: u32 = 512;

/// Which protocol shows pictures.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum Terminal {
    /// The one that the terminal says it has.
    Auto,
    /// kitty, Ghostty, Konsole.
    Kitty,
    /// iTerm2, WezTerm, VS Code.
    Iterm,
    /// foot, mlterm, xterm with sixel.
    Sixel,
}

impl Terminal {
    /// The protocol, of a terminal with these variables if it is to be found out.
    pub(super) fn found(self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        if self != Self::Auto {
            return Ok(self);
        }
        let of = |name: &str| variable(name).unwrap_or_default().to_lowercase();
        let (term, program) = (of("TERM"), of("TERM_PROGRAM"));
        let kitty = !of("KITTY_WINDOW_ID").is_empty() || !of("KONSOLE_VERSION").is_empty();
        if kitty || term.contains("kitty") || program == "ghostty" {
            Ok(Self::Kitty)
        } else if ["iterm.app", "wezterm", "vscode"].contains(&program.as_str()) || of("LC_TERMINAL") == "iterm2" {
            Ok(Self::Iterm)
        } else if ["sixel", "foot", "mlterm", "yaft"].iter().any(|name| term.contains(name)) {
            Ok(Self::Sixel)
        } else {
            Err("the terminal does not say that it shows pictures: name a protocol, as --preview-in sixel".into())
        }
    }

    /// What a terminal shows as this picture, of at most 512 pixels a side. It ends a line.
    pub(super) fn picture(self, picture: &RgbImage) -> Result<Vec<u8>, Failure> {
        let longest = picture.width().max(picture.height());
        let side = |side: u32| (u64::from(side) * u64::from(SHOWN) / u64::from(longest.max(1))).max(1) as u32;
        let small = (longest > SHOWN).then(|| thumbnail(picture, side(picture.width()), side(picture.height())));
        let picture = small.as_ref().unwrap_or(picture);
        let mut shown = match self {
            Self::Sixel => sixel(picture),
            Self::Iterm => iterm(&png(picture)?),
            Self::Kitty | Self::Auto => kitty(&png(picture)?),
        };
        shown.push(b'\n');
        Ok(shown)
    }
}

fn png(picture: &RgbImage) -> Result<Vec<u8>, Failure> {
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}

/// The graphics protocol of kitty: the file as base64, in parts of at most 4096 letters.
fn kitty(png: &[u8]) -> Vec<u8> {
    let letters = STANDARD.encode(png);
    let parts: Vec<&[u8]> = letters.as_bytes().chunks(4096).collect();
    let mut shown = Vec::with_capacity(letters.len() + 32 * parts.len());
    for (index, part) in parts.iter().enumerate() {
        let more = u8::from(index + 1 < parts.len());
        let head = if index == 0 { format!("\x1b_Ga=T,f=100,q=2,m={more};") } else { format!("\x1b_Gm={more};") };
        shown.extend(head.as_bytes());
        shown.extend(*part);
        shown.extend(b"\x1b\\");
    }
    shown
}

/// The inline images of iTerm2.
fn iterm(png: &[u8]) -> Vec<u8> {
    format!("\x1b]1337;File=inline=1;size={}:{}\x07", png.len(), STANDARD.encode(png)).into_bytes()
}

/// Levels of red, green and blue that the colours of sixel have: 252 colours, of the 256 that terminals know.
const LEVELS: [u32; 3] = [6, 7, 6];

/// Sixel: bands of six lines, in each of them a line of letters for each colour, whose bits are the pixels below each other.
fn sixel(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let mut shown = format!("\x1bPq\"1;1;{width};{height}");
    let [reds, greens, blues] = LEVELS;
    for colour in 0..reds * greens * blues {
        let level = |value: u32, levels: u32| value * 100 / (levels - 1);
        let [red, green, blue] = [colour / (greens * blues), colour / blues % greens, colour % blues];
        let [red, green, blue] = [level(red, reds), level(green, greens), level(blue, blues)];
        shown.push_str(&format!("#{colour};2;{red};{green};{blue}"));
    }
    for top in (0..height).step_by(6) {
        let mut colours = std::collections::BTreeMap::<u32, Vec<u8>>::new();
        for (y, x) in (top..height.min(top + 6)).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let letters =
                colours.entry(nearest(picture.get_pixel(x, y).0, x, y)).or_insert_with(|| vec![0; width as usize]);
            if let Some(bits) = letters.get_mut(x as usize) {
                *bits |= 1 << (y - top);
            }
        }
        for (colour, bits) in colours {
            shown.push_str(&format!("#{colour}"));
            for run in bits.chunk_by(|a, b| a == b) {
                let letter = char::from(b'?' + run.first().copied().unwrap_or(0));
                match run.len() {
                    length @ ..4 => shown.extend(std::iter::repeat_n(letter, length)),
                    length => shown.push_str(&format!("!{length}{letter}")),
                }
            }
            shown.push('$');
        }
        shown.push('-');
    }
    shown.push_str("\x1b\\");
    shown.into_bytes()
}

/// The colour of a pixel, dithered by a pattern of 4x4.
fn nearest(pixel: [u8; 3], x: u32, y: u32) -> u32 {
    const PATTERN: [[u32; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];
    let row = PATTERN.get(y as usize % 4).copied().unwrap_or_default();
    let threshold = row.get(x as usize % 4).copied().unwrap_or(8);
    let level =
        |value: u8, levels: u32| (u32::from(value) * (levels - 1) * 16 + (threshold * 2 + 1) * 255 / 2) / (255 * 16);
    pixel
        .into_iter()
        .zip(LEVELS)
        .fold(0, |colour, (value, levels)| colour * levels + level(value, levels).min(levels - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(set: &[(&str, &str)]) -> Option<Terminal> {
        let variable = |name: &str| set.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        Terminal::Auto.found(variable).ok()
    }

    #[test]
    fn terminals_say_what_they_show() {
        assert_eq!(found(&[("TERM", "xterm-kitty")]), Some(Terminal::Kitty));
        assert_eq!(found(&[("TERM", "xterm-256color"), ("TERM_PROGRAM", "WezTerm")]), Some(Terminal::Iterm));
        assert_eq!(found(&[("TERM", "foot")]), Some(Terminal::Sixel));
        assert_eq!(found(&[("TERM", "xterm-256color")]), None);
        assert_eq!(Terminal::Sixel.found(|_| None).ok(), Some(Terminal::Sixel));
    }

    #[test]
    fn the_file_comes_back_from_kitty_and_iterm() {
        let picture =
            RgbImage::from_fn(60, 40, |x, y| image::Rgb([(x * y % 251) as u8, (x * 7) as u8, (y * 31 + x) as u8]));
        let file = png(&picture).unwrap();
        let kitty = String::from_utf8(kitty(&file)).unwrap();
        let parts: Vec<&str> = kitty.split("\x1b\\").filter(|part| !part.is_empty()).collect();
        assert!(parts.len() > 1 && parts[0].starts_with("\x1b_Ga=T,f=100,q=2,m=1;"));
        assert!(parts.last().unwrap().starts_with("\x1b_Gm=0;"));
        let letters: String = parts.iter().map(|part| part.split_once(';').unwrap().1).collect();
        assert!(parts.iter().all(|part| part.len() <= 4096 + 24));
        assert_eq!(STANDARD.decode(letters).unwrap(), file);
        let iterm = String::from_utf8(iterm(&file)).unwrap();
        let letters = iterm.split_once(':').unwrap().1.trim_end_matches('\x07');
        assert_eq!(STANDARD.decode(letters).unwrap(), file);
    }

    /// Read back: the letters of a colour are the pixels that have it.
    #[test]
    fn a_picture_comes_back_from_sixel() {
        let palette = |x: u32, y: u32| image::Rgb([[0, 255, 51][(x % 3) as usize], [0, 255][(y % 2) as usize], 255]);
        let picture = RgbImage::from_fn(9, 8, palette);
        let text = String::from_utf8(sixel(&picture)).unwrap();
        let body = text.strip_prefix("\x1bPq\"1;1;9;8").unwrap().strip_suffix("\x1b\\").unwrap();
        let mut pixels = RgbImage::new(9, 8);
        let mut colours = std::collections::HashMap::new();
        let (mut top, mut x, mut colour) = (0, 0, 0_u32);
        let mut letters = body.chars().peekable();
        let number = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut value = 0;
            while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
                (value, _) = (value * 10 + digit, letters.next());
            }
            value
        };
        while let Some(letter) = letters.next() {
            match letter {
                '#' => {
                    colour = number(&mut letters);
                    if letters.peek() == Some(&';') {
                        let mut levels = Vec::new();
                        while letters.next_if_eq(&';').is_some() {
                            levels.push(number(&mut letters));
                        }
                        colours.insert(colour, [1, 2, 3].map(|index: usize| (levels[index] * 255 / 100) as u8));
                    }
                }
                '$' => x = 0,
                '-' => (top, x) = (top + 6, 0),
                letter => {
                    let (count, letter) =
                        if letter == '!' { (number(&mut letters), letters.next().unwrap()) } else { (1, letter) };
                    for _ in 0..count {
                        let bits = letter as u32 - 63;
                        for bit in (0..6).filter(|bit| bits >> bit & 1 == 1) {
                            pixels.put_pixel(x, top + bit, image::Rgb(colours[&colour]));
                        }
                        x += 1;
                    }
                }
            }
        }
        assert_eq!(pixels, picture);
        // Of a grey between two levels, as many pixels are brighter as it is nearer to them.
        let grey: u32 = (0..16).map(|place| nearest([25, 0, 0], place % 4, place / 4) / 42).sum();
        assert!((7..=9).contains(&grey), "{grey}");
    }

    #[test]
    fn a_large_picture_is_shown_smaller() {
        let shown = Terminal::Sixel.picture(&RgbImage::new(2048, 1024)).unwrap();
        assert!(shown.starts_with(b"\x1bPq\"1;1;512;256") && shown.ends_with(b"\x1b\\\n"));
    }
}
