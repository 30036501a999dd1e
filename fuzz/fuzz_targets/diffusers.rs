//! Networks that diffusers saved for Stable Diffusion and Karlo: the configurations and the weights of U-Net and autoencoder, and the
//! configurations of Karlo's networks; and checkpoints of one file. The first byte says which reader has the rest.
#![no_main]

use ediffi_core::autoencoder::{AttentionWeights, AutoencoderConfig, Decoder, Encoder};
use ediffi_core::nn::Activation;
use ediffi_core::prior::{Prior, PriorConfig};
use ediffi_core::unet::{
    ClipText, LatentLevel, PublishedStableDiffusion, PublishedUnClip, StableDiffusion, Transformers, UNet, UNetConfig,
};
use ediffi_core::weights::{self, Init, Original, OriginalModel, Scope, Table, WeightsFile};
use ediffi_fuzz::{Room, checked, fixture, peak, target};
use tch::{Device, Kind};

target!(run);

thread_local! {
    static FOLDER: Room = Room::new();
}

fn run(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let read = || {
        FOLDER.with(|room| match which % 10 {
            // With the width of a pooled text, and without.
            0 | 1 => unet(&room.put("config.json", data), (which % 10 == 0).then_some(1280)),
            6 => {
                let text_proj = fixture("ediffi-core/tests/fixtures/unclip/text/text_proj/config.json");
                unclip(PublishedUnClip::decoder(&room.put("config.json", data), &text_proj, 77));
            }
            7 => unclip(PublishedUnClip::enlarger(&room.put("config.json", data))),
            8 => prior(&room.put("config.json", data)),
            9 => original(&room.put("checkpoint.safetensors", data)),
            2 => autoencoder(&room.put("config.json", data)),
            3 => drop(checked(Encoder::load(&room.put("vae.safetensors", data), &small(), Device::Cpu, Kind::Float))),
            4 => drop(checked(Decoder::load(&room.put("vae.safetensors", data), &small(), Device::Cpu, Kind::Float))),
            _ => {
                let (path, config) = (room.put("unet.safetensors", data), thin());
                let build = |scope: Scope<'_>| UNet::new(scope, &config, Kind::Float);
                drop(checked(weights::load(&path, |name| Some(name.to_owned()), Device::Cpu, Kind::Float, build)));
            }
        })
    };
    let ((), bytes) = peak(read);
    // The list of the parameters of a large network is made of a small configuration.
    assert!(bytes <= (64 << 20) + 256 * data.len(), "{} bytes took {bytes}", data.len());
}

/// Every part of a checkpoint, each tensor of it.
fn original(path: &std::path::Path) {
    drop(checked(OriginalModel::of(path)));
    let text = |embedder| Original::Text { embedder, layers: 2 };
    for part in [Original::Network, Original::Autoencoder, text(None), text(Some(0)), text(Some(1))] {
        let Some(file) = checked(WeightsFile::original(path, part, |name| Some(name.to_owned()))) else { continue };
        let shapes: Vec<(String, Vec<i64>)> = file
            .shapes()
            .map(|(name, shape)| (name.to_owned(), shape.iter().map(|&side| side as i64).collect()))
            .collect();
        drop(checked(file.build(Device::Cpu, Kind::Float, |mut scope: Scope<'_>| {
            for (name, shape) in &shapes {
                scope.weight(name, shape, Init::Zeros)?;
            }
            Ok(())
        })));
    }
}

fn unet(path: &std::path::Path, pooled: Option<i64>) {
    let Some(read) = checked(PublishedStableDiffusion::read(path, pooled)) else { return };
    let json = serde_json::to_string(&read.network).unwrap();
    assert!(serde_json::from_str::<StableDiffusion>(&json).unwrap() == read.network, "another network: {json}");
    assert!(read.network.text.pooled.is_none() || read.network.text.pooled == pooled);
    if let Some(table) = checked(Table::of(|scope: Scope<'_>| UNet::new(scope, &read.network, Kind::Float))) {
        assert!(table.elements() > 0, "a network of {} parameters", table.elements());
    }
}

fn unclip(read: ediffi_core::Result<PublishedUnClip>) {
    let Some(read) = checked(read) else { return };
    let config = UNetConfig::from(read.network);
    let json = serde_json::to_string(&config).unwrap();
    assert!(serde_json::from_str::<UNetConfig>(&json).unwrap() == config, "another network: {json}");
    if let Some(table) = checked(Table::of(|scope: Scope<'_>| UNet::new(scope, &config, Kind::Float))) {
        assert!(table.elements() > 0, "a network of {} parameters", table.elements());
    }
}

fn prior(path: &std::path::Path) {
    let Some(config) = checked(PriorConfig::read_published(path)) else { return };
    if let Some(table) = checked(Table::of(|scope: Scope<'_>| Prior::new(scope, &config, Kind::Float))) {
        assert!(table.elements() > 0, "a network of {} parameters", table.elements());
    }
}

fn autoencoder(path: &std::path::Path) {
    let Some(config) = checked(AutoencoderConfig::read_published(path)) else { return };
    assert!(config.size_multiple() >= 1 && config.scaling_factor > 0.0);
    let attention = AttentionWeights::Matrices;
    let tables = [
        checked(Table::of(|scope: Scope<'_>| Encoder::new(scope, &config, attention, Kind::Float))),
        checked(Table::of(|scope: Scope<'_>| Decoder::new(scope, &config, attention, Kind::Float))),
    ];
    for table in tables.into_iter().flatten() {
        assert!(table.elements() > 0, "a network of {} parameters", table.elements());
    }
}

/// An autoencoder of one level and one channel: `make_seeds.py` has its weights.
fn small() -> AutoencoderConfig {
    AutoencoderConfig {
        picture_channels: 1,
        latent_channels: 1,
        channels: vec![1],
        blocks: 1,
        groups: 1,
        ..AutoencoderConfig::stable_diffusion()
    }
}

/// A U-Net of one level and two channels: `make_seeds.py` has its weights.
fn thin() -> StableDiffusion {
    StableDiffusion {
        latent_channels: 1,
        levels: vec![LatentLevel { channels: 2, blocks: 1, transformers: None }],
        middle: Transformers { heads: 1, depth: 1 },
        groups: 1,
        norm_eps: 1e-5,
        activation: Activation::Silu,
        embedding_width: 2,
        text: ClipText { tokens: 2, width: 1, pooled: None },
        micro: None,
        beside: None,
        linear_projection: false,
        upcast_attention: false,
        middle_scale: 1.0,
    }
}
