//! The loop of stages: sizes, batches, what each stage is given, what is told and handed out, what is refused.
//!
//! Long because all tests share the cascade of two stages, its plans and its enlarger.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::sync::{Arc, Mutex};

use common::{CPU, Log, bytes, difference, dimensions, embeddings, enlarger, network, pictures, write_stage};
use ediffi_cascade::{Cascade, CascadeJob, Error, PreconditionConfig, SettingsPatch, Stage, StagePlan, Tiling};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::nn::{Bias, ScoreBias, Site};
use ediffi_core::noise::NoiseSource;
use ediffi_core::pool::Residency;
use ediffi_core::precondition::Epsilon;
use ediffi_core::schedule::Schedule;
use ediffi_core::seed::Noise;
use ediffi_core::timesteps::NoiseTable;
use ediffi_core::unet::{Adm, Dimensions, UNetConfig};
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
    let mut above = dimensions(true);
    above.context.as_mut().unwrap().clip_image = None;
    let specs = [("base", 8, &network(false)), ("above", 16, &Adm(above).into())];
    let (folder, stages) = stages(&specs, residency);
    (folder, Cascade::new(stages).unwrap())
}

/// The plans of all stages at a size, with the model's own settings.
fn plans(cascade: &Cascade, size: (Option<u32>, Option<u32>)) -> Vec<StagePlan> {
    cascade.plan(0..=cascade.stages().len() - 1, size, |_| None).unwrap()
}

/// The pictures with seeds 1 and 2 of all stages.
fn sample(cascade: &mut Cascade) -> Tensor {
    let plans = plans(cascade, (None, None));
    let mut log = Log::default();
    cascade.run(CascadeJob::new(&plans, &embeddings(&[1, 2]), &[1, 2]), &mut log).unwrap();
    log.pictures()
}

#[test]
fn a_cascade_is_its_stages_one_after_the_other() {
    let (_folder, mut cascade) = two(Residency::All);
    let (whole, seeds, conditioning) = (sample(&mut cascade), [1, 2], embeddings(&[1, 2]));
    // A run can end early, and start from a given picture.
    let mut first = Log::default();
    cascade
        .run(CascadeJob::new(&cascade.plan(0..=0, (None, None), |_| None).unwrap(), &conditioning, &seeds), &mut first)
        .unwrap();
    let small = first.pictures();
    assert_eq!(small.size(), [2, 3, 8, 8]);
    let plans = cascade.plan(1..=1, (None, None), |_| None).unwrap();
    for batch in [2, 1] {
        let mut second = Log::default();
        let job = CascadeJob { low_res: Some(&small), batch, ..CascadeJob::new(&plans, &conditioning, &seeds) };
        cascade.run(job, &mut second).unwrap();
        // The matrix products of another batch size may add in another order.
        assert!(difference(&whole, &second.pictures()) < if batch == 2 { 0.0_f64.next_up() } else { 5e-5 });
    }
}

#[test]
fn batches_divide_the_pictures_and_their_embeddings() {
    let (_folder, mut cascade) = two(Residency::All);
    let (seeds, plans) = ([3, 1, 4, 1, 5], plans(&cascade, (None, None)));
    let mut run = |seeds: &[u64], conditioning: &Conditioning, batch| {
        let mut log = Log::default();
        cascade.run(CascadeJob { batch, ..CascadeJob::new(&plans, conditioning, seeds) }, &mut log).unwrap();
        log
    };
    let together = run(&seeds, &embeddings(&seeds), 5);
    let apart = run(&seeds, &embeddings(&seeds), 2);
    assert_eq!((together.pictures.len(), apart.pictures.len()), (1, 3));
    assert!(difference(&together.pictures(), &apart.pictures()) < 5e-5);
    // One row is for all pictures.
    let shared = run(&[3, 1, 4], &embeddings(&[9]), 2).pictures();
    for (row, seed) in [3, 1, 4].into_iter().enumerate() {
        let alone = run(&[seed], &embeddings(&[9]), 1).pictures();
        assert!(difference(&shared.narrow(0, row as i64, 1), &alone) < 5e-5);
    }
}

