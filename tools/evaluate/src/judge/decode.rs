//! From the network's numbers to what it says.

use tch::{Kind, Tensor};
use train_icons::colour::Colour;
use train_icons::concepts::SMALL;
use train_icons::icon_set::IconSet;

use super::network::{CELLS, Output};
use super::verdict::{Detection, Verdict};
use crate::error::Result;

/// The judge says that it sees an object from this confidence on.
pub const CONFIDENT: f32 = 0.3;
/// The most objects of a picture.
const MOST: usize = 8;
/// A weaker detection whose centre is nearer to a stronger one than this part of their mean size is the same object.
const SAME: f32 = 0.35;

/// Reads verdicts from an output.
pub(crate) fn decode(output: &Output) -> Result<Vec<Verdict>> {
    let heat = output.heat.f_to_kind(Kind::Float)?.f_sigmoid()?;
    // A centre is where no neighbour is surer.
    let highest = heat.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false)?;
    let peaks = heat.f_mul(&heat.f_eq_tensor(&highest)?.f_to_kind(Kind::Float)?)?;
    let rows = |x: &Tensor| -> Result<Vec<Vec<f32>>> {
        let x = x.f_to_kind(Kind::Float)?.f_flatten(1, -1)?.f_contiguous()?;
        (0..x.size2()?.0).map(|row| Ok(Vec::try_from(x.f_get(row)?)?)).collect()
    };
    let (peaks, boxes, colours) = (rows(&peaks)?, rows(&output.boxes)?, rows(&output.colour)?);
    let (styles, style) = (rows(&output.styles)?, rows(&output.style)?);
    let (backgrounds, features) = (rows(&output.background)?, rows(&output.features)?);
    let each = peaks.iter().zip(&boxes).zip(&colours).zip(&styles).zip(&style).zip(&backgrounds).zip(features);
    Ok(each
        .map(|((((((peaks, boxes), colours), styles), style), backgrounds), features)| {
            let seen = detections(peaks, boxes, colours);
            let (style, style_confidence) = best(&shares(&scene_style(&seen, styles, style)));
            Verdict {
                detections: seen.into_iter().map(|(_, detection)| detection).collect(),
                style: IconSet::ALL.get(style).copied().unwrap_or(IconSet::Noto),
                style_confidence,
                background: colour(backgrounds),
                features,
            }
        })
        .collect())
}

/// Logits of the picture's style: the mean of what its objects look like, as the style is theirs; that of the whole picture
/// where there is none.
fn scene_style(seen: &[(usize, Detection)], styles: &[f32], whole: &[f32]) -> Vec<f32> {
    if seen.is_empty() {
        return whole.to_vec();
    }
    let area = (CELLS * CELLS) as usize;
    let mean = |channel: usize| {
        let at = |cell: usize| styles.get(channel * area + cell).copied().unwrap_or(0.0);
        seen.iter().map(|(cell, _)| at(*cell)).sum::<f32>() / seen.len() as f32
    };
    (0..IconSet::ALL.len()).map(mean).collect()
}

