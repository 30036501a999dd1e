//! Trains a LoRA of a U-Net of Stable Diffusion for twenty steps, and writes it with what the network answers then. `lora_peft.py` beside this
//! compares that with diffusers and PEFT:
//!
//! ```sh
//! cargo run -p ediffi-train --example lora -- UNET/config.json UNET/diffusion_pytorch_model.safetensors OUT
//! python3 ediffi-train/examples/lora_peft.py UNET OUT
//! ```

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::path::PathBuf;

use ediffi_core::conditioning::Conditioning;
use ediffi_core::unet::{PublishedStableDiffusion, UNet};
use ediffi_core::weights::{Fresh, Scope};
use ediffi_train::lora::{Frozen, LoraSettings};
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::random::{batch_rng, normal};
use ediffi_train::state::{Shared, TrainState};
use tch::{Device, Kind, Tensor};

/// Linear maps, and convolutions of both sizes.
const TARGETS: [&str; 6] = ["to_q", "to_v", "to_out.0", "conv1", "conv_shortcut", "proj_in"];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing: CONFIG WEIGHTS OUT"));
    let (config, weights, out) = (next("CONFIG")?, next("WEIGHTS")?, next("OUT")?);
    std::fs::create_dir_all(&out)?;
    let published = PublishedStableDiffusion::read(&config, None)?;
    let layout = published.network;
    let targets = TARGETS.map(str::to_owned).to_vec();
    let settings = LoraSettings { rank: 4, alpha: Some(6.0), targets };
    let frozen = Frozen::open(&weights, &layout, &settings, Device::Cpu, Kind::Float)?;

    let mut rng = batch_rng(1, 0);
    let (side, text) = (published.sample_size, layout.text);
    let sample = normal(&mut rng, &[2, 4, side, side])?;
    let said = normal(&mut rng, &[2, text.tokens, text.width])?;
    let timestep = Tensor::f_from_slice(&[11.0_f32, 700.0])?;
    let told = Conditioning { clip_text: Some(said.shallow_clone()), ..Conditioning::default() };
    let answer = |network: &UNet| -> Result<Tensor, Box<dyn Error>> {
        Ok(network.forward(&sample, &timestep, &network.context(&told, 2)?, None)?)
    };

    let mut fresh = Fresh::new(1, Device::Cpu);
    frozen.over(&mut fresh)?;
    let optimizer = AdamWSettings { learning_rate: 1e-2, warm_up: 2, ..AdamWSettings::default() };
    let mut state = TrainState::new(fresh.into_named(), optimizer, 0.5)?;
    for step in 0..20 {
        let mut adapted = frozen.over(&mut Shared(state.parameters()))?;
        let network = UNet::new(Scope::root(&mut adapted), &layout, Kind::Float)?;
        let loss = answer(&network)?.f_square()?.f_mean(Kind::Float)?;
        println!("step {step}: {:.5}", loss.f_double_value(&[])?);
        loss.f_backward()?;
        state.update(2, 1)?;
    }
    let mut adapted = frozen.over(&mut Shared(state.average()))?;
    let trained = answer(&UNet::new(Scope::root(&mut adapted), &layout, Kind::Float)?)?;
    state.export(&out.join("pytorch_lora_weights.safetensors"), "", Kind::Float, settings.notes())?;
    let seen = [("sample", &sample), ("text", &said), ("timestep", &timestep), ("answer", &trained)];
    let seen = seen.map(|(name, tensor)| (name.to_owned(), tensor.detach()));
    ediffi_core::weights::save(&out.join("seen.safetensors"), &seen, Default::default())?;
    Ok(())
}
