//! Several processes that train one network, each on a thread of its own here: what they decide together, and what each is given.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use ediffi_core::weights::{Init, Params, Scope};
use ediffi_train::fit::{Setup, fit_together};
use ediffi_train::lineage::Lineage;
use ediffi_train::log::Entry;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::reduce::{Alone, Reduce, agree, ask_first, gather};
use ediffi_train::run::{Begin, Run};
use ediffi_train::state::TrainState;
use ediffi_train::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Where processes meet.
#[derive(Debug)]
struct Hall {
    given: Mutex<Vec<Tensor>>,
    barrier: Barrier,
}

#[derive(Debug)]
struct Member<'a> {
    rank: usize,
    world: usize,
    hall: &'a Hall,
}

impl Member<'_> {
    /// What `take` makes of the buffers of all, by rank.
    fn exchange(&self, buffer: &mut Tensor, take: impl Fn(&[Tensor]) -> Tensor) {
        self.hall.given.lock().unwrap()[self.rank] = buffer.copy();
        self.hall.barrier.wait();
        let made = take(&self.hall.given.lock().unwrap());
        buffer.copy_(&made);
        self.hall.barrier.wait();
    }
}

impl Reduce for Member<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn sum(&self, buffer: &mut Tensor) -> Result<()> {
        self.exchange(buffer, |all| all.iter().skip(1).fold(all[0].copy(), |sum, next| sum + next));
        Ok(())
    }

    fn broadcast(&self, buffer: &mut Tensor) -> Result<()> {
        self.exchange(buffer, |all| all[0].copy());
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.hall.barrier.wait();
        Ok(())
    }
}

