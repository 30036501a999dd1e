//! Which sample and which size each place of each batch has.

use std::sync::Arc;

use ediffi_train::dataset::Dataset;

use crate::buckets::Buckets;
use crate::cut::Size;
use crate::{Error, LoaderSettings, Order, Part, Result, Split};

/// The places of all batches. What stands where follows from the settings and the data.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Squares.
    Squares { order: Order, split: Split, part: Part, side: u32 },
    /// Several shapes.
    Buckets(Buckets),
}

/// A batch: the size of its pictures, and the samples of its places.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    pub(crate) size: Size,
    /// The position in `order` of the first place.
    first: u64,
    order: Order,
    among: Among<'a>,
}

/// Which samples an order is over.
#[derive(Debug, Clone, Copy)]
enum Among<'a> {
    Part(&'a Split, Part),
    These(&'a [usize]),
}

impl Plan {
    /// That of a part of the data, and how many samples were left out because their sizes cannot be read.
    pub(crate) fn new(dataset: &Arc<dyn Dataset>, settings: &LoaderSettings) -> Result<(Self, u64)> {
        let split = Split::of_share(dataset.len(), settings.held_out)?;
        let &LoaderSettings { part, seed, side, .. } = settings;
        if split.len(part) == 0 {
            let part = if part == Part::Train { "the data" } else { "the part that is held out" };
            return Err(Error::Empty { what: part.to_owned() });
        }
        if let Some(buckets) = settings.buckets {
            let members = (0..split.len(part)).map(|index| split.sample(part, index)).collect();
            let (buckets, skipped) = Buckets::new(dataset, members, settings, buckets)?;
            return Ok((Self::Buckets(buckets), skipped));
        }
        let order = Order::new(seed, split.len(part))?;
        Ok((Self::Squares { order, split, part, side }, 0))
    }

    /// How many samples there are, and how many batches of `batch` see each of them about once.
    pub(crate) fn lengths(&self, batch: usize) -> (usize, u64) {
        match self {
            Self::Squares { split, part, .. } => {
                let len = split.len(*part);
                (len, len.div_ceil(batch) as u64)
            }
            Self::Buckets(buckets) => (buckets.samples(), buckets.batches()),
        }
    }

    /// Which samples have which shape, if there are several.
    pub(crate) fn members(&self) -> Option<String> {
        match self {
            Self::Squares { .. } => None,
            Self::Buckets(buckets) => Some(buckets.members()),
        }
    }

    /// Those of batch `number`.
    pub(crate) fn places(&self, number: u64, batch: usize) -> Result<Places<'_>> {
        Ok(match self {
            Self::Squares { order, split, part, side } => {
                let first = number.wrapping_mul(batch as u64);
                Places { size: (*side, *side), first, order: *order, among: Among::Part(split, *part) }
            }
            Self::Buckets(buckets) => {
                let found = buckets.batch(number);
                let (bucket, nth) = found.ok_or_else(|| Error::Empty { what: "the buckets".to_owned() })?;
                let first = nth.wrapping_mul(batch as u64);
                Places { size: bucket.size, first, order: bucket.order, among: Among::These(&bucket.members) }
            }
        })
    }
}

impl Places<'_> {
    /// The sample of a place, or the one that comes `further` on in the order.
    pub(crate) fn sample(&self, place: usize, further: u64) -> usize {
        let index = self.order.at(self.first.wrapping_add(place as u64).wrapping_add(further));
        match self.among {
            Among::Part(split, part) => split.sample(part, index),
            Among::These(samples) => samples.get(index).copied().unwrap_or_default(),
        }
    }

    /// How many samples the order is over.
    pub(crate) fn among(&self) -> usize {
        match self.among {
            Among::Part(split, part) => split.len(part),
            Among::These(samples) => samples.len(),
        }
    }
}
