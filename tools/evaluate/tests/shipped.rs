//! The judge and the model of this repository, together.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ediffi::{Pipeline, Request};
use evaluate::judge::check::check;
use evaluate::judge::scenes::Examples;
use evaluate::judge::spoil::jumble;
use evaluate::judge::{DEFAULT_PATH, Judge, NEEDED};
use evaluate::model::{Model, Without};
use evaluate::prompts::prompts;
use tch::{Kind, Tensor};
use train_icons::dice::Dice;
use train_icons::pack::{self, Pack};
use train_icons::render::Renderer;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The sprite pack, or a line that says what was skipped.
fn pack(test: &str) -> Option<Pack> {
    let pack = Pack::open(root().join(pack::DEFAULT_PATH)).ok();
    if pack.is_none() {
        let _ = writeln!(std::io::stdout(), "skipped: {test}: no sprite pack, `cargo xtask icons` builds it");
    }
    pack
}

#[test]
fn the_judge_is_right_as_often_as_it_says() {
    let Some(pack) = pack("the_judge_is_right_as_often_as_it_says") else { return };
    let judge = Judge::open(root().join(DEFAULT_PATH)).unwrap();
    let reports = check(&judge, &Examples::new(&pack).unwrap(), 120).unwrap();
    let report = &reports[0].shares;
    for (what, measure) in [
        ("recall", report.recall),
        ("precision", report.precision),
        ("style", report.style),
        ("relation", report.relation),
    ] {
        let measure = measure.unwrap();
        // On so few renders a judge of this accuracy may look a little worse, but not much.
        assert!(measure.high * 100.0 >= NEEDED && measure.value * 100.0 >= NEEDED - 4.0, "{what}: {measure:?}");
    }
}

fn base(model: &Model, steps: usize) -> evaluate::error::Result<ediffi_cascade::SamplerSettings> {
    Ok(ediffi_cascade::SamplerSettings { steps, ..model.base()?.settings.clone() })
}

/// The evaluation draws what the library draws for the same prompt and seed.
#[test]
fn pictures_are_those_of_the_library() {
    let model = Model::open(&root().join("models/icons"), None).unwrap();
    let library = Pipeline::builder(root().join("models/icons")).keep_floats(true).open().unwrap();
    let texts = ["a red apple, flat style", "a cat left of a dog", "two stars"];
    let wishes: Vec<_> = (7..).zip(texts).map(|(seed, text)| model.wish(text, seed, None).unwrap()).collect();
    let pictures = model.draw(&wishes, 1, &base(&model, 4).unwrap(), None).unwrap();
    for ((row, seed), text) in (0..).zip(7..).zip(texts) {
        let request = Request::new(text).seed(seed).steps("base", 4).last_stage("base");
        let drawn = library.generate(&request).unwrap().images[0].tensor().unwrap();
        let apart = (&drawn - pictures.get(row)).abs().mean(Kind::Float).double_value(&[]);
        let other = (&drawn - pictures.get((row + 1) % 3)).abs().mean(Kind::Float);
        // Batches round differently, in bf16 visibly.
        assert!(apart < 0.05 && other.double_value(&[]) > 5.0 * apart, "{text}: {apart} {other}");
    }
}

/// A prompt that is too long is not read; whatever else is wrong is an error, and no reason to try the next prompt.
#[test]
fn only_what_is_too_long_is_not_read() {
    let model = Model::open(&root().join("models/icons"), None).unwrap();
    assert!(model.reads("a red apple, flat style").unwrap());
    assert!(!model.reads(&"a red apple and ".repeat(40)).unwrap());
    assert!(model.reads("").unwrap_err().to_string().contains("the prompt is empty"));
}

#[test]
fn an_encoder_that_is_left_out_changes_the_picture() {
    let model = Model::open(&root().join("models/icons"), None).unwrap();
    let draw = |without| {
        model
            .draw(&[model.wish("a banana, ink style", 3, without).unwrap()], 1, &base(&model, 3).unwrap(), None)
            .unwrap()
    };
    let both = draw(None);
    // How much is the model's affair; the same picture twice would be apart by nothing at all.
    for without in [Without::T5, Without::Clip] {
        let apart = (draw(Some(without)) - &both).abs().mean(Kind::Float).double_value(&[]);
        assert!(apart > 1e-3, "{without:?}: {apart}");
    }
}

/// A caption that is exchanged before the first step, or never, draws the picture of one caption alone.
#[test]
fn exchanged_captions_lie_between_the_two() {
    let model = Model::open(&root().join("models/icons"), None).unwrap();
    let settings = base(&model, 5).unwrap();
    let wish = |text| [model.wish(text, 4, None).unwrap()];
    let (a, b) = (wish("a red apple, flat style"), wish("a cat on a blue background, noto style"));
    let apart = |x: &Tensor, y: &Tensor| (x - y).abs().mean(Kind::Float).double_value(&[]);
    let [first, second] = [&a, &b].map(|wish| model.draw(wish, 1, &settings, None).unwrap());
    let exchanged = |sigma| model.exchanged(&a, &b, sigma, &settings).unwrap();
    let whole = apart(&first, &second);
    assert!(apart(&exchanged(0.0), &first) < 0.02 * whole && apart(&exchanged(1e3), &second) < 0.02 * whole);
    let between = exchanged(1.0);
    assert!(apart(&between, &first) > 0.02 * whole && apart(&between, &second) > 0.02 * whole, "{whole}");
}

/// With hardly any noise the estimate is the picture itself; with much noise it is not.
#[test]
fn the_denoising_loss_grows_with_the_noise() {
    let Some(pack) = pack("the_denoising_loss_grows_with_the_noise") else { return };
    let model = Model::open(&root().join("models/icons"), None).unwrap();
    let renderer = Renderer::new(&pack).unwrap();
    let chosen = prompts(18).unwrap();
    let pixels: Vec<_> = chosen.iter().map(|prompt| renderer.render(&prompt.scene, 64).unwrap()).collect();
    let clean = ediffi_train::pixels::from_rgb(&pixels, 64, 64).unwrap();
    let wishes: Vec<_> =
        chosen.iter().map(|prompt| model.wish(&prompt.scene.caption, prompt.seed, None).unwrap()).collect();
    let error = |sigma| {
        let estimate: Tensor = model.estimate(&wishes, &clean, sigma).unwrap();
        assert_eq!(estimate.size(), clean.size());
        (estimate - &clean).square().mean(Kind::Double).double_value(&[])
    };
    let errors = [0.1, 1.0, 10.0].map(error);
    assert!(errors[0] < 0.02 && errors[0] < errors[1] && errors[1] < errors[2], "{errors:?}");
    // The judge sees the objects of renders.
    let judge = Judge::open(root().join(DEFAULT_PATH)).unwrap();
    let found: usize = judge.look_at(&clean).unwrap().iter().map(|verdict| verdict.detections.len()).sum();
    let wanted: usize = chosen.iter().map(|prompt| prompt.wanted.objects.len()).sum();
    assert!(found * 10 >= wanted * 9, "{found} of {wanted}");
    // The same pixels in another order are no objects, and a plain picture has none.
    let mut pieces = pixels.clone();
    (0..).zip(&mut pieces).for_each(|(index, pixels)| jumble(pixels, &mut Dice::new(1, index, 0)));
    pieces.push(vec![200; 64 * 64 * 3]);
    let pieces = judge.look_at(&ediffi_train::pixels::from_rgb(&pieces, 64, 64).unwrap()).unwrap();
    let found: usize = pieces.iter().map(|verdict| verdict.detections.len()).sum();
    assert!(found <= 3, "{found} of {wanted} in pieces");
}