/// What `world` processes return, by rank.
fn together<T: Send>(world: usize, work: impl Fn(&dyn Reduce) -> T + Sync) -> Vec<T> {
    let given = (0..world).map(|_| Tensor::zeros([0], (Kind::Float, Device::Cpu))).collect();
    let (hall, work) = (&Hall { given: Mutex::new(given), barrier: Barrier::new(world) }, &work);
    std::thread::scope(|scope| {
        let ranks = (0..world).map(|rank| scope.spawn(move || work(&Member { rank, world, hall })));
        ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn run(folder: &Path, steps: u64, begin: Begin) -> Run<'_> {
    let (checkpoint_every, lineage) = (Duration::from_secs(3600), Lineage::default().with("batch", 2));
    Run { name: "net", folder, begin, steps, batch: 2, accumulate: 4, first_batch: 0, checkpoint_every, lineage }
}

/// What goes wrong, or otherwise than usual, in a training.
#[derive(Clone, Copy, Default)]
struct Case {
    /// The rank and the batch at which its data fail.
    broken: Option<(usize, u64)>,
    /// The rank and the step at which its observer breaks.
    stop: Option<(usize, u64)>,
    /// A batch whose loss is not a number.
    spoilt: Option<u64>,
    /// The seed of the weights of every rank but the first.
    seed: u64,
}

/// Two weights, the second of which only batches with odd numbers use; batch n has the loss w (n mod 7 + 1).
fn train(reduce: &dyn Reduce, run: &Run<'_>, case: Case) -> Result<(TrainState, Vec<u64>)> {
    let optimizer = AdamWSettings { learning_rate: 0.1, warm_up: 1, ..AdamWSettings::default() };
    let seed = if reduce.rank() == 0 { 1 } else { case.seed };
    let (device, kind) = (Device::Cpu, Kind::Float);
    let setup = Setup { seed, parent: None, device, kind, optimizer, ema: 0.9, workers: 1 };
    let rank = reduce.rank();
    let data = move |number| match case.broken {
        Some(broken) if broken == (rank, number) => Err(Error::NoBatches),
        _ => Ok(number),
    };
    let seen = Mutex::new(Vec::new());
    let learner = |params: &mut dyn Params| {
        let mut scope = Scope::root(params);
        let [even, odd] = ["even", "odd"].map(|name| scope.weight(name, &[2, 2], Init::Normal { std: 1.0 }).unwrap());
        let seen = &seen;
        Ok(move |number: u64, batch: u64| {
            assert_eq!(number, batch);
            seen.lock().unwrap().push(number);
            let weight = if number.is_multiple_of(2) { &even } else { &odd };
            let factor = if case.spoilt == Some(number) { f64::NAN } else { (number % 7) as f64 + 1.0 };
            Ok((weight.square() * factor).mean(Kind::Float))
        })
    };
    let observe = |state: &TrainState, _: Option<&Entry>| match case.stop {
        Some(stop) if stop == (rank, state.step()) => Ok(ControlFlow::Break(())),
        _ => Ok(ControlFlow::Continue(())),
    };
    let state = fit_together(reduce, run, &setup, data, learner, observe)?;
    Ok((state, seen.into_inner().unwrap()))
}

fn numbers(state: &TrainState) -> Vec<f64> {
    let all = state.parameters().iter().chain(state.average());
    all.flat_map(|(_, tensor)| Vec::<f64>::try_from(tensor.detach().flatten(0, -1).to_kind(Kind::Double)).unwrap())
        .collect()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn numbers_of_all_are_gathered_and_one_s_failure_is_everyone_s() {
    let all = together(3, |reduce| gather(reduce, &[reduce.rank() as f64, f64::INFINITY]).unwrap());
    assert_eq!(all, vec![vec![vec![0.0, f64::INFINITY], vec![1.0, f64::INFINITY], vec![2.0, f64::INFINITY]]; 3]);
    assert_eq!(gather(&Alone, &[7.0]).unwrap(), [[7.0]]);
    let all = together(3, |reduce| agree(reduce, if reduce.rank() == 1 { Err(Error::NoBatches) } else { Ok(()) }));
    assert!(matches!(&all[1], Err(Error::NoBatches)));
    for other in [0, 2] {
        assert!(matches!(&all[other], Err(Error::Elsewhere { who }) if who == "rank 1"), "{:?}", all[other]);
    }
    for answer in [false, true] {
        let all = together(2, |reduce| {
            ask_first(reduce, || {
                assert_eq!(reduce.rank(), 0, "only rank 0 is asked");
                Ok::<_, Error>(answer)
            })
        });
        assert!(all.iter().all(|said| matches!(said, Ok(said) if *said == answer)));
    }
}

/// Twenty steps of four batches, in one to four processes, one of which has fewer batches than another, and others with other weights
/// at first. The log has the mean over all.
#[test]
fn any_number_of_processes_trains_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let (alone, seen) =
        train(&Alone, &run(folder.path(), 20, Begin::New), Case { seed: 1, ..Case::default() }).unwrap();
    let log = |folder: &Path| -> Vec<f64> {
        let text = std::fs::read_to_string(folder.join("net.csv")).unwrap();
        text.lines().nth(1).unwrap().split(',').take(5).map(|number| number.parse().unwrap()).collect()
    };
    let expected = log(folder.path());
    assert_eq!(seen, (0..80).collect::<Vec<_>>());
    for world in 2..=4 {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path(), 20, Begin::New);
        let all = together(world, |reduce| train(reduce, &run, Case { seed: 2, ..Case::default() }).unwrap());
        let mut dealt: Vec<u64> = all.iter().flat_map(|(_, seen)| seen.clone()).collect();
        dealt.sort_unstable();
        assert_eq!(dealt, (0..80).collect::<Vec<_>>(), "{world} processes");
        assert_eq!(all[1].1[..2], if world == 2 { [1, 3] } else { [1, 5] }, "{world} processes");
        for (state, _) in &all {
            assert_eq!((state.step(), state.pictures()), (20, 160));
            assert_eq!(numbers(state), numbers(&all[0].0), "{world} processes");
        }
        let off = apart(&numbers(&all[0].0), &numbers(&alone));
        assert!(off < 1e-6, "{world} processes: {off:e}");
        assert!(apart(&log(folder.path()), &expected) < 1e-4, "{world} processes: {:?}", log(folder.path()));
    }
}

/// Two processes go on where three were stopped by one of them.
#[test]
fn one_stops_all_and_another_number_goes_on() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let case = Case { seed: 2, ..Case::default() };
    let (alone, _) = train(&Alone, &run(whole.path(), 6, Begin::New), case).unwrap();
    let first = run(parts.path(), 6, Begin::New);
    let stopped = together(3, |reduce| train(reduce, &first, Case { stop: Some((2, 3)), ..case }).unwrap());
    assert!(stopped.iter().all(|(state, _)| state.step() == 3));
    let second = run(parts.path(), 6, Begin::Resume);
    let resumed = together(2, |reduce| train(reduce, &second, case).unwrap());
    assert_eq!((resumed[0].1[0], resumed[1].1[0]), (12, 13));
    assert!(apart(&numbers(&resumed[1].0), &numbers(&alone)) < 1e-6);
}