#[test]
fn a_patch_reaches_its_stage() {
    let (_folder, mut cascade) = two(Residency::All);
    let mut patch = SettingsPatch::default();
    patch.schedule = Some(Schedule::Custom(vec![40.0, 3.0, 0.5]));
    patch.tiling = Some(Tiling { tile: 8, overlap: 2 });
    let plans = cascade.plan(0..=1, (None, None), |stage| (stage == "above").then_some(&patch)).unwrap();
    assert_eq!(plans[0].settings, cascade.stages()[0].config().settings);
    assert_eq!((plans[0].tiling, plans[1].tiling), (None, patch.tiling));
    assert_eq!(plans[1].plan.to_string().lines().count(), 2);
    assert!(plans[1].to_string().starts_with("stage above (16x16), expert 0: steps 1-2 of 3, sigma 40 to 3"));
    let mut log = Log::default();
    cascade.run(CascadeJob::new(&plans, &embeddings(&[1]), &[1]), &mut log).unwrap();
    let steps: Vec<_> = log.lines.iter().filter(|line| line.starts_with("above: batch")).collect();
    assert_eq!(
        steps,
        [
            "above: batch 0, step 0 of 3 at 40.000",
            "above: batch 0, step 1 of 3 at 3.000",
            "above: batch 0, step 2 of 3 at 0.500"
        ]
    );
}

/// Remembers the heights of the feature maps that it has seen, and paints nothing.
#[derive(Debug, Default)]
struct Heights(Arc<Mutex<Vec<i64>>>);

impl ScoreBias for Heights {
    fn bias(&self, site: &Site<'_>) -> ediffi_core::Result<Option<Bias>> {
        self.0.lock().unwrap().push(site.height);
        Ok(None)
    }
}

/// Four layers of the first stage, at half its resolution, in each of four steps; and so if the second is the first to run.
#[test]
fn paint_is_for_the_first_stage_that_runs() {
    let (_folder, mut cascade) = two(Residency::All);
    let (conditioning, small) = (embeddings(&[1]), pictures(&[1], 8, 8));
    for (first, height) in [(0, 4), (1, 8)] {
        let plans = cascade.plan(first..=1, (None, None), |_| None).unwrap();
        let paint = Heights::default();
        let job = CascadeJob {
            paint: Some(&paint),
            low_res: Some(&small).filter(|_| first == 1),
            ..CascadeJob::new(&plans, &conditioning, &[1])
        };
        cascade.run(job, &mut ()).unwrap();
        assert_eq!(*paint.0.lock().unwrap(), [height; 16]);
    }
}

#[test]
fn noise_from_elsewhere_is_asked_for_by_stage_and_batch() {
    let (_folder, mut cascade) = two(Residency::All);
    let (seeds, plans, conditioning) = ([1, 2, 3], plans(&cascade, (None, None)), embeddings(&[7]));
    let mut usual = Log::default();
    cascade.run(CascadeJob { batch: 2, ..CascadeJob::new(&plans, &conditioning, &seeds) }, &mut usual).unwrap();
    let mut asked = Vec::new();
    let mut noise = |stage: &str, seeds: &[u64]| {
        asked.push((stage.to_owned(), seeds.to_vec()));
        Box::new(Noise::new(seeds, u64::from(stage == "above"))) as Box<dyn NoiseSource>
    };
    let mut log = Log::default();
    let job = CascadeJob { batch: 2, noise: Some(&mut noise), ..CascadeJob::new(&plans, &conditioning, &seeds) };
    cascade.run(job, &mut log).unwrap();
    assert_eq!(bytes(&usual.pictures()), bytes(&log.pictures()));
    let of = |stage: &str, seeds: &[u64]| (stage.to_owned(), seeds.to_vec());
    assert_eq!(asked, [of("base", &[1, 2]), of("base", &[3]), of("above", &[1, 2]), of("above", &[3])]);
}

/// A cascade whose pictures of 16 pixels are enlarged in four tiles, and three seeds in batches of two.
fn enlarged(residency: Residency) -> (tempfile::TempDir, Cascade) {
    let (folder, cascade) = two(residency);
    (folder, cascade.with_enlarger(enlarger().with_tiling(Tiling { tile: 10, overlap: 4 }).unwrap()).unwrap())
}

