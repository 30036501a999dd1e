//! Shards, and the indices that are kept of them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod made;

use std::fs;
use std::path::Path;

use ediffi_data::{Error, Shards};
use ediffi_train::dataset::Dataset;
use made::error;

fn shards(path: &Path) -> Result<Shards, Error> {
    Shards::open(path.to_str().unwrap(), None)
}

fn names(data: &Shards) -> Vec<String> {
    (0..data.len()).map(|index| data.name(index)).collect()
}

#[test]
fn the_index_is_written_once_and_read_from_then_on() {
    let root = tempfile::tempdir().unwrap();
    let (path, index) = (root.path().join("a.tar"), root.path().join("a.tar.idx"));
    made::shard(&path, &made::pictures(3));
    assert_eq!(names(&shards(&path).unwrap()), ["a.tar: 0000", "a.tar: 0001", "a.tar: 0002"]);
    // Who reads the index sees what stands in it.
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("\"0001\"", "\"told\"")).unwrap();
    let told = shards(&path).unwrap();
    assert_eq!(names(&told)[1], "a.tar: told");
    assert_eq!(told.sample(1).unwrap().caption, made::pictures(2)[1].caption);
    // What is no index of this shard is replaced.
    for text in [
        String::new(),
        text.replacen("ediffi-shard-index/1", "other", 1),
        text.replace("\"picture\":[", "\"picture\":[9"),
    ] {
        fs::write(&index, text).unwrap();
        assert_eq!(names(&shards(&path).unwrap())[1], "a.tar: 0001");
        assert!(fs::read_to_string(&index).unwrap().contains("\"0001\""));
    }
}

#[test]
fn the_index_is_made_anew_when_the_shard_is_another() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.tar");
    let mut pictures = made::pictures(3);
    made::shard(&path, &pictures);
    let old = shards(&path).unwrap();
    // The same length: only the time of the file tells.
    std::thread::sleep(std::time::Duration::from_millis(20));
    pictures[1].stem = "made".to_owned();
    made::shard(&path, &pictures);
    let new = shards(&path).unwrap();
    assert_eq!(names(&new), ["a.tar: 0000", "a.tar: made", "a.tar: 0002"]);
    assert_ne!(new.fingerprint(), old.fingerprint());
    let error = old.sample(0).unwrap_err().to_string();
    assert!(error.contains("a.tar: 0000") && error.contains("written to"), "{error}");
}

#[test]
fn indices_may_lie_in_a_folder_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let indices = root.path().join("indices");
    for (folder, count) in [("a", 2), ("b", 3)] {
        fs::create_dir(root.path().join(folder)).unwrap();
        made::shard(&root.path().join(folder).join("0.tar"), &made::pictures(count));
    }
    let list = format!("{}/{{a,b}}/0.tar", root.path().display());
    for _ in 0..2 {
        assert_eq!(Shards::open(&list, Some(&indices)).unwrap().len(), 5);
        assert_eq!(fs::read_dir(&indices).unwrap().count(), 2);
    }
    assert!(!root.path().join("a/0.tar.idx").exists());
}

#[cfg(unix)]
#[test]
fn shards_that_nothing_can_be_written_beside_are_read_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.tar");
    made::shard(&path, &made::pictures(2));
    // A folder stands where the index should go: not even the superuser writes there.
    fs::create_dir_all(root.path().join("a.tar.idx/inside")).unwrap();
    assert_eq!(shards(&path).unwrap().len(), 2);
}

#[test]
fn long_names_folders_and_other_files_are_passed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.tar");
    let long = format!("{}/v1.0/{}", "f".repeat(120), "k".repeat(90));
    let picture = made::pictures(1).remove(0);
    made::tar(
        &path,
        &[
            ("readme.md".to_owned(), b"x".to_vec()),
            (format!("{long}.txt"), b" of a long name ".to_vec()),
            (format!("{long}.seg.png"), b"no picture of it".to_vec()),
            (format!("{long}.PNG"), picture.bytes),
            ("._0.png".to_owned(), b"x".to_vec()),
            ("alone.txt".to_owned(), b"without a picture".to_vec()),
        ],
    );
    let data = shards(&path).unwrap();
    assert_eq!(names(&data), [format!("a.tar: {long}")]);
    assert_eq!(data.sample(0).unwrap().caption, "of a long name");
    assert_eq!(data.sample(0).unwrap().pixels, made::pixels(0).into_raw());
}

#[test]
fn a_shard_that_cannot_be_followed_is_refused_with_the_culprit() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.tar");
    let bytes = made::pictures(1).remove(0).bytes;
    let refused = |files: &[(&str, &[u8])]| {
        made::tar(&path, &files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect::<Vec<_>>());
        error(shards(&path))
    };
    let missing = refused(&[("0.png", &bytes), ("0.txt", b"a"), ("1.png", &bytes)]);
    assert!(matches!(&missing, Error::NoCaption { name, .. } if name == "a.tar: 1"), "{missing}");
    let twice = refused(&[("0.png", &bytes), ("0.txt", b"a"), ("0.jpg", &bytes)]);
    assert!(
        matches!(&twice, Error::Twice { first, second, .. } if first == "a.tar: 0.png" && second == "a.tar: 0.jpg"),
        "{twice}"
    );
    let no_text = refused(&[("0.png", &bytes), ("0.txt", &[0xff])]);
    assert!(matches!(&no_text, Error::Caption { name, .. } if name == "a.tar: 0.txt"), "{no_text}");
    let no_json = refused(&[("0.png", &bytes), ("0.json", b"{}")]);
    assert!(matches!(&no_json, Error::Caption { name, .. } if name == "a.tar: 0.json"), "{no_json}");
    assert!(matches!(refused(&[]), Error::Empty { .. }));
    made::shard(&path, &made::pictures(3));
    let whole = fs::read(&path).unwrap();
    for cut in [100, 700] {
        fs::write(&path, &whole[..cut]).unwrap();
        let cut = error(shards(&path));
        assert!(matches!(&cut, Error::Shard { .. }), "{cut}");
    }
    fs::write(&path, [b"no tar at all".repeat(100), vec![1; 512]].concat()).unwrap();
    assert!(matches!(error(shards(&path)), Error::Shard { .. }));
}
