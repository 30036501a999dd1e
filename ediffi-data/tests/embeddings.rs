//! Embeddings that are kept: resumed after a kill, and refused where they are others'.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod made;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ediffi_data::Error;
use ediffi_data::embeddings::{Embeddings, Kept, Writer};
use made::error;
use tch::{Kind, Tensor};

fn kept() -> Kept {
    Kept { data: "data of the test".into(), encoder: "encoder of the test".into(), samples: 11, rows: 3 }
}

/// The row of a sample: some tokens, and a vector.
fn row(sample: usize) -> Vec<(String, Tensor)> {
    let tokens = sample as i64 % 4;
    let t5 = (Tensor::arange(tokens * 2, (Kind::Float, tch::Device::Cpu)) + sample as f64).reshape([tokens, 2]);
    let pooled = Tensor::from_slice(&[sample as f32, -1.5, 3.0]);
    vec![("t5".to_owned(), t5.to_kind(Kind::BFloat16)), ("clip_text".to_owned(), pooled)]
}

fn fill(writer: &mut Writer) -> usize {
    let mut shards = 0;
    while let Some(samples) = writer.pending() {
        writer.write(samples.map(row).collect()).unwrap();
        shards += 1;
    }
    shards
}

fn check(folder: &Path) {
    let embeddings = Embeddings::open(folder, &kept().data, &kept().encoder).unwrap();
    assert_eq!(embeddings.len(), 11);
    for sample in 0..11 {
        let mut expected = row(sample);
        expected.reverse();
        let found = embeddings.row(sample).unwrap();
        for ((name, found), (expected_name, expected)) in found.iter().zip(&expected) {
            assert_eq!(
                (name, found.kind(), found.size()),
                (expected_name, expected.kind(), expected.size()),
                "{sample}"
            );
            assert_eq!(found, expected, "{sample}");
        }
    }
    assert!(matches!(embeddings.tensor("t5", 11), Err(Error::Number { index: 11, len: 11 })));
    let unknown = embeddings.tensor("t6", 0).unwrap_err();
    assert!(matches!(&unknown, Error::Embeddings { reason, .. } if reason.contains("clip_text, t5")), "{unknown}");
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn rows_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &kept()).unwrap();
    assert_eq!(fill(&mut writer), 4);
    check(folder.path());
    assert_eq!(writer.pending(), None);
}

/// Not a test of its own: the program that the next one kills.
#[test]
fn writes_until_it_is_killed() {
    let Ok(folder) = std::env::var("EDIFFI_TEST_WRITES_INTO") else { return };
    let mut writer = Writer::open(Path::new(&folder), &kept()).unwrap();
    while let Some(samples) = writer.pending() {
        writer.write(samples.map(row).collect()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_killed_program_goes_on_with_the_first_shard_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed"])
        .env("EDIFFI_TEST_WRITES_INTO", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let second = folder.path().join("rows-000001.safetensors");
    let begin = Instant::now();
    while !second.exists() && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What a kill within a write leaves.
    let first = folder.path().join("rows-000000.safetensors");
    let whole = fs::read(&first).unwrap();
    fs::write(folder.path().join("rows-000003.safetensors.xyz789.tmp"), &whole[..whole.len() / 2]).unwrap();
    let written = fs::metadata(&first).unwrap().modified().unwrap();
    let unfinished = error(Embeddings::open(folder.path(), &kept().data, &kept().encoder));
    assert!(matches!(&unfinished, Error::Embeddings { reason, .. } if reason.contains("missing")), "{unfinished}");
    let left = fill(&mut Writer::open(folder.path(), &kept()).unwrap());
    assert!((1..=2).contains(&left), "{left}");
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), written, "it is written once");
    check(folder.path());
    let rows = |number| format!("rows-00000{number}.safetensors");
    assert_eq!(files(folder.path()), ["manifest.json".to_owned(), rows(0), rows(1), rows(2), rows(3)]);
}

#[test]
fn several_programs_fill_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let one = |program| Writer::open(folder.path(), &kept()).unwrap().one_of(program, 2).unwrap();
    assert_eq!(fill(&mut one(1)), 2);
    assert_eq!(files(folder.path())[1..], ["rows-000001.safetensors", "rows-000003.safetensors"]);
    assert_eq!(fill(&mut one(0)), 2);
    check(folder.path());
    let none = Writer::open(folder.path(), &kept()).unwrap().one_of(2, 2);
    assert!(matches!(error(none), Error::Setting { field: "program", .. }));
}

