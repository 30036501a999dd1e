//! The batches of a stage, and what its networks are told of them.

use std::sync::{Arc, Mutex};

use ediffi_core::conditioning::Conditioning;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_data::embeddings::Embeddings;
use ediffi_data::{AspectBuckets, Loader, LoaderSettings, Part, Said};
use ediffi_train::batch::{Batch, BatchSource};
use ediffi_train::dataset::Dataset;
use ediffi_train::random::{batch_rng, uniform};
use tch::{Device, Kind, Tensor};

use crate::encoders::Texts;
use crate::plan::{BucketPlan, Plan, StagePlan};
use crate::{Error, Result};

/// What tells the draws of who sees its own picture from others.
const STYLE: u64 = 0x57F1_E000;

/// What is said of the pictures of a batch.
#[derive(Debug)]
pub(crate) struct Text {
    /// The number of the batch.
    pub(crate) number: u64,
    /// What is said of each picture.
    pub(crate) said: Vec<Said>,
}

/// The batches of a stage. Clones share everything.
#[derive(Clone)]
pub(crate) struct Source(Loader);

impl Source {
    /// How often a picture was skipped because it cannot be read.
    pub(crate) fn skipped(&self) -> u64 {
        self.0.skipped()
    }

    /// Which pictures are in batches of which shape, if there are several.
    pub(crate) fn members(&self) -> Option<String> {
        self.0.members()
    }
}

impl BatchSource for Source {
    type Batch = Batch<Text>;
    type Error = Error;

    fn batch(&self, number: u64) -> Result<Batch<Text>> {
        let Batch { pictures, smaller, text } = self.0.batch(number)?;
        Ok(Batch { pictures, smaller, text: Text { number, said: text } })
    }
}

/// The shapes of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shapes {
    /// Those of the plan.
    OfThePlan,
    /// Squares alone.
    Squares,
}

/// The part of the data that a stage is trained on, or that it is measured on.
pub(crate) fn source(
    plan: &Plan,
    stage: &StagePlan,
    dataset: &Arc<dyn Dataset>,
    (part, shapes): (Part, Shapes),
    threads: usize,
) -> Result<Source> {
    let buckets = plan.buckets(stage).filter(|_| shapes == Shapes::OfThePlan);
    let trained = part == Part::Train;
    let settings = LoaderSettings {
        seed: plan.seed,
        batch: usize::try_from(plan.batch).unwrap_or(usize::MAX),
        side: stage.side,
        smaller: plan.smaller(stage).map(|smaller| stage.side / smaller.max(1)),
        crop_side: stage.crop,
        random_crop: trained && (plan.data.random_crop || stage.crop.is_some()),
        flip: trained && plan.data.flip,
        held_out: plan.data.held_out,
        part,
        threads,
        buckets: buckets.map(|BucketPlan { widest, multiple }| AspectBuckets { widest, multiple }),
    };
    Ok(Source(Loader::new(Arc::clone(dataset), settings)?))
}

/// Where the embeddings of captions come from.
#[derive(Clone)]
pub(crate) struct Told {
    /// The encoders, for all workers.
    pub(crate) texts: Option<Arc<Mutex<Texts>>>,
    /// What they made of the captions before.
    pub(crate) embeddings: Option<Embeddings>,
    /// What the networks of the stage take.
    pub(crate) needs: EmbeddingShapes,
    /// Seed of the plan, and how often a picture is not told of itself.
    pub(crate) style: (u64, f64),
}

impl Told {
    /// What the networks are told of a batch. Whether a picture is told CLIP's view of itself is drawn here, so that none is looked at in
    /// vain.
    pub(crate) fn of(&self, batch: &Batch<Text>) -> Result<Conditioning> {
        let mut told = self.of_samples(&batch.text.said)?;
        if self.needs.clip_image.is_some() {
            let rows = batch.pictures.size4()?.0;
            let (seed, dropped) = self.style;
            let number =
                |row: i64| batch.text.number.wrapping_mul(rows.unsigned_abs()).wrapping_add(row.unsigned_abs());
            let sees = |row: &i64| uniform(&mut batch_rng(seed ^ STYLE, number(*row))) >= dropped;
            let seen: Vec<i64> = (0..rows).filter(sees).collect();
            told.clip_image = self.texts(|texts| texts.pictures(&batch.pictures, &seen))?.flatten();
        }
        Ok(told)
    }

