//! What one process of a job does.

use std::fmt::{Debug, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ediffi_cluster::{Cluster, Error, Options, Transport, branches, connect, run};
use ediffi_core::conditioning::Conditioning;
use ediffi_core::interval::{LogNormal, Node, SigmaInterval};
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
use ediffi_train::tree::{Branching, ExpertTree};
use tch::{Device, Kind, Tensor};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level as Severity, Metadata, Subscriber};

use crate::start::{CASE, FOLDER};

/// Writes a line in one piece: those of several processes come to one place.
fn tell(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}

/// Batches that make a step, in all processes together.
const ACCUMULATE: u64 = 4;

/// Words like `steps=20 kill=1@33 alone`.
#[derive(Debug, Clone)]
struct Case(String);

impl Case {
    fn has(&self, word: &str) -> bool {
        self.0.split(' ').any(|given| given == word)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name).map_or(otherwise, |text| text.parse().unwrap())
    }

    /// Whether it is `rank`'s turn to do something behind a number of steps, as in `kill=1@33`.
    fn is_turn(&self, name: &str, rank: usize, steps: u64) -> bool {
        self.text(name) == Some(&format!("{rank}@{steps}"))
    }
}

pub(crate) fn work() {
    let (Ok(case), Ok(folder)) = (std::env::var(CASE), std::env::var(FOLDER)) else { return };
    tch::set_num_threads(1);
    tracing::subscriber::set_global_default(Words).unwrap();
    let case = Case(case);
    let transport = match (case.has("alone"), case.text("nccl")) {
        (true, _) => Transport::Alone,
        (false, Some(_)) => Transport::Nccl,
        (false, None) => Transport::Mpi,
    };
    let options = Options {
        transport,
        groups: case.number("groups", 1) as usize,
        timeout: Duration::from_secs(case.number("timeout", 120)),
        nccl: case.text("nccl").unwrap_or("libnccl.so.2").into(),
    };
    let done = run(&options, |cluster| {
        if case.has("twice") {
            let error = connect(&options).unwrap_err().to_string();
            assert!(error.contains("it was started in this process before"), "{error}");
            let mut whole = Tensor::zeros([1], (Kind::Int64, Device::Cpu));
            let error = cluster.reduce().sum(&mut whole).unwrap_err();
            assert!(matches!(error, ediffi_train::Error::Reduce { .. }), "{error}");
        }
        job(cluster, &case, Path::new(&folder))
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}

fn job(cluster: &Cluster, case: &Case, folder: &Path) -> Result<(), Error> {
    if case.has("tree") {
        let halves = [0, 1].map(|index| Node::new(1, index).unwrap());
        let tree = ExpertTree::new(&LogNormal::default(), &halves, Branching::Direct)?;
        return branches::train(cluster, &tree, |reduce, network| {
            tell(&format!("{} by rank {}", network.name, cluster.everyone().rank()));
            let parent = network.parent.map(|parent| tree.networks()[parent].name.as_str());
            train(reduce, case, folder, (&network.name, network.interval, parent))
        });
    }
    if case.text("leave") == Some(&cluster.reduce().rank().to_string()) {
        return Err(Error::Buffer { reason: "the test's own".to_owned() });
    }
    train(cluster.reduce(), case, folder, ("net", SigmaInterval::ALL, None))
}

fn layout() -> Efficient {
    let level = Level { multiplier: 1, blocks: 1, self_attention: false, cross_attention: false };
    Efficient(Dimensions {
        picture_channels: 3,
        low_res: false,
        patch: 2,
        channels: 8,
        levels: vec![level],
        head_channels: 8,
        norm: Norm::Group(4),
        embedding_width: 16,
        context: None,
        detail: None,
    })
}

/// Does to this process what the case has for it at a batch of step `steps`.
fn accident(case: &Case, rank: usize, steps: u64) {
    let kill = |signal: &str| {
        Command::new("kill").args([signal, &std::process::id().to_string()]).status().unwrap();
        // Until the signal is there.
        std::thread::sleep(Duration::from_secs(600));
    };
    if case.is_turn("kill", rank, steps) {
        kill("-KILL");
    }
    if case.is_turn("hang", rank, steps) {
        kill("-STOP");
    }
    assert!(!case.is_turn("panic", rank, steps), "the test's own panic");
    if case.text("slow") == Some(&rank.to_string()) {
        std::thread::sleep(Duration::from_millis(case.number("nap", 100)));
    }
}

fn train(
    reduce: &dyn Reduce,
    case: &Case,
    folder: &Path,
    (name, interval, parent): (&str, SigmaInterval, Option<&str>),
) -> Result<(), Error> {
    let checkpoint_every = Duration::from_secs(case.number("every", 3600));
    let (steps, lineage) = (case.number("steps", 1), Lineage::default().with("seed", 1));
    let run = Run {
        name,
        folder,
        begin: Begin::Resume,
        steps,
        batch: 2,
        accumulate: ACCUMULATE,
        first_batch: 0,
        checkpoint_every,
        lineage,
    };
    let rank = reduce.rank();
    let optimizer = AdamWSettings { learning_rate: 1e-3, warm_up: 1, ..AdamWSettings::default() };
    let file = |name: &str| folder.join(format!("{name}.safetensors"));
    // Everyone but rank 0 begins with other weights than are wanted.
    let (seed, device, kind) = (1 + rank as u64, Device::Cpu, Kind::Float);
    let setup = Setup { seed, parent: parent.map(file), device, kind, optimizer, ema: 0.99, workers: 1 };
    let failing = case.clone();
    let data = move |number: u64| {
        if failing.is_turn("fail", rank, number / ACCUMULATE) {
            return Err(ediffi_train::Error::NoBatches);
        }
        let pictures = normal(&mut batch_rng(3, number), &[2, 3, 8, 8])?.f_tanh()?;
        Ok(Batch { pictures, smaller: None, text: () })
    };
    let learner = |params: &mut dyn Params| {
        let objective = Objective::new(Edm::default(), NoiseLevels::new(LogNormal::default(), interval), 1);
        let encode = |_: &Batch<()>| Ok(Conditioning::default());
        let learner = Learner::new(params, &layout(), Kind::Float, objective, encode)?;
        let case = case.clone();
        Ok(move |number, batch: Batch<()>| {
            accident(&case, rank, number / ACCUMULATE);
            learner.loss(number, &batch)
        })
    };
    let observe = |state: &TrainState, _: Option<&Entry>| match case.is_turn("stop", rank, state.step()) {
        true => Ok(ControlFlow::Break(())),
        false => Ok(ControlFlow::Continue(())),
    };
    let state: ediffi_train::Result<TrainState> = fit_together(reduce, &run, &setup, data, learner, observe);
    let state = state?;
    if rank == 0 {
        state.export(&file(name), "", Kind::Float, run.lineage.notes())?;
    }
    Ok(())
}

/// Writes warnings to the standard error.
struct Words;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Words {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Severity::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        tell(&line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
