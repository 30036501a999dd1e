//! Encode once, sample many times.

use ediffi::{Embeddings, Error, Request};

use crate::model::{CLIP_TOKENS, Model, T5_TOKENS, apple, bytes, style};

#[test]
fn encoding_and_sampling_are_the_halves_of_a_generation() {
    let model = Model::new();
    let pipeline = model.open();
    let request = apple().negative_prompt("blur").style(style(99)).images(2);
    let expected = bytes(&pipeline.generate(&request).unwrap());
    let path = model.path().join("apple.safetensors");
    pipeline.encode(&request).unwrap().save(&path).unwrap();
    let embeddings = Embeddings::load(&path).unwrap();
    assert_eq!(bytes(&pipeline.sample(&embeddings, &request).unwrap()), expected);
    assert_eq!(embeddings.request().seed(7).images(2), request);
}

#[test]
fn embeddings_have_the_shapes_of_the_networks() {
    let model = Model::new();
    let pipeline = model.open();
    let embeddings = pipeline.encode(&apple().style(style(1))).unwrap();
    let given = embeddings.conditioning();
    let shape = |tensor: &Option<tch::Tensor>| tensor.as_ref().unwrap().size();
    assert_eq!(shape(&given.t5), [1, T5_TOKENS, 8]);
    assert_eq!(shape(&given.clip_text), [1, CLIP_TOKENS, 8]);
    assert_eq!((shape(&given.clip_text_pooled), shape(&given.clip_image)), (vec![1, 6], vec![1, 6]));
    assert!(embeddings.unconditional().t5.is_none(), "no negative prompt");
    let negative = pipeline.encode(&apple().negative_prompt("a dog")).unwrap();
    let dog = pipeline.encode(&Request::new("a dog")).unwrap();
    assert!(negative.unconditional().t5.unwrap().equal(&dog.conditioning().t5.unwrap()), "a text is encoded alone");
}

/// Only the provenance has a use for them.
#[test]
fn encoders_that_cannot_be_read_do_not_keep_embeddings_from_being_drawn() {
    let model = Model::new();
    let request = apple();
    let whole = model.open();
    let embeddings = whole.encode(&request).unwrap();
    let drawn = whole.sample(&embeddings, &request).unwrap();
    assert!(drawn.images[0].provenance().encoders.is_some());
    for damage in [&b"damaged"[..], &b""[..]] {
        std::fs::write(model.path().join("clip/model.safetensors"), damage).unwrap();
        let pipeline = model.open();
        let again = pipeline.sample(&embeddings, &request).unwrap();
        assert!(again.images[0].rgb() == drawn.images[0].rgb());
        assert_eq!(again.images[0].provenance().encoders, None);
        let told = drawn.images[0].provenance().differences(again.images[0].provenance());
        assert!(told.len() == 1 && told[0].starts_with("encoders: ") && told[0].ends_with("here none"), "{told:?}");
    }
}

#[test]
fn a_model_without_encoders_draws_embeddings() {
    let model = Model::new();
    let request = apple().style(style(99));
    let embeddings = model.open().encode(&request).unwrap();
    let expected = model.open().generate(&request).unwrap();
    std::fs::remove_dir_all(model.path().join("t5")).unwrap();
    std::fs::remove_dir_all(model.path().join("clip")).unwrap();
    model.edit(|manifest| manifest["encoders"] = serde_json::json!({}));
    let pipeline = model.open();
    let drawn = pipeline.sample(&embeddings, &request).unwrap();
    assert_eq!(drawn.images[0].rgb(), expected.images[0].rgb());
    // The file says that no encoder was at hand.
    let made = drawn.images[0].provenance().differences(expected.images[0].provenance());
    assert!(made.len() == 1 && made[0].starts_with("encoders: "), "{made:?}");
    assert!(matches!(pipeline.generate(&request), Err(Error::InvalidRequest { .. })));
}

#[test]
fn the_texts_of_recent_requests_are_not_encoded_again() {
    let model = Model::new();
    let (one, two) = (model.builder().recent_texts(1), model.builder());
    assert_eq!(encoders_started(&one.open().unwrap()), [2, 0, 2, 2]);
    assert_eq!(encoders_started(&two.open().unwrap()), [2, 0, 2, 0]);
}

/// How many encoders start for each of some requests, the last of which is the first again.
fn encoders_started(pipeline: &ediffi::Pipeline) -> Vec<usize> {
    let mut started = Vec::new();
    for request in [apple(), apple().seed(8), Request::new("a dog"), apple()] {
        let mut encoders = 0;
        let mut watch = |event: &ediffi::Event<'_>| {
            encoders += usize::from(matches!(event, ediffi::Event::EncoderStarted { .. }));
            std::ops::ControlFlow::Continue(())
        };
        pipeline.generate_with(&request, &mut watch).unwrap();
        started.push(encoders);
    }
    started
}

#[test]
fn embeddings_are_for_their_own_request_and_model() {
    let model = Model::new();
    let pipeline = model.open();
    let embeddings = pipeline.encode(&apple()).unwrap();
    let other = pipeline.sample(&embeddings, &Request::new("a dog"));
    assert!(matches!(other, Err(Error::EmbeddingsOfAnother("the prompt"))));
    assert!(matches!(pipeline.sample(&embeddings, &apple().steps("base", 0)), Err(Error::InvalidRequest { .. })));
    let wide = Model::new();
    let context = crate::model::context().map(|mut context| {
        context.t5 = Some(ediffi_core::unet::Tokens { tokens: T5_TOKENS + 1, width: 8 });
        context
    });
    crate::model::network(&wide.path().join("base"), &crate::model::config(context, false), &["high", "low"]);
    let error = wide.open().sample(&embeddings, &apple()).unwrap_err();
    assert!(matches!(&error, Error::EmbeddingsShape { name, .. } if *name == "t5"), "{error}");
}
