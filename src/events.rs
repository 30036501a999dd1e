//! The events of a job as a stream that its reader owns: bounded, without a runtime.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use image::RgbImage;

use crate::{Event, GeneratedImage, Observer, Preview};

/// An [`Event`] that can be kept and sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JobEvent {
    /// An encoder starts: `t5` or `clip`.
    EncoderStarted {
        /// The encoder.
        encoder: String,
    },
    /// A stage starts, or the enlarger, whose name is `enlarger`.
    StageStarted {
        /// Name of the stage.
        stage: String,
        /// Its position among the stages that run, from 0.
        index: usize,
        /// How many stages run, the enlarger included.
        stages: usize,
        /// Width in pixels of its pictures.
        width: u32,
        /// Height in pixels of its pictures.
        height: u32,
        /// How many [steps](Self::Step) it will tell of, if none is passed over.
        steps: usize,
    },
    /// A step of a batch is done, or a tile of the enlarger. Where they come faster than they are read, the oldest are passed over.
    Step {
        /// Name of the stage.
        stage: String,
        /// Which batch, from 0.
        batch: usize,
        /// Which step of this batch, from 0.
        index: usize,
        /// How many steps a batch has.
        steps: usize,
        /// The images of the batch so far, with their numbers; none unless they are [wanted](Reporter::with_previews).
        previews: Vec<(usize, RgbImage)>,
    },
    /// A stage has finished all images.
    StageFinished {
        /// Name of the stage.
        stage: String,
        /// How long it took.
        elapsed: Duration,
    },
    /// An image is finished.
    Image {
        /// Its number in the request.
        index: usize,
        /// The image.
        image: Box<GeneratedImage>,
    },
}

/// An observer, and the stream of what it sees, for one generation. At most `steps` steps (at least one) wait to be read: the oldest is
/// passed over for a newer one. What starts, what ends and finished images always arrive. A reader that is gone holds nothing up.
///
/// ```no_run
/// use ediffi::{JobEvent, Pipeline, Request, Worker, events};
///
/// let worker = Worker::new(Pipeline::open(ediffi::icons()?)?)?;
/// let (reporter, events) = events(8);
/// let job = worker.submit_with(Request::new("a cat"), reporter.with_previews())?;
/// for event in events {
///     match event {
///         JobEvent::Step { stage, index, steps, .. } => println!("{stage}: {} of {steps}", index + 1),
///         JobEvent::Image { image, .. } => image.save("cat.png")?,
///         _ => {}
///     }
/// }
/// job.wait()?;
/// # Ok::<(), ediffi::Error>(())
/// ```
#[must_use]
pub fn events(steps: usize) -> (Reporter, Events) {
    let state = State { waiting: VecDeque::new(), steps: 0, writes: true, reads: true, waker: None };
    let shared = Arc::new(Shared { most: steps.max(1), state: Mutex::new(state), changed: Condvar::new() });
    (Reporter { shared: Arc::clone(&shared), previews: false }, Events(shared))
}

/// The observer at the beginning of a stream of [`events`].
#[derive(Debug)]
pub struct Reporter {
    shared: Arc<Shared>,
    previews: bool,
}

/// The end of a stream of [`events`] where they are read. As an iterator it waits for the next one; [`next_event`](Self::next_event) is to
/// be awaited. It ends when the generation has ended, whose result is the [job's](crate::JobHandle).
#[derive(Debug)]
pub struct Events(Arc<Shared>);

struct Shared {
    /// The most steps that wait.
    most: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: VecDeque<JobEvent>,
    /// How many of those that wait are steps.
    steps: usize,
    /// Whether there is somebody at each end.
    writes: bool,
    reads: bool,
    waker: Option<Waker>,
}

impl Shared {
    /// The state is whole after every change, whoever panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the reader.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        self.changed.notify_all();
        // Somebody else's code, which must find the stream unlocked.
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn push(&self, event: JobEvent) {
        self.change(|state| {
            if !state.reads {
                return;
            }
            if is_step(&event) {
                if state.steps >= self.most
                    && let Some(oldest) = state.waiting.iter().position(is_step)
                {
                    state.waiting.remove(oldest);
                    state.steps -= 1;
                }
                state.steps += 1;
            }
            state.waiting.push_back(event);
        });
    }
}

fn is_step(event: &JobEvent) -> bool {
    matches!(event, JobEvent::Step { .. })
}

impl State {
    fn pop(&mut self) -> Option<JobEvent> {
        let event = self.waiting.pop_front()?;
        self.steps -= usize::from(is_step(&event));
        Some(event)
    }
}

impl Reporter {
    /// Adds the images so far to each step. They are computed for it, on the thread that draws.
    #[must_use]
    pub fn with_previews(mut self) -> Self {
        self.previews = true;
        self
    }

    fn previews(&self, preview: &Preview<'_>) -> Vec<(usize, RgbImage)> {
        let wanted = self.previews && self.shared.lock().reads;
        let images = preview.images().iter().filter(|_| wanted);
        // What cannot be shown is not worth the end of the run.
        images.filter_map(|&image| Some((image, preview.rgb(image).ok()??))).collect()
    }
}

