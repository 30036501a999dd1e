//! LoRA: what is trained is small, and merging its file gives the network that was trained.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod tiny;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::unet::{ClipText, Layout, PublishedStableDiffusion, UNet};
use ediffi_core::weights::{Fresh, Lora, LoraFile, LoraPart, Params, Scope, WeightsFile};
use ediffi_train::fit::{Setup, fit};
use ediffi_train::lineage::Lineage;
use ediffi_train::lora::{Frozen, LoraSettings};
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::{Shared, TrainState};
use ediffi_train::{Error, Result};
use tch::{Device, Kind, Tensor};

fn settings(targets: &[&str]) -> LoraSettings {
    LoraSettings { rank: 2, alpha: Some(3.0), targets: targets.iter().map(|target| (*target).to_owned()).collect() }
}

/// Linear maps and convolutions of the small U-Net.
fn own() -> LoraSettings {
    settings(&["qkv", "q", "kv", "self_attention.out", "res.conv1", "down"])
}

/// A trained network. The last convolution of a new one is zero, and all else would have no gradients.
fn base(folder: &Path) -> PathBuf {
    let (network, mut state) = tiny::begin(1);
    tiny::train(&network, &mut state, 20);
    let path = folder.join("base.safetensors");
    state.export(&path, "", Kind::Float, HashMap::new()).unwrap();
    path
}

fn open(base: &Path, settings: &LoraSettings) -> Frozen {
    Frozen::open(base, &tiny::config(), settings, Device::Cpu, Kind::Float).unwrap()
}

/// Trains LoRAs up to step `steps`, by the loss of a network.
fn train<L: Layout + Sync>(
    folder: &Path,
    steps: u64,
    (frozen, layout): (&Frozen, &L),
    loss: impl Fn(&UNet) -> Tensor + Send + Copy,
) -> TrainState {
    let lineage = Lineage::default().with("batch", 1);
    let checkpoint_every = Duration::from_secs(180);
    let (name, begin, batch, accumulate, first_batch) = ("lora", Begin::Resume, 1, 1, 0);
    let run = Run { name, folder, begin, steps, batch, accumulate, first_batch, checkpoint_every, lineage };
    let optimizer = AdamWSettings { learning_rate: 1e-2, warm_up: 2, ..AdamWSettings::default() };
    let (device, kind) = (Device::Cpu, Kind::Float);
    let setup = Setup { seed: 5, parent: None, device, kind, optimizer, ema: 0.5, workers: 1 };
    let learner = |params: &mut dyn Params| {
        let mut adapted = frozen.over(params)?;
        Ok(move |_: u64, _: u64| -> Result<Tensor> {
            Ok(loss(&UNet::new(Scope::root(&mut adapted), layout, Kind::Float)?))
        })
    };
    fit(&run, &setup, Ok::<u64, Error>, learner, |_, _| Ok(ControlFlow::Continue(()))).unwrap()
}

/// The network with what `params` holds.
fn with(frozen: &Frozen, layout: &dyn Layout, params: &mut dyn Params) -> UNet {
    UNet::new(Scope::root(&mut frozen.over(params).unwrap()), layout, Kind::Float).unwrap()
}

/// The network of a file of weights into which that of a LoRA is merged.
fn merged(base: &Path, lora: &Path, layout: &dyn Layout) -> UNet {
    let mut file = WeightsFile::open(base, |name| Some(name.to_owned())).unwrap();
    file.change(&LoraFile::open(&Lora::new(lora)).unwrap(), LoraPart::Network).unwrap();
    file.build(Device::Cpu, Kind::Float, |scope| UNet::new(scope, layout, Kind::Float)).unwrap()
}

fn tiny_loss(network: &UNet) -> Tensor {
    tiny::loss(network, 7, 0..tiny::ROWS)
}

#[test]
fn loras_alone_are_trained_and_their_file_merged_gives_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let (base, config, path) = (base(folder.path()), tiny::config(), folder.path().join("style.safetensors"));
    let frozen = open(&base, &own());
    let begun = tiny_loss(&with(&frozen, &config, &mut Fresh::new(5, Device::Cpu)));
    let bare = WeightsFile::open(&base, |name| Some(name.to_owned())).unwrap();
    let bare = bare.build(Device::Cpu, Kind::Float, |scope| UNet::new(scope, &config, Kind::Float)).unwrap();
    assert_eq!(begun, tiny_loss(&bare), "it begins as the frozen network");

    let state = train(folder.path(), 40, (&frozen, &config), tiny_loss);
    let names: Vec<&str> = state.parameters().iter().map(|(name, _)| name.as_str()).collect();
    let halves = |half: &str| names.iter().filter(|name| name.ends_with(&format!(".lora_{half}.weight"))).count();
    assert!(names.iter().all(|name| name.starts_with("unet.")) && halves("A") == halves("B"), "{names:?}");
    assert_eq!(halves("A") * 2, names.len());
    // Of the level with attention: both kinds of it, and the block; blocks on the way up and in the middle.
    assert!(halves("A") >= 8, "{names:?}");
    let trained = with(&frozen, &config, &mut Shared(state.average()));
    let (before, after) = (begun.double_value(&[]), tiny_loss(&trained).double_value(&[]));
    assert!(after < 0.95 * before, "{before} became {after}");

    state.export(&path, "", Kind::Float, own().notes()).unwrap();
    let merged = tiny_loss(&merged(&base, &path, &config)).double_value(&[]);
    // The same products and sums; how a convolution's weight lies in memory is another.
    assert!((merged - after).abs() < 1e-6 * after, "{merged}, not {after}");
    let checkpoint = std::fs::metadata(folder.path().join("lora.checkpoint.safetensors")).unwrap().len();
    assert!(checkpoint < 5 * std::fs::metadata(&path).unwrap().len(), "weights, moments and average of LoRAs alone");
}

