//! The stages one after the other: sizes, what each is given, what is refused.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{CPU, Log, bytes, dimensions, embeddings, network, pictures, write_stage};
use ediffi_cascade::{Cascade, CascadeJob, Error, Stage, StageJob};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::pool::Residency;
use ediffi_core::unet::{Adm, UNetConfig};
use tch::Tensor;

/// Stages of these names and sizes; the first is a base, the others super-resolution.
fn stages(specs: &[(&str, i64, &UNetConfig)], residency: Residency) -> (tempfile::TempDir, Vec<Stage>) {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let open = |(name, size, network): &(&str, i64, &UNetConfig)| {
        Stage::open(folder.path(), &write_stage(folder.path(), name, *size, network), CPU, residency).unwrap()
    };
    let stages = specs.iter().map(open).collect();
    (folder, stages)
}

/// 8 → 16, the second without CLIP's image embedding.
fn two(residency: Residency) -> (tempfile::TempDir, Cascade) {
    let (base, mut above) = (network(false), dimensions(true));
    above.context.as_mut().unwrap().clip_image = None;
    let above = Adm(above).into();
    let (folder, stages) = stages(&[("base", 8, &base), ("above", 16, &above)], residency);
    (folder, Cascade::new(stages).unwrap())
}

/// What a test asks a cascade for.
struct Ask {
    conditioning: Conditioning,
    unconditional: Conditioning,
    seeds: Vec<u64>,
}

impl Ask {
    fn new(seeds: &[u64]) -> Self {
        Self { conditioning: embeddings(seeds), unconditional: Conditioning::default(), seeds: seeds.to_vec() }
    }

    fn job(&self, cascade: &Cascade) -> CascadeJob<'_> {
        CascadeJob {
            conditioning: &self.conditioning,
            unconditional: &self.unconditional,
            seeds: &self.seeds,
            size: None,
            first_stage: 0,
            last_stage: None,
            low_res: None,
            options: cascade.options(),
        }
    }
}