impl Observer for Reporter {
    fn event(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        const ENLARGER: &str = "enlarger";
        let told = match *event {
            Event::EncoderStarted { encoder } => JobEvent::EncoderStarted { encoder: encoder.to_owned() },
            Event::StageStarted { stage, index, stages, width, height, plan, batches } => {
                let (stage, steps) = (stage.to_owned(), plan.steps().len() * batches);
                JobEvent::StageStarted { stage, index, stages, width, height, steps }
            }
            Event::EnlargerStarted { index, stages, width, height, batches, tiles } => {
                let (stage, steps) = (ENLARGER.to_owned(), tiles * batches);
                JobEvent::StageStarted { stage, index, stages, width, height, steps }
            }
            Event::Step { stage, batch, index, steps, ref preview, .. } => {
                let previews = self.previews(preview);
                JobEvent::Step { stage: stage.to_owned(), batch, index, steps, previews }
            }
            Event::TileEnlarged { batch, index, tiles, .. } => {
                JobEvent::Step { stage: ENLARGER.to_owned(), batch, index, steps: tiles, previews: Vec::new() }
            }
            Event::StageFinished { stage, elapsed } => JobEvent::StageFinished { stage: stage.to_owned(), elapsed },
            Event::EnlargerFinished { elapsed } => JobEvent::StageFinished { stage: ENLARGER.to_owned(), elapsed },
            Event::Image { index, image } => JobEvent::Image { index, image: Box::new(image.clone()) },
            Event::ExpertSwitched { .. } => return ControlFlow::Continue(()),
        };
        self.shared.push(told);
        ControlFlow::Continue(())
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.shared.change(|state| state.writes = false);
    }
}

impl Events {
    /// The next event if one is there; none also where no more will come.
    pub fn try_next(&mut self) -> Option<JobEvent> {
        self.0.lock().pop()
    }

    /// Waits for the next event in a task of any runtime; none when the generation has ended.
    pub async fn next_event(&mut self) -> Option<JobEvent> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As the streams of runtimes are polled, for a program that makes one of it.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        let awaited = context.waker().clone();
        let mut state = self.0.lock();
        if let Some(event) = state.pop() {
            return Poll::Ready(Some(event));
        }
        if !state.writes {
            return Poll::Ready(None);
        }
        let before = state.waker.replace(awaited);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Iterator for Events {
    type Item = JobEvent;

    /// Waits for the next event. In an observer of the same generation it would wait for itself.
    fn next(&mut self) -> Option<JobEvent> {
        let silent = |state: &mut State| state.waiting.is_empty() && state.writes;
        let waited = self.0.changed.wait_while(self.0.lock(), silent);
        waited.unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut kept = VecDeque::new();
        self.0.change(|state| {
            (state.reads, state.steps) = (false, 0);
            kept = std::mem::take(&mut state.waiting);
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("most", &self.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(index: usize) -> JobEvent {
        JobEvent::Step { stage: "base".to_owned(), batch: 0, index, steps: 9, previews: Vec::new() }
    }

    fn end() -> JobEvent {
        JobEvent::StageFinished { stage: "base".to_owned(), elapsed: Duration::ZERO }
    }

    fn told(events: impl Iterator<Item = JobEvent>) -> Vec<String> {
        let name = |event| match event {
            JobEvent::Step { index, .. } => index.to_string(),
            _ => "end".to_owned(),
        };
        events.map(name).collect()
    }

    #[test]
    fn the_oldest_steps_are_passed_over_and_ends_never() {
        let (reporter, events) = events(2);
        for event in [step(0), end(), step(1), step(2), end(), end(), step(3)] {
            reporter.shared.push(event);
        }
        drop(reporter);
        assert_eq!(told(events), ["end", "2", "end", "end", "3"]);
        let (reporter, mut events) = super::events(0);
        reporter.shared.push(step(0));
        assert_eq!(told(events.try_next().into_iter()), ["0"]);
        for index in 1..4 {
            reporter.shared.push(step(index));
        }
        assert_eq!((told(events.try_next().into_iter()), events.try_next().is_none()), (vec!["3".to_owned()], true));
    }

    #[test]
    fn a_reader_that_is_gone_holds_nothing() {
        let (reporter, events) = events(2);
        reporter.shared.push(end());
        drop(events);
        reporter.shared.push(end());
        assert!(reporter.shared.lock().waiting.is_empty());
    }

    #[test]
    fn a_task_is_woken_by_the_next_event_and_by_the_end() {
        struct Woken(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let woken = Arc::new(Woken(Default::default()));
        let times = || woken.0.load(std::sync::atomic::Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let (reporter, mut events) = events(2);
        assert!(events.poll_next(&mut context).is_pending());
        reporter.shared.push(end());
        assert_eq!(times(), 1);
        assert!(matches!(events.poll_next(&mut context), Poll::Ready(Some(JobEvent::StageFinished { .. }))));
        assert!(events.poll_next(&mut context).is_pending());
        drop(reporter);
        assert_eq!(times(), 2);
        assert!(matches!(events.poll_next(&mut context), Poll::Ready(None)));
    }

    /// Who waits in another thread is told, too.
    #[test]
    fn an_iterator_waits_for_the_end() {
        let (reporter, events) = events(4);
        let reader = std::thread::spawn(move || told(events));
        for event in [step(0), end()] {
            reporter.shared.push(event);
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(reporter);
        assert_eq!(reader.join().unwrap(), ["0", "end"]);
    }
}
