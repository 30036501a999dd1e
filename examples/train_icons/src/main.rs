//! Trains ediffi's small model on the icons data set, network by network.
//!
//! ```text
//! train-icons clip
//! train-icons base joint; train-icons base shared
//! train-icons base high; train-icons base middle; train-icons base low
//! train-icons sr 256; train-icons sr 1024
//! train-icons assemble models/icons
//! ```
//! Each command goes on where it was stopped with `--resume`; see `docs/training.md`.

mod train;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
use train::base::Part;
use train::batches::Data;
use train::run::Length;
use train_icons::config::SamplerConfig;
use train_icons::pack::{self, Pack};
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;

/// The large temporary tensors of a network make the C library's allocator expensive.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    /// What to do.
    #[command(subcommand)]
    command: Command,
    /// Folder of checkpoints, logs and sheets; the model is put together in its subfolder `model`.
    #[arg(long, global = true, default_value = "runs/icons")]
    folder: PathBuf,
    /// The sprite pack that `cargo xtask icons` builds.
    #[arg(long, global = true, default_value = pack::DEFAULT_PATH)]
    pack: PathBuf,
    /// Pictures a step.
    #[arg(long, global = true, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch: u64,
    /// Seed of the scenes.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Train(Network),
    /// Put the trained networks together into a model folder.
    Assemble {
        /// The model folder.
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Network {
    /// The tokenizers and the tiny CLIP.
    Clip {
        #[command(flatten)]
        length: Length,
    },
    /// The 64×64 base or one of its experts.
    Base {
        /// Which.
        part: Part,
        #[command(flatten)]
        length: Length,
    },
    /// Super-resolution to 256 or 1024 pixels.
    Sr {
        /// 256 or 1024.
        #[arg(value_parser = ["256", "1024"])]
        full: String,
        #[command(flatten)]
        length: Length,
    },
}

fn main() -> train::Result<()> {
    let arguments = Arguments::parse();
    let (folder, model) = (arguments.folder.as_path(), arguments.folder.join("model"));
    let network = match &arguments.command {
        Command::Assemble { out } => return train::assemble::assemble(&model, out),
        Command::Train(network) => network,
    };
    let runtime = Runtime::new(DeviceChoice::Auto, Precision::Auto)?;
    println!("{:?}, {:?}, {} threads", runtime.device, runtime.kind, tch::get_num_threads());
    let data = Arc::new(Data {
        sampler: Sampler::new(SamplerConfig::small())?,
        renderer: Renderer::new(&Pack::open(&arguments.pack)?)?,
        seed: arguments.seed,
        rows: arguments.batch,
    });
    std::fs::create_dir_all(&model)?;
    match network {
        Network::Clip { length } => train::clip::train(data, folder, &model, runtime, length),
        Network::Base { part, length } => train::base::train(data, folder, &model, runtime, length, *part),
        Network::Sr { full, length } => {
            train::super_resolution::train(data, folder, &model, runtime, length, full.parse()?)
        }
    }
}
