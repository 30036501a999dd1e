//! Builds the sprite pack, and draws contact sheets to look at.

#[path = "../../../../examples/shared/report.rs"]
mod report;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use ediffi_core::files::write_atomic;
use rayon::prelude::*;
use train_icons::background::Background;
use train_icons::colour::Colour;
use train_icons::config::SamplerConfig;
use train_icons::error::Result;
use train_icons::icon_set::IconSet;
use train_icons::pack::{self, Pack};
use train_icons::render::Renderer;
use train_icons::sampler::Sampler;
use train_icons::scene::{Object, Scene};
use train_icons::split::Split;
use train_icons::{assemble, concepts, sheet};

/// The icons data set.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the sprite pack from the installed packages.
    Pack {
        /// The `node_modules` folder.
        #[arg(long, default_value = ".icons/node_modules")]
        packages: PathBuf,
        /// The pack to write.
        #[arg(long, default_value = pack::DEFAULT_PATH)]
        out: PathBuf,
    },
    /// Draw scenes in a grid, and write their captions beside it (`.txt`).
    Sheet(SheetArguments),
    /// Draw every concept in every style in a grid: one row a concept.
    Concepts {
        /// The sprite pack.
        #[arg(long, default_value = pack::DEFAULT_PATH)]
        pack: PathBuf,
        /// The PNG to write.
        #[arg(long)]
        out: PathBuf,
        /// Pixels a side.
        #[arg(long, default_value_t = 64)]
        size: u32,
        /// Pictures in a row.
        #[arg(long, default_value_t = 20)]
        columns: u32,
    },
}

#[derive(Debug, clap::Args)]
struct SheetArguments {
    /// The sprite pack.
    #[arg(long, default_value = pack::DEFAULT_PATH)]
    pack: PathBuf,
    /// The PNG to write.
    #[arg(long)]
    out: PathBuf,
    /// Which scenes to sample.
    #[arg(long, value_enum, default_value_t = Variety::Small)]
    preset: Variety,
    /// Sample the held-out scenes.
    #[arg(long)]
    held_out: bool,
    /// The sampler's seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many scenes.
    #[arg(long, default_value_t = 48)]
    count: u64,
    /// Pictures in a row.
    #[arg(long, default_value_t = 8)]
    columns: u32,
    /// Pixels a side.
    #[arg(long, default_value_t = 128)]
    size: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Variety {
    /// The shipped model's data.
    Small,
    /// Every concept, style and arrangement.
    All,
}

fn main() -> std::process::ExitCode {
    report::report(run(Arguments::parse().command).map_err(Into::into))
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Pack { packages, out } => {
            let pack = assemble::assemble(&packages)?;
            pack.save(&out)?;
            println!("{} drawings of {} concepts in {}", pack.sprites.len(), concepts::ALL.len(), out.display());
            Ok(())
        }
        Command::Sheet(arguments) => scenes(&arguments),
        Command::Concepts { pack, out, size, columns } => {
            let renderer = Renderer::new(&Pack::open(&pack)?)?;
            let cells: Vec<_> =
                concepts::ALL.iter().flat_map(|concept| IconSet::ALL.map(|style| (concept.name, style))).collect();
            let pictures = cells
                .par_iter()
                .map(|&(name, style)| renderer.render(&portrait(name, style), size))
                .collect::<Result<Vec<_>>>()?;
            sheet::write(&out, &pictures, size, columns)
        }
    }
}

fn scenes(arguments: &SheetArguments) -> Result<()> {
    let config = match arguments.preset {
        Variety::Small => SamplerConfig::small(),
        Variety::All => SamplerConfig::all(),
    };
    let split = if arguments.held_out { Split::HeldOut } else { Split::Train };
    let sampler = Sampler::new(config)?;
    let renderer = Renderer::new(&Pack::open(&arguments.pack)?)?;
    let scenes =
        (0..arguments.count).map(|index| sampler.scene(arguments.seed, index, split)).collect::<Result<Vec<_>>>()?;
    let pictures = scenes.par_iter().map(|scene| renderer.render(scene, arguments.size)).collect::<Result<Vec<_>>>()?;
    sheet::write(&arguments.out, &pictures, arguments.size, arguments.columns)?;

    let captions: String = scenes.iter().map(|scene| format!("{}\n", scene.caption)).collect();
    let sidecar = arguments.out.with_extension("txt");
    Ok(write_atomic(&sidecar, captions.as_bytes())?)
}

/// One concept alone on white.
fn portrait(name: &str, style: IconSet) -> Scene {
    let object = Object {
        concept: name.to_owned(),
        x: 0.5,
        y: 0.5,
        size: 0.9,
        rotation: 0.0,
        ink: style.is_mono().then_some(Colour::Black),
        span: 0..name.chars().count(),
    };
    Scene { caption: name.to_owned(), style, background: Background::Plain(Colour::White), objects: vec![object] }
}
