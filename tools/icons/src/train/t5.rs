//! The tiny T5: trained to say what a caption puts where.
//!
//! The published encoders have read the web. A small one that has only these captions learns from what they describe instead of
//! from their words. Where one says "a lemon above an apple", the embedding of "lemon" has to tell the place of the lemon, and each
//! cell of a grid over the picture asks the tokens once, by cross-attention as the positions of the U-Net will, and has to tell
//! what it shows. What reads the embeddings is thrown away.

use std::ops::Range;

use ediffi_core::files::write_json;
use ediffi_core::nn::{Embedding, Linear, attend, merge_heads, split_heads};
use ediffi_core::weights::{Params, Scope};
use ediffi_encoders::t5::T5Network;
use ediffi_train::lineage::Lineage;
use ediffi_train::plan::{EncoderTraining, Task};
use ediffi_train::run::Begin;
use rayon::prelude::*;
use tch::{Kind, Tensor};
use train_icons::colour::Colour;
use train_icons::concepts;
use train_icons::config::{Mix, SamplerConfig};
use train_icons::dimensions::{self, TOKENS, WIDTH};
use train_icons::icon_set::IconSet;
use train_icons::sampler::Sampler;
use train_icons::scene::{Object, Scene};
use train_icons::split::Split;

use super::encoder_training::{BatchResult, train_encoder};
use super::encoders::{T5, t5_tokenizer};
use super::workshop::{Outcome, Workshop};
use super::{Result, vocabulary};

/// Cells of a side of the grid: positions of a side of the base's lowest resolution.
const GRID: i64 = 8;
/// Heads of the readers' attention.
const HEADS: i64 = 4;
/// Scenes with one object say nothing about places: there are fewer of them here than among the pictures.
const MIX: Mix = Mix { one: 0.15, placed: 0.0, two: 0.65, three: 0.1, same: 0.1 };
/// Weight of the squared error of places, in sides of the picture, beside the entropies.
const PLACES: f64 = 10.0;
/// What a cell that has no such thing is labelled with: `cross_entropy` leaves it out.
const UNKNOWN: i64 = -100;

/// Trains T5, with its tokenizer, and exports the folder `t5`.
pub fn train(workshop: &Workshop, encoder: &EncoderTraining, begin: Begin) -> Result<Outcome> {
    let (folder, runtime) = (workshop.t5(), workshop.runtime);
    let task = Task::Encoder(encoder);
    let (name, rows) = (task.name(), workshop.plan.batches(&task).batch);
    let data = workshop.data(rows);
    let [weights, tokenizer_path] = ["model.safetensors", "tokenizer.json"].map(|file| folder.join(file));
    workshop.discard(&name, begin, &weights)?;
    let size = vocabulary::begin(begin, &tokenizer_path, &vocabulary::T5, workshop.captions()?.as_deref())?;
    let config = dimensions::t5(size);
    let sampler = Sampler::new(SamplerConfig { mix: MIX, ..data.sampler.config().clone() })?;
    let lineage = Lineage::default()
        .with("seed", workshop.plan.seed)
        .with("batch", rows)
        .with_bytes("data", sampler.version()?.as_bytes())
        .with_file("tokenizer", &tokenizer_path)?;
    let run = workshop.run(&name, &task, begin, lineage);
    if run.is_trained(&weights)? {
        println!("{name}: trained");
        return Ok(Outcome::Trained);
    }
    let build = |params: &mut dyn Params| -> Result<(T5, Readers)> {
        let mut scope = Scope::root(params);
        let t5 = T5Network::new(scope.at("t5"), &config, runtime.kind)?;
        let tokenizer = t5_tokenizer(&folder, &config)?;
        Ok((T5 { network: t5, tokenizer }, Readers::new(scope.at("readers"))?))
    };
    let trained = train_encoder(
        workshop,
        &run,
        &task,
        build,
        move |n| Captions::draw(&sampler, data.seed, n, rows),
        |(t5, readers), batch: Captions| {
            let texts: Vec<&str> = batch.captions.iter().map(String::as_str).collect();
            let tokens = t5.tokenizer.encode(&texts, TOKENS)?;
            let (named, places) = batch.places(&tokens.spans)?;
            let tokens = t5.embed(&tokens)?;
            let answers = readers.forward(&tokens)?;
            let concepts = answers.first().ok_or("no answers")?;
            let (correct, total) = hits(concepts, &batch.labels[0])?;
            let told = tokens.f_flatten(0, 1)?.f_index_select(0, &named.f_to_device(runtime.device)?)?;
            let apart = readers.place.forward(&told)?.f_sub(&places.f_to_device(runtime.device)?)?;
            // A batch that names nothing, as a small one of "two stars" may, has no error of places.
            let coordinates = apart.numel().max(1) as f64;
            let mut sum = apart.f_square()?.f_sum(Kind::Float)?.f_mul_scalar(PLACES / coordinates)?;
            for (answer, labels) in answers.iter().zip(&batch.labels) {
                let labels = labels.f_to_device(runtime.device)?;
                let loss = answer.f_flatten(0, 1)?.f_cross_entropy_loss::<Tensor>(
                    &labels.f_flatten(0, 1)?,
                    None,
                    tch::Reduction::Mean,
                    UNKNOWN,
                    0.0,
                )?;
                sum = sum.f_add(&loss)?;
            }
            Ok(BatchResult { loss: sum, correct, total })
        },
    )?;
    let Some((state, accuracy)) = trained else { return Ok(Outcome::Stopped) };
    if let Some(accuracy) = accuracy {
        println!("t5: {:.1} % of the cells with an object are read right", 100.0 * accuracy);
    }
    write_json(&folder.join("config.json"), &config)?;
    state.export(&weights, "t5.", Kind::BFloat16, run.lineage.notes())?;
    Ok(Outcome::Trained)
}

