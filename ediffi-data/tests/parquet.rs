//! Tables and pictures in Parquet files are the same data as folders and shards.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod made;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ediffi_data::{Error, open};
use ediffi_train::dataset::{Dataset, Sample};
use made::{Made, error};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// A table of captions, with a column that is somebody else's.
const CAPTIONS: &str =
    "message m { optional binary width (UTF8); optional binary text (UTF8); optional binary file_name (UTF8); }";

/// Pictures as `datasets` writes them.
const PICTURES: &str = "message m { optional group image { optional binary bytes; optional binary path (UTF8); } \
                        optional binary caption (UTF8); }";

/// Writes columns of bytes; a value that is there has definition level `present`.
fn write(path: &Path, schema: &str, columns: &[(i16, Vec<Option<Vec<u8>>>)]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    // Two groups of rows.
    for half in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        for (present, values) in columns {
            let middle = values.len() / 2;
            let part = if half == 0 { &values[..middle] } else { &values[middle..] };
            let levels: Vec<i16> =
                part.iter().map(|value| if value.is_some() { *present } else { present - 1 }).collect();
            let values: Vec<ByteArray> = part.iter().flatten().map(|value| ByteArray::from(value.clone())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn texts(texts: impl Iterator<Item = String>) -> (i16, Vec<Option<Vec<u8>>>) {
    (1, texts.map(|text| Some(text.into_bytes())).collect())
}

fn captions(path: &Path, pictures: &[Made]) {
    let columns = [
        texts(pictures.iter().map(|_| "3".to_owned())),
        texts(pictures.iter().map(|made| made.caption.clone())),
        texts(pictures.iter().map(Made::name)),
    ];
    write(path, CAPTIONS, &columns);
}

fn pictures(path: &Path, pictures: &[Made]) {
    let bytes = pictures.iter().map(|made| Some(made.bytes.clone())).collect();
    // `datasets` leaves the path out where there was none.
    let none = pictures.iter().map(|_| None).collect();
    write(path, PICTURES, &[(2, bytes), (2, none), texts(pictures.iter().map(|made| made.caption.clone()))]);
}

fn all(data: &dyn Dataset) -> Vec<Sample> {
    (0..data.len()).map(|index| data.sample(index).unwrap()).collect()
}

fn at(path: &Path) -> Arc<dyn Dataset> {
    open(path.to_str().unwrap()).unwrap()
}

#[test]
fn a_table_in_parquet_says_what_texts_say() {
    let (root, made) = (tempfile::tempdir().unwrap(), made::pictures(7));
    let path = |name: &str| root.path().join(name);
    made::folder(&path("texts"), &made);
    fs::create_dir(path("table")).unwrap();
    made::write(&path("table"), &made);
    captions(&path("table/metadata.parquet"), &made);
    let (table, texts) = (at(&path("table")), at(&path("texts")));
    assert!(all(&*table) == all(&*texts));
    assert_eq!(table.fingerprint(), texts.fingerprint());
}

#[test]
fn pictures_in_parquet_are_unpacked_once_and_again_when_they_are_others() {
    let (root, made) = (tempfile::tempdir().unwrap(), made::pictures(7));
    let path = |name: &str| root.path().join(name);
    made::folder(&path("texts"), &made);
    fs::create_dir(path("data")).unwrap();
    pictures(&path("data/train-0.parquet"), &made[..4]);
    pictures(&path("data/train-1.parquet"), &made[4..]);
    let expected = all(&*at(&path("texts")));
    assert!(all(&*at(&path("data"))) == expected);
    let time = |name: &str| fs::metadata(path(name)).unwrap().modified().unwrap();
    let first = at(&path("data")).fingerprint();
    assert!(all(&*at(&path("data/train-{0..1}.parquet"))) == expected, "by their names, and unpacked already");
    assert_eq!(time("data/train-0.parquet.tar"), time("data/train-0.parquet"));
    pictures(&path("data/train-1.parquet"), &made[5..]);
    let later = SystemTime::now() + Duration::from_secs(9);
    File::options().write(true).open(path("data/train-1.parquet")).unwrap().set_modified(later).unwrap();
    let fewer = at(&path("data"));
    assert_eq!((fewer.len(), time("data/train-1.parquet.tar")), (6, time("data/train-1.parquet")));
    assert_ne!(fewer.fingerprint(), first);
    // What a kill left in the middle of it goes when it is unpacked the next time.
    let left = path("data/train-1.parquet.tar.a1B2c3.tmp");
    fs::write(&left, "half").unwrap();
    fs::remove_file(path("data/train-1.parquet.tar")).unwrap();
    assert_eq!((at(&path("data")).len(), left.exists()), (6, false));
    assert!(all(&*at(&path("data/train-0.parquet"))) == expected[..4]);
}

#[test]
fn what_is_wrong_is_named_with_its_row() {
    let (root, made) = (tempfile::tempdir().unwrap(), made::pictures(3));
    let path = root.path().join("train.parquet");
    let refused = || error(open(path.to_str().unwrap()));
    let bytes = |which: &[usize]| {
        let own = made.iter().enumerate().map(|(n, made)| which.contains(&n).then(|| made.bytes.clone()));
        own.collect::<Vec<_>>()
    };
    let captions = |which: &[usize]| (0..3).map(|n| which.contains(&n).then(|| b"a cat".to_vec())).collect::<Vec<_>>();
    let none = || (2, vec![None; 3]);
    write(&path, PICTURES, &[(2, bytes(&[0, 1, 2])), none(), (1, captions(&[0, 2]))]);
    let uncaptioned = refused();
    assert!(
        matches!(&uncaptioned, Error::Table { line: 2, reason, .. } if reason.contains("neither")),
        "{uncaptioned}"
    );
    write(&path, PICTURES, &[(2, bytes(&[0, 1])), none(), (1, captions(&[0, 1, 2]))]);
    let empty = refused();
    assert!(matches!(&empty, Error::Table { line: 3, reason, .. } if reason.contains("`image`")), "{empty}");
    write(&path, "message m { optional binary label; }", &[(1, vec![None; 3])]);
    let others = refused();
    assert!(matches!(&others, Error::Shard { reason, .. } if reason.contains("label")), "{others}");
    pictures(&path, &made);
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() - 9], &whole[..20], b"", b"PAR1PAR1"] {
        fs::write(&path, damaged).unwrap();
        let damaged = refused();
        assert!(matches!(&damaged, Error::Shard { path, .. } if path.ends_with("train.parquet")), "{damaged}");
        assert!(!path.with_file_name("train.parquet.tar").exists());
    }
    // A wrong byte anywhere is an error or other pictures, and never a panic.
    for place in (0..whole.len()).step_by(whole.len() / 60 + 1) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        drop(open(path.to_str().unwrap()).map(|data| data.len()));
        drop(fs::remove_file(path.with_file_name("train.parquet.tar")));
    }
}

