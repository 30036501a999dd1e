//! Line plots as small PNG files.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use ediffi_core::files::write_with_folders;
use image::RgbImage;
use plotters::prelude::*;

use crate::bootstrap::Measure;
use crate::error::{Error, Result};
use crate::palette;

/// Width and height in pixels.
const SIZE: (u32, u32) = (720, 440);
const FONT: &str = "sans-serif";
/// Height of a line of the legend, as a part of that of the data.
const LEGEND_LINE: f64 = 0.06;

/// Colours that differ for most eyes (Okabe & Ito 2008), and a grey for a ninth line.
const COLOURS: [RGBColor; 9] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(150, 140, 20),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];

#[derive(Debug, Clone)]
pub struct Axis {
    /// What it says beside it.
    pub label: String,
    /// Whether equal distances are equal ratios.
    pub logarithmic: bool,
}

/// A point: x, y, and the interval of y where there is one.
pub type Point = (f64, f64, Option<(f64, f64)>);

/// A line with its points.
#[derive(Debug, Clone)]
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// Its points, from the left.
    pub points: Vec<Point>,
}

#[derive(Debug, Clone)]
pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

impl Line {
    /// A line of what was measured at each x.
    pub fn measured(name: &str, points: impl Iterator<Item = (f64, Option<Measure>)>) -> Self {
        let point = |(x, measure): (f64, Option<Measure>)| measure.map(|m| (x, m.value, Some((m.low, m.high))));
        Self { name: name.to_owned(), points: points.filter_map(point).collect() }
    }

    /// A level line between two x, of what does not depend on x.
    pub fn level(name: &str, measure: Option<Measure>, ends: [f64; 2]) -> Self {
        let points = measure.map(|measure| ends.map(|x| (x, measure.value, None)).to_vec());
        Self { name: name.to_owned(), points: points.unwrap_or_default() }
    }
}

impl Axis {
    /// An axis of equal differences.
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), logarithmic: false }
    }

    /// An axis of equal ratios; values that are not positive are left out.
    pub fn logarithmic(label: &str) -> Self {
        Self { label: label.to_owned(), logarithmic: true }
    }

    /// The place of a value on it.
    fn place(&self, value: f64) -> Option<f64> {
        let place = if self.logarithmic { value.log10() } else { value };
        place.is_finite().then_some(place)
    }

    /// A mark of it in words.
    fn words(&self, place: f64) -> String {
        let value = if self.logarithmic { 10_f64.powf(place) } else { place };
        let digits = if value == 0.0 { 0.0 } else { (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) };
        let text = format!("{value:.*}", digits as usize);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }

    /// A range that holds all places, with some room at both ends.
    fn range(places: impl Iterator<Item = f64>) -> Range<f64> {
        let (low, high) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return 0.0..1.0;
        }
        let room = (0.05 * (high - low)).max(1e-3);
        low - room..high + room
    }
}

impl Plot {
    /// Draws it as a PNG file.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(write_with_folders(path, &self.png()?)?)
    }

    fn png(&self) -> Result<Vec<u8>> {
        let failed = |reason: String| Error::Plot { name: self.title.clone(), reason };
        let (width, height) = SIZE;
        let mut pixels = vec![255_u8; width as usize * height as usize * 3];
        font().map_err(failed)?;
        self.draw(&mut pixels).map_err(|error| failed(error.to_string()))?;
        let picture = RgbImage::from_raw(width, height, pixels).ok_or_else(|| failed("no picture".to_owned()))?;
        palette::indexed(&picture).map_err(|error| failed(error.to_string()))
    }

    fn draw(&self, pixels: &mut [u8]) -> std::result::Result<(), Box<dyn std::error::Error + '_>> {
        let place = |&(x, y, ends): &Point| -> Option<Point> {
            let (x, y) = (self.x.place(x)?, self.y.place(y)?);
            // An end that is not on a logarithmic axis is drawn as the point itself.
            Some((x, y, ends.map(|(a, b)| (self.y.place(a).unwrap_or(y), self.y.place(b).unwrap_or(y)))))
        };
        let lines: Vec<(&str, Vec<Point>)> = self
            .lines
            .iter()
            .map(|line| (line.name.as_str(), line.points.iter().filter_map(place).collect()))
            .collect();
        let all = || lines.iter().flat_map(|(_, points)| points);
        let x = Axis::range(all().map(|point| point.0));
        let mut y = Axis::range(all().flat_map(|&(_, y, ends)| [y, ends.map_or(y, |e| e.0), ends.map_or(y, |e| e.1)]));
        if lines.len() > 1 {
            // Room above the data, so that the legend covers none of it.
            y.end += (y.end - y.start) * LEGEND_LINE * (lines.len() as f64 + 0.5);
        }
        let area = BitMapBackend::with_buffer(pixels, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(62)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE.mix(0.0))
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|place| self.x.words(*place))
            .y_label_formatter(&|place| self.y.words(*place))
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 14))
            .draw()?;
        for ((name, points), colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points.iter().map(|&(x, y, _)| (x, y)), colour.stroke_width(2)))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(points.iter().map(|&(x, y, _)| Circle::new((x, y), 3, colour.filled())))?;
            chart.draw_series(points.iter().filter_map(|&(x, y, ends)| {
                let (low, high) = ends?;
                Some(ErrorBar::new_vertical(x, low, y, high, colour, 6))
            }))?;
        }
        if lines.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.85))
                .border_style(RGBColor(200, 200, 200))
                .label_font((FONT, 13))
                .draw()?;
        }
        area.present()?;
        Ok(())
    }
}

/// Hands the font to the plotter, once.
fn font() -> std::result::Result<(), String> {
    static KNOWN: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    KNOWN
        .get_or_init(|| {
            plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
                .map_err(|_| "the font cannot be read".to_owned())
        })
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<Point>) -> Plot {
        Plot {
            title: "a plot".to_owned(),
            x: Axis::logarithmic("sigma"),
            y: Axis::linear("loss"),
            lines: vec![Line { name: "one".to_owned(), points }],
        }
    }

    #[test]
    fn a_plot_is_a_png_that_shows_its_line_and_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.png");
        plot(vec![(0.1, 1.0, Some((0.5, 1.5))), (10.0, 2.0, None)]).save(&path).unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), SIZE);
        let blue = picture.pixels().filter(|pixel| pixel.0 == [0, 114, 178]).count();
        assert!(blue > 500, "{blue} pixels of the line");
        let dark = picture.rows().take(40).flatten().filter(|pixel| pixel.0.iter().all(|&c| c < 100)).count();
        assert!(dark > 50, "{dark} pixels of the title");
    }

    #[test]
    fn values_that_have_no_place_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        plot(vec![(0.0, 1.0, None), (1.0, f64::NAN, None)]).save(&folder.path().join("empty.png")).unwrap();
        plot(vec![(1.0, 1.0, None)]).save(&folder.path().join("single.png")).unwrap();
    }

    #[test]
    fn marks_read_well() {
        let (x, y) = (Axis::logarithmic("x"), Axis::linear("y"));
        assert_eq!([-2.0, 0.0, 1.0, 2.0].map(|place| x.words(place)), ["0.01", "1", "10", "100"]);
        assert_eq!([0.0, 0.25, 80.0, 1200.0].map(|place| y.words(place)), ["0", "0.25", "80", "1200"]);
    }
}
