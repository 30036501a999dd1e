//! What a job says of its progress.

use ediffi_core::experts::Experts;
use tch::Tensor;

use super::*;
use crate::Preview;

#[test]
fn progress_counts_stages_and_steps() {
    let mut progress = Progress { phase: Phase::Running, ..Progress::default() };
    let plan = Experts::single().plan(&[3.0, 2.0, 0.0]).unwrap();
    let (denoised, steps) = (Tensor::from_slice(&[0.0_f32]), plan.steps().len());
    let step = |stage, batch, index| Event::Step {
        stage,
        batch,
        batches: 2,
        index,
        steps,
        sigma: 1.0,
        preview: Preview::new(&[0], &denoised, None),
    };
    let start =
        |stage, index| Event::StageStarted { stage, index, stages: 3, width: 8, height: 8, plan: &plan, batches: 2 };
    let tile = |batch, index| Event::TileEnlarged { batch, batches: 2, index, tiles: 4 };
    let enlarger = Event::EnlargerStarted { index: 2, stages: 3, width: 9, height: 9, batches: 2, tiles: 4 };
    assert_eq!(progress.fraction(), 0.0);
    let mut seen = |event: &Event<'_>| {
        progress.follow(event);
        let Progress { stage, stage_index, stages, step, steps, .. } = &progress;
        assert_eq!(*stages, 3);
        (format!("{stage_index} {stage}: {step} of {steps}"), 3.0 * progress.fraction())
    };
    // The share of each stage in the whole: the batches of the base take turns, and the enlarger with the stage before it.
    for (event, expected, done) in [
        (start("base", 0), "0 base: 0 of 4", 0.0),
        (step("base", 0, 0), "0 base: 1 of 4", 0.25),
        (step("base", 1, 0), "0 base: 2 of 4", 0.5),
        (step("base", 0, 1), "0 base: 3 of 4", 0.75),
        (step("base", 1, 1), "0 base: 4 of 4", 1.0),
        (start("sr", 1), "1 sr: 0 of 4", 1.0),
        (step("sr", 0, 0), "1 sr: 1 of 4", 1.25),
        (step("sr", 0, 1), "1 sr: 2 of 4", 1.5),
        (enlarger, "2 enlarger: 0 of 8", 1.5),
        (tile(0, 3), "2 enlarger: 4 of 8", 2.0),
        (step("sr", 1, 0), "1 sr: 3 of 4", 2.25),
        (step("sr", 1, 1), "1 sr: 4 of 4", 2.5),
        (tile(1, 0), "2 enlarger: 5 of 8", 2.625),
        (tile(1, 3), "2 enlarger: 8 of 8", 3.0),
    ] {
        let (told, fraction) = seen(&event);
        assert!(told == expected && (fraction - done).abs() < 1e-12, "{told} {fraction}, {expected} {done}");
    }
    progress.phase = Phase::Finished;
    assert_eq!(progress.fraction(), 1.0);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_job_can_be_awaited() {
    let job = || Arc::new(Job::new(WorkerId::new(), 0, Request::new("a"), Box::new(())));
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let context = &mut Context::from_waker(&waker);
    let count = || woken.0.load(Ordering::Relaxed);
    let (cancelled, ran) = (job(), job());
    let mut handles = [&cancelled, &ran].map(|job| JobHandle::new(Arc::clone(job)));
    for handle in &mut handles {
        assert!(Pin::new(&mut *handle).poll(context).is_pending());
        assert!(Pin::new(handle).poll(context).is_pending());
    }
    assert_eq!(count(), 0);
    cancelled.cancel();
    assert_eq!(count(), 1);
    let mut run: Run = Box::new(|_, _| Err(Error::Busy));
    ran.run(&mut run);
    assert_eq!(count(), 2);
    let [first, second] = &mut handles;
    assert!(matches!(Pin::new(&mut *first).poll(context), Poll::Ready(Err(Error::Cancelled))));
    assert!(matches!(Pin::new(second).poll(context), Poll::Ready(Err(Error::Busy))));
    assert!(matches!(Pin::new(first).poll(context), Poll::Ready(Err(Error::WorkerGone))));
}
