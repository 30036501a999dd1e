use std::thread;

use tokio::sync::broadcast::error::TryRecvError;

use super::*;
use crate::job::JobImage;
use ediffi::Request;

const SOON: Duration = Duration::from_millis(1);

fn new(client: &str, prompt: &str) -> NewJob {
    NewJob {
        client: client.to_owned(),
        model: "m".to_owned(),
        request: Arc::new(Request::new(prompt)),
        previews: 0,
        attended: false,
    }
}

fn small() -> Keep {
    Keep { queue: 3, queue_of_client: 2, ..Keep::default() }
}

fn image(index: usize, bytes: usize) -> Update {
    let (seed, width, height, url) = (7, 1, 1, String::new());
    Update::Image(JobImage { index, seed, width, height, bytes, url }, vec![index as u8; bytes].into())
}

fn state(store: &LocalStore, id: JobId) -> JobState {
    store.job(id).unwrap().unwrap().state
}

#[test]
fn a_job_waits_runs_and_is_kept() {
    let store = LocalStore::in_memory(small());
    let (first, second) = (store.submit(new("a", "1")).unwrap(), store.submit(new("a", "2")).unwrap());
    assert_eq!((first.position, second.position), (Some(1), Some(2)));
    let taken = store.take(SOON).unwrap().unwrap();
    assert_eq!((taken.id, taken.job.request.prompt.as_str()), (first.id, "1"));
    assert_eq!(
        (state(&store, first.id), store.job(second.id).unwrap().unwrap().position),
        (JobState::Running, Some(1))
    );
    store.update(first.id, image(0, 5)).unwrap();
    store.finish(first.id, Outcome::Finished).unwrap();
    assert_eq!(Arc::strong_count(&taken.stop), 1, "what stops a job holds its request");
    let job = store.job(first.id).unwrap().unwrap();
    assert_eq!((job.state, job.images.len(), job.progress.fraction), (JobState::Finished, 1, 1.0));
    assert_eq!(store.picture(first.id, 0).unwrap().unwrap(), vec![0; 5]);
    assert_eq!((store.picture(first.id, 1).unwrap(), store.picture(JobId::nil(), 0).unwrap()), (None, None));
    assert_eq!(store.jobs("a").unwrap().iter().map(|job| job.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(store.jobs("b").unwrap(), []);
    assert_eq!(store.depth().unwrap(), Depth { waiting: 1, running: 0, kept: 1, bytes: 5 });
    assert!(store.remove(first.id).unwrap() && store.job(first.id).unwrap().is_none());
    assert!(!store.remove(second.id).unwrap(), "one that waits is cancelled first");
}

#[test]
fn a_full_queue_refuses() {
    let store = LocalStore::in_memory(small());
    store.submit(new("a", "1")).unwrap();
    store.submit(new("a", "2")).unwrap();
    assert!(matches!(store.submit(new("a", "3")), Err(StoreError::ClientFull { waiting: 2 })));
    store.submit(new("b", "4")).unwrap();
    assert!(matches!(store.submit(new("c", "5")), Err(StoreError::Full { waiting: 3 })));
    store.take(SOON).unwrap().unwrap();
    store.submit(new("c", "6")).unwrap();
}

#[test]
fn cancelling_takes_a_job_out_of_the_queue_or_asks_it_to_stop() {
    let store = LocalStore::in_memory(small());
    let (first, second) = (store.submit(new("a", "1")).unwrap(), store.submit(new("a", "2")).unwrap());
    let taken = store.take(SOON).unwrap().unwrap();
    assert_eq!(store.cancel(second.id).unwrap().unwrap().state, JobState::Cancelled);
    assert_eq!(store.cancel(first.id).unwrap().unwrap().state, JobState::Cancelled);
    assert!(taken.stop.asked());
    // What it still draws is thrown away.
    store.update(first.id, image(0, 1)).unwrap();
    assert!(store.job(first.id).unwrap().unwrap().images.is_empty());
    // What is over stays as it is.
    store.finish(first.id, Outcome::Finished).unwrap();
    assert_eq!(store.cancel(first.id).unwrap().unwrap().state, JobState::Cancelled);
    assert_eq!(store.cancel(JobId::nil()).unwrap(), None);
    assert!(store.take(SOON).unwrap().is_none());
}

#[test]
fn who_watches_is_told_of_everything() {
    let store = LocalStore::in_memory(small());
    let (first, second) = (store.submit(new("a", "1")).unwrap(), store.submit(new("a", "2")).unwrap());
    let (seen, mut events) = store.watch(second.id).unwrap().unwrap();
    assert_eq!(seen.position, Some(2));
    store.take(SOON).unwrap().unwrap();
    store.finish(first.id, Outcome::Finished).unwrap();
    store.take(SOON).unwrap().unwrap();
    store.update(second.id, image(0, 1)).unwrap();
    store.finish(second.id, Outcome::Failed(Failure::new("failed", "broken"))).unwrap();
    let told: Vec<String> = std::iter::from_fn(|| events.try_recv().ok())
        .map(|event| match event {
            JobEvent::Job(job) => format!("{} {:?}", job.state.name(), job.position),
            JobEvent::Image(image) => format!("image {}", image.index),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["queued Some(1)", "running None", "image 0", "failed None"]);
    assert_eq!(events.try_recv().unwrap_err(), TryRecvError::Closed, "nothing is kept for events that come no more");
}

#[test]
fn old_jobs_and_large_ones_make_room() {
    let keep = Keep { bytes: 10, ..Keep::default() };
    let store = LocalStore::in_memory(keep.clone());
    let draw = |store: &LocalStore| {
        let id = store.submit(new("a", "1")).unwrap().id;
        store.take(SOON).unwrap().unwrap();
        store.update(id, image(0, 6)).unwrap();
        store.finish(id, Outcome::Finished).unwrap();
        id
    };
    let (first, second) = (draw(&store), draw(&store));
    assert!(store.job(first).unwrap().is_none() && store.job(second).unwrap().is_some(), "12 bytes of 10");
    let store = LocalStore::in_memory(Keep { for_long: Duration::ZERO, ..keep });
    let id = draw(&store);
    assert!(store.job(id).unwrap().is_none());
}

#[test]
fn a_thread_that_waits_is_woken() {
    let store = Arc::new(LocalStore::in_memory(small()));
    let taker = {
        let store = Arc::clone(&store);
        thread::spawn(move || store.take(Duration::from_secs(60)))
    };
    let id = store.submit(new("a", "1")).unwrap().id;
    assert_eq!(taker.join().unwrap().unwrap().unwrap().id, id);
    let taker = {
        let store = Arc::clone(&store);
        thread::spawn(move || store.take(Duration::from_secs(60)))
    };
    store.stop(false).unwrap();
    assert!(matches!(taker.join().unwrap(), Err(StoreError::Stopped)));
    assert!(matches!(store.submit(new("a", "2")), Err(StoreError::Stopped)));
}

#[test]
fn in_memory_a_stop_fails_what_waits() {
    let store = LocalStore::in_memory(small());
    let id = store.submit(new("a", "1")).unwrap().id;
    store.stop(false).unwrap();
    assert_eq!(store.job(id).unwrap().unwrap().error.unwrap().code, "shutting_down");
}

/// The process ends at the worst moment: the store is forgotten without a stop.
#[test]
fn on_disk_nothing_finished_is_lost_and_the_rest_is_drawn_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = || LocalStore::on_disk(folder.path(), small()).unwrap();
    let store = open();
    assert!(matches!(LocalStore::on_disk(folder.path(), small()), Err(StoreError::InUse(_))));
    let (done, begun) = (store.submit(new("a", "1")).unwrap().id, store.submit(new("b", "2")).unwrap().id);
    for _ in 0..2 {
        store.take(SOON).unwrap().unwrap();
    }
    store.update(done, image(0, 5)).unwrap();
    store.finish(done, Outcome::Finished).unwrap();
    store.update(begun, image(0, 3)).unwrap();
    let waits = store.submit(new("a", "3")).unwrap().id;
    let before = store.job(done).unwrap().unwrap();
    // A picture whose row was not written yet, and a part of one.
    std::fs::write(folder.path().join("pictures/stray.part"), "x").unwrap();
    std::fs::write(folder.path().join(format!("pictures/{waits}-0.png")), "x").unwrap();
    drop(store);

    let store = open();
    assert_eq!(store.job(done).unwrap().unwrap(), before);
    assert_eq!(store.picture(done, 0).unwrap().unwrap(), vec![0; 5]);
    assert_eq!(std::fs::read_dir(folder.path().join("pictures")).unwrap().count(), 2);
    assert_eq!(store.picture(begun, 0).unwrap().unwrap(), vec![0; 3], "what was finished of it");
    let again: Vec<JobId> = (0..2).map(|_| store.take(SOON).unwrap().unwrap().id).collect();
    assert_eq!(again, [begun, waits]);
    assert!(store.take(SOON).unwrap().is_none());
    store.update(begun, image(0, 4)).unwrap();
    store.finish(begun, Outcome::Finished).unwrap();
    assert_eq!(
        store.job(begun).unwrap().unwrap().images.len(),
        1,
        "a picture that is drawn again takes the place of the first"
    );
    assert!(store.remove(done).unwrap());
    drop(store);

    // The other one has now ended two servers.
    let store = open();
    assert!(store.job(done).unwrap().is_none());
    assert_eq!(state(&store, begun), JobState::Finished);
    assert_eq!((state(&store, waits), store.depth().unwrap().waiting), (JobState::Queued, 1));
    store.take(SOON).unwrap().unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.job(waits).unwrap().unwrap().error.unwrap().code, "gave_up");
    assert_eq!(std::fs::read_dir(folder.path().join("pictures")).unwrap().count(), 1);
}

#[test]
fn on_disk_a_stop_gives_back_what_waits_and_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let store = LocalStore::on_disk(folder.path(), small()).unwrap();
        if round == 0 {
            store.submit(new("a", "runs")).unwrap();
            store.submit(new("a", "waits")).unwrap();
        }
        let taken = store.take(SOON).unwrap().unwrap();
        assert_eq!(taken.job.request.prompt, "runs", "round {round}: a stop is no failure of the job");
        store.stop(false).unwrap();
        assert!(!taken.stop.asked());
        store.stop(true).unwrap();
        assert!(taken.stop.asked());
        store.finish(taken.id, Outcome::Cancelled).unwrap();
        assert_eq!(store.job(taken.id).unwrap().unwrap().error.unwrap().code, "shutting_down");
    }
}

