//! Where the time of a generation goes: the table of `docs/results/performance.md`.
//!
//! `cargo run --release --example stage_times` runs a request several times and prints the median of each stage. Each run has
//! a prompt of its own, because a pipeline keeps the embeddings of the last ones.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::PathBuf;

use clap::Parser;
use ediffi::{Pipeline, Request};

/// Time the stages.
#[derive(Debug, Parser)]
struct Arguments {
    /// The model folder (default: that of the variable EDIFFI_MODEL, or models/icons).
    #[arg(long)]
    model: Option<PathBuf>,
    /// How often the request runs; one more run before them is not counted.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Images of the request.
    #[arg(long, default_value_t = 1)]
    images: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let pipeline = Pipeline::open(arguments.model.clone().map_or_else(ediffi::icons, Ok)?)?;
    let request = |run: usize| {
        let prompt = format!("a red apple left of a cat {run}");
        Request::new(prompt).images(arguments.images)
    };
    pipeline.generate(&request(0))?;
    let runs =
        (1..=arguments.runs.max(1)).map(|run| pipeline.generate(&request(run))).collect::<Result<Vec<_>, _>>()?;
    println!("{:?}, {} image(s), median of {} runs\n", pipeline.runtime(), arguments.images, runs.len());
    println!("| part | size | steps | seconds |\n|---|---|---|---|");
    let encoding = runs.iter().map(|run| run.encoding.as_secs_f64()).collect();
    println!("| encoders | | | {:.2} |", median(encoding));
    let stages = runs.first().map_or(0, |run| run.stages.len());
    for index in 0..stages {
        let reports: Vec<_> = runs.iter().filter_map(|run| run.stages.get(index)).collect();
        if let Some(report) = reports.first() {
            let plan = &report.plan;
            let steps = plan.plan.steps().len();
            let seconds = median(reports.iter().map(|report| report.elapsed.as_secs_f64()).collect());
            println!("| {} | {}x{} | {steps} | {seconds:.2} |", plan.stage, plan.width, plan.height);
        }
    }
    let whole = |run: &ediffi::Generation| {
        run.encoding.as_secs_f64() + run.stages.iter().map(|stage| stage.elapsed.as_secs_f64()).sum::<f64>()
    };
    println!("| all | | | {:.2} |", median(runs.iter().map(whole).collect()));
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
