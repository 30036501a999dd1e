//! Experts: every noise level has one owner, plans say who works, and memory holds no more than agreed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ediffi_core::denoiser::{Denoiser, Estimate};
use ediffi_core::ensemble::Ensemble;
use ediffi_core::experts::Experts;
use ediffi_core::interval::{LogNormal, Node, SigmaInterval};
use ediffi_core::plan::Segment;
use ediffi_core::pool::{ExpertPool, Loader, Residency};
use ediffi_core::schedule::{self, Schedule};
use ediffi_core::seed::Noise;
use ediffi_core::solver::{Churn, Solver};
use ediffi_core::{Error, Result, interrupt};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn interval(low: f64, high: f64) -> SigmaInterval {
    SigmaInterval::new(low, high).unwrap()
}

/// The paper's three base experts: high, middle, low.
fn paper() -> Experts {
    let noise = LogNormal::default();
    let (low, high) = (Node::new(3, 0).unwrap(), Node::new(9, 511).unwrap());
    let middle = noise.complement(&[low, high]).unwrap();
    Experts::new(vec![noise.interval(high), middle[0], noise.interval(low)]).unwrap()
}

#[test]
fn the_paper_s_experts_share_its_schedule() {
    let plan = paper().plan(&Schedule::edm().sigmas(25).unwrap()).unwrap();
    let lengths: Vec<_> = plan.segments().iter().map(|segment| (segment.expert, segment.steps.len())).collect();
    assert_eq!(lengths, [(0, 9), (1, 11), (2, 5)]);
    assert_eq!((plan.steps().len(), plan.steps()[8].expert, plan.steps()[9].expert), (25, 0, 1));
    // The paper's grid has one more step, the final denoising.
    let plan = paper().plan(&Schedule::paper_base().sigmas(25).unwrap()).unwrap();
    assert_eq!(plan.steps().len(), 26);
}

#[test]
fn a_plan_is_shown_line_by_line() {
    let plan = paper().plan(&[80.0, 20.0, 1.234567, 0.0123456, 0.0]).unwrap();
    assert_eq!(
        plan.to_string(),
        "expert 0: steps 1-2 of 4, sigma 80 to 20\n\
         expert 1: step 3 of 4, sigma 1.235\n\
         expert 2: step 4 of 4, sigma 0.01235"
    );
    assert!(matches!(paper().plan(&[1.0, 2.0]), Err(Error::InvalidSigmas { .. })));
}

#[test]
fn holes_overlaps_and_missing_ends_name_the_intervals() {
    let message = |intervals: &[(f64, f64)]| {
        Experts::new(intervals.iter().map(|(low, high)| interval(*low, *high)).collect()).unwrap_err().to_string()
    };
    let open = f64::INFINITY;
    assert_eq!(message(&[(2.0, open), (0.0, 1.0)]), "no expert owns the sigmas between [0, 1) and [2, inf)");
    assert_eq!(message(&[(2.0, open), (0.0, 3.0)]), "two experts own the same sigmas: [0, 3) and [2, inf) overlap");
    assert_eq!(
        message(&[(0.0, 1.0), (0.0, 1.0), (1.0, open)]),
        "two experts own the same sigmas: [0, 1) and [0, 1) overlap"
    );
    assert_eq!(message(&[(1.0, open)]), "no expert owns the sigmas [0, 1) beyond [1, inf)");
    assert_eq!(message(&[(0.0, 80.0)]), "no expert owns the sigmas [80, inf) beyond [0, 80)");
    assert!(matches!(Experts::new(vec![]), Err(Error::NoExperts)));
}

#[test]
fn what_is_no_noise_level_has_no_owner() {
    for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(paper().index_of(sigma), Err(Error::SigmaOutOfRange { .. })), "{sigma}");
    }
}