    /// What is told of samples by their captions.
    pub(crate) fn of_samples(&self, said: &[Said]) -> Result<Conditioning> {
        if !self.needs.has_text() {
            return Ok(Conditioning::default());
        }
        let Some(embeddings) = &self.embeddings else {
            return self.of_texts(&said.iter().map(|said| said.caption.as_str()).collect::<Vec<_>>());
        };
        let rows = said.iter().map(|said| row(embeddings, said.index, &self.needs)).collect::<Result<Vec<_>>>()?;
        Ok(Conditioning::gathered(&rows.iter().map(|row| (row, 1)).collect::<Vec<_>>())?)
    }

    /// What is told by texts.
    pub(crate) fn of_texts(&self, texts: &[&str]) -> Result<Conditioning> {
        if !self.needs.has_text() {
            return Ok(Conditioning::default());
        }
        let encoded = self.texts(|encoders| encoders.encode(texts))?.unwrap_or_default();
        Ok(self.needs.select(&encoded))
    }

    fn texts<T>(&self, work: impl FnOnce(&mut Texts) -> Result<T>) -> Result<Option<T>> {
        let Some(texts) = &self.texts else { return Ok(None) };
        let mut texts = texts.lock().map_err(|_| Error::Poisoned)?;
        Ok(Some(work(&mut texts)?))
    }
}

/// The names of the embeddings in files.
pub(crate) const NAMES: [&str; 3] = ["t5", "clip_text", "clip_text_pooled"];

/// The embeddings of sample `index` as they were kept: tokens without the padding, which is zeros.
fn row(embeddings: &Embeddings, index: usize, needs: &EmbeddingShapes) -> Result<Conditioning> {
    let mut found = embeddings.row(index)?;
    let mut padded = |name: &str| -> Result<Option<Tensor>> {
        let Some(shape) = needs.shape(name, 1) else { return Ok(None) };
        let Some(at) = found.iter().position(|(found, _)| found == name) else { return Ok(None) };
        let (_, tensor) = found.swap_remove(at);
        let tensor = tensor.f_unsqueeze(0)?.f_to_kind(Kind::Float)?;
        let (Some(tokens), 3) = (shape.get(1), tensor.dim()) else { return Ok(Some(tensor)) };
        let zeros = Tensor::f_zeros(&shape, (Kind::Float, Device::Cpu))?;
        let length = tensor.size3()?.1.min(*tokens);
        zeros.f_narrow(1, 0, length)?.f_copy_(&tensor.f_narrow(1, 0, length)?)?;
        Ok(Some(zeros))
    };
    Ok(Conditioning {
        t5: padded("t5")?,
        clip_text: padded("clip_text")?,
        clip_text_pooled: padded("clip_text_pooled")?,
        ..Conditioning::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::find;

    /// Two stages of 32 and 64 pixels, and eight pictures, half of which are twice as wide as they are high.
    #[test]
    fn batches_have_the_shapes_of_the_plan_and_sheets_have_squares() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..8 {
            let picture = image::RgbImage::new(if number % 2 == 0 { 80 } else { 40 }, 40);
            picture.save(folder.path().join(format!("{number}.png"))).unwrap();
            std::fs::write(folder.path().join(format!("{number}.txt")), "a wall").unwrap();
        }
        let dataset = ediffi_data::open(&folder.path().to_string_lossy()).unwrap();
        let mut plan = find("laptop").unwrap();
        plan.batch = 2;
        plan.data.buckets = Some(BucketPlan { widest: 2.0, multiple: 8 });
        plan.stages.push(StagePlan { name: "sr".to_owned(), side: 64, ..plan.stages[0].clone() });
        let sizes = |stage: usize, shapes| {
            let source = source(&plan, &plan.stages[stage], &dataset, (Part::Train, shapes), 1).unwrap();
            let batches = (0..8).map(|number| source.batch(number).unwrap());
            let size = |pictures: &Tensor| pictures.size()[2..].to_vec();
            let mut sizes: Vec<_> =
                batches.map(|batch| (size(&batch.pictures), batch.smaller.as_ref().map(size))).collect();
            sizes.sort();
            sizes.dedup();
            sizes
        };
        assert_eq!(sizes(0, Shapes::OfThePlan), [(vec![24, 48], None), (vec![32, 32], None)]);
        let larger = [(vec![48, 96], Some(vec![24, 48])), (vec![64, 64], Some(vec![32, 32]))];
        assert_eq!(sizes(1, Shapes::OfThePlan), larger);
        assert_eq!(sizes(1, Shapes::Squares), larger[1..]);
        plan.stages.truncate(1);
        plan.check().unwrap();
        for (widest, multiple) in [(2.0, 0), (2.0, 2), (2.0, 12), (2.0, 32), (8.0, 16)] {
            plan.data.buckets = Some(BucketPlan { widest, multiple });
            let error = plan.check().unwrap_err().to_string();
            assert!(error.contains("data.buckets.multiple"), "{error}");
        }
    }
}
