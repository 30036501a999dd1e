//! Styles of several references, and embeddings of them that are kept.

use std::fs;

use ediffi::{Embeddings, Error, Problem, Request, Style, StyleEmbedding};
use tch::Tensor;

use crate::model::{Model, apple, bytes, distance, style, tensor};

fn problems(error: Error) -> Vec<Problem> {
    match error {
        Error::InvalidRequest { problems } => problems,
        other => panic!("{other:?}"),
    }
}

/// A variation is the picture's embedding without a prompt.
#[test]
fn a_variation_is_a_style_without_a_prompt() {
    let model = Model::new();
    let pipeline = model.open();
    let variation = Request::variation(style(99)).seed(7);
    let (plain, varied) = (Request::unconditional().seed(7), tensor(&pipeline, &variation));
    assert!(distance(&varied, &tensor(&pipeline, &plain)) > 1e-3);
    assert_eq!(distance(&varied, &tensor(&pipeline, &plain.style(style(99)))), 0.0);
    assert!(distance(&varied, &tensor(&pipeline, &variation.clone().seed(8))) > 1e-3);
}

#[test]
fn several_references_are_averaged_by_weight() {
    let model = Model::new();
    let pipeline = model.open();
    let of = |weights: [f64; 2]| {
        let style = Style::mean([(style(20), weights[0]), (style(200), weights[1])]);
        tensor(&pipeline, &apple().style(style))
    };
    let [first, second] = [20, 200].map(|level| tensor(&pipeline, &apple().style(style(level))));
    assert_eq!(distance(&of([1.0, 0.0]), &first), 0.0);
    assert_eq!(distance(&of([0.0, 3.0]), &second), 0.0);
    assert!(distance(&of([1.0, 1.0]), &first) > 1e-6 && distance(&of([1.0, 1.0]), &second) > 1e-6);
    assert!(distance(&of([3.0, 1.0]), &of([1.0, 3.0])) > 1e-6);
    assert!(distance(&of([3.0, 1.0]), &first) < distance(&of([1.0, 3.0]), &first));
    let twice = Style::from(style(20)).and(style(20), 1.0);
    assert!(distance(&tensor(&pipeline, &apple().style(twice)), &first) < 1e-4, "the mean of equals");
}

#[test]
fn a_kept_embedding_gives_the_picture_of_its_references() {
    let model = Model::new();
    let pipeline = model.open();
    let path = model.path().join("ink.safetensors");
    for given in [Style::from(style(99)), Style::from(style(20)).and(style(200), 0.5)] {
        let expected = tensor(&pipeline, &apple().style_with_strength(given.clone(), 0.7));
        pipeline.encode_style(given).unwrap().save(&path).unwrap();
        let kept = StyleEmbedding::load(&path).unwrap();
        assert_eq!((kept.values().len(), kept.clip()), (6, "clip"));
        let request = apple().style_with_strength(kept, 0.7);
        let drawn = pipeline.generate(&request).unwrap();
        assert_eq!(distance(&drawn.images[0].tensor().unwrap(), &expected), 0.0);
        // The picture holds the embedding, and so everything that made it.
        let [png] = &bytes(&drawn)[..] else { panic!() };
        let read = Request::from_png_bytes(png).unwrap();
        assert_eq!(read, request);
        assert_eq!(bytes(&model.open().generate(&read).unwrap()), std::slice::from_ref(png));
        // And an embedding can be averaged like a picture.
        let again = pipeline.encode_style(read.style.unwrap()).unwrap();
        assert_eq!(again, StyleEmbedding::load(&path).unwrap());
    }
}

#[test]
fn encoded_requests_keep_their_references() {
    let model = Model::new();
    let pipeline = model.open();
    let ink = pipeline.encode_style(style(200)).unwrap();
    let request = apple().style(Style::from(style(20)).and(ink, 2.0));
    let path = model.path().join("apple.safetensors");
    pipeline.encode(&request).unwrap().save(&path).unwrap();
    let embeddings = Embeddings::load(&path).unwrap();
    assert_eq!(embeddings.request().seed(7), request);
    assert_eq!(bytes(&pipeline.sample(&embeddings, &request).unwrap()), bytes(&pipeline.generate(&request).unwrap()));
    let other = pipeline.sample(&embeddings, &apple().style(style(20)));
    assert!(matches!(other, Err(Error::EmbeddingsOfAnother("the style references"))));
}

#[test]
fn an_embedding_of_another_clip_is_refused_by_name() {
    let (model, other) = (Model::new(), Model::new());
    // The same dimensions, other weights, and a folder of another name.
    let weights = other.path().join("clip/model.safetensors");
    let named: Vec<(String, Tensor)> = Tensor::read_safetensors(&weights).unwrap();
    let changed: Vec<(String, Tensor)> = named.into_iter().map(|(name, x)| (name, x * 1.5)).collect();
    Tensor::write_safetensors(&changed, &weights).unwrap();
    fs::rename(other.path().join("clip"), other.path().join("clip-b")).unwrap();
    other.edit(|manifest| manifest["encoders"]["clip"] = "clip-b".into());
    let foreign = other.open().encode_style(style(99)).unwrap();
    let pipeline = model.open();
    for result in [
        pipeline.generate(&apple().style(foreign.clone())).map(drop),
        pipeline.encode_style(foreign.clone()).map(drop),
        pipeline.validate(&apple().style(Style::from(style(1)).and(foreign.clone(), 1.0))),
    ] {
        let found = problems(result.unwrap_err());
        let [Problem::StyleOfAnother { values: 6, made_by, wanted, width: 6 }] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(made_by.starts_with("`clip-b` (") && wanted.starts_with("`clip` ("), "{made_by} {wanted}");
    }
    assert!(other.open().generate(&apple().style(foreign)).is_ok());
}

#[test]
fn an_embedding_of_another_width_is_refused() {
    let model = Model::new();
    let pipeline = model.open();
    let request = apple().style(pipeline.encode_style(style(99)).unwrap());
    // Two zeros too many, as only a file that was tampered with has them.
    let mut json = serde_json::to_value(&request).unwrap();
    let values = json.pointer_mut("/style/references/0/embedding/values").unwrap();
    let longer = format!("{}AAAAAAAAAAA=", values.as_str().unwrap());
    *values = longer.into();
    let request: Request = serde_json::from_value(json).unwrap();
    let found = problems(pipeline.generate(&request).unwrap_err());
    assert!(matches!(found[..], [Problem::StyleOfAnother { values: 8, width: 6, .. }]), "{found:?}");
}

#[test]
fn a_style_that_cannot_be_encoded_is_refused() {
    let model = Model::new();
    let none = Style::mean(Vec::<(ediffi::StyleImage, f64)>::new());
    let found = problems(model.open().encode_style(none).unwrap_err());
    assert_eq!(found, [Problem::NoStyleReferences]);
    model.edit(|manifest| drop(manifest["encoders"].as_object_mut().unwrap().remove("clip")));
    let found = problems(model.open().encode_style(style(1)).unwrap_err());
    assert!(matches!(found[..], [Problem::Style { .. }]), "{found:?}");
}
