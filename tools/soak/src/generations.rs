//! A worker that serves requests of all kinds for a long time.

use std::path::Path;

use ediffi::{Canvas, Error, JobHandle, Pipeline, Region, Request, Worker};

use crate::memory;
use crate::report::Outcome;
use crate::result::Result;

/// Requests after which memory should not grow.
const WARM: usize = 100;
/// How much memory may have grown since then, in bytes: what an allocator may keep, and far less than a picture for each request.
const GROWTH: u64 = 32 << 20;

/// How a request should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Drawn(usize),
    Refused,
    /// It was cancelled, if it was not drawn before.
    Cancelled,
}

/// Serves `count` requests with the base alone, one step each.
pub fn run(model: &Path, count: usize) -> Result<Outcome> {
    let worker = Worker::new(Pipeline::open(model)?)?;
    let mut outcome = Outcome { done: format!("{count} requests to one worker"), ..Outcome::default() };
    let (mut drawn, mut refused, mut cancelled, mut warm) = (0, 0, 0, 0);
    for number in 0..count {
        let (request, end) = request(number)?;
        let ended = worker.submit(request).and_then(|job| wait(job, end));
        match (end, ended) {
            (End::Drawn(expected), Ok(images)) if images == expected => drawn += images,
            (End::Refused, Err(Error::InvalidRequest { .. })) => refused += 1,
            (End::Cancelled, Err(Error::Cancelled)) => cancelled += 1,
            (End::Cancelled, Ok(images)) => drawn += images,
            (_, ended) => outcome.faults.push(format!("request {number} should have been {end:?} and was {ended:?}")),
        }
        if number + 1 == WARM.min(count) {
            warm = memory::resident()?;
        }
    }
    let end = memory::resident()?;
    if end > warm + GROWTH {
        outcome.faults.push(format!("memory grew from {} to {} MiB", warm >> 20, end >> 20));
    }
    outcome.seen = format!(
        "{drawn} pictures, {refused} requests refused, {cancelled} cancelled; memory {} MiB after {} requests, {} MiB at the end",
        warm >> 20,
        WARM.min(count),
        end >> 20
    );
    Ok(outcome)
}

fn wait(job: JobHandle, end: End) -> ediffi::Result<usize> {
    if end == End::Cancelled {
        job.cancel();
    }
    Ok(job.wait()?.images.len())
}

/// Request `number`, and how it should end.
fn request(number: usize) -> Result<(Request, End)> {
    let plain = |prompt: &str| Request::new(prompt).seed(number as u64).last_stage("base").steps("base", 1);
    Ok(match number % 8 {
        0 => (plain("a red apple"), End::Drawn(1)),
        1 => (plain("a cat left of a dog").images(3), End::Drawn(3)),
        2 => {
            let half = |phrase, x| Region::rectangle(phrase, (64, 64), x, 0..64);
            let regions = [half("cat", 0..32)?, half("dog", 32..64)?];
            (plain("a cat and a dog").canvas(Canvas::new(regions)?), End::Drawn(1))
        }
        3 => (plain("a star").negative_prompt("a moon").guidance("base", 5.0), End::Drawn(1)),
        4 => (plain("two fish").images(2), End::Cancelled),
        5 => (plain("a tree").steps("base", 0), End::Refused),
        6 => (plain(&"a very long tale ".repeat(200)), End::Refused),
        _ => (plain("a house").size(128, 64), End::Drawn(1)),
    })
}
