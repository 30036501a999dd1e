//! Where pictures go, and what is said of them.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use ediffi::{Event, GeneratedImage, Generation, Observer, PartMemory, Pipeline, Request, RgbImage};
use serde_json::json;

use super::bars::Bars;
use super::failure::Failure;
use super::terminal::Terminal;

/// More images than a model takes of one request.
const MANY: usize = 1 << 16;

/// Where pictures go, and what is said of them.
#[derive(Args)]
pub(super) struct Output {
    /// Where to write; several are numbered.
    ///
    /// Of several images, each gets its number before the ending.
    #[arg(long, default_value = "out.png", value_name = "PNG")]
    out: PathBuf,
    /// Say which expert runs which step, and draw nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write a line of JSON for each picture, in place of its path.
    #[arg(long)]
    json: bool,
    /// Show pictures in the terminal: auto, kitty, iterm or sixel.
    ///
    /// They are what each stage has drawn, by this protocol: kitty is that of kitty, Ghostty and Konsole, iterm that of iTerm2, WezTerm and VS
    /// Code, sixel that of foot, mlterm and xterm. auto takes the one that the terminal says it has, and shows nothing where standard error is no
    /// terminal.
    #[arg(long, value_enum, value_name = "PROTOCOL", hide_possible_values = true)]
    preview_in: Option<Terminal>,
}

impl Output {
    /// Draws the images of a request and writes each as soon as it is finished.
    pub(super) fn draw(&self, pipeline: &Pipeline, request: &Request) -> Result<(), Failure> {
        if self.dry_run {
            pipeline.validate(request)?;
        }
        self.draw_by(pipeline, request, |observer| pipeline.generate_with(request, observer))
    }

    /// Refuses what could not be written, and to write pictures over files that they are made of.
    pub(super) fn expect_others<'a>(&self, read: impl Iterator<Item = &'a Path>, images: usize) -> Result<(), Failure> {
        if self.dry_run {
            return Ok(());
        }
        expect_file(&self.out)?;
        let read: Vec<PathBuf> = read.filter_map(|path| std::fs::canonicalize(path).ok()).collect();
        // So many that a model refuses them are not looked at.
        let written = (0..images.min(MANY)).map(|index| numbered(&self.out, index, images));
        for path in written.filter_map(|path| std::fs::canonicalize(path).ok()) {
            if path.is_dir() {
                return Err(Failure::usage(format!("--out {}: {} is a folder", self.out.display(), path.display())));
            }
            if read.contains(&path) {
                return Err(written_over(&path));
            }
        }
        Ok(())
    }

    /// As [`draw`](Self::draw), by what draws the request.
    pub(super) fn draw_by(
        &self,
        pipeline: &Pipeline,
        request: &Request,
        draw: impl FnOnce(&mut dyn Observer) -> ediffi::Result<Generation>,
    ) -> Result<(), Failure> {
        if self.dry_run {
            return show(pipeline, request, self.json);
        }
        let seen = std::io::stderr().is_terminal();
        // A file or a pipe shows no picture, unless it is to have one by a named protocol.
        let protocol = self.preview_in.filter(|protocol| *protocol != Terminal::Auto || seen);
        let terminal = protocol.map(|protocol| protocol.found(|name| std::env::var(name).ok())).transpose()?;
        let (bars, images) = (Bars::default(), request.images);
        let mut written = Written { bars, output: self, terminal, images, failure: None };
        let drawn = draw(&mut written);
        match written.failure {
            Some(failure) => Err(failure),
            None => Ok(drawn.map(drop)?),
        }
    }
}

/// Refuses to write over a file that was read.
pub(super) fn expect_other(out: &Path, read: &Path) -> Result<(), Failure> {
    match (out.canonicalize(), read.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => Err(written_over(read)),
        _ => Ok(()),
    }
}

fn written_over(path: &Path) -> Failure {
    Failure::usage(format!("{} would be written over: choose another place with --out", path.display()))
}