/// Two steps, one for each expert.
fn run_enlarged(cascade: &mut Cascade, log: &mut Log) -> Result<(), Error> {
    let mut patch = SettingsPatch::default();
    patch.schedule = Some(Schedule::Custom(vec![9.0, 0.5, 0.0]));
    let plans = cascade.plan(0..=1, (None, None), |_| Some(&patch)).unwrap();
    cascade.run(CascadeJob { batch: 2, ..CascadeJob::new(&plans, &embeddings(&[7]), &[1, 2, 3]) }, log)
}

#[test]
fn everything_is_told_in_order() {
    let (_folder, mut cascade) = enlarged(Residency::All);
    let mut log = Log::default();
    run_enlarged(&mut cascade, &mut log).unwrap();
    let batch = |stage: &str, batch: usize| {
        vec![
            format!("{stage}: expert 0 [1, inf), batch {batch}"),
            format!("{stage}: batch {batch}, step 0 of 2 at 9.000"),
            format!("{stage}: expert 1 [0, 1), batch {batch}"),
            format!("{stage}: batch {batch}, step 1 of 2 at 0.500"),
        ]
    };
    let mut expected = Vec::new();
    for (index, stage) in ["base", "above"].into_iter().enumerate() {
        expected.push(format!("{stage} starts: 2 steps, 2 batches, {index} of 3"));
        expected.extend(batch(stage, 0));
        if stage == "base" {
            expected.extend(batch(stage, 1));
            expected.push("base is done".to_owned());
        }
    }
    // The last stage and the enlarger take turns: the first pictures are out before the second batch begins.
    let tiles = |batch| (0..4).map(move |tile| format!("enlarger: batch {batch}, tile {tile} of 4"));
    expected.push("enlarger starts: 64x64, 4 tiles, 2 batches, 2 of 3".to_owned());
    expected.extend(tiles(0));
    expected.push("pictures 0 to 1".to_owned());
    expected.extend(batch("above", 1));
    expected.push("above is done".to_owned());
    expected.extend(tiles(1));
    expected.extend(["pictures 2 to 2", "enlarger is done"].map(str::to_owned));
    assert_eq!(log.lines, expected);
    // For each stage and batch two evaluations and two switches, and the tiles.
    assert_eq!(log.polls, 2 * 2 * 4 + 2 * 4);
}

/// The first expert has its steps of both batches before the second has any.
#[test]
fn a_relay_tells_the_batches_in_turns() {
    for residency in [Residency::Relay, Residency::RelayPrefetch] {
        let (_folder, mut cascade) = enlarged(residency);
        let (mut log, mut expected) = (Log::default(), Vec::new());
        run_enlarged(&mut cascade, &mut log).unwrap();
        let turn = |stage: &str, expert: usize, batch: usize| {
            let (interval, sigma) = [("[1, inf)", "9.000"), ("[0, 1)", "0.500")][expert];
            [
                format!("{stage}: expert {expert} {interval}, batch {batch}"),
                format!("{stage}: batch {batch}, step {expert} of 2 at {sigma}"),
            ]
        };
        for (index, stage) in ["base", "above"].into_iter().enumerate() {
            expected.push(format!("{stage} starts: 2 steps, 2 batches, {index} of 3"));
            expected
                .extend([(0, 0), (0, 1), (1, 0)].into_iter().flat_map(|(expert, batch)| turn(stage, expert, batch)));
            if stage == "above" {
                // The first pictures are out before the second batch has its last turn.
                expected.push("enlarger starts: 64x64, 4 tiles, 2 batches, 2 of 3".to_owned());
                expected.extend((0..4).map(|tile| format!("enlarger: batch 0, tile {tile} of 4")));
                expected.push("pictures 0 to 1".to_owned());
            }
            expected.extend(turn(stage, 1, 1));
            expected.push(format!("{stage} is done"));
        }
        expected.extend((0..4).map(|tile| format!("enlarger: batch 1, tile {tile} of 4")));
        expected.extend(["pictures 2 to 2", "enlarger is done"].map(str::to_owned));
        assert_eq!(log.lines, expected, "{residency:?}");
        assert_eq!(log.polls, 2 * 2 * 4 + 2 * 4, "{residency:?}");
    }
}

