//! Batches: in order, resumed, of what can be read.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod made;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ediffi_data::{AspectBuckets, Error, Folder, Loader, LoaderSettings, Part, Said};
use ediffi_train::batch::{Batch, BatchSource};
use ediffi_train::dataset::Dataset;
use ediffi_train::prefetch::prefetch;
use made::error;
use tch::Tensor;

const PICTURES: &str = "../ediffi-encoders/tests/fixtures/pictures/pictures.tar.gz";

fn small() -> LoaderSettings {
    LoaderSettings { seed: 5, batch: 4, side: 8, random_crop: true, flip: true, ..LoaderSettings::default() }
}

fn data(folder: &Path, count: u32) -> Arc<dyn Dataset> {
    made::folder(folder, &made::pictures(count));
    Arc::new(Folder::open(folder).unwrap())
}

fn same(a: &Batch<Vec<Said>>, b: &Batch<Vec<Said>>) -> bool {
    a.text == b.text && a.pictures == b.pictures && a.smaller == b.smaller
}

#[test]
fn a_resumed_run_sees_what_an_unbroken_one_would_have_seen() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path(), 10);
    let loader = |threads| Loader::new(data.clone(), LoaderSettings { threads, ..small() }).unwrap();
    let unbroken = loader(1);
    let batches: Vec<_> = (0..8).map(|number| unbroken.batch(number).unwrap()).collect();
    // From the fifth on, on several threads, made ahead.
    let mut resumed = prefetch(5, 2, loader(3)).unwrap();
    for batch in &batches[5..] {
        assert!(same(batch, &resumed().unwrap()));
    }
    assert!(!same(&batches[0], &batches[1]));
    let other = Loader::new(data.clone(), LoaderSettings { seed: 6, ..small() }).unwrap();
    assert!(!same(&batches[0], &other.batch(0).unwrap()));
}

#[test]
fn other_batch_sizes_see_the_same_samples_cut_in_the_same_way() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path(), 10);
    let run = |batch, count| {
        let loader = Loader::new(data.clone(), LoaderSettings { batch, ..small() }).unwrap();
        let batches: Vec<_> = (0..count).map(|number| loader.batch(number).unwrap()).collect();
        let pictures: Vec<&Tensor> = batches.iter().map(|batch| &batch.pictures).collect();
        (Tensor::cat(&pictures, 0), batches.iter().flat_map(|batch| batch.text.clone()).collect::<Vec<_>>())
    };
    let (three, four) = (run(3, 8), run(4, 6));
    assert_eq!(three.1, four.1);
    assert_eq!(three.0, four.0);
    // Two epochs and four samples: each twice, and none thrice before all were there.
    let index: Vec<usize> = four.1.iter().map(|said| said.index).collect();
    for epoch in index[..20].chunks(10) {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 10, "{index:?}");
    }
    assert_ne!(index[..10], index[10..20]);
    assert!(four.1.iter().any(|said| said.flipped) && four.1.iter().any(|said| !said.flipped));
}

#[test]
fn what_is_held_out_is_never_trained_on() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path(), 10);
    let seen = |part, seed| {
        let settings = LoaderSettings { held_out: 0.3, part, seed, batch: 2, ..small() };
        let loader = Loader::new(data.clone(), settings).unwrap();
        let batches = 3 * loader.batches_per_epoch();
        let said = (0..batches).flat_map(|number| loader.batch(number).unwrap().text);
        (loader.samples(), said.map(|said| said.index).collect::<BTreeSet<_>>())
    };
    let (trained, held_out) = (seen(Part::Train, 1), seen(Part::HeldOut, 1));
    assert_eq!((trained.0, held_out.0), (7, 3));
    assert_eq!((trained.1.len(), held_out.1.len()), (7, 3));
    assert!(trained.1.is_disjoint(&held_out.1));
    assert_eq!(seen(Part::HeldOut, 2).1, held_out.1, "another seed holds out the same");
    let none = Loader::new(data.clone(), LoaderSettings { part: Part::HeldOut, ..small() });
    assert!(matches!(error(none), Error::Empty { .. }));
}

