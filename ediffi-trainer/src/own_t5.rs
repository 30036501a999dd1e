//! A small T5 that is trained on the captions alone: it has to guess the tokens of a span that it cannot see.
//!
//! The published T5 has read the web; this one learns which words of these captions go together. What reads the guesses is thrown away.

use ediffi_core::files::write_json;
use ediffi_core::nn::Linear;
use ediffi_core::weights::{Params, Scope};
use ediffi_data::error::is_of_the_system;
use ediffi_data::{Part, Split};
use ediffi_encoders::TextTokenizer;
use ediffi_encoders::t5::{FeedForwardKind, T5Config, T5Network};
use ediffi_train::fit::{Setup, fit};
use ediffi_train::lineage::Lineage;
use ediffi_train::random::{batch_rng, uniform};
use ediffi_train::run::Begin;
use tch::{Kind, Tensor};

use crate::Result;
use crate::observer::Observer;
use crate::options::Outcome;
use crate::plan::{OWN_T5, OwnT5};
use crate::run_folder::Anew;
use crate::vocabulary::{END, PADDING, UNKNOWN, Vocabulary};
use crate::watch::Watch;
use crate::workshop::Workshop;

/// The most captions that it learns from, spread over the data.
const CAPTIONS: usize = 100_000;
/// The share of a caption that it cannot see.
const HIDDEN: f64 = 0.2;
/// What tells the draws of captions and spans from others.
const SPANS: u64 = 0x7E47_0005;
/// What a token that can be seen is labelled with: `cross_entropy` leaves it out.
const SEEN: i64 = -100;

/// Captions as tokens, some of them hidden.
struct Hidden {
    /// [rows, tokens] i64.
    ids: Tensor,
    /// [rows, tokens] bool.
    mask: Tensor,
    /// [rows, tokens] i64: what is hidden, [`SEEN`] elsewhere.
    labels: Tensor,
}

/// Trains it, with its tokenizer, and exports the folder `t5` of the run. `tokens`: how many a caption is cut to.
pub(crate) fn train(workshop: &Workshop<'_>, own: &OwnT5, tokens: i64, observer: &mut dyn Observer) -> Result<Outcome> {
    let (folder, runtime) = (workshop.options.folder.join(OWN_T5), workshop.options.runtime);
    let [weights, tokenizer_path] = ["model.safetensors", "tokenizer.json"].map(|file| folder.join(file));
    let task = workshop.training.task(OWN_T5)?;
    let begin = workshop.begin(OWN_T5)?;
    begin.discard(&weights)?;
    let captions = captions(workshop)?;
    let vocabulary = Vocabulary::of(captions.iter().map(String::as_str), own.vocabulary);
    if begin == Begin::Restart || !tokenizer_path.is_file() {
        write_json(&tokenizer_path, &vocabulary.to_json())?;
    }
    let lineage = Lineage::default()
        .with("seed", workshop.plan.seed)
        .with("batch", own.batch)
        .with("data", &workshop.data)
        .with("held-out", workshop.plan.data.held_out)
        .with("tokens", tokens)
        .with("vocabulary", own.vocabulary)
        .with("dimensions", format!("{} x {} x {}", own.layers, own.heads, own.width))
        .with_file("tokenizer", &tokenizer_path)?;
    let run = workshop.run(OWN_T5, &task, lineage)?;
    if run.is_trained(&weights)? {
        return Ok(Outcome::Trained);
    }
    let config = config(own, vocabulary.len());
    let open = || TextTokenizer::t5(&tokenizer_path, END, PADDING, config.vocab_size);
    let (tokenizer, seed, rows) = (open()?, workshop.plan.seed, own.batch);
    let batches = move |number| hidden(&tokenizer, &captions, (seed, number), rows, tokens);
    let learner = |params: &mut dyn Params| {
        let mut scope = Scope::root(params);
        let network = T5Network::new(scope.at("t5"), &config, runtime.kind)?;
        let reader = Linear::new(scope.at("reader"), config.d_model, config.vocab_size)?;
        Ok(move |_, Hidden { ids, mask, labels }: Hidden| -> Result<Tensor> {
            let (ids, mask) = (ids.f_to_device(runtime.device)?, mask.f_to_device(runtime.device)?);
            let guesses = reader.forward(&network.forward(&ids, &mask)?.f_to_kind(Kind::Float)?)?.f_flatten(0, 1)?;
            let labels = labels.f_to_device(runtime.device)?.f_flatten(0, 1)?;
            let hidden = labels.f_ne(SEEN)?.f_sum(Kind::Float)?.f_clamp_min(1.0)?;
            let sum = guesses.f_cross_entropy_loss::<Tensor>(&labels, None, tch::Reduction::Sum, SEEN, 0.0)?;
            Ok(sum.f_div(&hidden)?)
        })
    };
    let training = own.training;
    let setup = Setup {
        seed: task.seed(workshop.plan.seed),
        parent: None,
        device: runtime.device,
        kind: Kind::Float,
        optimizer: training.optimizer(),
        ema: training.ema,
        workers: 1,
    };
    let mut watch = Watch::new(&run, &workshop.options.folder, Anew::of(&run)?);
    let state = fit(&run, &setup, batches, learner, |state, entry| watch.step(state, entry, observer))?;
    watch.begun()?;
    if state.step() < run.steps {
        return Ok(Outcome::Stopped);
    }
    write_json(&folder.join("config.json"), &config)?;
    state.export(&weights, "t5.", Kind::BFloat16, run.lineage.notes())?;
    Ok(Outcome::Trained)
}