#[test]
fn embeddings_of_others_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    fill(&mut Writer::open(folder.path(), &kept()).unwrap());
    let Kept { data, encoder, .. } = kept();
    for (other, named) in [
        (Kept { data: "other".into(), ..kept() }, "the data"),
        (Kept { encoder: "other".into(), ..kept() }, "the encoder"),
        (Kept { samples: 12, ..kept() }, "a number of samples of"),
        (Kept { rows: 4, ..kept() }, "rows in a shard of"),
    ] {
        let refused = error(Writer::open(folder.path(), &other));
        assert!(matches!(&refused, Error::OtherEmbeddings { fact, .. } if *fact == named), "{refused}");
    }
    assert!(matches!(
        Writer::open(folder.path(), &Kept { rows: 0, ..kept() }),
        Err(Error::Setting { field: "rows", .. })
    ));
    let refused = error(Embeddings::open(folder.path(), &data, "other"));
    assert!(refused.to_string().contains("encoder of the test, not other"), "{refused}");
    // A shard of another folder, put in by hand.
    let elsewhere = tempfile::tempdir().unwrap();
    fill(&mut Writer::open(elsewhere.path(), &Kept { encoder: "other".into(), ..kept() }).unwrap());
    let name = "rows-000002.safetensors";
    fs::copy(elsewhere.path().join(name), folder.path().join(name)).unwrap();
    let refused = error(Embeddings::open(folder.path(), &data, &encoder));
    assert!(
        matches!(&refused, Error::Embeddings { path, reason } if path.ends_with(name) && reason.contains("encoder")),
        "{refused}"
    );
}

#[test]
fn damaged_shards_are_refused_with_their_names() {
    let folder = tempfile::tempdir().unwrap();
    fill(&mut Writer::open(folder.path(), &kept()).unwrap());
    let path = folder.path().join("rows-000001.safetensors");
    let whole = fs::read(&path).unwrap();
    let open = || Embeddings::open(folder.path(), &kept().data, &kept().encoder);
    for cut in [0, 4, 100, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let refused = error(open()).to_string();
        assert!(refused.contains("rows-000001"), "{cut}: {refused}");
    }
    fs::write(&path, &whole).unwrap();
    let embeddings = open().unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let changed = embeddings.tensor("t5", 4).unwrap_err();
    assert!(matches!(&changed, Error::Embeddings { reason, .. } if reason.contains("written to")), "{changed}");
}

#[test]
fn rows_that_do_not_fit_are_refused_before_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &kept()).unwrap();
    let vector = |width: i64| ("v".to_owned(), Tensor::zeros([width], (Kind::Float, tch::Device::Cpu)));
    let number = ("n".to_owned(), Tensor::from(1.0_f32));
    for (rows, said) in [
        (Vec::new(), "0 rows"),
        ([2, 2, 3].map(|width| vec![vector(width)]).into(), "a row is"),
        (vec![vec![vector(2)], vec![vector(2)], vec![]], "not in every row"),
        (vec![vec![], vec![], vec![vector(2)]], "row 2"),
        ((0..3).map(|_| vec![vector(2), vector(2)]).collect(), "twice"),
        ((0..3).map(|_| vec![(number.0.clone(), number.1.shallow_clone())]).collect(), "one number"),
        ((0..3).map(|_| vec![("v.ends".to_owned(), vector(2).1)]).collect(), "ends"),
        ((0..3).map(|_| vec![("v".to_owned(), vector(2).1.to_kind(Kind::Bool))]).collect(), "Bool"),
    ] {
        let refused = writer.write(rows).unwrap_err();
        assert!(matches!(&refused, Error::Embeddings { reason, .. } if reason.contains(said)), "{said}: {refused}");
    }
    assert_eq!(files(folder.path()), ["manifest.json"]);
}
