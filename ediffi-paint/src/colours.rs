//! A colour picture becomes a canvas: each colour of a palette is a phrase.

use std::collections::HashMap;

use image::{RgbImage, RgbaImage};

use crate::palette::{Palette, PaletteEntry};
use crate::{Canvas, Error, MAX_SIDE, Mask, Region, Result};

/// How many of the unmatched colours, and of the stray pixels of a phrase, are listed.
const LISTED: usize = 8;

/// A canvas that was read from a colour picture, and the pixels that may need a look.
#[derive(Debug, Clone, PartialEq)]
pub struct ColourReading {
    /// The canvas: one region for each palette entry.
    pub canvas: Canvas,
    /// The pixels that are near no colour of the palette and of the background. They stay unpainted.
    pub unmatched: Unmatched,
    /// For each phrase, its pixels that touch no other pixel of the phrase, not even at a corner. They are painted, but
    /// seldom meant: the soft edge between two colours may pass near a third one. Phrases without such pixels are left out.
    pub stray: Vec<Stray>,
}

/// The pixels that are near no colour of the palette and of the background.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unmatched {
    /// How many there are.
    pub pixels: usize,
    /// Their most frequent colours, at most eight, the most frequent first.
    pub colours: Vec<UnmatchedColour>,
}

/// A colour that is near no colour of the palette and of the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnmatchedColour {
    /// Red, green and blue.
    pub colour: [u8; 3],
    /// How many pixels have it.
    pub pixels: usize,
    /// Column and row of the first of them on the canvas, in reading order.
    pub first: (u32, u32),
}

/// The pixels of a phrase that stand alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The phrase.
    pub phrase: String,
    /// How many there are.
    pub pixels: usize,
    /// Columns and rows of the first of them on the canvas, in reading order; at most eight.
    pub places: Vec<(u32, u32)>,
}

impl Canvas {
    /// A canvas from a colour picture: one region for each entry of the palette. Each pixel goes to the nearest colour that
    /// lies within the tolerance. Where two colours are equally near, the earlier entry wins, and an entry wins over the
    /// background.
    ///
    /// A picture with a side above [`MAX_SIDE`] is first made smaller by picking pixels. Mixed pixels would have new
    /// colours, which could stand for another phrase.
    ///
    /// # Errors
    /// [`Error::DuplicateColour`] if two entries have the same colour, [`Error::ColourNotPainted`] if the picture lacks
    /// the colour of an entry, [`Error::MaskSides`] if a side of the picture is 0, and the errors of [`Canvas::new`].
    pub fn from_colours(picture: &RgbImage, palette: &Palette) -> Result<ColourReading> {
        palette.read(picture.dimensions(), |x, y| picture.get_pixel_checked(x, y).map(|pixel| pixel.0))
    }

    /// As [`from_colours`](Self::from_colours), of a picture that may be transparent. A pixel that shows less than half of its
    /// colour is unpainted, whatever the colour that stands behind it in the file.
    ///
    /// # Errors
    /// As [`from_colours`](Self::from_colours).
    pub fn from_transparent(picture: &RgbaImage, palette: &Palette) -> Result<ColourReading> {
        palette.read(picture.dimensions(), |x, y| {
            let [red, green, blue, alpha] = picture.get_pixel_checked(x, y)?.0;
            (alpha > u8::MAX / 2).then_some([red, green, blue])
        })
    }
}

