//! The same pictures in every layout are the same data.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod made;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ediffi_data::{Error, Folder, Loader, LoaderSettings, Shards, open};
use ediffi_train::batch::BatchSource;
use ediffi_train::dataset::{Dataset, Sample};
use made::error;

fn all(data: &dyn Dataset) -> Vec<Sample> {
    (0..data.len()).map(|index| data.sample(index).unwrap()).collect()
}

fn at(path: &Path) -> Arc<dyn Dataset> {
    open(path.to_str().unwrap()).unwrap()
}

#[test]
fn every_layout_gives_the_same_samples_and_the_same_batches() {
    let pictures = made::pictures(7);
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    made::folder(&path("texts"), &pictures);
    for name in ["json", "jsonl", "csv", "shards"] {
        fs::create_dir(path(name)).unwrap();
    }
    for name in ["json", "jsonl", "csv"] {
        made::write(&path(name), &pictures);
    }
    let (mut jsonl, mut csv) = (String::new(), "text,file_name\n".to_owned());
    for made in &pictures {
        let beside = path("json").join(format!("{}.json", made.stem));
        fs::write(beside, serde_json::json!({ "text": made.caption }).to_string()).unwrap();
        jsonl += &(serde_json::json!({ "file_name": made.name(), "caption": made.caption }).to_string() + "\n");
        csv += &format!("\"{}\",{}\n", made.caption.replace('"', "\"\""), made.name());
    }
    fs::write(path("jsonl/metadata.jsonl"), jsonl).unwrap();
    fs::write(path("csv/metadata.csv"), csv).unwrap();
    made::shard(&path("shards/part-00.tar"), &pictures[..3]);
    made::shard(&path("shards/part-01.tar"), &pictures[3..]);

    let expected = all(&*at(&path("texts")));
    for (made, sample) in pictures.iter().zip(&expected) {
        assert_eq!(sample.caption, made.caption);
        let pixels = made::pixels(made.stem.parse().unwrap());
        assert_eq!((sample.width, sample.height), pixels.dimensions());
        // JPEG is not exact.
        assert!(made.ending == "jpg" || sample.pixels == pixels.into_raw());
    }
    let settings = LoaderSettings { batch: 5, side: 12, random_crop: true, flip: true, ..LoaderSettings::default() };
    let batches = |data: Arc<dyn Dataset>| {
        let loader = Loader::new(data, settings.clone()).unwrap();
        [0, 1].map(|number| loader.batch(number).unwrap())
    };
    let first = batches(at(&path("texts")));
    for layout in ["json", "jsonl", "csv", "shards", "shards/part-{00..01}.tar"] {
        let data = at(&path(layout));
        assert!(all(&*data) == expected, "{layout}");
        for (index, sample) in expected.iter().enumerate() {
            assert_eq!(data.caption(index).unwrap(), sample.caption, "{layout}");
            assert_eq!(data.size(index).unwrap(), (sample.height, sample.width), "{layout}");
        }
        for (batch, first) in batches(data).iter().zip(&first) {
            assert_eq!(batch.pictures, first.pictures, "{layout}");
            assert_eq!(batch.text, first.text, "{layout}");
        }
    }
}

#[test]
fn a_fingerprint_tells_names_lengths_and_captions_and_not_the_place() {
    let root = tempfile::tempdir().unwrap();
    let of = |name: &str, change: &dyn Fn(&mut Vec<made::Made>)| {
        let mut pictures = made::pictures(4);
        change(&mut pictures);
        let folder = root.path().join(name);
        made::folder(&folder, &pictures);
        let shards = root.path().join(format!("{name}-shards"));
        fs::create_dir(&shards).unwrap();
        made::shard(&shards.join("0.tar"), &pictures);
        [at(&folder).fingerprint(), at(&shards).fingerprint()]
    };
    let first = of("first", &|_| {});
    assert_eq!(of("second", &|_| {}), first);
    type Change = fn(&mut Vec<made::Made>);
    let changes: [(&str, Change); 4] = [
        ("caption", |all| all[1].caption += "x"),
        ("length", |all| all[1].bytes.push(0)),
        ("name", |all| all[3].stem += "x"),
        ("fewer", |all| drop(all.pop())),
    ];
    for (name, change) in changes {
        let changed = of(name, &change);
        assert!(changed[0] != first[0] && changed[1] != first[1], "{name}");
    }
}

