//! Writes `docs/results/cluster.md`: what [`measure`](measure.rs) measured, what the model of [`ediffi_cluster::scaling`] says of it, and
//! what it says of clusters of GPUs, for the paper's base.
//!
//! ```sh
//! cargo run -p ediffi-cluster --example scaling -- sums.csv > docs/results/cluster.md
//! ```
//! Run `measure` several times in turns with each number of processes: the page has the medians.
#![allow(clippy::print_stdout, reason = "a program that prints a page")]

use std::collections::BTreeMap;
use std::error::Error;

use ediffi_cluster::scaling::{Link, Machine, Step};

/// Parameters of the base with the paper's dimensions (`Adm::base_64`).
const PARAMETERS: f64 = 715_492_611.0;
/// Multiply-adds of one evaluation of it for one picture: convolutions, linear maps and attentions, counted from its layout.
const MULTIPLY_ADDS: f64 = 243.3e9;
/// The paper's batch (table 7).
const BATCH: u64 = 2048;
/// The rate of an H100 in bf16, dense, as NVIDIA states it.
const PEAK: f64 = 989e12;
/// The share of it that a U-Net of convolutions is taken to reach.
const REACHED: f64 = 0.35;
/// Bytes of memory that the optimizer, the average and the norm go through for a parameter, and those an H100 reads in a second.
const UPDATED: f64 = 52.0;
const MEMORY: f64 = 2.7e12;
/// Cores of the machine that measured.
const CORES: u64 = 2;

/// What `measure` has written.
#[derive(Default)]
struct Measured {
    /// How often each was measured, and how much longer than the median one of them took.
    runs: usize,
    spread: f64,
    /// Ranks, bytes, seconds.
    sums: Vec<(u64, f64, f64)>,
    /// Ranks, batches, seconds, seconds of the sum, bytes.
    steps: Vec<(u64, u64, f64, f64, f64)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: scaling FILE")?;
    let measured = read(&std::fs::read_to_string(file)?)?;
    println!("# Results: many machines\n");
    println!(
        "`cargo run -p ediffi-cluster --example scaling` writes this page. [cluster.md](../cluster.md) tells how to train on many machines.\n"
    );
    sums(&measured);
    steps(&measured)?;
    gpus();
    Ok(())
}

fn read(text: &str) -> Result<Measured, Box<dyn Error>> {
    let mut measured = Measured::default();
    for line in text.lines() {
        match line.split(',').collect::<Vec<_>>().as_slice() {
            ["sum", ranks, bytes, seconds] => {
                measured.sums.push((ranks.parse()?, bytes.parse()?, seconds.parse()?));
            }
            ["step", ranks, batches, seconds, sum, bytes] => {
                let step = (ranks.parse()?, batches.parse()?, seconds.parse()?, sum.parse()?, bytes.parse()?);
                measured.steps.push(step);
            }
            _ => return Err(format!("not a line of `measure`: {line}").into()),
        }
    }
    Ok(measured.middle())
}

impl Measured {
    /// One of each, with the median of what was measured again and again.
    fn middle(self) -> Self {
        let (mut sums, mut steps): (BTreeMap<_, Vec<_>>, BTreeMap<_, Vec<_>>) = Default::default();
        for (ranks, bytes, seconds) in self.sums {
            sums.entry((ranks, bytes as u64)).or_default().push(seconds);
        }
        for (ranks, batches, seconds, sum, bytes) in self.steps {
            steps.entry((ranks, batches, bytes as u64)).or_default().push((seconds, sum));
        }
        let of_steps = steps.values().map(|measured| measured.iter().map(|(seconds, _)| *seconds).collect());
        let all: Vec<Vec<f64>> = sums.values().cloned().chain(of_steps).collect();
        let runs = all.iter().map(Vec::len).min().unwrap_or_default();
        let slowest = |seconds: &Vec<f64>| seconds.iter().copied().fold(0.0, f64::max) / median(seconds.clone());
        let spread = all.iter().map(slowest).fold(1.0, f64::max);
        let sums = sums.into_iter().map(|((ranks, bytes), seconds)| (ranks, bytes as f64, median(seconds)));
        let steps = steps.into_iter().map(|((ranks, batches, bytes), measured)| {
            let (seconds, sums) = measured.into_iter().unzip();
            (ranks, batches, median(seconds), median(sums), bytes as f64)
        });
        Self { runs, spread, sums: sums.collect(), steps: steps.collect() }
    }
}

/// What the system calls the processor.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    name.trim_start_matches([' ', '\t', ':']).to_owned()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.get((values.len() / 2).saturating_sub(1 - values.len() % 2)..=values.len() / 2);
    middle.map_or(f64::NAN, |middle| middle.iter().sum::<f64>() / middle.len() as f64)
}

/// The link between `ranks` processes here.
fn link(measured: &Measured, ranks: u64) -> Option<Link> {
    let of_ranks = measured.sums.iter().filter(|sum| sum.0 == ranks);
    Link::fitted(ranks, &of_ranks.map(|(_, bytes, seconds)| (*bytes, *seconds)).collect::<Vec<_>>())
}