/// Refuses to begin what could not be written.
pub(super) fn expect_file(out: &Path) -> Result<(), Failure> {
    let refused = |reason: String| Err(Failure::usage(format!("--out {}: {reason}", out.display())));
    // A path that ends so names a folder, whether it is there or not.
    if out.is_dir() || out.to_string_lossy().ends_with(std::path::MAIN_SEPARATOR) || out.file_name().is_none() {
        return refused("it is a folder, and a file is wanted".to_owned());
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder.filter(|folder| !folder.is_dir()) {
        Some(folder) => refused(format!("there is no folder {}", folder.display())),
        None => Ok(()),
    }
}

/// The plan of a request: its stages, their sizes, and which expert runs which step. No encoder is asked.
pub(super) fn show(pipeline: &Pipeline, request: &Request, as_json: bool) -> Result<(), Failure> {
    let (plan, memory) = (pipeline.plan(request)?, pipeline.memory(request)?);
    if !as_json {
        plan.iter().try_for_each(|stage| say(&stage.to_string()))?;
        return say(&weights(&memory));
    }
    for stage in &plan {
        let steps = stage.plan.steps().iter().map(|step| json!({ "sigma": step.sigma, "expert": step.expert }));
        let (name, width, height) = (&stage.stage, stage.width, stage.height);
        let steps = steps.collect::<Vec<_>>();
        let mut experts: Vec<usize> = stage.plan.experts().collect();
        experts.sort_unstable();
        experts.dedup();
        let config = pipeline.manifest().stages.get(stage.index);
        let experts = experts.into_iter().map(|expert| {
            let weights =
                config.and_then(|config| config.experts.get(expert)).map(|own| own.weights.display().to_string());
            let (solver, guidance) = (stage.settings.solver_of(expert), stage.settings.guidance_of(expert).scale);
            let own = memory.iter().find(|own| own.part == *name && own.expert == Some(expert));
            let bytes = own.map(|own| own.bytes);
            json!({ "expert": expert, "weights": weights, "bytes": bytes, "solver": solver, "guidance": guidance })
        });
        let experts = experts.collect::<Vec<_>>();
        let plan = json!({ "stage": name, "width": width, "height": height, "steps": steps, "experts": experts });
        say(&plan.to_string())?;
    }
    Ok(())
}

/// What the weights take in memory: each part, with the experts of a stage in one sum, all, and the largest, which is what has to be there
/// at once where one is loaded after the other.
fn weights(parts: &[PartMemory]) -> String {
    let mut sums: Vec<(&str, u64, usize)> = Vec::new();
    for PartMemory { part, bytes, .. } in parts {
        match sums.last_mut().filter(|(name, ..)| name == part) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + bytes, *count + 1),
            None => sums.push((part, *bytes, 1)),
        }
    }
    let experts = |count| if count > 1 { format!(" ({count} experts)") } else { String::new() };
    let told = sums.iter().map(|(part, sum, count)| format!("{part}{} {}", experts(*count), size(*sum)));
    let told = told.collect::<Vec<_>>().join(", ");
    let all = size(parts.iter().map(|part| part.bytes).sum());
    let largest = size(parts.iter().map(|part| part.bytes).max().unwrap_or(0));
    format!("weights: {told}; {all} in all, {largest} the largest")
}

fn size(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 1000.0 { format!("{megabytes:.1} MB") } else { format!("{:.2} GB", megabytes / 1e3) }
}

/// Writes a line to standard output. A reader that is gone is an error, not a panic.
pub(super) fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout().lock(), "{line}").map_err(|error| format!("standard output: {error}"))?)
}

/// Writes each image when it is finished, behind the progress bars.
struct Written<'a> {
    bars: Bars,
    output: &'a Output,
    /// What shows pictures.
    terminal: Option<Terminal>,
    images: usize,
    failure: Option<Failure>,
}

impl Written<'_> {
    fn write(&self, index: usize, image: &GeneratedImage) -> Result<(), Failure> {
        let path = numbered(&self.output.out, index, self.images);
        image.save(&path)?;
        let line = if self.output.json {
            let (width, height) = image.rgb().dimensions();
            json!({ "file": path, "seed": image.seed(), "width": width, "height": height }).to_string()
        } else {
            path.display().to_string()
        };
        self.bars.behind(|| say(&line))
    }

    /// Shows a picture in the terminal, whose standard error has the bars, too.
    fn show(&self, picture: &RgbImage) -> Result<(), Failure> {
        let Some(terminal) = self.terminal else { return Ok(()) };
        let shown = terminal.picture(picture)?;
        let written = self.bars.behind(|| std::io::stderr().lock().write_all(&shown));
        Ok(written.map_err(|error| format!("standard error: {error}"))?)
    }

    /// Writes and shows what an event tells of.
    fn follow(&self, event: &Event<'_>) -> Result<(), Failure> {
        match event {
            Event::Image { index, image } => {
                self.write(*index, image)?;
                self.show(image.rgb())
            }
            // What a stage has drawn of the first image of a batch, before the next one goes on.
            Event::Step { index, steps, preview, .. } if self.terminal.is_some() && index + 1 == *steps => {
                let first = preview.images().first().map(|&image| preview.rgb(image)).transpose()?.flatten();
                first.map_or(Ok(()), |picture| self.show(&picture))
            }
            _ => Ok(()),
        }
    }
}

impl Observer for Written<'_> {
    fn event(&mut self, event: &Event<'_>) -> std::ops::ControlFlow<()> {
        if let Err(failure) = self.follow(event) {
            self.failure = Some(failure);
            return std::ops::ControlFlow::Break(());
        }
        self.bars.event(event)
    }
}

/// `out.png` of one image, `out-1.png`, `out-2.png`, … of several.
pub(super) fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (part(path.file_stem()), part(path.extension()));
    let ending = if ending.is_empty() { ending } else { format!(".{ending}") };
    path.with_file_name(format!("{stem}-{}{ending}", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for out in [folder.path().to_owned(), folder.path().join("new/"), folder.path().join("none/a.png"), "..".into()]
        {
            let failure = expect_file(&out).unwrap_err().to_string();
            assert!(failure.contains(&format!("--out {}", out.display())) && failure.contains("folder"), "{failure}");
        }
        assert!(expect_file(&folder.path().join("a.png")).is_ok());
        assert!(expect_file(Path::new("a.png")).is_ok());
    }

    #[test]
    fn several_images_get_their_numbers() {
        assert_eq!(numbered(Path::new("a/out.png"), 0, 1), Path::new("a/out.png"));
        assert_eq!(numbered(Path::new("a/out.png"), 1, 3), Path::new("a/out-2.png"));
        assert_eq!(numbered(Path::new("out"), 0, 2), Path::new("out-1"));
    }
}