proptest! {
    #[test]
    fn every_sigma_has_exactly_one_expert(
        cuts in prop::collection::btree_set(1_u32..1_000_000, 0..12),
        ln_sigma in -9.0..6.0_f64,
        at in any::<prop::sample::Index>(),
    ) {
        let ends: Vec<f64> = cuts.iter().map(|cut| f64::from(*cut) / 1e4).collect();
        let lows = std::iter::once(0.0).chain(ends.iter().copied());
        let highs = ends.iter().copied().chain([f64::INFINITY]);
        let mut intervals: Vec<_> = lows.zip(highs).map(|(low, high)| interval(low, high)).collect();
        // Their order does not matter.
        let turn = at.index(intervals.len());
        intervals.rotate_left(turn);
        let experts = Experts::new(intervals.clone()).unwrap();
        for sigma in ends.iter().copied().chain([ln_sigma.exp()]) {
            let owners: Vec<_> = (0..intervals.len()).filter(|i| intervals[*i].contains(sigma)).collect();
            prop_assert_eq!(owners, vec![experts.index_of(sigma).unwrap()]);
        }
        // Without one of them, there is a hole.
        if intervals.len() > 1 {
            intervals.pop();
            prop_assert!(Experts::new(intervals).is_err());
        }
    }

    #[test]
    fn a_plan_covers_every_step_once(steps in 1..200_usize, rho in 1.0..10.0_f64) {
        let sigmas = schedule::karras(steps, 0.002, 80.0, rho).unwrap();
        let experts = paper();
        let plan = experts.plan(&sigmas).unwrap();
        let steps_of = |segment: &Segment| segment.steps.clone().map(|step| (step, segment.expert)).collect::<Vec<_>>();
        let covered: Vec<_> = plan.segments().iter().flat_map(steps_of).collect();
        let expected: Vec<_> = (0..steps).map(|step| (step, experts.index_of(sigmas[step]).unwrap())).collect();
        prop_assert_eq!(covered, expected);
    }
}

/// An expert that is counted while it lives.
struct Counted {
    index: usize,
    alive: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs the owner of every noise level, which makes a picture of its own grey.
struct Routed<'a>(&'a mut Ensemble<Counted>);

impl Denoiser for Routed<'_> {
    fn estimate(&mut self, x: &Tensor, sigma: f64) -> Result<Estimate> {
        let index = self.0.experts().index_of(sigma)?;
        Ok(x.f_full_like(self.0.pool().get(index)?.index as f64 / 10.0)?.into())
    }
}

/// What a counting loader has seen.
#[derive(Clone, Default)]
struct Count {
    alive: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    loads: Arc<Mutex<Vec<usize>>>,
}

impl Count {
    fn loader(&self) -> Loader<Counted> {
        let count = self.clone();
        Box::new(move |index| {
            let alive = count.alive.fetch_add(1, Ordering::SeqCst) + 1;
            count.most.fetch_max(alive, Ordering::SeqCst);
            count.loads.lock().unwrap().push(index);
            Ok(Counted { index, alive: Arc::clone(&count.alive) })
        })
    }