impl Palette {
    /// `colour` gives that of a pixel; `None` for one that is transparent.
    fn read(&self, size: (u32, u32), colour: impl Fn(u32, u32) -> Option<[u8; 3]>) -> Result<ColourReading> {
        self.check_distinct()?;
        let (width, height) = reduced(size);
        let mut owners = Vec::with_capacity(width as usize * height as usize);
        let mut strangers: HashMap<[u8; 3], UnmatchedColour> = HashMap::new();
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let Some(colour) = colour(nearest(x, width, size.0), nearest(y, height, size.1)) else {
                owners.push(Owner::Background);
                continue;
            };
            let owner = self.owner(colour);
            if owner == Owner::Nobody {
                let stranger = UnmatchedColour { colour, pixels: 0, first: (x, y) };
                strangers.entry(colour).or_insert(stranger).pixels += 1;
            }
            owners.push(owner);
        }
        let region = |(index, entry): (usize, &PaletteEntry)| {
            let owned = |x, y| {
                let owner = owners.get(y as usize * width as usize + x as usize);
                if owner == Some(&Owner::Entry(index)) { u8::MAX } else { 0 }
            };
            let mask = Mask::from_fn(&entry.phrase, width, height, owned)?;
            if mask.is_empty() {
                return Err(Error::ColourNotPainted { phrase: entry.phrase.clone(), colour: entry.colour });
            }
            let PaletteEntry { phrase, weight, occurrence, sigma, .. } = entry.clone();
            Ok(Region { phrase, mask, weight, occurrence, sigma })
        };
        let regions: Vec<Region> = self.entries.iter().enumerate().map(region).collect::<Result<_>>()?;
        let stray = self.stray(&owners, width as usize);
        Ok(ColourReading { canvas: Canvas::new(regions)?, unmatched: Unmatched::count(strangers), stray })
    }

    /// The pixels that stand alone; `owners` holds rows of `width` pixels.
    fn stray(&self, owners: &[Owner], width: usize) -> Vec<Stray> {
        let alone = |index: usize, owner: Owner| {
            let (x, y) = (index % width, index / width);
            let columns = x.saturating_sub(1)..=(x + 1).min(width - 1);
            let mut around =
                (y.saturating_sub(1)..=y + 1).flat_map(|row| columns.clone().map(move |x| row * width + x));
            !around.any(|other| other != index && owners.get(other) == Some(&owner))
        };
        let stray = |entry: &PaletteEntry| Stray { phrase: entry.phrase.clone(), pixels: 0, places: Vec::new() };
        let mut found: Vec<(usize, Stray)> = self.entries.iter().map(|entry| (0, stray(entry))).collect();
        for (index, &owner) in owners.iter().enumerate() {
            let Owner::Entry(entry) = owner else { continue };
            let Some((whole, stray)) = found.get_mut(entry) else { continue };
            *whole += 1;
            if alone(index, owner) {
                stray.pixels += 1;
                if stray.places.len() < LISTED {
                    stray.places.push(((index % width) as u32, (index / width) as u32));
                }
            }
        }
        // The only pixel of a phrase is its whole region.
        found.into_iter().filter(|(whole, stray)| stray.pixels > 0 && *whole > 1).map(|(_, stray)| stray).collect()
    }

    fn check_distinct(&self) -> Result<()> {
        let mut seen: HashMap<[u8; 3], &str> = HashMap::new();
        for PaletteEntry { colour, phrase, .. } in &self.entries {
            if let Some(first) = seen.insert(*colour, phrase) {
                let (first, second) = (first.to_owned(), phrase.clone());
                return Err(Error::DuplicateColour { colour: *colour, first, second });
            }
        }
        Ok(())
    }

    fn owner(&self, colour: [u8; 3]) -> Owner {
        let entries = self.entries.iter().enumerate().map(|(index, entry)| (Owner::Entry(index), entry.colour));
        let background = self.background.iter().map(|&colour| (Owner::Background, colour));
        let limit = self.tolerance.saturating_mul(self.tolerance);
        // `min_by_key` returns the first of equal elements.
        entries
            .chain(background)
            .map(|(owner, other)| (owner, squared_distance(colour, other)))
            .min_by_key(|&(_, distance)| distance)
            .filter(|&(_, distance)| distance <= limit)
            .map_or(Owner::Nobody, |(owner, _)| owner)
    }
}

/// What a pixel belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The entry of this number.
    Entry(usize),
    Background,
    Nobody,
}

impl Unmatched {
    fn count(colours: HashMap<[u8; 3], UnmatchedColour>) -> Self {
        let mut colours: Vec<UnmatchedColour> = colours.into_values().collect();
        let pixels = colours.iter().map(|colour| colour.pixels).sum();
        colours.sort_unstable_by_key(|colour| (std::cmp::Reverse(colour.pixels), colour.colour));
        colours.truncate(LISTED);
        Self { pixels, colours }
    }
}