#[test]
fn what_one_fails_with_ends_the_training_of_all() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path(), 9, Begin::New);
    let broken = Case { broken: Some((1, 9)), seed: 1, ..Case::default() };
    let all = together(3, |reduce| train(reduce, &run, broken).unwrap_err());
    assert!(matches!(all[1], Error::NoBatches), "{}", all[1]);
    assert!(all[0].to_string().starts_with("rank 1 failed") && all[2].to_string().starts_with("rank 1 failed"));
    // A loss that is no number in one of them makes the same step diverge in all.
    let spoilt = Case { spoilt: Some(13), seed: 1, ..Case::default() };
    let all = together(3, |reduce| train(reduce, &run, spoilt).unwrap_err());
    assert!(all.iter().all(|error| matches!(error, Error::Diverged { step: 3, .. })), "{all:?}");
    // What rank 0 refuses, nobody does.
    train(&Alone, &run, Case { seed: 1, ..Case::default() }).unwrap();
    let all = together(2, |reduce| train(reduce, &run, Case::default()).unwrap_err());
    assert!(matches!(all[0], Error::Exists { .. }) && matches!(&all[1], Error::Elsewhere { who } if who == "rank 0"));
}

/// Processes of which only rank 0 has what it sends.
#[derive(Debug)]
struct Deaf<'a>(&'a dyn Reduce);

impl Reduce for Deaf<'_> {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world(&self) -> usize {
        self.0.world()
    }

    fn sum(&self, buffer: &mut Tensor) -> Result<()> {
        self.0.sum(buffer)
    }

    fn broadcast(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.0.barrier()
    }
}

#[test]
fn weights_that_did_not_arrive_are_seen() {
    for (seed, is_seen) in [(1, false), (2, true)] {
        let folder = tempfile::tempdir().unwrap();
        let run = run(folder.path(), 1, Begin::New);
        let all = together(2, |reduce| train(&Deaf(reduce), &run, Case { seed, ..Case::default() }).err());
        for error in &all {
            let said = matches!(error, Some(Error::Apart { who, what: "weights" }) if who == "rank 1");
            assert_eq!(said, is_seen, "{error:?}");
        }
    }
}

#[test]
fn processes_without_a_batch_or_with_other_runs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (run, case) = (run(folder.path(), 2, Begin::New), Case { seed: 1, ..Case::default() });
    let all = together(5, |reduce| train(reduce, &run, case).unwrap_err());
    assert!(all.iter().all(|error| matches!(error, Error::Setting { field: "accumulate", .. })), "{all:?}");
    assert!(all[0].to_string().contains("4 batches a step cannot be dealt to 5 processes"), "{}", all[0]);
    let all = together(2, |reduce| {
        let steps = 2 + reduce.rank() as u64;
        train(reduce, &Run { steps, ..run.clone() }, case).unwrap_err()
    });
    assert!(all.iter().all(|error| matches!(error, Error::Apart { what: "settings", .. })), "{all:?}");
    assert!(all[0].to_string().contains("rank 1 has other settings"), "{}", all[0]);
}
