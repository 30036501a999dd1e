//! The pictures that are measured: drawn once and kept, or made elsewhere.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ediffi_cascade::{CascadeJob, SettingsPatch};
use ediffi_core::files::{read_bytes, write_json, write_with_folders};
use ediffi_train::pixels::to_rgb;
use image::{ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

use super::views::SMALL;
use crate::error::{Error, Result};
use crate::kept::model_key;
use crate::model::{Model, pictures};
use crate::prompts::Prompt;

/// Another sampler than a stage's own: `STAGE=JSON`, as in `base={"steps": 30, "guidance": {"scale": 3.0, "interval": [1.0, null]}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampler {
    /// The stage.
    pub stage: String,
    /// What differs from its own settings.
    pub patch: SettingsPatch,
}

impl std::str::FromStr for Sampler {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (stage, json) = text.split_once('=').ok_or("not of the form STAGE=JSON")?;
        let patch = serde_json::from_str(json).map_err(|error| format!("the settings of `{stage}`: {error}"))?;
        Ok(Self { stage: stage.to_owned(), patch })
    }
}

/// What a stage takes for a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Work {
    stage: String,
    /// Evaluations of the denoiser.
    evaluations: usize,
    /// Rows of the networks: two for an evaluation with guidance.
    pub(super) rows: usize,
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} evaluations ({} rows)", self.stage, self.evaluations, self.rows)
    }
}

/// What a folder of kept pictures says about them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// What a picture takes, by stage.
    pub work: Vec<Work>,
    /// Seconds of drawing so far, all workers together at work.
    pub seconds: f64,
    /// How many pictures were drawn in them.
    pub drawn: usize,
}

/// Pictures of prompts, in their order.
#[derive(Debug)]
pub struct Drawn {
    /// Their files.
    pub paths: Vec<PathBuf>,
    /// What drawing them took, if they were drawn here.
    pub note: Option<Note>,
}