#[test]
fn an_enlarger_is_the_last_stage() {
    let (_folder, mut cascade) = enlarged(Residency::All);
    assert!(!cascade.enlarger().unwrap().is_loaded());
    let mut log = Log::default();
    run_enlarged(&mut cascade, &mut log).unwrap();
    assert!(cascade.enlarger().unwrap().is_loaded());
    let (_folder, mut plain) = two(Residency::All);
    let mut small = Log::default();
    run_enlarged(&mut plain, &mut small).unwrap();
    let mut alone = enlarger().with_tiling(Tiling { tile: 10, overlap: 4 }).unwrap();
    let expected: Vec<_> = small.pictures.iter().map(|small| alone.enlarge(small).unwrap()).collect();
    assert_eq!(bytes(&log.pictures()), bytes(&Tensor::cat(&expected, 0)));
    // A run that ends before the last stage is not enlarged.
    let plans = cascade.plan(0..=0, (None, None), |_| None).unwrap();
    let mut early = Log::default();
    cascade.run(CascadeJob::new(&plans, &embeddings(&[1]), &[1]), &mut early).unwrap();
    assert_eq!(early.pictures().size(), [1, 3, 8, 8]);
    cascade.release();
    assert!(!cascade.enlarger().unwrap().is_loaded());
    assert!(cascade.stages().iter().all(|stage| stage.resident().is_empty()));
}

/// Every question and every event may end the run. What was finished by then was handed out, and is what a whole run gives.
#[test]
fn a_run_that_is_stopped_keeps_what_is_finished() {
    // The questions that are left when the first batch is finished: of the last stage and the enlarger for the second one, all of
    // it or its last turn.
    for (residency, left) in [(Residency::All, 8), (Residency::Relay, 6)] {
        stop_everywhere(residency, left);
    }
}

fn stop_everywhere(residency: Residency, left: usize) {
    let (_folder, mut cascade) = enlarged(residency);
    let mut whole = Log::default();
    run_enlarged(&mut cascade, &mut whole).unwrap();
    let finished = |lines: &[String]| lines.iter().filter(|line| line.starts_with("pictures")).count();
    let mut kept = 0;
    for stop in 1..=whole.polls {
        let mut log = Log { stop_poll: Some(stop), ..Log::default() };
        assert!(matches!(run_enlarged(&mut cascade, &mut log), Err(Error::Cancelled)), "at question {stop}");
        assert_eq!(log.polls, stop);
        assert_eq!(log.pictures.len(), usize::from(stop > whole.polls - left));
        kept += log.pictures.len();
        assert!(log.pictures.iter().zip(&whole.pictures).all(|(a, b)| bytes(a) == bytes(b)));
    }
    assert_eq!(kept, left);
    for stop in 1..=whole.lines.len() {
        let mut log = Log { stop_event: Some(stop), ..Log::default() };
        assert!(matches!(run_enlarged(&mut cascade, &mut log), Err(Error::Cancelled)), "at event {stop}");
        assert_eq!(log.lines, whole.lines[..stop], "nothing is told after the break");
        assert_eq!(log.pictures.len(), finished(&whole.lines[..stop]));
    }
    let mut again = Log::default();
    run_enlarged(&mut cascade, &mut again).unwrap();
    assert_eq!(bytes(&again.pictures()), bytes(&whole.pictures()), "and nothing of it is left");
}

#[test]
fn a_relay_leaves_nothing_in_memory_and_changes_no_bit() {
    let (_folder, mut cascade) = enlarged(Residency::All);
    let mut expected = Log::default();
    run_enlarged(&mut cascade, &mut expected).unwrap();
    assert!(cascade.stages().iter().all(|stage| stage.resident() == [0, 1]));
    let (_folder, mut cascade) = enlarged(Residency::Relay);
    let mut empty = |log: &mut Log| {
        let result = run_enlarged(&mut cascade, log);
        assert!(cascade.stages().iter().all(|stage| stage.resident().is_empty()));
        assert!(!cascade.enlarger().unwrap().is_loaded());
        result
    };
    let mut log = Log::default();
    empty(&mut log).unwrap();
    assert_eq!(bytes(&log.pictures()), bytes(&expected.pictures()));
    // Nor does one that was stopped.
    for stop in [3, log.polls - 1] {
        let stopped = empty(&mut Log { stop_poll: Some(stop), ..Log::default() });
        assert!(matches!(stopped, Err(Error::Cancelled)));
    }
}

