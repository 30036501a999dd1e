//! A stage that draws latents and decodes them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::{Ask, CPU, Log, Model, bytes, dimensions, enlarger, sample};
use ediffi_cascade::{AutoencoderFiles, Cascade, Error, Stage, StageEvent};
use ediffi_core::autoencoder::{AutoencoderConfig, Decoder};
use ediffi_core::guidance::Thresholding;
use ediffi_core::pool::Residency;
use ediffi_core::unet::{Adm, UNetConfig};
use tch::{Device, Kind};

/// An autoencoder whose latents are half as wide and as high as pictures.
fn autoencoder() -> AutoencoderFiles {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ediffi-core/tests/fixtures/stable-diffusion/vae");
    let config = AutoencoderConfig::read_published(&folder.join("config.json")).unwrap();
    AutoencoderFiles { weights: folder.join("weights.safetensors"), original: false, config }
}

fn network(channels: i64, low_res: bool) -> UNetConfig {
    let mut dimensions = dimensions(low_res);
    dimensions.picture_channels = channels;
    Adm(dimensions).into()
}

fn stage(model: &Model, residency: Residency) -> Stage {
    Stage::open(model.folder.path(), &model.config, CPU, residency).unwrap()
}

fn open(model: &Model, residency: Residency) -> Cascade {
    Cascade::new(vec![stage(model, residency).with_decoder(autoencoder()).unwrap()]).unwrap()
}

#[test]
fn pictures_are_the_decoded_latents() {
    let model = Model::new(&network(4, false), 16);
    let mut cascade = open(&model, Residency::All);
    assert_eq!((cascade.stages()[0].sizes().multiple, cascade.stages()[0].picture_channels()), (4, 3));
    let mut latents = None;
    let mut watch = |event: &StageEvent<'_>| {
        // The last step ends with its own estimate.
        if let StageEvent::Step { denoised, .. } = event {
            latents = Some(denoised.copy());
        }
        ControlFlow::Continue(())
    };
    let mut ask = Ask::new(&cascade, &[5]);
    ask.size = (16, 24);
    let picture = ask.run(&mut cascade, &mut watch).unwrap();
    let latents = latents.unwrap();
    assert_eq!((latents.size(), picture.size()), (vec![1, 4, 8, 12], vec![1, 3, 16, 24]));
    assert!(f64::try_from(latents.abs().max()).unwrap() > 1.0, "latents are not clamped");
    let AutoencoderFiles { weights, config, .. } = autoencoder();
    let decoder = Decoder::load(&weights, &config, Device::Cpu, Kind::Float).unwrap();
    assert_eq!(bytes(&picture), bytes(&decoder.decode(&latents).unwrap().clamp(-1.0, 1.0)));
}

/// With a relay all are decoded when the last is drawn, and nothing stays.
#[test]
fn a_relay_decodes_in_the_end() {
    let model = Model::new(&network(4, false), 16);
    let seeds = [5, 6, 7];
    let expected = sample(&mut open(&model, Residency::All), &seeds, |_| ());
    let mut cascade = open(&model, Residency::Relay);
    let mut log = Log::default();
    let drawn = Ask::new(&cascade, &seeds).run(&mut cascade, &mut log).unwrap();
    assert_eq!(bytes(&drawn), bytes(&expected));
    assert!(cascade.stages()[0].resident().is_empty());
    assert_eq!(bytes(&Ask::new(&cascade, &seeds).run(&mut cascade, &mut ()).unwrap()), bytes(&expected));
    // It may be stopped before every picture.
    let polls = log.polls;
    for question in [polls - 2, polls] {
        let mut stop = Log { stop_poll: Some(question), ..Log::default() };
        let stopped = Ask::new(&cascade, &seeds).run(&mut cascade, &mut stop);
        assert!(matches!(stopped, Err(Error::Cancelled)), "{question} of {polls}");
    }
}

#[test]
fn a_plan_tells_how_latents_are_decoded() {
    let model = Model::new(&network(4, false), 16);
    let cascade = open(&model, Residency::All);
    let plan = |side| cascade.plan(0..=0, (Some(side), None), |_| None).unwrap().remove(0);
    assert!(plan(24).to_string().ends_with("\nstage base: latents of 12x8, decoded in f32"), "{}", plan(24));
    // Above 1024² pixels the autoencoder's tiles cut them: one of 8 at every 6 latents.
    let decoding = plan(1 << 17).decoding.unwrap();
    assert_eq!((decoding.width, decoding.height, decoding.tiles), (1 << 16, 8, 10923 * 2));
    assert!(matches!(cascade.plan(0..=0, (Some(26), None), |_| None), Err(Error::ImageSize { multiple: 4, .. })));
}

#[test]
fn what_makes_no_latent_stage_is_refused() {
    let refused = |channels, low_res, size| {
        let mut model = Model::new(&network(channels, low_res), 16);
        model.config.size = size;
        stage(&model, Residency::All).with_decoder(autoencoder()).unwrap_err().to_string()
    };
    assert!(refused(3, false, 16).contains("it draws 3 channels, the autoencoder decodes 4"));
    assert!(refused(4, true, 16).contains("super-resolution draws pixels"));
    assert!(refused(4, false, 14).contains("14 is no multiple of 4"));
    let mut model = Model::new(&network(4, false), 16);
    model.config.settings.guidance.thresholding = Thresholding::Static;
    let error = open(&model, Residency::All).plan(0..=0, (None, None), |_| None).unwrap_err().to_string();
    assert!(error.contains("guidance") && error.contains("latents"), "{error}");
    // The pictures are RGB, so an enlarger takes them.
    model.config.settings.guidance.thresholding = Thresholding::None;
    assert!(open(&model, Residency::All).with_enlarger(enlarger()).is_ok());
    let missing = AutoencoderFiles { weights: PathBuf::from("nowhere.safetensors"), ..autoencoder() };
    let mut cascade = Cascade::new(vec![stage(&model, Residency::All).with_decoder(missing).unwrap()]).unwrap();
    let error = Ask::new(&cascade, &[1]).run(&mut cascade, &mut ()).unwrap_err();
    assert!(matches!(&error, Error::Stage { stage, .. } if stage == "base"), "{error}");
}
