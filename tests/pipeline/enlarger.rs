//! The enlarger after the last stage.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ediffi::{
    DeviceChoice, Enlarger, Error, Event, GeneratedImage, Pipeline, Precision, Residency, Runtime, Tensor, Tiling,
    Worker,
};

use crate::model::{Model, apple, bytes, distance};

/// Four tiles of a picture of 16 pixels.
const TILING: Tiling = Tiling { tile: 10, overlap: 4 };

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ediffi-cascade/tests/fixtures/enlarger/compact.safetensors")
}

fn open(model: &Model) -> Pipeline {
    model.builder().batch(2).tiled_enlarger(file(), TILING).open().unwrap()
}

fn floats(image: &GeneratedImage) -> Tensor {
    image.tensor().unwrap()
}

#[test]
fn finished_pictures_are_enlarged() {
    let model = Model::new();
    let generation = open(&model).generate(&apple().images(3)).unwrap();
    let small = model.builder().batch(2).open().unwrap().generate(&apple().images(3)).unwrap();
    let runtime = Runtime::new(DeviceChoice::Cpu, Precision::F32).unwrap();
    let mut alone = Enlarger::open(&file(), runtime).unwrap().with_tiling(TILING).unwrap();
    for (large, small) in generation.images.iter().zip(&small.images) {
        assert_eq!((large.rgb().dimensions(), large.plan()), ((64, 64), small.plan()));
        let expected = alone.enlarge(&floats(small).unsqueeze(0)).unwrap().get(0);
        // Two in a batch may be added up in another order than one.
        assert!(distance(&floats(large), &expected) < 1e-5);
    }
    let early = open(&model).generate(&apple().last_stage("base")).unwrap();
    assert_eq!(early.images[0].rgb().dimensions(), (8, 8));
}

#[test]
fn tiles_are_told_and_can_stop_the_run() {
    let model = Model::new();
    let pipeline = open(&model);
    let run = |stop: usize| {
        let (mut lines, mut images) = (Vec::new(), Vec::new());
        let mut watch = |event: &Event<'_>| {
            match event {
                Event::EnlargerStarted { index, stages, width, height, batches, tiles } => {
                    lines.push(format!("{index} of {stages}: {width}x{height}, {batches} batches of {tiles} tiles"));
                }
                Event::TileEnlarged { batch, batches, index, tiles } => {
                    lines.push(format!("{batch} of {batches}: {index} of {tiles}"));
                }
                Event::EnlargerFinished { .. } => lines.push("done".to_owned()),
                Event::Image { index, image } => {
                    assert_eq!(*index, images.len());
                    images.push((*image).clone());
                }
                _ => {}
            }
            if lines.len() == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = pipeline.generate_with(&apple().images(3), &mut watch);
        (result, lines, images)
    };
    let (whole, lines, images) = run(usize::MAX);
    let whole = bytes(&whole.unwrap());
    let png = |images: &[GeneratedImage]| images.iter().map(|image| image.to_png().unwrap()).collect::<Vec<_>>();
    assert_eq!(png(&images), whole);
    assert_eq!(lines[0], "2 of 3: 64x64, 2 batches of 4 tiles");
    assert_eq!(lines[1..5], [0, 1, 2, 3].map(|tile| format!("0 of 2: {tile} of 4")));
    assert_eq!(lines[5..], ["1 of 2: 0 of 4", "1 of 2: 1 of 4", "1 of 2: 2 of 4", "1 of 2: 3 of 4", "done"]);
    for stop in 1..lines.len() {
        let (result, told, images) = run(stop);
        assert!(matches!(result, Err(Error::Cancelled)), "at {stop}");
        assert_eq!(told, lines[..stop]);
        // The first batch is finished by its fourth tile, before the next one is told.
        assert_eq!(png(&images), whole[..if stop < 6 { 0 } else { 2 }]);
    }
}

#[test]
fn memory_does_not_change_a_picture() {
    let model = Model::new();
    let pipeline = open(&model);
    let expected = bytes(&pipeline.generate(&apple()).unwrap());
    pipeline.release().unwrap();
    assert_eq!(bytes(&pipeline.generate(&apple()).unwrap()), expected);
    let relay = model.builder().residency(Residency::Relay).tiled_enlarger(file(), TILING).open().unwrap();
    assert_eq!(bytes(&relay.generate(&apple()).unwrap()), expected);
}

#[test]
fn a_job_counts_tiles() {
    let model = Model::new();
    let worker = Worker::new(open(&model)).unwrap();
    let (say, hear) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let watch = move |event: &Event<'_>| {
        if let Event::TileEnlarged { batch: 1, index: 1, .. } = event {
            let _ = say.send(());
            let _ = wait.recv();
        }
        ControlFlow::Continue(())
    };
    let job = worker.submit_with(apple().images(3), watch).unwrap();
    hear.recv().unwrap();
    let progress = job.progress();
    assert_eq!((progress.stage.as_str(), progress.stage_index, progress.stages), ("enlarger", 2, 3));
    assert_eq!((progress.step, progress.steps), (6, 8));
    go.send(()).unwrap();
    assert_eq!(job.wait().unwrap().images.len(), 3);
}

/// A file that cannot be used is refused when the pipeline is opened, before anything is drawn.
#[test]
fn a_bad_file_is_refused_at_once() {
    let model = Model::new();
    let opening = |file: &Path| model.builder().enlarger(file).open().unwrap_err().to_string();
    let path = model.path().join("x.safetensors");
    let named: Vec<(String, Tensor)> = Tensor::read_safetensors(file()).unwrap();
    let shorter: Vec<_> = named.iter().filter(|(name, _)| name != "body.1.weight").collect();
    Tensor::write_safetensors(&shorter.into_iter().map(|(name, x)| (name, x)).collect::<Vec<_>>(), &path).unwrap();
    assert!(opening(&path).contains("missing body.1.weight"), "{}", opening(&path));
    std::fs::write(&path, "no weights").unwrap();
    assert!(opening(&path).contains("x.safetensors"));
    assert!(opening(&model.path().join("base/high.safetensors")).contains("neither an SRVGGNetCompact nor an RRDBNet"));
    let tiles = model.builder().tiled_enlarger(file(), Tiling { tile: 8, overlap: 8 }).open().unwrap_err().to_string();
    assert!(tiles.contains("the overlap must be smaller"), "{tiles}");
}