fn sums(measured: &Measured) {
    println!("## A sum over MPI, on one machine\n");
    println!(
        "OpenMPI 4.1.4 over shared memory, {}, {CORES} cores, f32. 4 processes are more than there are cores. Medians of {} runs; a single run took up \
         to {:.2} times as long.\n",
        processor(),
        measured.runs,
        measured.spread
    );
    println!("| processes | MB | seconds | GB/s | the model says |\n|---:|---:|---:|---:|---:|");
    for (ranks, bytes, seconds) in &measured.sums {
        let said = link(measured, *ranks).map_or(f64::NAN, |link| link.sum(*bytes, *ranks));
        let (megabytes, rate) = (bytes / 1e6, bytes / seconds / 1e9);
        println!("| {ranks} | {megabytes:.0} | {seconds:.4} | {rate:.2} | {said:.4} |");
    }
    println!();
    for ranks in [2, 4] {
        if let Some(Link { alpha, beta }) = link(measured, ranks) {
            println!("- {ranks} processes: α = {:.0} µs, β = {:.3} ns a byte.", alpha * 1e6, beta * 1e9);
        }
    }
    println!();
}

fn steps(measured: &Measured) -> Result<(), Box<dyn Error>> {
    let find = |ranks, batches| measured.steps.iter().find(|step| step.0 == ranks && step.1 == batches);
    let (four, eight) = (find(1, 4).ok_or("no step of one process")?, find(1, 8).ok_or("no step of 8 batches")?);
    // One process adds nothing up: t = batches · c + u.
    let batch = (eight.2 - four.2) / 4.0;
    let update = (four.2 - 4.0 * batch).max(0.0);
    println!("## A step, measured and on paper\n");
    println!(
        "A network of {:.1} million parameters, batches of 8 pictures of 16 pixels, f32, one thread a process. From one process: {batch:.3} s a \
         batch, {update:.3} s for the update. The model takes them, and the sum from above; where there are more processes than cores, they \
         take turns.\n",
        measured.steps.iter().map(|step| step.4).fold(0.0, f64::max) / 4e6
    );
    println!(
        "| processes | batches | seconds | of them the sum | the model says | off by |\n|---:|---:|---:|---:|---:|---:|"
    );
    for (ranks, batches, seconds, sum, bytes) in &measured.steps {
        let turns = (*ranks as f64 / CORES as f64).max(1.0);
        let link = link(measured, *ranks).unwrap_or(Link { alpha: 0.0, beta: 0.0 });
        let machine = Machine {
            picture: batch * turns,
            update: update * turns,
            bytes: *bytes,
            node: u64::MAX,
            inside: link,
            outside: link,
        };
        let said = machine.step(*ranks, *batches).seconds();
        let (share, off) = (100.0 * sum / seconds, 100.0 * (said / seconds - 1.0));
        println!("| {ranks} | {batches} | {seconds:.3} | {share:.0} % | {said:.3} | {off:+.0} % |");
    }
    println!();
    Ok(())
}

fn gpus() {
    let tflop = 3.0 * 2.0 * MULTIPLY_ADDS / 1e12;
    println!("## The paper's base on GPUs, on paper\n");
    println!(
        "Nothing here was measured: no cluster was at hand. {:.0} million parameters, {:.2} GB of gradients in f32, batch {BATCH}, as in the paper's \
         table 7. A picture takes {tflop:.2} TFLOP forward and back; an H100 is taken to reach {:.0} % of its {:.0} TFLOP/s in bf16. The update goes \
         through {UPDATED} bytes a parameter. Eight GPUs are a node. “Beside” is the efficiency if the sum ran beside the backward pass; \
         “sharded” that of an optimizer of which each process has a part: gradients are scattered, and weights gathered in bf16.\n",
        PARAMETERS / 1e6,
        PARAMETERS * 4.0 / 1e9,
        100.0 * REACHED,
        PEAK / 1e12
    );
    let inside = Link { alpha: 5e-6, beta: 1.0 / 360e9 };
    let networks = [
        ("InfiniBand, 8 × 400 Gbit/s a node: α = 10 µs, 330 GB/s", Link { alpha: 10e-6, beta: 1.0 / 330e9 }),
        ("Ethernet, 100 Gbit/s a node: α = 30 µs, 11 GB/s", Link { alpha: 30e-6, beta: 1.0 / 11e9 }),
    ];
    for (name, outside) in networks {
        let machine = Machine {
            picture: tflop * 1e12 / (PEAK * REACHED),
            update: PARAMETERS * UPDATED / MEMORY,
            bytes: PARAMETERS * 4.0,
            node: 8,
            inside,
            outside,
        };
        println!("### {name}\n");
        println!(
            "| GPUs | pictures each | compute ms | sum ms | update ms | pictures/s | efficiency | beside | sharded |"
        );
        println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
        let alone = machine.step(1, BATCH).seconds();
        let mut last = None;
        for ranks in (3..=10).map(|power| 1_u64 << power) {
            let step = machine.step(ranks, BATCH);
            let Step { compute, sum, update } = step;
            let share = |seconds: f64| 100.0 * alone / (ranks as f64 * seconds);
            println!(
                "| {ranks} | {} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} % | {:.0} % | {:.0} % |",
                BATCH / ranks,
                1e3 * compute,
                1e3 * sum,
                1e3 * update,
                BATCH as f64 / step.seconds(),
                share(step.seconds()),
                share(step.overlapped()),
                share(step.sharded(ranks).seconds()),
            );
            if share(step.seconds()) >= 50.0 {
                last = Some(ranks);
            }
        }
        match last {
            Some(ranks) => println!("\nMore than half of the time is well spent on up to {ranks} GPUs.\n"),
            None => println!("\nOn no number of nodes is half of the time well spent.\n"),
        }
    }
    println!(
        "What stops it is the sum first, which is the same for any number of GPUs, and then the update, which every GPU does in full. The next \
         thing to build would be the sharded optimizer: it divides the update and the memory of the moments by the number of GPUs, and sends a \
         quarter less."
    );
}