    fn loads(&self) -> Vec<usize> {
        self.loads.lock().unwrap().clone()
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

fn sample(ensemble: &mut Ensemble<Counted>, solver: Solver, sigmas: &[f64]) {
    let x = Tensor::ones([1, 3, 2, 2], (Kind::Float, Device::Cpu));
    ensemble.follow(sigmas).unwrap();
    let _ = solver.solve(&mut Routed(ensemble), x, sigmas, &mut Noise::new(&[0], 0), &mut ()).unwrap();
}

#[test]
fn residency_bounds_what_is_in_memory() {
    let sigmas = Schedule::edm().sigmas(25).unwrap();
    for solver in [Solver::Kutta3, Solver::Heun(Churn::NONE), Solver::DpmPp2M] {
        for (residency, most, loads) in [
            (Residency::All, 3, vec![0, 1, 2]),
            (Residency::Relay, 1, vec![0, 1, 2, 0, 1, 2]),
            (Residency::RelayPrefetch, 2, vec![0, 1, 2, 0, 1, 2]),
        ] {
            let count = Count::default();
            let mut ensemble = Ensemble::new(paper(), residency, count.loader());
            sample(&mut ensemble, solver, &sigmas);
            sample(&mut ensemble, solver, &sigmas);
            assert_eq!(count.loads(), loads, "{solver} {residency:?}");
            // The thread that loads ahead may be late, so that there is never a second one.
            assert!(count.most() <= most, "{solver} {residency:?}");
            ensemble.pool().clear();
            assert_eq!((count.alive(), ensemble.pool().resident().count()), (0, 0));
        }
    }
}

#[test]
fn experts_that_the_plan_does_not_visit_are_never_loaded() {
    for residency in [Residency::All, Residency::Relay, Residency::RelayPrefetch] {
        let count = Count::default();
        let mut ensemble = Ensemble::new(paper(), residency, count.loader());
        sample(&mut ensemble, Solver::Kutta3, &[5.0, 2.0, 1.0, 0.5]);
        assert_eq!(count.loads(), [1], "{residency:?}");
    }
}

#[test]
fn prefetching_does_not_wait_to_be_asked() {
    let (sender, loaded) = std::sync::mpsc::channel();
    let loader: Loader<usize> = Box::new(move |index| {
        sender.send((index, std::thread::current().id())).unwrap();
        Ok(index)
    });
    let mut pool = ExpertPool::new(3, Residency::RelayPrefetch, loader);
    pool.follow(&paper().plan(&[80.0, 1.0, 0.01]).unwrap());
    let _ = pool.get(0).unwrap();
    assert_eq!(loaded.recv().unwrap(), (0, std::thread::current().id()));
    let (index, thread) = loaded.recv().unwrap();
    assert_eq!(index, 1);
    assert_ne!(thread, std::thread::current().id());
}

#[test]
fn prefetching_waits_drops_and_stays_right() {
    let count = Count::default();
    let mut pool = ExpertPool::new(3, Residency::RelayPrefetch, count.loader());
    pool.follow(&paper().plan(&[80.0, 1.0, 0.01]).unwrap());
    assert_eq!(pool.get(0).unwrap().index, 0);
    // Expert 1 is on its way; another one is wanted.
    assert_eq!(pool.get(2).unwrap().index, 2);
    assert_eq!((count.loads(), count.alive()), (vec![0, 1, 2], 1));
    // Back to the start, then a plan without the expert that is being loaded ahead.
    assert_eq!(pool.get(0).unwrap().index, 0);
    pool.follow(&paper().plan(&[80.0, 0.01]).unwrap());
    assert_eq!(pool.get(0).unwrap().index, 0);
    assert_eq!(pool.get(2).unwrap().index, 2);
    assert!(count.most() <= 2);
    assert_eq!(count.loads(), [0, 1, 2, 0, 1, 2]);
    drop(pool);
    assert_eq!(count.alive(), 0);
}

#[test]
fn a_failed_load_is_reported_and_can_be_tried_again() {
    for residency in [Residency::All, Residency::Relay, Residency::RelayPrefetch] {
        let mut attempts = 0;
        let loader: Loader<usize> = Box::new(move |index| {
            attempts += 1;
            if index == 1 && attempts == 2 { Err(Error::NotFinite("expert 1".to_owned())) } else { Ok(index) }
        });
        let mut pool = ExpertPool::new(3, residency, loader);
        pool.follow(&paper().plan(&[80.0, 1.0, 0.01]).unwrap());
        assert_eq!(*pool.get(0).unwrap(), 0);
        assert!(matches!(pool.get(1), Err(Error::NotFinite { .. })), "{residency:?}");
        assert_eq!(*pool.get(1).unwrap(), 1, "{residency:?}");
        assert!(matches!(pool.get(3), Err(Error::NoSuchExpert { index: 3, experts: 3 })));
    }
}

#[test]
fn a_panic_on_the_loading_thread_is_an_error() {
    let mut panicked = false;
    let loader: Loader<usize> = Box::new(move |index| {
        if index == 1 && !std::mem::replace(&mut panicked, true) {
            panic!("the loader's fault");
        }
        Ok(index)
    });
    let mut pool = ExpertPool::new(3, Residency::RelayPrefetch, loader);
    pool.follow(&paper().plan(&[80.0, 1.0, 0.01]).unwrap());
    assert_eq!(*pool.get(0).unwrap(), 0);
    assert!(matches!(pool.get(1), Err(Error::ExpertThread(1))));
    assert_eq!(*pool.get(1).unwrap(), 1);
}

/// libtorch's threads are counted for each thread. A new one gets the number that was set last, whoever set it.
#[test]
fn the_loading_thread_has_the_threads_and_the_flags_of_the_one_that_asks() {
    let (sender, loaded) = std::sync::mpsc::channel();
    let loader: Loader<usize> = Box::new(move |index| {
        sender.send((tch::get_num_threads(), interrupt::check().is_ok())).unwrap();
        interrupt::check().map(|()| index)
    });
    let mut pool = ExpertPool::new(3, Residency::RelayPrefetch, loader);
    pool.follow(&paper().plan(&[80.0, 1.0, 0.01]).unwrap());
    // A thread that never asked takes the number that was set last.
    let _ = tch::get_num_threads();
    tch::set_num_threads(3);
    std::thread::spawn(|| tch::set_num_threads(5)).join().unwrap();
    let looks = AtomicUsize::new(0);
    // The first look is this thread's.
    let watched = interrupt::watch_if(move || looks.fetch_add(1, Ordering::Relaxed) > 1);
    assert_eq!(*pool.get(0).unwrap(), 0);
    assert_eq!(loaded.recv().unwrap(), (3, true));
    assert_eq!(loaded.recv().unwrap(), (3, false));
    assert!(matches!(pool.get(1), Err(Error::Cancelled)));
    drop(watched);
    // What was cancelled is loaded for the next who asks.
    pool.follow(&paper().plan(&[80.0, 1.0, 0.01]).unwrap());
    assert_eq!(*pool.get(1).unwrap(), 1);
}
