//! What is stopped at any place is the old run, or a clean start.

use std::collections::BTreeMap;
use std::time::Duration;

use ediffi_core::runtime::{DeviceChoice, Precision, Runtime};
use ediffi_train::lineage::Lineage;
use tempfile::TempDir;

use super::*;
use crate::plan::find as plan_of;

const NETWORK: &str = "base.shared";

/// A folder for runs of the plan `laptop`, which trains a T5 and one network.
struct Room {
    _within: TempDir,
    folder: PathBuf,
    plan: Plan,
}

impl Room {
    fn new() -> Self {
        let within = tempfile::tempdir().unwrap();
        Self { folder: within.path().join("run"), _within: within, plan: plan_of("laptop").unwrap() }
    }

    /// One with a run that is trained, as far as its files say.
    fn trained() -> Self {
        let room = Self::new();
        drop(room.take(Begin::New).unwrap());
        for (name, path) in room.files() {
            write_with_folders(&path, name.as_bytes()).unwrap();
        }
        room
    }

    /// What a run has exported, kept and measured, and what it goes on from.
    fn files(&self) -> BTreeMap<&'static str, PathBuf> {
        BTreeMap::from([
            ("export of T5", exported(&self.folder, OWN_T5)),
            ("checkpoint", self.folder.join("base.shared.checkpoint.safetensors")),
            ("export", exported(&self.folder, NETWORK)),
            ("kept", Kept::new(&self.folder, NETWORK, self.plan.keep).best()),
            ("measured", measured(&self.folder, NETWORK)),
        ])
    }

    fn take_for(&self, begin: Begin, only: &[&str], data: &str) -> Result<Claim> {
        let runtime = Runtime::new(DeviceChoice::Cpu, Precision::F32)?;
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        take(&Options { begin, only, ..Options::new(&self.folder, runtime) }, &self.plan, data)
    }

    fn take(&self, begin: Begin) -> Result<Claim> {
        self.take_for(begin, &[], "one")
    }

    /// Everything in the folder, by path.
    fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![self.folder.clone()]);
        while let Some(at) = folders.pop() {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        found
    }

    /// The files that are there of [`files`](Self::files).
    fn there(&self) -> Vec<&'static str> {
        self.files().into_iter().filter(|(_, path)| path.is_file()).map(|(name, _)| name).collect()
    }

    /// What is to be done with T5 and network.
    fn begins(&self) -> [Begin; 2] {
        [OWN_T5, NETWORK].map(|name| begin(&self.folder, name).unwrap())
    }

    fn mark(&self, name: &str, number: &str) {
        fs::write(begun(&self.folder, name), number).unwrap();
    }
}

const ALL: [&str; 5] = ["checkpoint", "export", "export of T5", "kept", "measured"];

#[test]
fn a_folder_belongs_to_one_plan_and_one_set_of_data() {
    let mut room = Room::new();
    drop(room.take(Begin::New).unwrap());
    drop(room.take(Begin::Resume).unwrap());
    let error = room.take(Begin::New).unwrap_err();
    assert!(matches!(error, Error::Exists { plan, .. } if plan == "laptop"));
    let error = room.take_for(Begin::Resume, &[], "two").unwrap_err().to_string();
    assert!(error.contains("its data is one, not two"), "{error}");
    room.plan.name = "other".to_owned();
    let error = room.take(Begin::Resume).unwrap_err();
    assert!(matches!(&error, Error::OtherRun { what: "plan", .. }), "{error}");
    drop(room.take_for(Begin::Restart, &[], "two").unwrap());
    drop(room.take_for(Begin::Resume, &[], "two").unwrap());
    assert!(fs::read_to_string(room.folder.join(PLAN)).unwrap().contains("name = \"other\""));
}

#[test]
fn a_folder_of_something_else_stays_as_it_is() {
    let room = Room::new();
    fs::create_dir(&room.folder).unwrap();
    fs::write(room.folder.join("plan.toml"), "somebody's").unwrap();
    let before = room.content();
    for begin in [Begin::New, Begin::Resume, Begin::Restart] {
        let error = room.take(begin).unwrap_err();
        assert!(matches!(error, Error::NoRun { .. }), "{error}");
        assert_eq!(room.content(), before, "not even a lock is put there");
    }
}

#[test]
fn a_second_job_is_refused_and_changes_nothing() {
    let room = Room::trained();
    let first = room.take(Begin::Resume).unwrap();
    let before = room.content();
    let jobs: [(Begin, &[&str]); 3] = [(Begin::Restart, &[]), (Begin::Restart, &[NETWORK]), (Begin::Resume, &[])];
    for (begin, only) in jobs {
        let error = room.take_for(begin, only, "one").unwrap_err();
        let path = room.folder.join("run.lock");
        let locked = matches!(&error, Error::Train { source: ediffi_train::Error::Locked { path: at } } if *at == path);
        assert!(locked, "{error}");
        assert_eq!(room.content(), before, "{begin:?} {only:?}");
    }
    drop(first);
    // Two jobs, each for a network of its own.
    let first = room.take_for(Begin::Resume, &[OWN_T5], "one").unwrap();
    let before = room.there();
    room.take_for(Begin::Restart, &[OWN_T5], "one").unwrap_err();
    assert_eq!(room.there(), before);
    let second = room.take_for(Begin::Restart, &[NETWORK], "one").unwrap();
    assert_eq!(room.there(), ["checkpoint", "export of T5"]);
    drop((first, second));
}