fn squared_distance(a: [u8; 3], b: [u8; 3]) -> u32 {
    a.iter().zip(b).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum()
}

/// The size of a picture with the same proportions and no side above [`MAX_SIDE`].
fn reduced((width, height): (u32, u32)) -> (u32, u32) {
    let longest = width.max(height);
    if longest <= MAX_SIDE {
        return (width, height);
    }
    // At most MAX_SIDE, so the cast is exact; a very thin picture keeps one pixel.
    let shrink = |side: u32| (u64::from(side) * u64::from(MAX_SIDE) / u64::from(longest)).max(1) as u32;
    (shrink(width), shrink(height))
}

/// The pixel of the source that holds the centre of pixel `index` of the target.
fn nearest(index: u32, target: u32, source: u32) -> u32 {
    ((2 * u64::from(index) + 1) * u64::from(source) / (2 * u64::from(target))) as u32
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::Occurrence;

    const RED: [u8; 3] = [255, 0, 0];
    const BLUE: [u8; 3] = [0, 0, 255];
    const GREEN: [u8; 3] = [0, 160, 0];

    fn picture(pixels: &[[u8; 3]]) -> RgbImage {
        RgbImage::from_raw(pixels.len() as u32, 1, pixels.concat()).unwrap()
    }

    fn palette() -> Palette {
        Palette::new([PaletteEntry::new(RED, "apple"), PaletteEntry::new(BLUE, "cat").weight(2.0).occurrence(2)])
    }

    #[test]
    fn colours_become_regions() {
        let reading = Canvas::from_colours(&picture(&[RED, BLUE, [255; 3], RED]), &palette()).unwrap();
        let [apple, cat] = reading.canvas.regions() else { panic!("two regions") };
        assert_eq!(apple.mask.levels(), [255, 0, 0, 255]);
        assert_eq!((cat.mask.levels(), cat.weight, cat.occurrence), (vec![0, 255, 0, 0], 2.0, Occurrence::Nth(2)));
        assert_eq!(reading.unmatched, Unmatched::default());
    }

    #[test]
    fn a_noisy_colour_goes_to_the_nearest() {
        let noisy = picture(&[[240, 14, 9], [8, 12, 238], [243, 250, 247]]);
        let reading = Canvas::from_colours(&noisy, &palette()).unwrap();
        assert_eq!(reading.canvas.regions()[0].mask.levels(), [255, 0, 0]);
        assert_eq!(reading.canvas.regions()[1].mask.levels(), [0, 255, 0]);
        assert_eq!(reading.unmatched.pixels, 0);
    }

    #[test]
    fn other_colours_are_counted_and_left_unpainted() {
        let reading = Canvas::from_colours(&picture(&[RED, GREEN, BLUE, GREEN, [9, 9, 90]]), &palette()).unwrap();
        let unmatched = |colour, pixels, x| UnmatchedColour { colour, pixels, first: (x, 0) };
        let expected = vec![unmatched(GREEN, 2, 1), unmatched([9, 9, 90], 1, 4)];
        assert_eq!(reading.unmatched, Unmatched { pixels: 3, colours: expected });
        assert_eq!(reading.canvas.regions()[0].mask.levels(), [255, 0, 0, 0, 0]);
        let exact = Canvas::from_colours(&picture(&[RED, BLUE, [254, 0, 0]]), &palette().tolerance(0)).unwrap();
        assert_eq!(exact.unmatched, Unmatched { pixels: 1, colours: vec![unmatched([254, 0, 0], 1, 2)] });
    }

    #[test]
    fn stray_pixels_are_reported_with_their_places() {
        const WHITE: [u8; 3] = [255; 3];
        let rows = [[RED, RED, WHITE, WHITE, RED], [RED, WHITE, BLUE, WHITE, WHITE], [WHITE, WHITE, WHITE, WHITE, RED]];
        let picture = RgbImage::from_raw(5, 3, rows.concat().concat()).unwrap();
        let reading = Canvas::from_colours(&picture, &palette()).unwrap();
        // The cat's only pixel is its region; the apple has two beside the three that hang together.
        let expected = Stray { phrase: "apple".to_owned(), pixels: 2, places: vec![(4, 0), (4, 2)] };
        assert_eq!(reading.stray, [expected]);
        assert_eq!(reading.canvas.regions()[0].mask.levels()[4], 255, "painted all the same");
        let many = picture_of_dots(20);
        let reading = Canvas::from_colours(&many, &Palette::new([PaletteEntry::new(RED, "apple")])).unwrap();
        assert_eq!((reading.stray[0].pixels, reading.stray[0].places.len()), (20, LISTED));
    }

    fn picture_of_dots(count: u32) -> RgbImage {
        RgbImage::from_fn(2 * count, 1, |x, _| Rgb(if x % 2 == 0 { RED } else { [255; 3] }))
    }

    #[test]
    fn the_background_can_be_chosen() {
        let pixels = picture(&[RED, BLUE, [0; 3]]);
        assert_eq!(Canvas::from_colours(&pixels, &palette()).unwrap().unmatched.pixels, 1);
        assert_eq!(Canvas::from_colours(&pixels, &palette().background([[0; 3]])).unwrap().unmatched.pixels, 0);
    }

    /// The ground of this canvas is transparent black, and the cat is nearly black.
    #[test]
    fn what_is_transparent_is_unpainted() {
        let picture =
            image::load_from_memory(include_bytes!("../tests/fixtures/transparent.png")).unwrap().into_rgba8();
        let entries = [PaletteEntry::new([214, 60, 60], "red apple"), PaletteEntry::new([10, 10, 10], "cat")];
        let reading = Canvas::from_transparent(&picture, &Palette::new(entries)).unwrap();
        let painted = |region: &Region| region.mask.levels().iter().filter(|&&level| level == 255).count();
        assert_eq!(reading.canvas.regions().iter().map(painted).collect::<Vec<_>>(), [441, 441]);
        assert_eq!(reading.unmatched.pixels, 0);
        let half = RgbaImage::from_raw(3, 1, vec![255, 0, 0, 255, 255, 0, 0, 128, 255, 0, 0, 127]).unwrap();
        let reading = Canvas::from_transparent(&half, &Palette::new([PaletteEntry::new(RED, "apple")])).unwrap();
        assert_eq!((reading.canvas.regions()[0].mask.levels(), reading.unmatched.pixels), (vec![255, 255, 0], 0));
    }

    #[test]
    fn two_phrases_of_one_colour_are_an_error() {
        let entries = [PaletteEntry::new(RED, "apple"), PaletteEntry::new(RED, "cat")];
        let error = Canvas::from_colours(&picture(&[RED]), &Palette::new(entries)).unwrap_err();
        assert_eq!(error.to_string(), "phrases `apple` and `cat` have the same colour #ff0000");
    }

    #[test]
    fn an_unused_colour_is_an_error_that_names_the_phrase() {
        let error = Canvas::from_colours(&picture(&[RED, RED]), &palette()).unwrap_err();
        assert_eq!(error.to_string(), "the colour #0000ff of phrase `cat` is nowhere in the picture");
    }

    #[test]
    fn a_large_picture_is_picked_not_mixed() {
        let checked = |x: u32, _| Rgb(if x < 3000 { RED } else { BLUE });
        let reading = Canvas::from_colours(&RgbImage::from_fn(6000, 3, checked), &palette().tolerance(0)).unwrap();
        assert_eq!((reading.canvas.width(), reading.canvas.height()), (MAX_SIDE, 1));
        assert_eq!(reading.unmatched.pixels, 0);
        assert_eq!(reading.canvas.regions()[0].mask.levels().iter().filter(|&&level| level > 0).count(), 1024);
    }

    #[test]
    fn an_empty_picture_or_palette_is_an_error() {
        assert!(matches!(Canvas::from_colours(&RgbImage::new(0, 5), &palette()), Err(Error::MaskSides { .. })));
        assert!(matches!(Canvas::from_colours(&picture(&[RED]), &Palette::new([])), Err(Error::EmptyCanvas)));
    }
}