/// The pictures of a folder: one PNG for each prompt, in the order of their names.
///
/// # Errors
/// [`Error::Rows`] for more or fewer pictures than prompts; a folder that cannot be read.
pub fn found(folder: &Path, prompts: usize) -> Result<Drawn> {
    let failed = |source| ediffi_core::Error::ReadFile { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
    paths.sort();
    if paths.len() != prompts {
        return Err(Error::Rows { what: "pictures in the folder", expected: prompts, found: paths.len() });
    }
    Ok(Drawn { paths, note: None })
}

/// Draws the prompts with the cascade, or its first `count` stages, into a folder below `kept` that belongs to this model, these stages
/// and samplers, and each prompt. What an earlier run has drawn there is not drawn again.
///
/// # Errors
/// [`Error::Setting`] for stages that the model does not have; all that keeps it from drawing.
pub fn draw(
    model: &Model,
    prompts: &[Prompt],
    samplers: &[Sampler],
    count: Option<usize>,
    kept: &Path,
) -> Result<Drawn> {
    let all = model.stages();
    let count = count.unwrap_or(all.len());
    let Some(stages) = all.get(..count).filter(|stages| !stages.is_empty()) else {
        return Err(Error::Setting {
            what: "stages",
            reason: format!("the model has 1 to {}, not {count}", all.len()),
        });
    };
    if let Some(Sampler { stage, .. }) = samplers.iter().find(|other| stages.iter().all(|own| own.name != other.stage))
    {
        return Err(Error::Setting { what: "sampler", reason: format!("the model has no stage `{stage}`") });
    }
    let patches: BTreeMap<&str, &SettingsPatch> =
        samplers.iter().map(|sampler| (sampler.stage.as_str(), &sampler.patch)).collect();
    let folder = kept.join(hash([model_key(model)?, serde_json::to_string(samplers)?, count.to_string()]));
    let name = |prompt: &Prompt| format!("{}.png", hash([prompt.scene.caption.clone(), prompt.seed.to_string()]));
    let paths: Vec<PathBuf> = prompts.iter().map(|prompt| folder.join(name(prompt))).collect();
    let missing: Vec<usize> = (0..paths.len()).filter(|&place| !paths[place].exists()).collect();
    let note_path = folder.join("drawn.json");
    let mut note: Note = if note_path.exists() { ediffi_core::files::read_json(&note_path)? } else { Note::default() };
    note.work = work(stages, &patches);
    if missing.is_empty() {
        return Ok(Drawn { paths, note: Some(note) });
    }
    let asked = missing.iter().filter_map(|&place| prompts.get(place)).map(Prompt::asked);
    let wishes = model.wishes(asked, None)?;
    let files: Vec<&Path> = missing.iter().filter_map(|&place| paths.get(place)).map(PathBuf::as_path).collect();
    let bar = indicatif::ProgressBar::new(files.len() as u64).with_message("drawing");
    let began = Instant::now();
    let files_of = |rows: std::ops::Range<usize>| Ok(files.get(rows).unwrap_or_default().to_vec());
    model.each(&wishes, count, files_of, |opened, batch, files| {
        let last = opened.stages().len().saturating_sub(1);
        let plans = opened.plan(0..=last, (None, None), |stage| patches.get(stage).copied())?;
        let drawn = pictures(opened, CascadeJob::new(&plans, &batch.conditioning, &batch.seeds))?;
        let (_, _, height, width) = drawn.size4()?;
        for (path, pixels) in files.into_iter().zip(to_rgb(&drawn)?) {
            write(path, pixels, width as u32, height as u32)?;
            bar.inc(1);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    note.seconds += began.elapsed().as_secs_f64();
    note.drawn += files.len();
    write_json(&note_path, &note)?;
    Ok(Drawn { paths, note: Some(note) })
}

/// What a picture takes, by stage.
fn work(stages: &[ediffi::StageConfig], patches: &BTreeMap<&str, &SettingsPatch>) -> Vec<Work> {
    let of = |stage: &ediffi::StageConfig| {
        let settings = stage.settings.patched(patches.get(stage.name.as_str()).copied());
        let sigmas = settings.sigmas(stage.precondition.timesteps()).unwrap_or_default();
        let evaluations = settings.solver.evaluations(&sigmas);
        let positive: Vec<f64> = sigmas.into_iter().filter(|sigma| *sigma > 0.0).collect();
        let both = positive.iter().filter(|sigma| settings.guidance.branches(**sigma).1.is_some()).count();
        // Every step has as many evaluations as the others, but for the last.
        let rows = evaluations + (evaluations * both).div_ceil(positive.len().max(1));
        Work { stage: stage.name.clone(), evaluations, rows }
    };
    stages.iter().map(of).collect()
}

/// Reads a picture, which has to be square and of a side that the small view divides.
pub fn read(path: &Path) -> Result<RgbImage> {
    let wrong = |reason: String| Error::Picture { path: path.to_owned(), reason };
    let picture = image::load_from_memory(&read_bytes(path)?).map_err(|error| wrong(error.to_string()))?.to_rgb8();
    let (width, height) = picture.dimensions();
    if width != height || width == 0 || !width.is_multiple_of(SMALL) {
        return Err(wrong(format!("{width}×{height} pixels, where a square of a multiple of {SMALL} is measured")));
    }
    Ok(picture)
}

/// Writes RGB bytes as a PNG.
pub fn write(path: &Path, pixels: Vec<u8>, width: u32, height: u32) -> Result<()> {
    let wrong = |reason: String| Error::Picture { path: path.to_owned(), reason };
    let picture = RgbImage::from_raw(width, height, pixels).ok_or_else(|| wrong("too few bytes".to_owned()))?;
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).map_err(|error| wrong(error.to_string()))?;
    Ok(write_with_folders(path, png.get_ref())?)
}

/// Sixteen digits that tell texts from others. With another compiler's hasher all is drawn again, which is safe.
pub fn hash<const N: usize>(texts: [String; N]) -> String {
    let mut hasher = DefaultHasher::new();
    for text in texts {
        hasher.write(text.as_bytes());
        hasher.write_u8(0xFF);
    }
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_is_a_stage_and_what_differs() {
        let sampler = |text: &str| text.parse::<Sampler>();
        let other = sampler(r#"base={"steps": 30, "guidance": {"scale": 3.0, "interval": [1.0, null]}}"#).unwrap();
        assert_eq!((other.stage.as_str(), other.patch.steps), ("base", Some(30)));
        assert!(other.patch.guidance.unwrap().interval.unwrap().contains(50.0));
        for wrong in ["base", "base=30", r#"base={"step": 3}"#] {
            assert!(sampler(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_folder_has_a_picture_for_every_prompt() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.png", "a.png"] {
            write(&folder.path().join(name), vec![200; 256 * 256 * 3], 256, 256).unwrap();
        }
        std::fs::write(folder.path().join("note.txt"), "").unwrap();
        let drawn = found(folder.path(), 2).unwrap();
        assert!(drawn.paths[0].ends_with("a.png") && drawn.note.is_none());
        assert_eq!(read(&drawn.paths[0]).unwrap().get_pixel(3, 4).0, [200; 3]);
        assert!(matches!(found(folder.path(), 3), Err(Error::Rows { expected: 3, found: 2, .. })));
        let odd = folder.path().join("odd.png");
        write(&odd, vec![0; 300 * 300 * 3], 300, 300).unwrap();
        assert!(read(&odd).unwrap_err().to_string().contains("odd.png`: 300×300 pixels"));
    }
}
