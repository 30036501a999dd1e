//! Published folders of Karlo (unCLIP): whole pipelines beside diffusers', what they do like any other model, and what is wrong with a folder. The
//! models are tiny and random; see `ediffi-core/tests/fixtures/unclip`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod drawing;
mod folders;
mod refused;

use std::collections::{BTreeMap, VecDeque};

use ediffi::{Generation, Kind, NoiseSource, Pipeline, Request, RgbImage, StyleEmbedding, StyleImage, Tensor};
use folders::{Folder, saved};

type Tensors = BTreeMap<String, Tensor>;

const PROMPT: &str = "a red apple left of a cat";

fn recorded() -> Tensors {
    let io = Tensor::read_safetensors(saved().path().join("pictures.safetensors")).unwrap();
    io.into_iter().map(|(name, x)| (name, x.to_kind(Kind::Float))).collect()
}

/// The recorded noise of a stage, whose pictures have a side of `side`, in the order in which it was drawn.
struct Recorded(VecDeque<Tensor>);

impl Recorded {
    fn of(io: &Tensors, name: &str, stage: &str) -> Self {
        let all = (0..).map_while(|i| io.get(&format!("{name}.noise_{i}")));
        let side = match stage {
            "prior" => None,
            "base" => Some(8),
            "sr-16" => Some(16),
            other => panic!("{other}"),
        };
        let own = all.filter(|x| x.size().get(2).copied() == side);
        // An embedding is a picture of one pixel.
        Self(own.map(|x| if x.dim() == 2 { x.unsqueeze(-1).unsqueeze(-1) } else { x.shallow_clone() }).collect())
    }
}

impl NoiseSource for Recorded {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        let noise = self.0.pop_front().unwrap();
        assert_eq!(noise.size(), shape);
        Ok(noise)
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max()).unwrap()
}

/// As many steps as were recorded.
fn steps(request: Request) -> Request {
    request.steps("base", 5).steps("sr-16", 4)
}

fn request() -> Request {
    steps(Request::new(PROMPT)).steps("prior", 5)
}

fn draw(pipeline: &Pipeline, request: &Request, io: &Tensors, name: &str) -> Generation {
    let embeddings = pipeline.encode(request).unwrap();
    let mut noise = |stage: &str, _: &[u64]| Box::new(Recorded::of(io, name, stage)) as Box<dyn NoiseSource>;
    pipeline.sample_from(&embeddings, request, &mut noise, &mut ()).unwrap()
}

/// How far a picture is off, in steps of 8 bits; the fixture's is rounded to f16, a sixteenth of one. diffusers multiplies the last estimate of each stage
/// by 0.99947, the beta of its table by that of its products of alphas. Of the prior's embedding that is felt most.
fn off(generation: &Generation, expected: &Tensor) -> f64 {
    difference(&generation.images[0].tensor().unwrap().unsqueeze(0), expected) * 127.5
}

fn reference() -> StyleImage {
    let pixels = Tensor::read_safetensors(saved().path().join("pictures.safetensors")).unwrap();
    let (_, pixels) = pixels.into_iter().find(|(name, _)| name == "reference").unwrap();
    let bytes = Vec::<u8>::try_from(pixels.flatten(0, -1)).unwrap();
    StyleImage::new(RgbImage::from_raw(24, 20, bytes).unwrap()).unwrap()
}

#[test]
fn a_text_draws_the_picture_of_diffusers() {
    let io = recorded();
    let pipeline = Folder::text();
    let generation = draw(&pipeline.open(), &request(), &io, "text");
    let off = off(&generation, &io["text"]);
    assert!(off < 1.0, "{off}");
    let stages: Vec<_> = generation.stages.iter().map(|report| report.plan.to_string()).collect();
    assert!(stages[0].starts_with("stage prior (embeddings of 8), expert 0: steps 1-5 of 5"), "{stages:?}");
    // The last step is that of the second network.
    assert!(
        stages[2].contains("expert 0: steps 1-3 of 4") && stages[2].contains("expert 1: step 4 of 4"),
        "{stages:?}"
    );
}

#[test]
fn a_picture_is_varied_as_by_diffusers() {
    let io = recorded();
    let folder = Folder::variations();
    let request = steps(Request::variation(reference()));
    let generation = draw(&folder.open(), &request, &io, "variations");
    let off = off(&generation, &io["variations"]);
    assert!(off < 0.25, "{off}");
    assert_eq!(generation.stages.len(), 2);
}

/// What CLIP sees of the picture, and the embedding that the prior draws, each alone.
#[test]
fn image_embeddings_are_those_of_diffusers() {
    let io = recorded();
    let folder = Folder::variations();
    let style = folder.open().encode_style(reference()).unwrap();
    let seen = Tensor::from_slice(style.values()).unsqueeze(0);
    assert!(difference(&seen, &io["variations.embedding"]) < 1e-4, "{seen:?}");
    // Put in the place of the prior's own, it draws the picture of that: as the style of a model that varies.
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("style.safetensors");
    let texts = [("format", "ediffi-style/1"), ("clip", style.clip()), ("fingerprint", style.fingerprint())];
    let texts = texts.map(|(key, text)| (key.to_owned(), text.to_owned()));
    let embedding = [("clip_image".to_owned(), io["text.embedding"].shallow_clone())];
    ediffi_core::weights::save(&path, &embedding, texts.into()).unwrap();
    let request = steps(Request::new(PROMPT)).style(StyleEmbedding::load(&path).unwrap());
    let generation = draw(&folder.open(), &request, &io, "text");
    let off = off(&generation, &io["text"]);
    assert!(off < 0.25, "{off}");
}