#[test]
fn a_job_that_is_over_holds_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::on_disk(folder.path(), small()).unwrap();
    let id = store.submit(new("a", "a long prompt")).unwrap().id;
    store.cancel(id).unwrap();
    assert_eq!(store.lock().entries[&id].new.request.prompt, "");
    let job = store.job(id).unwrap();
    drop(store);
    let store = LocalStore::on_disk(folder.path(), small()).unwrap();
    assert_eq!(store.job(id).unwrap(), job, "prompt and seed stay");
    // Too many are as too large ones.
    let store = LocalStore::in_memory(Keep { jobs: 2, ..Keep::default() });
    for _ in 0..4 {
        let id = store.submit(new("a", "1")).unwrap().id;
        store.cancel(id).unwrap();
    }
    store.submit(new("a", "2")).unwrap();
    assert_eq!(store.depth().unwrap().kept, 2);
}

#[test]
fn who_waits_for_an_answer_is_gone_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let open = || LocalStore::on_disk(folder.path(), small()).unwrap();
    let attended = NewJob { attended: true, ..new("a", "1") };
    let store = open();
    let (killed, kept) = (store.submit(attended.clone()).unwrap().id, store.submit(new("b", "2")).unwrap().id);
    drop(store);
    let store = open();
    assert_eq!((state(&store, killed), state(&store, kept)), (JobState::Cancelled, JobState::Queued));
    let stopped = store.submit(attended).unwrap().id;
    store.stop(false).unwrap();
    drop(store);
    assert_eq!(state(&open(), stopped), JobState::Failed);
}

/// As after going back to a program that does not know a key.
#[test]
fn a_job_that_cannot_be_read_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::on_disk(folder.path(), small()).unwrap();
    let (bad, good) = (store.submit(new("a", "1")).unwrap().id, store.submit(new("a", "2")).unwrap().id);
    drop(store);
    let database = rusqlite::Connection::open(folder.path().join("jobs.sqlite")).unwrap();
    let change = "UPDATE jobs SET request = '{\"prompt\": \"a\", \"later\": 1}' WHERE id = ?1";
    database.execute(change, [bad.to_string()]).unwrap();
    drop(database);
    let store = LocalStore::on_disk(folder.path(), small()).unwrap();
    assert!(store.job(bad).unwrap().unwrap().error.unwrap().message.contains("later"));
    assert_eq!(store.take(SOON).unwrap().unwrap().id, good);
}

#[test]
fn a_list_of_a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(LocalStore::on_disk(folder.path(), small()).unwrap());
    let database = rusqlite::Connection::open(folder.path().join("jobs.sqlite")).unwrap();
    database.pragma_update(None, "user_version", 2).unwrap();
    drop(database);
    let error = LocalStore::on_disk(folder.path(), small()).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
}
