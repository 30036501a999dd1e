//! Published folders of Stable Diffusion: whole pipelines beside diffusers', every sampler, ensembles, and what is wrong with a folder. The
//! models are tiny and random; see `ediffi-core/tests/fixtures/stable-diffusion`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod checkpoint;
mod drawing;
mod experts;
mod folders;
mod lora;
mod memory;
mod refused;
mod xl;

use std::collections::{BTreeMap, VecDeque};

use ediffi::{Embeddings, Generation, Kind, NoiseSource, Pipeline, Request, Tensor};
use folders::{Folder, saved};

type Tensors = BTreeMap<String, Tensor>;

const PROMPT: &str = "a red apple left of a cat";

fn recorded() -> Tensors {
    let io = Tensor::read_safetensors(saved().path().join("pictures.safetensors")).unwrap();
    io.into_iter().map(|(name, x)| (name, x.to_kind(Kind::Float))).collect()
}

/// Noise that was recorded, in the order in which it was drawn.
struct Recorded(VecDeque<Tensor>);

impl NoiseSource for Recorded {
    fn normal(&mut self, shape: &[i64]) -> ediffi_core::Result<Tensor> {
        let noise = self.0.pop_front().unwrap();
        assert_eq!(noise.size(), shape);
        Ok(noise)
    }
}

fn noise(io: &Tensors, name: &str) -> Box<dyn NoiseSource> {
    let steps = (0..).map_while(|i| io.get(&format!("{name}.noise_{i}")));
    Box::new(Recorded(std::iter::once(&io["start"]).chain(steps).map(Tensor::shallow_clone).collect()))
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    f64::try_from((a - b).abs().max()).unwrap()
}

fn request() -> Request {
    Request::new(PROMPT).negative_prompt("blur").size(24, 16).steps("base", 6)
}

fn draw(pipeline: &Pipeline, embeddings: &Embeddings, request: &Request, io: &Tensors, name: &str) -> Generation {
    pipeline.sample_from(embeddings, request, &mut |_, _| noise(io, name), &mut ()).unwrap()
}

/// How far a picture is off, in steps of 8 bits; the fixture's is rounded to f16, a sixteenth of one.
fn off(generation: &Generation, expected: &Tensor) -> f64 {
    difference(&generation.images[0].tensor().unwrap(), expected) * 127.5
}

#[test]
fn every_sampler_draws_the_picture_of_diffusers() {
    let io = recorded();
    let names: Vec<&str> =
        io.keys().filter_map(|name| name.strip_prefix("sd-1.")).filter(|name| !name.contains('.')).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| *name != "no-negative").collect();
    assert_eq!(names.len(), 14);
    let mut wrong = Vec::new();
    for name in names {
        let pipeline = Folder::first().sampler(name);
        let pipeline = pipeline.open();
        let embeddings = pipeline.encode(&request()).unwrap();
        // Of five steps the timesteps are at distances of 200, as diffusers' DDIM steps.
        let request = request().steps("base", if name == "ddim-trailing" { 5 } else { 6 });
        let name = format!("sd-1.{name}");
        let off = off(&draw(&pipeline, &embeddings, &request, &io, &name), &io[&name]);
        if off > 0.25 {
            wrong.push(format!("{name} is off by {off:.2} steps of 8 bits"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn texts_are_embedded_with_their_padding() {
    let io = recorded();
    let (first, second) = (Folder::first(), Folder::second());
    let pipeline = first.open();
    let embeddings = pipeline.encode(&request()).unwrap();
    let text = |embeddings: &Embeddings| embeddings.conditioning().clip_text.unwrap();
    assert!(difference(&text(&embeddings), &io["prompt"]) < 1e-5);
    assert!(difference(&embeddings.unconditional().clip_text.unwrap(), &io["negative"]) < 1e-5);
    // Nothing is the empty text, whose embedding is not zeros.
    let nothing = pipeline.encode(&Request::new(PROMPT)).unwrap();
    assert!(difference(&nothing.unconditional().clip_text.unwrap(), &io["empty"]) < 1e-5);
    // The second model pads with a sign, and every such sign of a text is the same token.
    let pipeline = second.open();
    assert!(difference(&text(&pipeline.encode(&request()).unwrap()), &io["sd-2.prompt"]) < 1e-5);
    assert!(difference(&text(&pipeline.encode(&Request::new("a cat!")).unwrap()), &io["sd-2.sign"]) < 1e-5);
    // Of an old folder the map of special tokens says which, of a newer one the settings.
    let config = "tokenizer/tokenizer_config.json";
    second.replace(config, "\"pad_token\": \"!\"", "\"pad_token\": \"<|endoftext|>\"");
    std::fs::write(second.path().join("tokenizer/special_tokens_map.json"), r#"{"pad_token": "!"}"#).unwrap();
    assert!(difference(&text(&second.open().encode(&request()).unwrap()), &io["sd-2.prompt"]) < 1e-5);
    second.replace(config, "{", "{ \"added_tokens_decoder\": {},");
    assert!(difference(&text(&second.open().encode(&request()).unwrap()), &io["sd-2.prompt"]) > 1e-3);
}

#[test]
fn a_network_of_velocities_draws_the_picture_of_diffusers() {
    let io = recorded();
    let folder = Folder::second();
    let pipeline = folder.open();
    let embeddings = pipeline.encode(&request()).unwrap();
    let ddim = off(&draw(&pipeline, &embeddings, &request(), &io, "sd-2.ddim"), &io["sd-2.ddim"]);
    let folder = Folder::second().sampler("euler");
    folder.replace("scheduler/scheduler_config.json", "\"epsilon\"", "\"v_prediction\"");
    let euler = off(&draw(&folder.open(), &embeddings, &request(), &io, "sd-2.euler"), &io["sd-2.euler"]);
    assert!(ddim < 0.25 && euler < 0.25, "{ddim} {euler}");
}

#[test]
fn without_a_negative_prompt_guidance_leans_away_from_the_empty_text() {
    let io = recorded();
    let folder = Folder::first().sampler("ddim");
    let pipeline = folder.open();
    let request = Request::new(PROMPT).size(24, 16).steps("base", 3);
    let drawn = draw(&pipeline, &pipeline.encode(&request).unwrap(), &request, &io, "start");
    let off = off(&drawn, &io["sd-1.no-negative"]);
    assert!(off < 0.25, "{off}");
}
