//! The tiny CLIP: text and image tower, trained contrastively (Radford et al. 2021).

use ediffi_core::files::write_json;
use ediffi_core::weights::{Params, Scope};
use ediffi_encoders::clip::{ClipTextNetwork, ClipVisionNetwork};
use ediffi_encoders::tokenizer::TextTokenizer;
use ediffi_train::batch::Batch;
use ediffi_train::lineage::Lineage;
use ediffi_train::plan::{EncoderTraining, Task};
use ediffi_train::run::Begin;
use tch::{Kind, Tensor};
use train_icons::dimensions::{self, TOKENS, VISION_SIZE};

use super::batches::Captions;
use super::encoder_training::{BatchResult, train_encoder};
use super::encoders::clip_pixels;
use super::workshop::{Outcome, Workshop};
use super::{Result, vocabulary};

/// Cosines are multiplied by this before the softmax. CLIP learns it and ends near 100; a few dozen concepts need less.
const SCALE: f64 = 20.0;

/// Trains CLIP, with its tokenizer, and exports the folder `clip`.
pub fn train(workshop: &Workshop, encoder: &EncoderTraining, begin: Begin) -> Result<Outcome> {
    let (clip_folder, runtime) = (workshop.clip(), workshop.runtime);
    let (weights, tokenizer_path) = (clip_folder.join("model.safetensors"), clip_folder.join("tokenizer.json"));
    let task = Task::Encoder(encoder);
    let (name, rows) = (task.name(), workshop.plan.batches(&task).batch);
    // Which word goes with what in a picture does not change with where things stand: the scenes are not among these.
    let settings = Lineage::default().with("seed", workshop.plan.seed).with("batch", rows).with("pack", &workshop.pack);
    let mut run = workshop.run(&name, &task, begin, settings);
    let data = workshop.data(rows);
    workshop.discard(&name, begin, &weights)?;
    let vocabulary = vocabulary::begin(begin, &tokenizer_path, &vocabulary::CLIP, workshop.captions()?.as_deref())?;
    run.lineage = run.lineage.with_file("tokenizer", &tokenizer_path)?;
    if run.is_trained(&weights)? {
        println!("{name}: trained");
        return Ok(Outcome::Trained);
    }
    let tokenizer = TextTokenizer::clip(&tokenizer_path, vocabulary, TOKENS)?;
    let config = dimensions::clip(vocabulary, tokenizer.end());
    let vision_config = config.vision_config.clone().ok_or("no image tower")?;

    let build = |params: &mut dyn Params| -> Result<_> {
        let mut scope = Scope::root(params);
        let text = ClipTextNetwork::new(scope.again(), &config.text_config, Some(config.projection_dim), runtime.kind)?;
        let vision = ClipVisionNetwork::new(scope, &vision_config, Some(config.projection_dim), runtime.kind)?;
        Ok((text, vision, TextTokenizer::clip(&tokenizer_path, vocabulary, TOKENS)?))
    };
    let trained = train_encoder(
        workshop,
        &run,
        &task,
        build,
        move |n| data.pictures(n, VISION_SIZE as u32, 0.0),
        |(text, vision, tokenizer), batch: Batch<Captions>| {
            let texts: Vec<&str> = batch.text.captions.iter().map(String::as_str).collect();
            let ids = tokenizer.encode(&texts, TOKENS)?.ids.f_to_device(runtime.device)?;
            let t = normalised(&text.forward(&ids)?.pooled)?;
            let i = normalised(&vision.forward(&clip_pixels(&batch.pictures.f_to_device(runtime.device)?)?)?)?;
            let logits = t.f_matmul(&i.f_transpose(0, 1)?)?.f_mul_scalar(SCALE)?;
            let own = Tensor::f_arange(logits.size2()?.0, (Kind::Int64, runtime.device))?;
            let correct = logits.f_argmax(1, false)?.f_eq_tensor(&own)?.f_sum(Kind::Float)?.f_double_value(&[])?;
            let texts = logits.f_log_softmax(1, Kind::Float)?.f_diagonal(0, 0, 1)?.f_mean(Kind::Float)?;
            let pictures = logits.f_log_softmax(0, Kind::Float)?.f_diagonal(0, 0, 1)?.f_mean(Kind::Float)?;
            let loss = texts.f_add(&pictures)?.f_div_scalar(-2.0)?;
            Ok(BatchResult { loss, correct, total: batch.text.captions.len() as f64 })
        },
    )?;
    let Some((state, accuracy)) = trained else { return Ok(Outcome::Stopped) };
    if let Some(accuracy) = accuracy {
        println!("clip: {:.1} % of the last batches' captions find their picture among {rows}", 100.0 * accuracy);
    }
    write_json(&clip_folder.join("config.json"), &config)?;
    let preprocessor = serde_json::json!({ "size": { "shortest_edge": VISION_SIZE },
        "crop_size": { "height": VISION_SIZE, "width": VISION_SIZE } });
    write_json(&clip_folder.join("preprocessor_config.json"), &preprocessor)?;
    state.export(&weights, "", Kind::BFloat16, run.lineage.notes())?;
    Ok(Outcome::Trained)
}

fn normalised(x: &Tensor) -> Result<Tensor> {
    let norm = x.f_square()?.f_sum_dim_intlist(-1_i64, true, Kind::Float)?.f_add_scalar(1e-12)?.f_sqrt()?;
    Ok(x.f_div(&norm)?)
}
