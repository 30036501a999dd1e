//! `ediffi batch`: many requests, on one process or many, resumed after a kill.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use ediffi::{Event, GeneratedImage, Observer, Pipeline, Provenance, Request, Style, StyleSource};
use ediffi_core::files::{remove_unfinished, write_with_folders};
use serde_json::{Value, json};

use super::bars::Bars;
use super::failure::Failure;
use super::model::Model;
use super::output::{expect_other, numbered, say};
use super::rank::Rank;

/// Draw a file of requests, one in JSON a line.
///
/// What is there already is not drawn again, so the same command goes on after a kill.
///
/// Started by srun, mpirun or torchrun, every process draws its share, on a CUDA device of its own if there are some.
#[derive(Args)]
pub(crate) struct BatchCommand {
    /// The requests: JSON lines. Empty lines are passed over.
    requests: PathBuf,
    /// The folder for the pictures, as 000001.png, and index.jsonl.
    #[arg(long, default_value = "batch", value_name = "FOLDER")]
    out: PathBuf,
    /// How many lines are drawn together.
    ///
    /// A kill loses at most so many; another number changes the last bits of pictures.
    #[arg(long, default_value = "8", value_name = "LINES")]
    together: NonZeroU8,
    /// Write the lines of the index to standard output, too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: Model,
}

impl BatchCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let rank = Rank::of_process()?;
        let index_file = self.index(rank)?;
        let pipeline = self.model.builder_on(rank.device())?.open()?;
        let requests = self.requests(&pipeline)?;
        let jobs = requests.iter().map(|(&line, request)| Job {
            request,
            files: files(&self.out, line, request.images),
            line,
        });
        let jobs: Vec<Job<'_>> = jobs.collect();
        let mut index = String::new();
        let chunks = jobs.chunks(usize::from(self.together.get())).enumerate();
        let mut own = Vec::new();
        for (_, together) in chunks.filter(|(chunk, _)| rank.has(*chunk)) {
            // All of them or none: a picture's last bits depend on what is drawn beside it.
            let mut drawn = true;
            for job in together {
                drawn &= job.is_drawn(&pipeline)?;
            }
            own.push((together, drawn));
        }
        for (together, drawn) in own {
            if !drawn {
                draw(&pipeline, together)?;
            }
            for line in together.iter().map(Job::entry) {
                if self.json {
                    say(&line.to_string())?;
                }
                index.push_str(&format!("{line}\n"));
            }
        }
        write_with_folders(&index_file, index.as_bytes())?;
        Ok(())
    }

    /// The file of the index of a process, which can be written in the end.
    fn index(&self, rank: Rank) -> Result<PathBuf, Failure> {
        if self.out.exists() && !self.out.is_dir() {
            let reason = format!("--out {}: it is a file, and a folder is wanted", self.out.display());
            return Err(Failure::usage(reason));
        }
        let index = self.out.join(match rank.size {
            1 => "index.jsonl".to_owned(),
            size => format!("index-{}-of-{size}.jsonl", rank.rank + 1),
        });
        expect_other(&index, &self.requests)?;
        Ok(index)
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

fn files(out: &Path, line: usize, images: usize) -> Vec<PathBuf> {
    let path = out.join(format!("{line:06}.png"));
    (0..images).map(|index| numbered(&path, index, images)).collect()
}

/// A request, its line, and the files of its images.
struct Job<'a> {
    request: &'a Request,
    line: usize,
    files: Vec<PathBuf>,
}

impl Job<'_> {
    /// Whether all files are there.
    ///
    /// # Errors
    /// A file that holds another request, or was made by another model.
    fn is_drawn(&self, pipeline: &Pipeline) -> Result<bool, Failure> {
        let mut all = true;
        for (index, file) in (0..).zip(&self.files) {
            if !file.is_file() {
                all = false;
                continue;
            }
            let named = |error: ediffi::Error| Failure::of_file(error, file);
            let mut kept = Request::from_png(file).map_err(named)?;
            if let (Some(kept), Some(own)) = (&mut kept.style, &self.request.style)
                && same_but_for_pictures(kept, own)
            {
                // Large pictures are kept scaled down.
                kept.references.clone_from(&own.references);
            }
            let own = self.request.clone().seed(self.request.seed.wrapping_add(index)).images(1);
            let why = if kept != own {
                Some("another request".to_owned())
            } else if index == 0 {
                let made = Provenance::from_png(file).map_err(named)?;
                made.differences(&pipeline.provenance(self.request)?).into_iter().next().map(|what| what.to_string())
            } else {
                None
            };
            if let Some(why) = why {
                let file = file.display();
                return Err(format!("{file} was made otherwise ({why}): choose another folder, or remove it").into());
            }
        }
        Ok(all)
    }

    /// A line of the index.
    fn entry(&self) -> Value {
        let Self { request, line, files } = self;
        let name = |file: &PathBuf| file.file_name().map(|name| name.to_string_lossy().into_owned());
        let files = files.iter().filter_map(name).collect::<Vec<_>>();
        json!({ "line": line, "prompt": request.prompt, "seed": request.seed, "files": files })
    }
}

/// Whether two styles are the same, as far as that can be seen when pictures were scaled down.
fn same_but_for_pictures(a: &Style, b: &Style) -> bool {
    let alike =
        |a: &StyleSource, b: &StyleSource| matches!((a, b), (StyleSource::Image(_), StyleSource::Image(_))) || a == b;
    let pairs = a.references.iter().zip(&b.references);
    a.strength == b.strength
        && a.references.len() == b.references.len()
        && pairs.into_iter().all(|(a, b)| a.weight == b.weight && alike(&a.source, &b.source))
}

/// Draws requests together. A file is there if and only if its picture is finished.
fn draw(pipeline: &Pipeline, jobs: &[Job<'_>]) -> Result<(), Failure> {
    let files: Vec<&PathBuf> = jobs.iter().flat_map(|job| &job.files).collect();
    for file in &files {
        // What a kill has left half written.
        remove_unfinished(file)?;
    }
    let requests: Vec<Request> = jobs.iter().map(|job| job.request.clone()).collect();
    let mut written = Written { bars: Bars::default(), files, failure: None };
    let drawn = pipeline.generate_many_with(&requests, &mut written);
    match (written.failure, drawn) {
        (Some(failure), _) => Err(failure),
        (None, Err(ediffi::Error::OfMany { index, source })) => {
            let line = jobs.get(index).map_or(0, |job| job.line);
            Err(Failure::from(*source).of(&format!("line {line}")))
        }
        (None, drawn) => Ok(drawn.map(drop)?),
    }
}

/// Writes each image when it is finished, behind the progress bars.
struct Written<'a> {
    bars: Bars,
    files: Vec<&'a PathBuf>,
    failure: Option<Failure>,
}

impl Written<'_> {
    fn write(&self, index: usize, image: &GeneratedImage) -> Result<(), Failure> {
        let file = self.files.get(index).ok_or("an image was drawn that nobody asked for")?;
        Ok(write_with_folders(file, &image.to_png()?)?)
    }
}

impl Observer for Written<'_> {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        if let Event::Image { index, image } = event
            && let Err(failure) = self.write(*index, image)
        {
            self.failure = Some(failure);
            return ControlFlow::Break(());
        }
        self.bars.event(event)
    }
}
