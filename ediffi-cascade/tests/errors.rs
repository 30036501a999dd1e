//! A job that cannot be done is refused with the culprit's name, and a NaN with its expert's.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::error::Error as _;

use common::{Ask, Model, embeddings, network, pictures};
use ediffi_cascade::{Cascade, Error, Tiling, TilingError};
use ediffi_core::guidance::Guidance;
use ediffi_core::pool::Residency;
use ediffi_core::schedule::Schedule;
use ediffi_core::solver::Solver;

/// The error of a job that `change` made impossible; a NaN, a text or a seed must not get past it.
fn refusal(stage: &mut Cascade, change: impl FnOnce(&mut Ask)) -> Error {
    let mut ask = Ask::new(stage, &[1, 2]);
    change(&mut ask);
    ask.run(stage, &mut ()).unwrap_err()
}

#[test]
fn a_nan_names_the_expert_that_made_it() {
    let model = Model::new(&network(false), 8);
    let path = model.folder.path().join("base/low.safetensors");
    // Finite weights whose products are not.
    common::write_weights_with(&path, &network(false), 2, |name, x| {
        if name == "out.weight" {
            let _ = x.fill_(3e38);
        }
    });
    let error = refusal(&mut model.open(Residency::All), |_| ());
    let expected = "stage `base`: expert 1 (base/low.safetensors) made a NaN or an infinity at sigma 0.4699";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(matches!(error, Error::NotFinite { expert: 1, .. }));
}

#[test]
fn a_nan_in_a_file_names_the_tensor() {
    let model = Model::new(&network(false), 8);
    let path = model.folder.path().join("base/low.safetensors");
    common::write_weights_with(&path, &network(false), 2, |name, x| {
        if name == "out.bias" {
            let _ = x.narrow(0, 0, 1).fill_(f64::NAN);
        }
    });
    let error = refusal(&mut model.open(Residency::All), |_| ());
    assert!(matches!(&error, Error::WeightsNotFinite { expert: 1, tensor, .. } if tensor == "out.bias"), "{error}");
    let expected = "stage `base`: tensor out.bias of expert 1 (base/low.safetensors) holds a NaN";
    assert!(error.to_string().starts_with(expected) && error.to_string().contains("use the file in f32"), "{error}");
}

#[test]
fn weights_that_cannot_be_read_name_stage_and_file() {
    let model = Model::new(&network(false), 8);
    let path = model.folder.path().join("base/low.safetensors");
    std::fs::write(&path, "no weights").unwrap();
    for residency in [Residency::All, Residency::Relay, Residency::RelayPrefetch] {
        let error = refusal(&mut model.open(residency), |_| ());
        assert!(
            matches!(&error, Error::Stage { source, .. } if matches!(**source, ediffi_core::Error::WeightsFormat { .. })),
            "{error}"
        );
        assert!(error.to_string().starts_with("stage `base`: ") && error.to_string().contains("low.safetensors"));
        assert!(error.source().is_some());
    }
    // An expert that the plan does not visit is not missed.
    let mut stage = model.open(Residency::All);
    let mut ask = Ask::new(&stage, &[1]);
    ask.settings.schedule = Schedule::Custom(vec![80.0, 4.0, 0.0]);
    ask.settings.steps = 2;
    let _ = ask.run(&mut stage, &mut ()).unwrap();
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let base = Model::new(&network(false), 8);
    let above = Model::new(&network(true), 8);
    let (mut base, mut above) = (base.open(Residency::All), above.open(Residency::All));
    let message = |stage: &mut Cascade, change: &dyn Fn(&mut Ask)| refusal(stage, |ask| change(ask)).to_string();
    let pictures = pictures(&[1, 2, 3], 4, 4);

    assert_eq!(
        message(&mut base, &|ask| ask.seeds.clear()),
        "stage `base` cannot sample, seeds: there is none, each picture needs one"
    );
    assert_eq!(
        message(&mut above, &|ask| ask.low_res = Some(pictures.shallow_clone())),
        "stage `base` cannot sample, low_res: its shape is [3, 3, 4, 4], expected [2, 3, height, width]"
    );
    assert_eq!(
        message(&mut above, &|ask| ask.conditioning.low_res = Some(pictures.shallow_clone())),
        "stage `base` cannot sample, conditioning: the smaller picture goes into the job's own field"
    );
    assert_eq!(message(&mut above, &|_| ()), "stage `base`: a super-resolution network needs the smaller picture");
    assert_eq!(
        message(&mut base, &|ask| ask.low_res = Some(pictures.narrow(0, 0, 2))),
        "stage `base`: a base network takes no smaller picture"
    );
    for (height, width) in [(7, 8), (8, 0)] {
        let expected =
            format!("the cascade cannot make {width}x{height}: width and height have to be positive multiples of 2");
        assert_eq!(message(&mut base, &|ask| ask.size = (height, width)), expected);
    }
    assert_eq!(
        message(&mut base, &|ask| ask.conditioning = embeddings(&[1, 2, 3])),
        "stage `base` cannot sample, conditioning: t5 has 3 rows, there are 2 seeds"
    );
    assert_eq!(
        message(&mut base, &|ask| ask.unconditional.clip_text_pooled = embeddings(&[1, 2, 3]).clip_text_pooled),
        "stage `base` cannot sample, unconditional: clip_text_pooled has 3 rows, there are 2 seeds"
    );
    let narrow = |ask: &mut Ask| ask.conditioning.t5 = embeddings(&[1, 2]).t5.map(|t5| t5.narrow(1, 0, 2));
    assert!(message(&mut base, &narrow).starts_with("stage `base`: the t5 embedding has shape"));
}

#[test]
fn a_size_beyond_all_memory_is_an_error() {
    let model = Model::new(&network(false), 8);
    let error = refusal(&mut model.open(Residency::All), |ask| ask.size = (u32::MAX - 1, u32::MAX - 1));
    assert!(
        matches!(&error, Error::Stage { source, .. } if matches!(**source, ediffi_core::Error::InvalidNoiseShape { .. })),
        "{error}"
    );
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    type Change = fn(&mut Ask);
    let changes: [(Change, &str); 3] = [
        (|ask| ask.settings.steps = 0, "stage `base`, steps: invalid schedule: 0 steps"),
        (|ask| ask.settings.guidance = Guidance::new(f64::NAN), "stage `base`, guidance: invalid guidance: scale NaN"),
        (|ask| ask.settings.solver = Solver::TabDeis { order: 4 }, "stage `base`, solver: invalid solver: the order"),
    ];
    for (change, expected) in changes {
        let error = refusal(&mut stage, change).to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // Nothing was loaded for any of it.
    assert_eq!(stage.stages()[0].resident(), [0_usize; 0]);
}

#[test]
fn a_tiling_that_does_not_fit_is_named() {
    let model = Model::new(&network(false), 8);
    let mut stage = model.open(Residency::All);
    let error = refusal(&mut stage, |ask| ask.tiling = Some(Tiling { tile: 5, overlap: 2 }));
    assert!(matches!(&error, Error::Tiling { source: TilingError::NotMultiple { multiple: 2, .. }, .. }));
    assert_eq!(error.to_string(), "stage `base`: the tile is 5 pixels, it must be a multiple of 2");
}

#[test]
fn a_core_error_keeps_its_words_and_a_cancelled_one_its_meaning() {
    let error = Error::from(ediffi_core::Error::NoExperts);
    assert_eq!(error.to_string(), ediffi_core::Error::NoExperts.to_string());
    assert!(matches!(error, Error::Core { .. }));
    assert!(matches!(Error::from(ediffi_core::Error::Cancelled), Error::Cancelled));
}
