//! What a model that draws latents does like any other.

use std::ops::ControlFlow;

use ediffi::{
    Canvas, Event, Generation, Pipeline, Precision, Region, Request, Residency, SigmaInterval, Strength, Tiling,
};

use super::PROMPT;
use super::folders::Folder;

const DECODER: &str = "vae/diffusion_pytorch_model.safetensors";

fn bytes(generation: &Generation) -> Vec<u8> {
    generation.images.iter().flat_map(|image| image.rgb().as_raw().clone()).collect()
}

fn request() -> Request {
    Request::new(PROMPT).seed(3).steps("base", 4)
}

fn picture(pipeline: &Pipeline, request: &Request) -> Vec<u8> {
    bytes(&pipeline.generate(request).unwrap())
}

#[test]
fn folders_are_experts_by_noise_level() {
    let (folder, other) = (Folder::first(), Folder::first());
    let above = SigmaInterval::new(1.0, f64::INFINITY).unwrap();
    let alone = picture(&folder.open(), &request());
    let pair = || folder.builder().expert(above, other.path()).open().unwrap();
    assert_eq!(picture(&pair(), &request()), alone);
    let plan = pair().plan(&request()).unwrap();
    assert_eq!(plan[0].plan.experts().collect::<Vec<_>>(), [0, 1]);
    let text = plan[0].to_string();
    // The first step evaluates twice, so its end belongs to the next expert only if that owns it.
    assert!(text.ends_with("stage base: latents of 8x8, decoded in f32"), "{text}");
    let weights = "unet/diffusion_pytorch_model.safetensors";
    other.change(weights, |name, x| if name == "conv_out.weight" { x * 0.5 } else { x });
    let of_noise = picture(&pair(), &request());
    assert_ne!(of_noise, alone);
    // One that predicts velocities beside one that predicts noise: each has its own preconditioning.
    other.replace("scheduler/scheduler_config.json", "PNDMScheduler", "DDIMScheduler");
    other.replace("scheduler/scheduler_config.json", "\"epsilon\"", "\"v_prediction\"");
    let pipeline = pair();
    assert!(pipeline.manifest().stages[0].experts[0].precondition.is_some());
    assert!(pipeline.manifest().stages[0].experts[1].precondition.is_none());
    let of_both = picture(&pipeline, &request());
    assert!(of_both != of_noise && of_both != alone);
}

#[test]
fn batches_and_residency_change_no_bit() {
    let folder = Folder::first();
    let request = request().images(3);
    let relay = folder.builder().batch(1);
    let all = picture(&folder.builder().batch(1).residency(Residency::All).open().unwrap(), &request);
    let relay = relay.open().unwrap();
    assert_eq!(picture(&relay, &request), all);
    assert_eq!(picture(&relay, &request), all, "a second time, when everything was dropped");
    let second = picture(&relay, &self::request().seed(4));
    assert_eq!(second, all[second.len()..2 * second.len()]);
}

#[test]
fn paint_acts_on_the_attention_to_the_text() {
    let folder = Folder::first().sampler("euler");
    let pipeline = folder.open();
    let painted = |weight| {
        let region = Region::rectangle("red apple", (16, 16), 0..8, 0..16).unwrap();
        let canvas = Canvas::new([region]).unwrap().with_strength(Strength::new(weight)).unwrap();
        picture(&pipeline, &request().canvas(canvas))
    };
    let plain = picture(&pipeline, &request());
    assert_eq!(painted(0.0), plain);
    assert_ne!(painted(1.0), plain);
}

#[test]
fn previews_are_as_large_as_latents() {
    let folder = Folder::first();
    let mut seen = Vec::new();
    let mut watch = |event: &Event<'_>| {
        if let Event::Step { preview, .. } = event {
            assert_eq!(preview.tensor().size(), [1, 4, 8, 12]);
            seen.push(preview.rgb(0).unwrap().unwrap().dimensions());
        }
        ControlFlow::Continue(())
    };
    let generation = folder.open().generate_with(&request().size(24, 16), &mut watch).unwrap();
    assert_eq!(generation.images[0].rgb().dimensions(), (24, 16));
    assert_eq!(seen, [(12, 8); 4]);
}

#[test]
fn tiles_are_counted_in_pixels() {
    let folder = Folder::first().sampler("euler");
    let pipeline = folder.open();
    let tiled = |tile| request().size(32, 24).tiling("base", Tiling { tile, overlap: 8 });
    let whole = picture(&pipeline, &request().size(32, 24));
    assert_ne!(picture(&pipeline, &tiled(16)), whole);
    // One tile is the whole latent; the autoencoder's tiles are its own, of 16 pixels.
    let plan = pipeline.plan(&tiled(64)).unwrap()[0].to_string();
    assert!(plan.ends_with("latents of 16x12, decoded in f32, in 6 tiles"), "{plan}");
    let wrong = pipeline.generate(&tiled(18)).unwrap_err().to_string();
    assert!(wrong.contains("18") && wrong.contains("multiple of 4"), "{wrong}");
}