fn sample(cascade: &mut Cascade, change: impl FnOnce(&mut CascadeJob<'_>)) -> Result<Tensor, Error> {
    let ask = Ask::new(&[1, 2]);
    let mut job = ask.job(cascade);
    change(&mut job);
    cascade.sample(&job, &mut ())
}

#[test]
fn a_cascade_is_its_stages_one_after_the_other() {
    let (_folder, mut cascade) = two(Residency::All);
    let together = sample(&mut cascade, |job| job.size = Some((24, 16))).unwrap();
    assert_eq!(together.size(), [2, 3, 16, 24]);
    let (seeds, nothing) = ([1, 2], Conditioning::default());
    let mut low_res: Option<Tensor> = None;
    for (index, stage) in cascade.stages_mut().iter_mut().enumerate() {
        let conditioning = stage.select(&embeddings(&seeds));
        assert_eq!(conditioning.clip_image.is_some(), index == 0);
        let job = StageJob {
            conditioning: &conditioning,
            unconditional: &nothing,
            seeds: &seeds,
            stage_index: index as u64,
            height: 8 << index,
            width: 12 << index,
            low_res: low_res.as_ref(),
            settings: stage.settings(),
            paint: None,
            tiling: None,
        };
        low_res = Some(stage.sample(job, &mut ()).unwrap());
    }
    assert_eq!(bytes(&together), bytes(&low_res.unwrap()));
}

#[test]
fn a_run_can_end_early_and_begin_late() {
    let (_folder, mut cascade) = two(Residency::All);
    let whole = sample(&mut cascade, |_| ()).unwrap();
    let small = sample(&mut cascade, |job| job.last_stage = Some(0)).unwrap();
    assert_eq!(small.size(), [2, 3, 8, 8]);
    let (seeds, conditioning) = ([1, 2], Conditioning { clip_image: None, ..embeddings(&[1, 2]) });
    let ask = Ask { conditioning, ..Ask::new(&seeds) };
    let job = CascadeJob { first_stage: 1, low_res: Some(&small), ..ask.job(&cascade) };
    let enlarged = cascade.sample(&job, &mut ()).unwrap();
    assert_eq!(bytes(&whole), bytes(&enlarged));
}

#[test]
fn the_observer_hears_of_every_stage() {
    let (_folder, mut cascade) = two(Residency::All);
    let ask = Ask::new(&[1]);
    let mut log = Log::default();
    let _ = cascade.sample(&ask.job(&cascade), &mut log).unwrap();
    let of = |stage: &str| log.lines.iter().filter(|line| line.starts_with(stage)).count();
    assert_eq!((of("base"), of("above"), log.polls), (8, 8, 12));
    // The first question of the second stage.
    let mut log = Log { stop: Some(7), ..Log::default() };
    assert!(matches!(cascade.sample(&ask.job(&cascade), &mut log), Err(Error::Cancelled)));
    assert_eq!((log.polls, log.lines.last().unwrap().as_str()), (7, "above starts: 4 steps, 4 evaluations"));
}

#[test]
fn a_relay_leaves_nothing_in_memory_and_changes_no_bit() {
    let (_folder, mut cascade) = two(Residency::All);
    let expected = bytes(&sample(&mut cascade, |_| ()).unwrap());
    assert!(cascade.stages_mut().iter_mut().all(|stage| stage.resident() == [0, 1]));
    let (_folder, mut cascade) = two(Residency::Relay);
    assert_eq!(bytes(&sample(&mut cascade, |_| ()).unwrap()), expected);
    assert!(cascade.stages_mut().iter_mut().all(|stage| stage.resident().is_empty()));
    // Nor does one that was stopped.
    let ask = Ask::new(&[1]);
    let mut log = Log { stop: Some(3), ..Log::default() };
    assert!(matches!(cascade.sample(&ask.job(&cascade), &mut log), Err(Error::Cancelled)));
    assert!(cascade.stages_mut().iter_mut().all(|stage| stage.resident().is_empty()));
}

#[test]
fn sizes_follow_the_ratios_of_the_stages() {
    let (_folder, cascade) = two(Residency::All);
    assert_eq!(cascade.sizes(0, 1, None).unwrap(), [(8, 8), (16, 16)]);
    assert_eq!(cascade.sizes(0, 1, Some((40, 12))).unwrap(), [(20, 6), (40, 12)]);
    assert_eq!(cascade.sizes(1, 1, Some((6, 2))).unwrap(), [(6, 2)]);
    assert_eq!((cascade.size_multiple(0, 1).unwrap(), cascade.size_multiple(1, 1).unwrap()), (4, 2));
    for size in [(18, 16), (16, 0), (-16, 16), (i64::MAX - 3, 16)] {
        let error = cascade.sizes(0, 1, Some(size)).unwrap_err();
        assert!(matches!(error, Error::ImageSize { multiple: 4, .. }), "{error}");
    }
    let error = cascade.sizes(0, 1, Some((18, 16))).unwrap_err().to_string();
    assert_eq!(error, "the cascade cannot make 18x16: width and height have to be positive multiples of 4");
}

/// Stages of 6, 10 and 16 pixels, whose networks take multiples of 2: the final side has to make whole pixels of all.
#[test]
fn odd_ratios_have_a_common_multiple() {
    let (base, above) = (network(false), network(true));
    let specs = [("base", 6, &base), ("middle", 10, &above), ("top", 16, &above)];
    let (_folder, stages) = stages(&specs, Residency::All);
    let cascade = Cascade::new(stages).unwrap();
    // A side of 16 makes 6 and 10; half of it would make 3 and 5, which the networks cannot take.
    assert_eq!(cascade.size_multiple(0, 2).unwrap(), 16);
    assert_eq!(cascade.size_multiple(1, 2).unwrap(), 16);
    assert_eq!(cascade.size_multiple(0, 1).unwrap(), 10);
    assert_eq!(cascade.sizes(0, 2, Some((32, 16))).unwrap(), [(12, 6), (20, 10), (32, 16)]);
}

#[test]
fn stages_that_do_not_exist_are_refused() {
    let (_folder, mut cascade) = two(Residency::All);
    let error = sample(&mut cascade, |job| job.last_stage = Some(2)).unwrap_err();
    assert_eq!(error.to_string(), "there is no stage 2: the cascade has 2");
    let error = sample(&mut cascade, |job| (job.first_stage, job.last_stage) = (1, Some(0))).unwrap_err();
    assert!(matches!(error, Error::FirstStage { first: 1, last: 0 }), "{error}");
    let error = sample(&mut cascade, |job| (job.first_stage, job.last_stage) = (usize::MAX, Some(1))).unwrap_err();
    assert!(matches!(error, Error::FirstStage { .. }), "{error}");
    let error = sample(&mut cascade, |job| drop(job.options.pop())).unwrap_err();
    assert_eq!(error.to_string(), "the job has options for 1 stages, the cascade has 2");
}

#[test]
fn an_embedding_that_nobody_takes_is_refused() {
    let (_folder, mut cascade) = two(Residency::All);
    // The second stage has no place for a style.
    let (ask, small) = (Ask::new(&[1]), pictures(&[1], 8, 8));
    let job = CascadeJob { first_stage: 1, low_res: Some(&small), ..ask.job(&cascade) };
    let error = cascade.sample(&job, &mut ()).unwrap_err();
    let expected = ediffi_core::Error::EmbeddingNotTaken { name: "clip_image" }.to_string();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_smaller_picture_is_for_super_resolution() {
    let (_folder, mut cascade) = two(Residency::All);
    let small = pictures(&[1, 2], 8, 8);
    let ask = Ask::new(&[1, 2]);
    let job = CascadeJob { low_res: Some(&small), ..ask.job(&cascade) };
    let error = cascade.sample(&job, &mut ()).unwrap_err();
    assert!(
        matches!(&error, Error::Stage { source, .. } if matches!(**source, ediffi_core::Error::LowRes { given: true })),
        "{error}"
    );
}

#[test]
fn stages_that_make_no_cascade_say_why() {
    let (base, above) = (network(false), network(true));
    let message = |specs: &[(&str, i64, &UNetConfig)]| {
        let (_folder, stages) = stages(specs, Residency::All);
        let error = Cascade::new(stages).unwrap_err();
        assert!(matches!(error, Error::Cascade { .. }));
        error.to_string()
    };
    assert_eq!(message(&[]), "the stages make no cascade: there is none");
    let twice = [("base", 8, &base), ("base", 16, &above)];
    assert_eq!(message(&twice), "the stages make no cascade: two are called `base`");
    let flat = [("base", 8, &base), ("above", 8, &above)];
    assert_eq!(message(&flat), "the stages make no cascade: stage `above` is not larger than `base`");
    let blind = [("base", 8, &base), ("above", 16, &base)];
    let expected = "the stages make no cascade: stage `above` is not the first but takes no smaller picture";
    assert_eq!(message(&blind), expected);
}