#[test]
fn a_new_run_that_is_killed_while_it_begins_can_begin() {
    let room = Room::new();
    fs::create_dir(&room.folder).unwrap();
    drop(room.take(Begin::New).unwrap());
    let whole = fs::read(room.folder.join(RECORD)).unwrap();
    for half in [None, Some("run.json.a1B2c3.tmp")] {
        fs::remove_file(room.folder.join(RECORD)).unwrap();
        fs::remove_file(room.folder.join(PLAN)).unwrap();
        half.map_or(Ok(()), |half| fs::write(room.folder.join(half), &whole[..9])).unwrap();
        drop(room.take(Begin::New).unwrap());
        assert!(half.is_none_or(|half| !room.folder.join(half).exists()));
        assert_eq!(fs::read(room.folder.join(RECORD)).unwrap(), whole);
    }
    // Behind the record, and before the plan.
    fs::remove_file(room.folder.join(PLAN)).unwrap();
    drop(room.take(Begin::Resume).unwrap());
    assert!(room.folder.join(PLAN).is_file());
}

#[test]
fn a_restart_that_is_killed_is_the_old_run_or_a_clean_start() {
    // Before the record: the old run, whole.
    let room = Room::trained();
    fs::remove_file(room.folder.join(PLAN)).unwrap();
    drop(room.take(Begin::Resume).unwrap());
    assert_eq!((room.there(), room.begins()), (ALL.to_vec(), [Begin::Resume; 2]));
    assert!(room.folder.join(PLAN).is_file());
    // Behind it: whatever was removed by then, the old is gone but for the checkpoint, and that is not gone on from.
    let record = Record {
        plan: "laptop".to_owned(),
        data: "one".to_owned(),
        restarts: [OWN_T5, NETWORK].map(|name| (name.to_owned(), 1)).into(),
    };
    let removed = ["export of T5", "export", "kept", "measured"];
    for many in 0..=removed.len() {
        let room = Room::trained();
        fs::remove_file(room.folder.join(PLAN)).unwrap();
        write_json(&room.folder.join(RECORD), &record).unwrap();
        for name in removed.into_iter().take(many) {
            fs::remove_file(&room.files()[name]).unwrap();
        }
        drop(room.take(Begin::Resume).unwrap());
        assert_eq!((room.there(), room.begins()), (vec!["checkpoint"], [Begin::Restart; 2]), "{many}");
        assert!(room.folder.join(PLAN).is_file());
        // T5 has begun, and is trained; the network has not.
        room.mark(OWN_T5, "1\n");
        write_with_folders(&room.files()["export of T5"], b"new").unwrap();
        write_with_folders(&room.files()["measured"], b"of a run without a checkpoint").unwrap();
        drop(room.take(Begin::Resume).unwrap());
        assert_eq!(room.there(), ["checkpoint", "export of T5"]);
        assert_eq!(room.begins(), [Begin::Resume, Begin::Restart]);
        // Once more anew: what had begun before has not now.
        drop(room.take(Begin::Restart).unwrap());
        assert_eq!((room.there(), room.begins()), (vec!["checkpoint"], [Begin::Restart; 2]));
    }
}

#[test]
fn a_restart_of_one_network_leaves_the_others() {
    let room = Room::trained();
    drop(room.take_for(Begin::Restart, &[NETWORK], "one").unwrap());
    assert_eq!((room.there(), room.begins()), (vec!["checkpoint", "export of T5"], [Begin::Resume, Begin::Restart]));
    // A job for another network does what is left to do of that restart.
    write_with_folders(&room.files()["export"], b"left by a kill").unwrap();
    let other = room.take_for(Begin::Resume, &[OWN_T5], "one").unwrap();
    assert_eq!(room.there(), ["checkpoint", "export of T5"]);
    // Unless somebody is at work on it.
    let own = claim::network(&room.folder, NETWORK).unwrap();
    drop(other);
    write_with_folders(&room.files()["kept"], b"of the run at work").unwrap();
    drop(room.take_for(Begin::Resume, &[OWN_T5], "one").unwrap());
    assert_eq!(room.there(), ["checkpoint", "export of T5", "kept"]);
    drop(own);
}

#[test]
fn it_has_begun_when_it_has_a_checkpoint() {
    let room = Room::trained();
    drop(room.take(Begin::Restart).unwrap());
    let run = Run {
        name: NETWORK,
        folder: &room.folder,
        begin: Begin::Restart,
        steps: 1,
        batch: 1,
        accumulate: 1,
        first_batch: 0,
        checkpoint_every: Duration::ZERO,
        lineage: Lineage::default(),
    };
    // The run has put the old one aside.
    fs::remove_file(run.checkpoint()).unwrap();
    let mut anew = Anew::of(&run).unwrap();
    anew.look().unwrap();
    assert_eq!(room.begins(), [Begin::Restart; 2]);
    fs::write(run.checkpoint(), "new").unwrap();
    anew.look().unwrap();
    assert_eq!(room.begins(), [Begin::Restart, Begin::Resume]);
    let left = fs::read_dir(&room.folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
    assert_eq!(left.count(), 0);
}