#[test]
fn resumed_it_is_the_unbroken_run_bit_for_bit() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let base = base(folders[0].path());
    let config = tiny::config();
    let run = |folder: &Path, steps| train(folder, steps, (&open(&base, &own()), &config), tiny_loss);
    let whole = run(folders[0].path(), 8);
    drop(run(folders[1].path(), 3));
    let parts = run(folders[1].path(), 8);
    assert_eq!(parts.step(), 8);
    assert!(tiny::same(whole.parameters(), &tiny::copies(parts.parameters())));
    let [whole, parts] =
        folders.each_ref().map(|folder| tiny::contents(&folder.path().join("lora.checkpoint.safetensors")));
    assert!(whole == parts, "moments and average as well");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let config = tiny::config();
    let with = |rank, alpha, targets: &[&str]| LoraSettings { rank, alpha, ..settings(targets) };
    for (settings, field, said) in [
        (with(0, None, &["q"]), "lora.rank", "0 is not"),
        (with(2, Some(f64::NAN), &["q"]), "lora.alpha", "NaN"),
        (with(2, Some(0.0), &["q"]), "lora.alpha", "0 is no"),
        (with(2, None, &[]), "lora.targets", "there are none"),
        (with(2, None, &["q", "to_q"]), "lora.targets", "\"to_q\""),
        // A norm is no layer that a LoRA changes, and an end of a name begins behind a dot.
        (with(2, None, &["norm1"]), "lora.targets", "norm1"),
        (with(2, None, &["kv", "v"]), "lora.targets", "\"v\""),
    ] {
        let error = settings.check(&config).unwrap_err();
        let named = matches!(&error, Error::Setting { field: found, .. } if *found == field);
        assert!(named && error.to_string().contains(said), "{error}");
    }
    assert_eq!(with(8, None, &["q"]).alpha(), 8.0);
}

/// Stable Diffusion's layout: the names are those of diffusers, which the reader of LoRAs knows.
#[test]
fn a_published_layout_is_trained_under_its_own_names() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ediffi-core/tests/fixtures/stable-diffusion/unet-1");
    let mut config = PublishedStableDiffusion::read(&fixture.join("config.json"), None).unwrap().network;
    config.text = ClipText { tokens: 7, ..config.text };
    let folder = tempfile::tempdir().unwrap();
    let (base, path) = (fixture.join("weights.safetensors"), folder.path().join("style.safetensors"));
    let settings = settings(&["to_q", "to_v", "to_out.0", "conv1", "proj_in"]);
    let frozen = Frozen::open(&base, &config, &settings, Device::Cpu, Kind::Float).unwrap();
    let loss = |network: &UNet| {
        let io: HashMap<String, Tensor> = Tensor::read_safetensors(recorded()).unwrap().into_iter().collect();
        let told =
            Conditioning { clip_text: Some(io["encoder_hidden_states"].shallow_clone()), ..Conditioning::default() };
        let context = network.context(&told, 2).unwrap();
        network.forward(&io["sample"], &io["timestep"], &context, None).unwrap().square().mean(Kind::Float)
    };
    let before = loss(&with(&frozen, &config, &mut Fresh::new(5, Device::Cpu))).double_value(&[]);
    let state = train(folder.path(), 20, (&frozen, &config), loss);
    state.export(&path, "", Kind::Float, settings.notes()).unwrap();
    let after = loss(&with(&frozen, &config, &mut Shared(state.average()))).double_value(&[]);
    assert!(after < 0.9 * before, "{before} became {after}");
    let merged = loss(&merged(&base, &path, &config)).double_value(&[]);
    assert!((merged - after).abs() < 1e-6 * after, "{merged}, not {after}");
}

/// An evaluation of the network of the fixtures.
fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ediffi-core/tests/fixtures/stable-diffusion/unet-1/io.safetensors")
}