#[test]
fn broken_pictures_are_skipped_by_the_next_in_order_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let mut pictures = made::pictures(10);
    let whole = |pictures: &[made::Made], name: &str| {
        let folder = root.path().join(name);
        made::folder(&folder, pictures);
        Loader::new(Arc::new(Folder::open(&folder).unwrap()), LoaderSettings { batch: 10, ..small() }).unwrap()
    };
    let order: Vec<usize> = whole(&pictures, "whole").batch(0).unwrap().text.iter().map(|said| said.index).collect();
    // The third and the fourth of the run: one is cut short, one is no picture.
    pictures[order[2]].bytes.truncate(20);
    pictures[order[3]].bytes = b"GIF89a".to_vec();
    let broken = whole(&pictures, "broken");
    let batch = broken.batch(0).unwrap();
    let seen: Vec<usize> = batch.text.iter().map(|said| said.index).collect();
    let mut expected = order.clone();
    expected[2] = order[4];
    expected[3] = order[4];
    assert_eq!(seen, expected);
    assert_eq!(broken.skipped(), 3);
    assert!(same(&batch, &whole(&pictures, "broken").batch(0).unwrap()));
    assert_eq!(broken.clone().skipped(), 3);
}

/// A folder in the place of a picture cannot be read, as on a disk that fails: whoever tests may be root, whom no right is missing.
#[test]
fn where_the_system_fails_nothing_is_skipped() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path(), 4);
    let buckets = Some(AspectBuckets { widest: 2.0, multiple: 4 });
    let shapes = || Loader::new(data.clone(), LoaderSettings { buckets, ..small() });
    let (loader, whole) = (Loader::new(data.clone(), small()).unwrap(), shapes().unwrap().members());
    let (gone, failing) = (root.path().join("0001.jpg"), root.path().join("0002.webp"));
    fs::remove_file(gone).unwrap();
    loader.batch(0).unwrap();
    assert!(loader.skipped() > 0, "one that is gone is skipped");
    assert_ne!(shapes().unwrap().members(), whole, "and in no bucket");
    fs::remove_file(&failing).unwrap();
    fs::create_dir(&failing).unwrap();
    for error in [error(loader.batch(0)), error(shapes())] {
        assert!(matches!(error, Error::Train { .. }), "{error}");
        let (text, named) = (error.to_string(), failing.display().to_string());
        assert!(text.contains("the sample 0002.webp cannot be read") && text.contains(&named), "{text}");
    }
}

#[test]
fn data_of_which_nothing_can_be_read_are_an_error() {
    let root = tempfile::tempdir().unwrap();
    let mut pictures = made::pictures(3);
    pictures.iter_mut().for_each(|made| made.bytes.truncate(9));
    made::folder(root.path(), &pictures);
    let loader = Loader::new(Arc::new(Folder::open(root.path()).unwrap()), small()).unwrap();
    let error = error(loader.batch(0));
    assert!(matches!(&error, Error::Broken { tried: 6, .. }), "{error}");
    assert!(error.to_string().contains("000"), "{error}");
}

#[test]
fn pictures_lie_upright_as_their_exif_data_say() {
    let (root, pictures) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let packed = flate2::read::GzDecoder::new(fs::File::open(PICTURES).unwrap());
    tar::Archive::new(packed).unpack(pictures.path()).unwrap();
    for turned in 1..=8 {
        let name = format!("turned-{turned}.jpg");
        fs::copy(pictures.path().join(&name), root.path().join(&name)).unwrap();
        fs::write(root.path().join(format!("turned-{turned}.txt")), "").unwrap();
    }
    let data = Folder::open(root.path()).unwrap();
    for index in 0..8 {
        let expected = pictures.path().join(format!("turned-{}.rgb.png", index + 1));
        let expected = image::open(expected).unwrap().into_rgb8();
        let sample = data.sample(index).unwrap();
        assert_eq!((sample.width, sample.height), expected.dimensions(), "{index}");
        assert_eq!(data.size(index).unwrap(), (sample.height, sample.width), "{index}");
        let far = sample.pixels.iter().zip(expected.as_raw()).map(|(&a, &b)| a.abs_diff(b)).max();
        assert!(far <= Some(3), "{index}: {far:?}");
    }
}

/// A PNG of 30 000 × 30 000 pixels in less than 100 bytes.
#[test]
fn a_picture_that_would_fill_memory_is_refused_by_its_header() {
    let root = tempfile::tempdir().unwrap();
    let chunk = |name: &[u8], body: &[u8]| {
        let named = [name, body].concat();
        let mut check = u32::MAX;
        for byte in &named {
            check ^= u32::from(*byte);
            (0..8).for_each(|_| check = if check & 1 == 1 { check >> 1 ^ 0xedb8_8320 } else { check >> 1 });
        }
        [&(body.len() as u32).to_be_bytes()[..], &named, &(!check).to_be_bytes()].concat()
    };
    let side = 30_000_u32.to_be_bytes();
    let head = [&side[..], &side, &[8, 2, 0, 0, 0]].concat();
    let bomb =
        [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &head), chunk(b"IDAT", &[0; 9]), chunk(b"IEND", &[])].concat();
    let mut pictures = made::pictures(2);
    pictures[0].bytes = bomb;
    made::folder(root.path(), &pictures);
    let data: Arc<dyn Dataset> = Arc::new(Folder::open(root.path()).unwrap());
    let error = data.sample(0).unwrap_err().to_string();
    assert!(error.contains("0000.png") && error.contains("30000x30000"), "{error}");
    assert!(data.size(0).unwrap_err().to_string().contains("30000x30000"));
    let loader = Loader::new(data, small()).unwrap();
    assert!(loader.batch(0).unwrap().text.iter().all(|said| said.index == 1));
}

