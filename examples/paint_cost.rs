//! What paint costs: the time of a step of the first stage with a canvas over that without one, both measured in one run.
//!
//! `cargo run --release --example paint_cost` draws the same request with and without a canvas in turns, so that whatever
//! else the machine does falls on both alike, and prints the median of each and their ratio.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what it is for")]

#[path = "shared/report.rs"]
mod report;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ediffi::{Canvas, Pipeline, Region, Request};
use report::report;

/// Time paint.
#[derive(Debug, Parser)]
struct Arguments {
    /// The model folder.
    #[arg(long, default_value = "models/icons")]
    model: PathBuf,
    /// How often each of the two is drawn; once more before is not counted.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Images of a request, computed together.
    #[arg(long, default_value_t = 1)]
    images: usize,
    /// What to draw; its first two phrases below are painted.
    #[arg(long, default_value = "a red apple and a cat")]
    prompt: String,
    /// What to paint, in the left half and in the right half.
    #[arg(long, num_args = 2, default_values = ["red apple", "cat"])]
    phrases: Vec<String>,
}

fn main() -> ExitCode {
    report(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let pipeline = Pipeline::open(&arguments.model)?;
    let first = pipeline.manifest().stages.first().ok_or("the model has no stage")?.name.clone();
    let plain = Request::new(&arguments.prompt).images(arguments.images).last_stage(&first);
    let half = |(side, phrase): (u32, &String)| Region::rectangle(phrase, (64, 64), 32 * side..32 * (side + 1), 0..64);
    let regions = (0..).zip(&arguments.phrases).map(half).collect::<Result<Vec<_>, _>>()?;
    let painted = plain.clone().canvas(Canvas::new(regions)?);
    let mut times = [Vec::new(), Vec::new()];
    let mut steps = 0;
    for run in 0..=arguments.runs.max(1) {
        for (request, times) in [&plain, &painted].into_iter().zip(&mut times) {
            let generation = pipeline.generate(request)?;
            let stage = generation.stages.first().ok_or("no stage ran")?;
            steps = stage.plan.plan.steps().len();
            if run > 0 {
                times.push(1e3 * stage.elapsed.as_secs_f64() / steps as f64);
            }
        }
    }
    // Of each pair the two were drawn one after the other, so its ratio suffers least from what else the machine did.
    let [plain, painted] = times;
    let ratio = median(plain.iter().zip(&painted).map(|(plain, painted)| painted / plain).collect());
    let runs = plain.len();
    println!(
        "{:?}, stage {first}, {steps} steps, {} image(s), {runs} runs of each\n",
        pipeline.runtime(),
        arguments.images
    );
    println!("| | ms a step, median |\n|---|---|\n| without a canvas | {:.2} |", median(plain));
    println!("| with a canvas | {:.2} |\n| ratio, median of the pairs | {ratio:.3} |", median(painted));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