/// Cells with an object for which the most likely concept is the right one, and all cells with an object.
fn hits(answer: &Tensor, labels: &Tensor) -> Result<(f64, f64)> {
    let labels = labels.f_to_device(answer.device())?;
    let object = labels.f_gt(0)?;
    let right = answer.f_argmax(-1, false)?.f_eq_tensor(&labels)?.f_logical_and(&object)?;
    let count = |x: &Tensor| -> Result<f64> { Ok(x.f_sum(Kind::Float)?.f_double_value(&[])?) };
    Ok((count(&right)?, count(&object)?))
}

/// Captions, and what every cell of their pictures shows.
struct Captions {
    captions: Vec<String>,
    /// The characters that name each object, and its place.
    objects: Vec<Vec<(Range<usize>, [f32; 2])>>,
    /// Concept (0 for none), style and colour, each [rows, cells] i64.
    labels: [Tensor; 3],
}

/// Kinds of things in each of [`Captions::labels`].
fn classes() -> [i64; 3] {
    [1 + concepts::ALL.len(), IconSet::ALL.len(), Colour::ALL.len()].map(|count| count as i64)
}

impl Captions {
    /// Batch `number` of captions: those of its scenes, of which no picture is drawn.
    fn draw(sampler: &Sampler, seed: u64, number: u64, rows: u64) -> Result<Self> {
        let scenes = (0..rows)
            .into_par_iter()
            .map(|row| Ok(sampler.scene(seed, number * rows + row, Split::Train)?))
            .collect::<Result<Vec<Scene>>>()?;
        let cells: Vec<[i64; 3]> = scenes.iter().flat_map(labels).collect();
        let labels = [0, 1, 2].map(|of| cells.iter().map(|cell| cell[of]).collect::<Vec<_>>());
        let tensor = |labels: &[i64]| Tensor::f_from_slice(labels)?.f_reshape([rows as i64, GRID * GRID]);
        let place = |object: &Object| (object.span.clone(), [object.x, object.y]);
        Ok(Self {
            labels: [tensor(&labels[0])?, tensor(&labels[1])?, tensor(&labels[2])?],
            objects: scenes.iter().map(|scene| scene.objects.iter().map(place).collect()).collect(),
            captions: scenes.into_iter().map(|scene| scene.caption).collect(),
        })
    }

    /// Tokens that name one object, as indices into all rows' tokens, and where it is, [tokens, 2]. The objects of "two stars" share
    /// their tokens, which therefore have no place.
    fn places(&self, spans: &[Vec<Option<Range<usize>>>]) -> Result<(Tensor, Tensor)> {
        let (mut named, mut places) = (Vec::new(), Vec::<f32>::new());
        for (row, (objects, spans)) in (0_i64..).zip(self.objects.iter().zip(spans)) {
            for (token, span) in (0_i64..).zip(spans) {
                let Some(span) = span else { continue };
                let names = |(phrase, _): &&(Range<usize>, _)| span.start < phrase.end && phrase.start < span.end;
                let mut naming = objects.iter().filter(names);
                if let (Some((_, place)), None) = (naming.next(), naming.next()) {
                    named.push(row * TOKENS + token);
                    places.extend(place);
                }
            }
        }
        Ok((Tensor::f_from_slice(&named)?, Tensor::f_from_slice(&places)?.f_reshape([-1, 2])?))
    }
}

/// Concept, style and colour of every cell, row after row.
fn labels(scene: &Scene) -> impl Iterator<Item = [i64; 3]> + '_ {
    let place = |cell: i64| (cell as f32 + 0.5) / GRID as f32;
    (0..GRID * GRID).map(move |cell| {
        let (x, y) = (place(cell % GRID), place(cell / GRID));
        let covers = |object: &&Object| (x - object.x).abs().max((y - object.y).abs()) <= object.size / 2.0;
        // What is drawn last lies on top.
        let shown = scene.objects.iter().rev().find(covers);
        let index = shown.and_then(|object| concepts::ALL.iter().position(|concept| concept.name == object.concept));
        let colour = match (shown, index) {
            (Some(object), Some(index)) => object.ink.or_else(|| concepts::ALL[index].colour_in(scene.style)),
            _ => Some(scene.background.colour()),
        };
        let colour = colour.map_or(UNKNOWN, |colour| colour as i64);
        [index.map_or(0, |index| index as i64 + 1), scene.style as i64, colour]
    })
}