/// A file of `fixtures/make.py`.
fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

#[test]
fn pictures_that_pyarrow_writes_are_read() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("pictures.parquet");
    fs::write(&path, fixture("pictures.parquet")).unwrap();
    let read = all(&*at(&path));
    let made = [
        (2, 3, [200, 10, 20], "a red picture"),
        (4, 2, [0, 90, 255], "ein blaues, größeres"),
        (1, 1, [7, 7, 7], "a dot"),
    ];
    assert_eq!(read.len(), made.len());
    for (sample, (height, width, colour, caption)) in read.iter().zip(made) {
        assert_eq!((sample.height, sample.width, sample.caption.as_str()), (height, width, caption));
        assert_eq!(sample.pixels, colour.repeat((height * width) as usize));
    }
}

#[test]
fn a_table_that_pyarrow_writes_is_read() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("metadata.parquet"), fixture("metadata.parquet")).unwrap();
    fs::create_dir(root.path().join("b")).unwrap();
    let picture = &made::pictures(1)[0].bytes;
    for name in ["a.png", "b/c.png", "d.png"] {
        fs::write(root.path().join(name), picture).unwrap();
    }
    let captions: Vec<String> = all(&*at(root.path())).into_iter().map(|sample| sample.caption).collect();
    assert_eq!(captions, ["a cat", "a cat", "a \"dog\""]);
}
