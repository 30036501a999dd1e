//! `ediffi batch`: many requests, on one process or many, resumed after a kill.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use ediffi::{DeviceChoice, Pipeline, Request};
use ediffi_core::files::{remove_unfinished, write_with_folders};
use ediffi_core::runtime::cuda_devices;
use serde_json::{Value, json};

use super::bars::Bars;
use super::failure::Failure;
use super::model::Model;
use super::output::numbered;
use super::rank::Rank;

/// Draw a file of requests, one in JSON a line. What is there already is not drawn again, so the same command goes on after a kill.
///
/// Started by srun, mpirun or torchrun, every process draws its share, on a CUDA device of its own if there are some.
#[derive(Args)]
pub(crate) struct BatchCommand {
    /// The requests: JSON lines. Empty lines are passed over.
    requests: PathBuf,
    /// The folder for the pictures, 000001.png for line 1, and for index.jsonl.
    #[arg(long, default_value = "batch", value_name = "FOLDER")]
    out: PathBuf,
    /// Write the lines of the index to standard output, too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Model,
}

impl BatchCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let rank = Rank::of(|name| std::env::var(name).ok())?;
        let pipeline = self.model.builder_on(device(rank))?.open()?;
        let requests = self.requests(&pipeline)?;
        let mut index = String::new();
        for (&line, request) in requests.iter().filter(|(line, _)| rank.has(**line - 1)) {
            let files = files(&self.out, line, request.images);
            if !are_drawn(request, &files)? {
                draw(&pipeline, request, &files)?;
            }
            let line = entry(line, request, &files);
            if self.json {
                println!("{line}");
            }
            index.push_str(&format!("{line}\n"));
        }
        let name = match rank.size {
            1 => "index.jsonl".to_owned(),
            size => format!("index-{}-of-{size}.jsonl", rank.rank + 1),
        };
        write_with_folders(&self.out.join(name), index.as_bytes())?;
        Ok(())
    }

    /// The requests by the numbers of their lines. All are checked before anything is drawn.
    fn requests(&self, pipeline: &Pipeline) -> Result<BTreeMap<usize, Request>, Failure> {
        let text = std::fs::read_to_string(&self.requests);
        let text = text.map_err(|error| format!("{}: {error}", self.requests.display()))?;
        let (mut requests, mut wrong) = (BTreeMap::new(), Vec::new());
        for (line, json) in (1..).zip(text.lines()).filter(|(_, json)| !json.trim().is_empty()) {
            let read = Request::from_json(json.as_bytes());
            match read.and_then(|request| pipeline.validate(&request).map(|()| request)) {
                Ok(request) => drop(requests.insert(line, request)),
                Err(error) => wrong.push(format!("line {line}: {error}")),
            }
        }
        if wrong.is_empty() { Ok(requests) } else { Err(Failure::refused(wrong)) }
    }
}

/// The device of a process: of several on a machine with CUDA devices, each has the next one.
fn device(rank: Rank) -> DeviceChoice {
    match cuda_devices() {
        Ok(count) if count > 0 && rank.size > 1 => DeviceChoice::Cuda(rank.local % count),
        _ => DeviceChoice::Auto,
    }
}

fn files(out: &Path, line: usize, images: usize) -> Vec<PathBuf> {
    let path = out.join(format!("{line:06}.png"));
    (0..images).map(|index| numbered(&path, index, images)).collect()
}

/// Whether all files of a request are there.
///
/// # Errors
/// A file that holds another request.
fn are_drawn(request: &Request, files: &[PathBuf]) -> Result<bool, Failure> {
    let mut all = true;
    for (index, file) in (0..).zip(files) {
        if !file.is_file() {
            all = false;
            continue;
        }
        let mut kept = Request::from_png(file)?;
        // Large pictures of a style are kept scaled down.
        kept.style.clone_from(&request.style);
        if kept != request.clone().seed(request.seed.wrapping_add(index)).images(1) {
            return Err(format!("{} holds another request: choose another folder, or remove it", file.display()).into());
        }
    }
    Ok(all)
}

/// Draws a request whole: a file is there if and only if its picture is finished.
fn draw(pipeline: &Pipeline, request: &Request, files: &[PathBuf]) -> Result<(), Failure> {
    for file in files {
        // What a kill has left half written.
        remove_unfinished(file)?;
    }
    let generation = pipeline.generate_with(request, &mut Bars::default())?;
    for (image, file) in generation.images.iter().zip(files) {
        write_with_folders(file, &image.to_png()?)?;
    }
    Ok(())
}

fn entry(line: usize, request: &Request, files: &[PathBuf]) -> Value {
    let name = |file: &PathBuf| file.file_name().map(|name| name.to_string_lossy().into_owned());
    json!({ "line": line, "prompt": request.prompt, "seed": request.seed, "files": files.iter().filter_map(name).collect::<Vec<_>>() })
}