#[test]
fn plans_say_which_sizes_and_stages_there_are() {
    let (_folder, cascade) = two(Residency::All);
    let sizes = |range, size| -> Result<Vec<(u32, u32)>, Error> {
        Ok(cascade.plan(range, size, |_| None)?.iter().map(|plan| (plan.width, plan.height)).collect())
    };
    assert_eq!(sizes(0..=1, (None, None)).unwrap(), [(8, 8), (16, 16)]);
    assert_eq!(sizes(0..=1, (Some(40), Some(12))).unwrap(), [(20, 6), (40, 12)]);
    assert_eq!(sizes(0..=1, (None, Some(12))).unwrap(), [(8, 6), (16, 12)]);
    assert_eq!(sizes(1..=1, (Some(6), Some(2))).unwrap(), [(6, 2)]);
    let error = sizes(0..=1, (Some(18), None)).unwrap_err().to_string();
    assert_eq!(error, "the cascade cannot make 18x16: width and height have to be positive multiples of 4");
    let error = sizes(0..=2, (None, None)).unwrap_err().to_string();
    assert_eq!(error, "there are no stages 0 to 2: the cascade has 2");
    #[expect(clippy::reversed_empty_ranges, reason = "an empty range is what is tested")]
    let empty = sizes(1..=0, (None, None));
    assert!(matches!(empty, Err(Error::NoStages { first: 1, last: 0, stages: 2 })));
}

#[test]
fn a_plan_of_another_cascade_is_refused_before_anything_runs() {
    let (_folder, mut cascade) = two(Residency::All);
    let (_other_folder, others) =
        stages(&[("base", 8, &network(false)), ("higher", 16, &network(true))], Residency::All);
    let foreign = plans(&Cascade::new(others).unwrap(), (None, None));
    let mut log = Log::default();
    let error = cascade.run(CascadeJob::new(&foreign, &embeddings(&[1]), &[1]), &mut log).unwrap_err();
    assert_eq!(error.to_string(), "the plan of stage `higher` was made by another cascade");
    assert!(log.lines.is_empty());
}