#[test]
fn super_resolution_trains_on_crops_and_their_averages() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path(), 4);
    let settings = LoaderSettings { side: 16, crop_side: Some(8), smaller: Some(4), ..small() };
    let batch = Loader::new(data, settings).unwrap().batch(0).unwrap();
    assert_eq!(batch.pictures.size(), [4, 3, 8, 8]);
    let smaller = batch.smaller.unwrap();
    assert_eq!(smaller.size(), [4, 3, 2, 2]);
    let corner = batch.pictures.narrow(2, 4, 4).narrow(3, 0, 4).mean_dim(&[2_i64, 3][..], false, None);
    let far = (corner - smaller.select(2, 1).select(2, 0)).abs().max().double_value(&[]);
    assert!(far < 1e-6, "{far}");
    for said in &batch.text {
        let (height, width) = said.size;
        assert_eq!(said.size, {
            let pixels = made::pixels(said.index as u32);
            (pixels.height(), pixels.width())
        });
        let scale = (16.0 / f64::from(height)).max(16.0 / f64::from(width));
        let most = |side: u32| (f64::from(side) * scale).round() as u32 - 8;
        assert!(said.crop.0 <= most(height) && said.crop.1 <= most(width), "{said:?}");
    }
}

#[test]
fn buckets_make_batches_of_one_shape_each() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path(), 15);
    let buckets = Some(AspectBuckets { widest: 2.0, multiple: 8 });
    let loader = || Loader::new(data.clone(), LoaderSettings { side: 32, batch: 2, buckets, ..small() }).unwrap();
    let (first, second) = (loader(), loader());
    let (mut shapes, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..2 * first.batches_per_epoch() {
        let batch = first.batch(number).unwrap();
        let (_, _, height, width) = batch.pictures.size4().unwrap();
        shapes.insert((height, width));
        for said in &batch.text {
            let (h, w) = said.size;
            let quotient = (f64::from(w) / f64::from(h)) / (width as f64 / height as f64);
            assert!((0.7..1.43).contains(&quotient), "{said:?} in {height}x{width}");
            seen.insert(said.index);
        }
        assert!(same(&batch, &second.batch(number).unwrap()));
    }
    assert!(shapes.len() > 2, "{shapes:?}");
    assert_eq!(seen.len(), 15);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path(), 2);
    let buckets = |widest, multiple| Some(AspectBuckets { widest, multiple });
    for (named, settings) in [
        ("batch", LoaderSettings { batch: 0, ..small() }),
        ("side", LoaderSettings { side: 0, ..small() }),
        ("side", LoaderSettings { side: 100_000, ..small() }),
        ("held_out", LoaderSettings { held_out: 1.0, ..small() }),
        ("crop_side", LoaderSettings { crop_side: Some(9), ..small() }),
        ("crop_side", LoaderSettings { crop_side: Some(0), ..small() }),
        ("smaller", LoaderSettings { smaller: Some(3), ..small() }),
        ("smaller", LoaderSettings { smaller: Some(1), ..small() }),
        ("smaller", LoaderSettings { smaller: Some(0), ..small() }),
        ("buckets.widest", LoaderSettings { buckets: buckets(0.5, 4), ..small() }),
        ("buckets.widest", LoaderSettings { buckets: buckets(f64::NAN, 4), ..small() }),
        ("buckets.multiple", LoaderSettings { buckets: buckets(2.0, 0), ..small() }),
        ("buckets.multiple", LoaderSettings { buckets: buckets(2.0, 3), ..small() }),
        ("buckets.multiple", LoaderSettings { buckets: buckets(2.0, 2), smaller: Some(4), ..small() }),
        ("buckets.multiple", LoaderSettings { buckets: buckets(8.0, 8), ..small() }),
        ("buckets", LoaderSettings { buckets: buckets(2.0, 4), crop_side: Some(4), ..small() }),
    ] {
        let refused = error(Loader::new(data.clone(), settings));
        assert!(matches!(&refused, Error::Setting { field, .. } if *field == named), "{named}: {refused}");
    }
}