#[test]
fn folders_are_read_in_the_order_of_paths_and_hidden_names_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let mut pictures = made::pictures(5);
    for (made, stem) in pictures.iter_mut().zip(["b/x.y", "a", "b/a", ".hidden", "c/.git/z"]) {
        made.stem = stem.to_owned();
    }
    made::folder(root.path(), &pictures);
    fs::write(root.path().join("README.txt"), "of no picture").unwrap();
    let data = at(root.path());
    let names: Vec<String> = (0..data.len()).map(|index| data.name(index)).collect();
    assert_eq!(names, ["a.jpg", "b/a.webp", "b/x.y.png"]);
    let error = data.sample(3).unwrap_err();
    assert!(error.to_string().contains("number 3") && error.to_string().contains("3"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_followed_is_refused_with_the_culprit() {
    let pictures = made::pictures(3);
    let refused = |change: &dyn Fn(&Path)| {
        let root = tempfile::tempdir().unwrap();
        made::folder(root.path(), &pictures);
        change(root.path());
        error(Folder::open(root.path()))
    };
    let write = |root: &Path, name: &str, text: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let missing = refused(&|root| fs::remove_file(root.join("0001.txt")).unwrap());
    assert!(matches!(&missing, Error::NoCaption { name, .. } if name == "0001.jpg"), "{missing}");
    let no_row = refused(&|root| write(root, "metadata.csv", "file_name,text\n0000.png,a\n0002.webp,b\n"));
    assert!(matches!(&no_row, Error::NoCaption { name, .. } if name == "0001.jpg"), "{no_row}");
    let rows = "file_name,text\n0000.png,a\n0001.jpg,b\n0002.webp,c\n0003.png,d\n";
    let no_file = refused(&|root| write(root, "metadata.csv", rows));
    assert!(matches!(&no_file, Error::Table { line: 5, reason, .. } if reason.contains("0003.png")), "{no_file}");
    let outside = refused(&|root| write(root, "metadata.jsonl", r#"{"file_name": "../0000.png", "text": ""}"#));
    assert!(matches!(&outside, Error::Table { line: 1, reason, .. } if reason.contains("../0000.png")), "{outside}");
    let twice = refused(&|root| write(root, "0001.png", ""));
    assert!(
        matches!(&twice, Error::Twice { first, second, .. } if first == "0001.jpg" && second == "0001.png"),
        "{twice}"
    );
    let below = refused(&|root| write(root, "more/metadata.csv", ""));
    assert!(matches!(&below, Error::Folder { path, .. } if path.ends_with("more/metadata.csv")), "{below}");
    let no_text = refused(&|root| fs::write(root.join("0002.txt"), [0xff, 0xfe]).unwrap());
    assert!(matches!(&no_text, Error::Caption { name, .. } if name == "0002.txt"), "{no_text}");
    let long = refused(&|root| fs::write(root.join("0002.txt"), vec![b'x'; (1 << 20) + 1]).unwrap());
    assert!(matches!(&long, Error::Caption { name, .. } if name == "0002.txt"), "{long}");
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_is_refused_and_one_to_a_picture_followed() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    made::folder(root.path(), &made::pictures(1));
    symlink(root.path().join("0000.png"), root.path().join("link.png")).unwrap();
    fs::write(root.path().join("link.txt"), "the same").unwrap();
    let data = Folder::open(root.path()).unwrap();
    assert_eq!(data.sample(0).unwrap().pixels, data.sample(1).unwrap().pixels);
    symlink(root.path(), root.path().join("round")).unwrap();
    assert!(matches!(Folder::open(root.path()), Err(Error::Folder { path, .. }) if path.ends_with("round")));
}

#[test]
fn what_is_no_data_is_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_str().unwrap();
    for address in ["https://example.org/a.tar", "s3://bucket/{0..3}.tar", "pipe:cat a.tar"] {
        assert!(matches!(error(open(address)), Error::Remote { .. }), "{address}");
    }
    assert!(matches!(error(open(path)), Error::Unknown { .. }));
    fs::write(root.path().join("notes.txt"), "").unwrap();
    assert!(matches!(error(open(path)), Error::Unknown { .. }));
    assert!(matches!(error(open(&format!("{path}/notes.txt"))), Error::Unknown { .. }));
    assert!(matches!(error(open(&format!("{path}/none"))), Error::File { .. }));
    assert!(
        matches!(error(open(&format!("{path}/{{0..1}}.tar"))), Error::File { path, .. } if path.ends_with("0.tar"))
    );
    assert!(matches!(error(open(&format!("{path}/{{0..}}.tar"))), Error::Braces { .. }));
    made::folder(root.path(), &made::pictures(1));
    made::shard(&root.path().join("0.tar"), &made::pictures(1));
    assert!(matches!(error(open(path)), Error::Mixed { .. }));
    fs::remove_file(root.path().join("0.tar")).unwrap();
    fs::write(root.path().join("flowers.tgz"), "").unwrap();
    assert_eq!(open(path).unwrap().len(), 1, "pictures beside the archive that they came in");
    let archives = tempfile::tempdir().unwrap();
    fs::write(archives.path().join("flowers.tgz"), "").unwrap();
    let refused = error(open(archives.path().to_str().unwrap()));
    assert!(matches!(&refused, Error::Shard { path, .. } if path.ends_with("flowers.tgz")), "{refused}");
    fs::remove_file(root.path().join("flowers.tgz")).unwrap();
    made::shard(&root.path().join("0.tar"), &made::pictures(1));
    fs::write(root.path().join("1.tar.gz"), "").unwrap();
    assert!(matches!(error(Shards::open(path, None)), Error::Shard { path, .. } if path.ends_with("1.tar.gz")));
}