/// A later stage's tiles, too.
#[test]
fn tiles_that_do_not_fit_are_refused_before_anything_runs() {
    let (_folder, mut cascade) = two(Residency::All);
    let mut patch = SettingsPatch::default();
    patch.tiling = Some(Tiling { tile: 5, overlap: 2 });
    let plans = cascade.plan(0..=1, (None, None), |stage| (stage == "above").then_some(&patch)).unwrap();
    let mut log = Log::default();
    let error = cascade.run(CascadeJob::new(&plans, &embeddings(&[1]), &[1]), &mut log).unwrap_err();
    assert_eq!(error.to_string(), "stage `above`: the tile is 5 pixels, it must be a multiple of 2");
    assert!(log.lines.is_empty());
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let (_folder, mut cascade) = two(Residency::All);
    let (plans, seeds, conditioning, small) =
        (plans(&cascade, (None, None)), [1, 2], embeddings(&[1, 2, 3]), pictures(&[1, 2], 8, 8));
    let mut message = |job: CascadeJob<'_>| cascade.run(job, &mut ()).unwrap_err().to_string();
    assert_eq!(
        message(CascadeJob::new(&plans, &conditioning, &seeds)),
        "stage `base` cannot sample, conditioning: t5 has 3 rows, there are 2 seeds"
    );
    assert_eq!(
        message(CascadeJob { batch: 1, ..CascadeJob::new(&plans, &conditioning, &[]) }),
        "stage `base` cannot sample, seeds: there is none, each picture needs one"
    );
    assert_eq!(
        message(CascadeJob { low_res: Some(&small), ..CascadeJob::new(&plans, &Conditioning::default(), &seeds) }),
        "stage `base`: a base network takes no smaller picture"
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
    let grey: UNetConfig = Adm(Dimensions { picture_channels: 1, ..dimensions(false) }).into();
    let expected = "the stages make no cascade: stage `above` takes pictures of 3 channels, those of `base` have 1";
    assert_eq!(message(&[("base", 8, &grey), ("above", 16, &above)]), expected);
    let (_folder, stages) = stages(&[("base", 8, &grey)], Residency::All);
    let error = Cascade::new(stages).unwrap().with_enlarger(enlarger()).unwrap_err().to_string();
    assert_eq!(error, "the stages make no cascade: the enlarger takes RGB, pictures of `base` have 1 channels");
}

/// Plans are data: whoever puts them together by hand may put them together wrongly.
#[test]
fn plans_of_stages_that_do_not_follow_each_other_are_refused() {
    let (_folder, mut cascade) = two(Residency::All);
    let plans = plans(&cascade, (None, None));
    for order in [vec![], vec![0, 0], vec![1, 0], vec![1, 1]] {
        let stages: Vec<_> = order.iter().map(|&index: &usize| plans[index].clone()).collect();
        let mut log = Log::default();
        let error = cascade.run(CascadeJob::new(&stages, &embeddings(&[1]), &[1]), &mut log).unwrap_err();
        assert!(matches!(&error, Error::PlanOrder(stages) if *stages == order), "{error}");
        assert!(log.lines.is_empty());
    }
}

#[test]
fn an_embedding_that_no_stage_takes_is_refused() {
    let mut config = dimensions(false);
    config.context.as_mut().unwrap().clip_image = None;
    let (_folder, stages) = stages(&[("base", 8, &Adm(config).into())], Residency::All);
    let mut cascade = Cascade::new(stages).unwrap();
    let (plans, given, none) = (plans(&cascade, (None, None)), embeddings(&[1]), Conditioning::default());
    let jobs = [
        ("conditioning", CascadeJob::new(&plans, &given, &[1])),
        ("unconditional", CascadeJob { unconditional: &given, ..CascadeJob::new(&plans, &none, &[1]) }),
    ];
    for (field, job) in jobs {
        let error = cascade.run(job, &mut ()).unwrap_err();
        assert!(
            matches!(error, Error::EmbeddingNotTaken { input, embedding: "clip_image" } if input == field),
            "{error}"
        );
        assert_eq!(error.to_string(), format!("the {field} has clip_image, which no stage of the cascade takes"));
    }
}

/// A later stage's shapes, too.
#[test]
fn an_embedding_of_another_shape_is_refused_before_anything_runs() {
    let mut above = dimensions(true);
    above.context.as_mut().unwrap().clip_image = Some(5);
    let (_folder, stages) = stages(&[("base", 8, &network(false)), ("above", 16, &Adm(above).into())], Residency::All);
    let mut cascade = Cascade::new(stages).unwrap();
    let (plans, mut log) = (plans(&cascade, (None, None)), Log::default());
    let error = cascade.run(CascadeJob::new(&plans, &embeddings(&[1]), &[1]), &mut log).unwrap_err().to_string();
    assert_eq!(error, "stage `above`: the clip_image embedding has shape [1, 4], the network takes [1, 5]");
    assert!(log.lines.is_empty());
}

/// Timesteps are those that the stage's network was trained on.
#[test]
fn a_schedule_of_timesteps_is_on_the_stages_own_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = write_stage(folder.path(), "base", 8, &network(false));
    config.settings.schedule = Schedule::Leading;
    for table in [NoiseTable::SquaredCosine, NoiseTable::Linear] {
        config.precondition = PreconditionConfig::Epsilon(Epsilon::new(table));
        let stage = Stage::open(folder.path(), &config, CPU, Residency::All).unwrap();
        let mut cascade = Cascade::new(vec![stage]).unwrap();
        let plans = plans(&cascade, (None, None));
        let sigmas: Vec<f64> = plans[0].plan.steps().iter().map(|step| step.sigma).collect();
        assert_eq!(sigmas, [750, 500, 250, 0].map(|t| table.sigmas()[t]));
        let mut log = Log::default();
        cascade.run(CascadeJob::new(&plans, &embeddings(&[1]), &[1]), &mut log).unwrap();
        let first = log.lines.iter().find(|line| line.contains("step 0")).unwrap();
        assert_eq!(*first, format!("base: batch 0, step 0 of 4 at {:.3}", table.sigmas()[750]));
    }
}