/// Stops at the question of this number.
struct Stop(usize);

impl ediffi::Observer for Stop {
    fn event(&mut self, _: &Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn cancelled(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 == 0
    }
}

#[test]
fn an_observer_stops_the_decoder() {
    let folder = Folder::first();
    let pipeline = folder.builder().recent_texts(0).open().unwrap();
    // The encoder is asked once; an expert is asked when it takes over, and before each of 5 evaluations; the decoder before it is loaded and
    // before the picture.
    let mut asked = Vec::new();
    for question in 1..20 {
        match pipeline.generate_with(&request(), &mut Stop(question)) {
            Err(ediffi::Error::Cancelled) => asked.push(question),
            Ok(_) => break,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(asked.len(), 1 + 1 + 5 + 2);
    assert!(pipeline.generate(&request()).is_ok());
}

#[test]
fn a_picture_tells_which_autoencoder_decoded_it() {
    let folder = Folder::first();
    let made = || folder.open().provenance(&request()).unwrap();
    let before = made();
    assert_eq!(made().differences(&before), Vec::<String>::new());
    folder.change(DECODER, |_, x| x * 1.5);
    let found = before.differences(&made());
    assert!(found.len() == 1 && found[0].starts_with("model, stage `base`"), "{found:?}");
}

/// The same weights embed a text with another padding in another way.
#[test]
fn a_picture_tells_how_its_text_was_padded() {
    let folder = Folder::first();
    let made = || folder.open().provenance(&request()).unwrap();
    let before = made();
    folder.replace("tokenizer/tokenizer_config.json", "\"pad_token\": \"<|endoftext|>\"", "\"pad_token\": \"!\"");
    let after = made();
    assert!(before.encoders.is_some() && before.encoders != after.encoders);
    assert_eq!(before.differences(&after).len(), 1);
}

/// The decoder is loaded when the last step is done, and the folder may be another one by then.
#[test]
fn no_decoder_of_a_new_folder_is_loaded_into_an_old_pipeline() {
    let folder = Folder::first();
    let pipeline = folder.open();
    let mut steps = 0;
    let mut watch = |event: &Event<'_>| {
        if let Event::Step { .. } = event {
            steps += 1;
            if steps == 4 {
                folder.exchange();
            }
        }
        ControlFlow::Continue(())
    };
    let error = pipeline.generate_with(&request(), &mut watch).unwrap_err();
    assert!(format!("{error:?}").contains("FolderReplaced"), "{error:?}");
    assert_eq!(steps, 4);
}

#[test]
fn a_decoder_that_overflows_is_named() {
    let folder = Folder::first();
    folder.change(DECODER, |_, x| x * 1e30);
    let error = folder.open().generate(&request()).unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("NotFinite") && said.contains(DECODER) && said.contains("decoded in f32"), "{said}");
}

/// bf16 has the range of f32; in f16 the decoder computes in f32, as the autoencoder overflows there.
#[test]
fn half_precision_draws_nearly_the_same() {
    let folder = Folder::first();
    let whole = picture(&folder.open(), &request());
    let half = folder.builder().precision(Precision::Bf16).open().unwrap();
    let found = picture(&half, &request());
    let mean =
        |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64;
    assert!(found != whole && mean(&found, &whole) < 12.0, "{}", mean(&found, &whole));
    let plan = half.plan(&request()).unwrap()[0].to_string();
    assert!(plan.ends_with("decoded in bf16"), "{plan}");
    let plan = folder.builder().precision(Precision::F16).open().unwrap().plan(&request()).unwrap()[0].to_string();
    assert!(plan.ends_with("decoded in f32"), "{plan}");
    folder.replace("vae/config.json", "\"force_upcast\": true", "\"force_upcast\": false");
    let plan = folder.builder().precision(Precision::F16).open().unwrap().plan(&request()).unwrap()[0].to_string();
    assert!(plan.ends_with("decoded in f16"), "{plan}");
}

/// A saved picture holds the request that draws it again, sampler and schedule among its provenance.
#[test]
fn a_saved_picture_is_drawn_again() {
    let folder = Folder::first();
    let pipeline = folder.open();
    let generation = pipeline.generate(&request()).unwrap();
    let png = generation.images[0].to_png().unwrap();
    let again = Request::from_png_bytes(&png).unwrap();
    assert_eq!(picture(&pipeline, &again), bytes(&generation));
    let made = ediffi::Provenance::from_png_bytes(&png).unwrap();
    assert_eq!(made.differences(&pipeline.provenance(&again).unwrap()), Vec::<String>::new());
    assert_eq!(made.stages["base"].settings.solver.to_string(), "plms");
}
