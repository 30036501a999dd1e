//! Measures what a sum over processes costs, and its share of a training step. Start it alone, and then with `mpirun`, a few times in turns:
//!
//! ```sh
//! cargo build -p ediffi-cluster --features mpi --examples
//! target/debug/examples/measure alone sums.csv
//! mpirun -n 2 target/debug/examples/measure mpi sums.csv
//! ```
//!
//! Rank 0 appends lines to the file: `sum,RANKS,BYTES,SECONDS` and `step,RANKS,BATCHES,SECONDS,SECONDS OF THE SUM,BYTES`.
//! [`scaling`](scaling.rs) makes a page of them.

use std::cell::RefCell;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ediffi_cluster::{Options, run};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, SigmaInterval};
use ediffi_core::nn::Norm;
use ediffi_core::precondition::Edm;
use ediffi_core::unet::{Dimensions, Efficient, Level};
use ediffi_core::weights::Params;
use ediffi_train::batch::Batch;
use ediffi_train::fit::{Setup, fit_together};
use ediffi_train::learner::{Learner, Objective};
use ediffi_train::lineage::Lineage;
use ediffi_train::log::Entry;
use ediffi_train::noise::NoiseLevels;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::random::{batch_rng, normal};
use ediffi_train::reduce::Reduce;
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::TrainState;
use tch::{Device, Kind, Tensor};

/// Bytes that are added up.
const SIZES: [i64; 3] = [4_000_000, 64_000_000, 700_000_000];
/// Pictures of a batch, and pixels of their sides.
const BATCH: i64 = 8;
const SIDE: i64 = 16;
/// Steps that are measured, behind two that are not.
const STEPS: u64 = 5;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [transport, file] = arguments.as_slice() else { return Err("usage: measure TRANSPORT FILE".into()) };
    // One core for each process.
    tch::set_num_threads(1);
    let options = Options { transport: transport.parse()?, ..Options::default() };
    let file = PathBuf::from(file);
    run(&options, |cluster| measure(cluster.reduce(), &file)).map_err(|error| error.0)
}

/// Any error.
struct Any(Box<dyn Error>);

impl std::fmt::Display for Any {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Error + 'static> From<E> for Any {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

fn measure(reduce: &dyn Reduce, file: &Path) -> std::result::Result<(), Any> {
    let world = reduce.world();
    let mut lines = Vec::new();
    for bytes in SIZES.into_iter().filter(|_| world > 1) {
        let mut buffer = Tensor::f_ones([bytes / 4], (Kind::Float, Device::Cpu))?;
        let mut times = Vec::new();
        for _ in 0..if bytes > 100_000_000 { 3 } else { 7 } {
            let _ = buffer.f_fill_(1.0)?;
            reduce.barrier()?;
            let began = Instant::now();
            reduce.sum(&mut buffer)?;
            times.push(began.elapsed().as_secs_f64());
        }
        lines.push(format!("sum,{world},{bytes},{:.6}", median(times)));
    }
    for batches in [4, 8] {
        let (seconds, sum, bytes) = steps(reduce, batches)?;
        lines.push(format!("step,{world},{batches},{seconds:.6},{sum:.6},{bytes}"));
    }
    if reduce.rank() == 0 {
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        writeln!(file, "{}", lines.join("\n"))?;
    }
    Ok(())
}

/// Seconds of a step of so many batches, those of its large sum, and the bytes of that.
fn steps(reduce: &dyn Reduce, accumulate: u64) -> std::result::Result<(f64, f64, usize), Any> {
    let folder = std::env::temp_dir().join(format!("ediffi-measure-{}", std::process::id()));
    let timed = Timed { reduce, sums: RefCell::default() };
    let (checkpoint_every, lineage) = (Duration::from_secs(3600), Lineage::default());
    let (name, begin, steps, batch, first_batch) = ("net", Begin::Restart, STEPS + 2, BATCH as u64, 0);
    let run = Run { name, folder: &folder, begin, steps, batch, accumulate, first_batch, checkpoint_every, lineage };
    let (optimizer, device, kind) = (AdamWSettings::default(), Device::Cpu, Kind::Float);
    let setup = Setup { seed: 1, parent: None, device, kind, optimizer, ema: 0.99, workers: 1 };
    let data = |number| {
        let pictures = normal(&mut batch_rng(3, number), &[BATCH, 3, SIDE, SIDE])?.f_tanh()?;
        Ok(Batch { pictures, smaller: None, text: () })
    };
    let learner = |params: &mut dyn Params| {
        let levels = NoiseLevels::new(LogNormal::default(), SigmaInterval::ALL);
        let encode = |_: &Batch<()>| Ok(Conditioning::default());
        let learner = Learner::new(params, &layout(), kind, Objective::new(Edm::default(), levels, 1), encode)?;
        Ok(move |number, batch: Batch<()>| learner.loss(number, &batch))
    };
    let (mut times, mut began) = (Vec::new(), Instant::now());
    let observe = |_: &TrainState, _: Option<&Entry>| {
        times.push(began.elapsed().as_secs_f64());
        began = Instant::now();
        Ok(ControlFlow::Continue(()))
    };
    let state: ediffi_train::Result<TrainState> = fit_together(&timed, &run, &setup, data, learner, observe);
    state?;
    if reduce.rank() == 0 {
        std::fs::remove_dir_all(&folder)?;
    }
    let sums = timed.sums.into_inner();
    let bytes = sums.iter().map(|(bytes, _)| *bytes).max().unwrap_or_default();
    let large = sums.into_iter().filter(|sum| sum.0 == bytes && bytes > 1 << 16).map(|sum| sum.1).skip(2);
    Ok((median(times.split_off(2)), median(large.collect()), bytes))
}

/// Eight million parameters.
fn layout() -> Efficient {
    let level = |multiplier| Level { multiplier, blocks: 2, self_attention: false, cross_attention: false };
    Efficient(Dimensions {
        picture_channels: 3,
        low_res: false,
        patch: 1,
        channels: 64,
        levels: [1, 2, 4].map(level).to_vec(),
        head_channels: 64,
        norm: Norm::Group(16),
        embedding_width: 256,
        context: None,
        detail: None,
    })
}

/// Processes whose sums are timed: bytes and seconds of each.
#[derive(Debug)]
struct Timed<'a> {
    reduce: &'a dyn Reduce,
    sums: RefCell<Vec<(usize, f64)>>,
}

impl Reduce for Timed<'_> {
    fn rank(&self) -> usize {
        self.reduce.rank()
    }

    fn world(&self) -> usize {
        self.reduce.world()
    }

    fn sum(&self, buffer: &mut Tensor) -> ediffi_train::Result<()> {
        let began = Instant::now();
        self.reduce.sum(buffer)?;
        self.sums.borrow_mut().push((4 * buffer.numel(), began.elapsed().as_secs_f64()));
        Ok(())
    }

    fn broadcast(&self, buffer: &mut Tensor) -> ediffi_train::Result<()> {
        self.reduce.broadcast(buffer)
    }

    fn barrier(&self) -> ediffi_train::Result<()> {
        self.reduce.barrier()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