/// The captions of what networks are trained on, or as many as are enough, spread evenly.
fn captions(workshop: &Workshop<'_>) -> Result<Vec<String>> {
    let len = workshop.dataset.len();
    let split = Split::of_share(len, workshop.plan.data.held_out)?;
    let every = len.div_ceil(CAPTIONS).max(1);
    let mut captions = Vec::new();
    for index in (0..len).step_by(every).filter(|index| split.part(*index) == Part::Train) {
        match workshop.dataset.caption(index) {
            Ok(caption) => captions.push(caption),
            Err(error) if is_of_the_system(&error) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "a caption is left out"),
        }
    }
    captions.retain(|caption| !caption.trim().is_empty());
    Ok(captions)
}

fn config(own: &OwnT5, vocabulary: i64) -> T5Config {
    T5Config {
        vocab_size: vocabulary,
        d_model: own.width,
        d_kv: own.width / own.heads,
        d_ff: 2 * own.width,
        num_layers: own.layers,
        num_heads: own.heads,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        layer_norm_epsilon: 1e-6,
        feed_forward_proj: FeedForwardKind::GatedGelu,
        pad_token_id: PADDING,
        eos_token_id: END,
    }
}

/// Batch `number`: captions that chance says, each with a hidden span.
fn hidden(
    tokenizer: &TextTokenizer,
    captions: &[String],
    (seed, number): (u64, u64),
    rows: u64,
    tokens: i64,
) -> Result<Hidden> {
    let mut rng = batch_rng(seed ^ SPANS, number);
    let drawn: Vec<&str> = (0..rows)
        .map(|_| {
            let place = (uniform(&mut rng) * captions.len() as f64) as usize;
            captions.get(place).map_or("", String::as_str)
        })
        .collect();
    let encoded = tokenizer.encode(&drawn, tokens)?;
    let shape = encoded.ids.size();
    let mut ids = Vec::<i64>::try_from(encoded.ids.f_flatten(0, 1)?)?;
    let mut labels = vec![SEEN; ids.len()];
    let columns = usize::try_from(tokens).unwrap_or(1);
    for (ids, labels) in ids.chunks_mut(columns).zip(labels.chunks_mut(columns)) {
        let length = ids.iter().take_while(|id| **id != END).count();
        let span = ((HIDDEN * length as f64).ceil() as usize).min(length);
        let first = (uniform(&mut rng) * (length - span + 1) as f64) as usize;
        for (id, label) in ids.iter_mut().zip(labels).skip(first).take(span) {
            *label = std::mem::replace(id, UNKNOWN);
        }
    }
    let of = |values: &[i64]| Tensor::f_from_slice(values)?.f_reshape(&shape);
    Ok(Hidden { ids: of(&ids)?, mask: encoded.mask, labels: of(&labels)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_hidden_and_its_tokens_are_the_labels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let captions = ["a red apple left of a cat".to_owned(), "a cat".to_owned()];
        let vocabulary = Vocabulary::of(captions.iter().map(String::as_str), 20);
        write_json(&path, &vocabulary.to_json()).unwrap();
        let tokenizer = TextTokenizer::t5(&path, END, PADDING, vocabulary.len()).unwrap();
        let batch = |number| hidden(&tokenizer, &captions, (1, number), 6, 12).unwrap();
        let (first, again) = (batch(3), batch(3));
        assert_eq!((&first.ids, &first.labels), (&again.ids, &again.labels));
        assert_ne!(first.ids, batch(4).ids);
        let unknown = first.ids.eq(UNKNOWN);
        assert_eq!(unknown, first.labels.ne(SEEN));
        let whole = first.ids.where_self(&unknown.logical_not(), &first.labels);
        let texts: Vec<Vec<i64>> = (0..6).map(|row| Vec::<i64>::try_from(whole.get(row)).unwrap()).collect();
        let known: Vec<Vec<i64>> = captions
            .iter()
            .map(|c| Vec::<i64>::try_from(tokenizer.encode(&[c], 12).unwrap().ids.get(0)).unwrap())
            .collect();
        assert!(texts.iter().all(|text| known.contains(text)));
        let many = |row: i64| first.labels.get(row).ne(SEEN).sum(Kind::Int64).int64_value(&[]);
        assert!((0..6).all(|row| [1, 2].contains(&many(row))), "a fifth of two or seven tokens");
    }
}