/// The softmax of logits.
fn shares(logits: &[f32]) -> Vec<f32> {
    let highest = best(logits).1;
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The detections of a picture, each with its cell.
fn detections(peaks: &[f32], boxes: &[f32], colours: &[f32]) -> Vec<(usize, Detection)> {
    let area = (CELLS * CELLS) as usize;
    let mut sure: Vec<(usize, f32)> =
        peaks.iter().copied().enumerate().filter(|(_, confidence)| *confidence >= CONFIDENT).collect();
    sure.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut found: Vec<(usize, Detection)> = Vec::new();
    for (place, confidence) in sure {
        let (class, cell) = (place / area, place % area);
        let (column, line) = (cell % CELLS as usize, cell / CELLS as usize);
        let at = |map: &[f32], channel: usize| map.get(channel * area + cell).copied().unwrap_or(0.0);
        let (x, y) = ((column as f32 + at(boxes, 0)) / CELLS as f32, (line as f32 + at(boxes, 1)) / CELLS as f32);
        let (width, height) = (at(boxes, 2).exp().min(1.0), at(boxes, 3).exp().min(1.0));
        let size = width.max(height);
        let again = |(_, other): &(usize, Detection)| {
            let apart = (other.x - x).hypot(other.y - y);
            apart < SAME * (other.width.max(other.height) + size) / 2.0
        };
        if found.iter().any(again) {
            continue;
        }
        let shades: Vec<f32> = (0..Colour::ALL.len()).map(|channel| at(colours, channel)).collect();
        let concept = SMALL.get(class).copied().unwrap_or_default().to_owned();
        found.push((cell, Detection { concept, confidence, x, y, width, height, colour: colour(&shades) }));
        if found.len() == MOST {
            break;
        }
    }
    found
}

fn colour(logits: &[f32]) -> Colour {
    Colour::ALL.get(best(logits).0).copied().unwrap_or(Colour::White)
}

/// The place and value of the highest number.
fn best(values: &[f32]) -> (usize, f32) {
    let highest = values.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    highest.unwrap_or((0, 0.0))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::super::network::{COLOURS, CONCEPTS, FEATURES, STYLES};
    use super::*;

    /// An output that sees nothing.
    fn empty() -> Output {
        let options = (Kind::Float, Device::Cpu);
        let map = |channels| Tensor::zeros([1, channels, CELLS, CELLS], options);
        Output {
            heat: map(CONCEPTS) - 9.0,
            boxes: map(4),
            colour: map(COLOURS),
            styles: map(STYLES),
            style: Tensor::from_slice(&[0.0_f32, 0.0, 0.0, 5.0]).reshape([1, STYLES]),
            background: Tensor::from_slice(&[0.0_f32, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0])
                .reshape([1, COLOURS]),
            features: Tensor::zeros([1, FEATURES], options),
        }
    }

    /// Says that `class` is at a cell, a quarter of a cell from its corner, half as wide and a quarter as high as the picture.
    fn put(output: &Output, class: i64, (column, line): (i64, i64), logit: f64) {
        let set = |map: &Tensor, channel: i64, value: f64| {
            let _ = map.select(1, channel).select(1, line).select(1, column).fill_(value);
        };
        set(&output.heat, class, logit);
        for (channel, value) in (0..).zip([0.25, 0.25, 0.5_f64.ln(), 0.25_f64.ln()]) {
            set(&output.boxes, channel, value);
        }
        set(&output.colour, 3, 4.0);
        set(&output.styles, 2, 6.0);
    }

    fn seen(output: &Output) -> Verdict {
        decode(output).unwrap().remove(0)
    }

    #[test]
    fn an_object_is_read_as_it_is_written() {
        let output = empty();
        put(&output, 10, (4, 12), 3.0);
        let verdict = seen(&output);
        let [only] = &verdict.detections[..] else { panic!("{verdict:?}") };
        assert_eq!((only.concept.as_str(), only.colour), (SMALL[10], Colour::Red));
        assert_eq!((only.x, only.y), (4.25 / 16.0, 12.25 / 16.0));
        assert!((only.width - 0.5).abs() < 1e-6 && (only.height - 0.25).abs() < 1e-6);
        assert!((only.confidence - 0.952_574).abs() < 1e-5);
        // The style is the object's, not that of the picture as a whole.
        assert_eq!((verdict.style, verdict.background), (IconSet::Ink, Colour::Blue));
    }

    #[test]
    fn nothing_is_nothing() {
        let verdict = seen(&empty());
        assert!(verdict.detections.is_empty());
        assert_eq!(verdict.style, IconSet::Vintage, "the picture's own style where there is no object");
    }

    #[test]
    fn one_place_holds_one_object_and_the_surest_comes_first() {
        let output = empty();
        put(&output, 1, (4, 4), 1.0);
        put(&output, 2, (5, 5), 2.0);
        put(&output, 1, (12, 4), 0.5);
        put(&output, 7, (12, 12), -2.0);
        let names: Vec<String> = seen(&output).detections.into_iter().map(|detection| detection.concept).collect();
        // The neighbour is the same object seen as something less sure, and the last one is not sure enough.
        assert_eq!(names, [SMALL[2], SMALL[1]]);
    }
}
