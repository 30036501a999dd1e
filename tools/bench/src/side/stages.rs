//! One stage of a generation: paint, experts, tiles.

use ediffi::{Canvas, DeviceChoice, Pipeline, Precision, Region, Request};

use ediffi_core::pool::Residency;

use super::ready::Ready;
use crate::job::Stage;
use crate::result::Result;

/// Each of them may be painted; more regions than words take them in turn.
const WORDS: [&str; 8] = ["lemon", "sunflower", "panda", "frog", "umbrella", "mushroom", "apple", "cat"];
/// Side of a canvas.
const CANVAS: u32 = 64;

pub(super) fn open(stage: Stage, precision: Precision) -> Result<Ready> {
    let builder = Pipeline::builder(&stage.model).device(DeviceChoice::Cpu).precision(precision);
    let pipeline = builder.residency(stage.residency).batch(1).open()?;
    let request = Request::new(WORDS.join(" and ")).images(stage.pictures);
    let mut request = request.last_stage(&stage.stage).size(stage.side, stage.side);
    if stage.regions > 0 {
        let regions = (0..stage.regions).map(|index| region(index, stage.regions)).collect::<Result<Vec<_>>>()?;
        request = request.canvas(Canvas::new(regions)?);
    }
    if let Some(steps) = stage.steps {
        let names: Vec<_> = pipeline.manifest().stages.iter().map(|stage| stage.name.clone()).collect();
        let last = names.iter().position(|name| *name == stage.stage).unwrap_or(names.len());
        request = names.into_iter().take(last + 1).fold(request, |request, name| request.steps(name, steps));
    }
    if let Some(tile) = stage.tile {
        request = request.tiling(&stage.stage, ediffi::Tiling { tile, overlap: tile / 4 });
    }
    let evaluate = move || {
        let generation = pipeline.generate(&request)?;
        let report = generation.stages.last().ok_or("no stage ran")?;
        Ok(report.elapsed.as_secs_f64())
    };
    Ok(Ready { evaluate: Box::new(evaluate), flop: None })
}

/// All that there is to do for 64 pictures of 64 pixels, their texts included: of as many prompts, or of one.
pub(super) fn many(different: bool, precision: Precision) -> Result<Ready> {
    let builder = Pipeline::builder("models/icons").device(DeviceChoice::Cpu).precision(precision);
    let pipeline = builder.residency(Residency::All).keep_encoders(true).open()?;
    let mut requests = Vec::new();
    for word in WORDS {
        for style in ["noto", "flat", "ink", "vintage"] {
            for background in ["yellow", "blue"] {
                let request = Request::new(format!("{word} on a {background} background, {style} style"));
                requests.push(request.seed(requests.len() as u64).last_stage("base"));
            }
        }
    }
    if !different {
        let count = requests.len();
        requests.truncate(1);
        requests = requests.into_iter().map(|request| request.images(count)).collect();
    }
    // A text that was encoded before is found again: each call has others.
    let mut call = 0_u64;
    Ok(Ready::timing(move || {
        call += 1;
        let told = |request: &Request| {
            let mut request = request.clone();
            request.prompt = format!("{}, {call}", request.prompt);
            request
        };
        Ok(pipeline.generate_many(&requests.iter().map(told).collect::<Vec<_>>())?)
    }))
}

/// A column of the canvas, one of `count`.
fn region(index: u32, count: u32) -> Result<Region> {
    let word = WORDS.iter().cycle().nth(index as usize).copied().unwrap_or_default();
    let columns = CANVAS * index / count..CANVAS * (index + 1) / count;
    Ok(Region::rectangle(word, (CANVAS, CANVAS), columns, 0..CANVAS)?)
}
