//! Encodes a prompt once, keeps the embeddings in a file, and draws them with several seeds. The encoders are in memory
//! only while they encode; a second run with the same prompt does not need them at all.
//!
//! `cargo run --release --example encode_once -- "a red apple" 4 models/icons`
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::path::Path;

use ediffi::{Embeddings, Error, Pipeline, Request};

/// Where the embeddings are kept.
const FILE: &str = "embeddings.safetensors";

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or_else(|| "a red apple".to_owned());
    let images: u64 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(4);
    let model = arguments.next().map_or_else(ediffi::icons, |folder| Ok(folder.into()))?;

    let pipeline = Pipeline::open(model)?;
    let embeddings = embeddings(&pipeline, &Request::new(prompt))?;
    for seed in 0..images {
        let request = embeddings.request().seed(seed);
        let generation = pipeline.sample(&embeddings, &request)?;
        for image in &generation.images {
            let path = format!("seed-{seed}.png");
            image.save(&path)?;
            println!("{path}");
        }
    }
    Ok(())
}

/// Those in the file if they are of this prompt, else new ones.
fn embeddings(pipeline: &Pipeline, request: &Request) -> Result<Embeddings, Error> {
    if Path::new(FILE).is_file() {
        let kept = Embeddings::load(FILE)?;
        if kept.request() == *request {
            println!("embeddings from {FILE}");
            return Ok(kept);
        }
    }
    let embeddings = pipeline.encode(request)?;
    embeddings.save(FILE)?;
    println!("embeddings written to {FILE}");
    Ok(embeddings)
}