/// One cross-attention of a grid of learned queries, and a linear answer for each kind of label.
struct Readers {
    cells: Embedding,
    kv: Linear,
    answers: [Linear; 3],
    /// Where a token's object is.
    place: Linear,
}

impl Readers {
    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let cells = Embedding::new(scope.at("cells"), GRID * GRID, WIDTH, 1.0)?;
        let kv = Linear::new(scope.at("kv"), WIDTH, 2 * WIDTH)?;
        let [concept, style, colour] = classes();
        let answers = [
            Linear::new(scope.at("concept"), WIDTH, concept)?,
            Linear::new(scope.at("style"), WIDTH, style)?,
            Linear::new(scope.at("colour"), WIDTH, colour)?,
        ];
        Ok(Self { cells, kv, answers, place: Linear::new(scope.at("place"), WIDTH, 2)? })
    }

    /// # Shapes
    /// `tokens`: [rows, tokens, width] → concept, style and colour, each [rows, cells, classes]
    fn forward(&self, tokens: &Tensor) -> Result<Vec<Tensor>> {
        let rows = tokens.size3()?.0;
        let ids = Tensor::f_arange(GRID * GRID, (Kind::Int64, tokens.device()))?;
        let q = self.cells.forward(&ids)?.f_unsqueeze(0)?.f_expand([rows, -1, -1], false)?;
        let kv = self.kv.forward(tokens)?;
        let half = |from: i64| kv.f_narrow(-1, from, WIDTH);
        let [q, k, v] = [split_heads(&q, HEADS)?, split_heads(&half(0)?, HEADS)?, split_heads(&half(WIDTH)?, HEADS)?];
        let read = merge_heads(&attend(&q, &k, &v)?)?;
        self.answers.iter().map(|answer| Ok(answer.forward(&read)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use train_icons::background::Background;

    use super::*;

    fn object(concept: &str, x: f32, span: Range<usize>, ink: Option<Colour>) -> Object {
        Object { concept: concept.to_owned(), x, y: 0.5, size: 0.4, rotation: 0.0, ink, span }
    }

    fn scene(objects: Vec<Object>) -> Scene {
        let caption = "a cat left of a red star, ink style".to_owned();
        Scene { caption, style: IconSet::Ink, background: Background::Plain(Colour::Blue), objects }
    }

    #[test]
    fn every_cell_is_labelled_with_what_lies_on_top_there() {
        let scene = scene(vec![object("cat", 0.25, 2..5, None), object("star", 0.75, 16..24, Some(Colour::Red))]);
        let labels: Vec<[i64; 3]> = labels(&scene).collect();
        let concept = |name: &str| concepts::ALL.iter().position(|c| c.name == name).unwrap() as i64 + 1;
        let colour = |colour: Colour| Colour::ALL.iter().position(|&c| c == colour).unwrap() as i64;
        let style = IconSet::ALL.iter().position(|&style| style == IconSet::Ink).unwrap() as i64;
        assert_eq!(labels.len() as i64, GRID * GRID);
        // Row 3, from the left: the middle of column 1 is at 0.19, of column 4 at 0.56, of column 6 at 0.81.
        let at = |column: usize| labels[3 * GRID as usize + column];
        assert_eq!(at(1), [concept("cat"), style, UNKNOWN], "an ink drawing has no colour of its own");
        assert_eq!(at(6), [concept("star"), style, colour(Colour::Red)]);
        assert_eq!(labels[0], [0, style, colour(Colour::Blue)]);
        let shown = labels.iter().filter(|[concept, ..]| *concept > 0).count();
        // Each is 0.4 wide: three or four cells of an eighth.
        assert!((18..=32).contains(&shown), "{shown}");
    }

    #[test]
    fn tokens_that_name_one_object_have_its_place() {
        let objects = |scene: &Scene| {
            scene.objects.iter().map(|object| (object.span.clone(), [object.x, object.y])).collect::<Vec<_>>()
        };
        let two = scene(vec![object("cat", 0.25, 2..5, None), object("star", 0.75, 16..24, None)]);
        let same = scene(vec![object("cat", 0.25, 2..5, None), object("cat", 0.75, 2..5, None)]);
        let captions = Captions {
            captions: vec![two.caption.clone(), same.caption.clone()],
            objects: vec![objects(&two), objects(&same)],
            labels: [(); 3].map(|()| Tensor::new()),
        };
        // "a", "cat", "left", …, "red", "star", the end; the same for both captions.
        let spans = vec![Some(0..1), Some(2..5), Some(6..10), Some(16..19), Some(20..24), None];
        let (named, places) = captions.places(&[spans.clone(), spans]).unwrap();
        assert_eq!(Vec::<i64>::try_from(named).unwrap(), [1, 3, 4], "those of the second share their token");
        assert_eq!(Vec::<f32>::try_from(places.reshape([-1])).unwrap(), [0.25, 0.5, 0.75, 0.5, 0.75, 0.5]);
        let (named, places) = captions.places(&[]).unwrap();
        assert_eq!((named.size(), places.size()), (vec![0], vec![0, 2]), "nothing named, nothing placed");
    }
}
