//! Batches of a data set.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ediffi_core::guard::guarded;
use ediffi_train::batch::{Batch, BatchSource};
use ediffi_train::dataset::Dataset;
use ediffi_train::pixels::from_rgb;
use ediffi_train::random::batch_rng;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::cut::{Cut, Cutting};
use crate::error::is_of_the_system;
use crate::plan::{Places, Plan};
use crate::{Error, LoaderSettings, Result};

/// The bits that make the seed of crops another than that of the order, and than that of the noise that a learner draws.
const OF_CROPS: u64 = 0x6372_6f70_7321_2121;

/// The most samples that are tried for one place of a batch.
const MOST_BROKEN: u64 = 1000;

/// What is known of one picture of a batch beside its pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its number in the data.
    pub index: usize,
    /// What is said of it.
    pub caption: String,
    /// Height and width of the upright picture, before it was resized.
    pub size: (u32, u32),
    /// How far from the top and from the left it was cut out, in pixels of the resized picture, before it was mirrored.
    pub crop: (u32, u32),
    /// Whether it was mirrored.
    pub flipped: bool,
}

/// Makes batches of a data set: pictures are decoded on several threads, resized by Lanczos' filter until they just cover the size of the batch, cut
/// and perhaps mirrored. Smaller pictures than that are enlarged.
///
/// Everything random follows from the seed and the position of the sample in the run: a batch is the same whenever it is made, and
/// the same samples come in the same order with the same crops however many there are in a batch. (With buckets, the samples of a batch depend
/// on its size.)
///
/// A sample that cannot be read is skipped: the one that comes next in the order is taken in its place, so that one comes twice. A warning names it
/// the first time, and [`Loader::skipped`] counts. Where the system fails, such as a disk, nothing is skipped: that is an error.
///
/// Clones share everything, also the counter.
#[derive(Clone)]
pub struct Loader(Arc<Inner>);

struct Inner {
    dataset: Arc<dyn Dataset>,
    settings: LoaderSettings,
    plan: Plan,
    pool: ThreadPool,
    skipped: AtomicU64,
    /// The samples that were skipped.
    broken: Mutex<HashSet<usize>>,
}

impl Loader {
    /// Makes batches of `dataset`. With [`LoaderSettings::buckets`] the sizes of all pictures are read first.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting that makes no sense, [`Error::Empty`] for a part without samples, [`Error::Threads`]; with buckets
    /// [`Error::Broken`] where no size can be read, [`Error::Train`] with the first sample at which the system fails.
    pub fn new(dataset: Arc<dyn Dataset>, settings: LoaderSettings) -> Result<Self> {
        settings.check()?;
        let pool =
            ThreadPoolBuilder::new().num_threads(settings.threads).thread_name(|n| format!("decode-{n}")).build();
        let pool = pool.map_err(|source| Error::Threads { source })?;
        let (plan, skipped) = pool.install(|| Plan::new(&dataset, &settings))?;
        Ok(Self(Arc::new(Inner { dataset, settings, plan, pool, skipped: skipped.into(), broken: Mutex::default() })))
    }

    /// How many samples its part of the data has.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.0.plan.lengths(self.0.settings.batch).0
    }

    /// How many batches it takes to see each sample; the last of them begins the next epoch where they do not come out even. With buckets, each is
    /// seen about once.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        self.0.plan.lengths(self.0.settings.batch).1
    }

    /// Which samples are in batches of which shape, as a fingerprint, if there are several shapes. What cannot be read is in none: a resumed run, or
    /// another process, has the same batches only where this is the same.
    #[must_use]
    pub fn members(&self) -> Option<String> {
        self.0.plan.members()
    }

    /// How often a sample was skipped because it cannot be read, since the loader was made.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.0.skipped.load(Ordering::Relaxed)
    }
}

impl BatchSource for Loader {
    type Batch = Batch<Vec<Said>>;
    type Error = Error;

    /// Batch `number`, from 0: pictures [batch, 3, side, side] in [-1, 1], or of the sides of a bucket.
    ///
    /// # Errors
    /// [`Error::Broken`] where a thousand samples in a row cannot be read, or none at all; [`Error::Train`] with the sample at which the system fails.
    fn batch(&self, number: u64) -> Result<Self::Batch> {
        let inner = &*self.0;
        let settings = &inner.settings;
        let places = inner.plan.places(number, settings.batch)?;
        let keeps = settings.crop_side.map_or(places.size, |side| (side, side));
        let cutting = Cutting { covers: places.size, keeps, random: settings.random_crop, flip: settings.flip };
        let first = number.wrapping_mul(settings.batch as u64);
        let made: Result<Vec<(Said, Vec<u8>)>> = inner.pool.install(|| {
            let made = (0..settings.batch).into_par_iter();
            made.map(|place| inner.picture(&places, place, cutting, first.wrapping_add(place as u64))).collect()
        });
        let (text, pixels): (Vec<_>, Vec<_>) = made?.into_iter().unzip();
        let pictures = from_rgb(&pixels, keeps.0.into(), keeps.1.into())?;
        let smaller = settings.smaller.map(|k| {
            let k = i64::from(k);
            guarded(|| {
                Ok::<_, ediffi_train::Error>(pictures.f_avg_pool2d([k, k], [k, k], [0, 0], false, false, None)?)
            })
        });
        Ok(Batch { smaller: smaller.transpose()?, pictures, text })
    }
}

impl Inner {
    /// The picture of one place of a batch, which is the position `nth` of the run.
    fn picture(&self, places: &Places<'_>, place: usize, cutting: Cutting, nth: u64) -> Result<(Said, Vec<u8>)> {
        // An order begins anew with each epoch: two lengths hold a whole one.
        let most = (places.among() as u64).saturating_mul(2).min(MOST_BROKEN);
        let mut last = None;
        for further in 0..most {
            let index = places.sample(place, further);
            match self.cut(index, cutting, nth) {
                Ok(made) => return Ok(made),
                Err(error) if is_of_the_system(&error) => return Err(error.into()),
                Err(error) => {
                    if self.broken.lock().unwrap_or_else(PoisonError::into_inner).insert(index) {
                        tracing::warn!(%error, "a broken picture is skipped");
                    }
                    self.skipped.fetch_add(1, Ordering::Relaxed);
                    last = Some(error);
                }
            }
        }
        Err(last.map_or(Error::Empty { what: "the data".to_owned() }, |source| Error::Broken {
            tried: most,
            source: source.into(),
        }))
    }

    /// One sample, cut. The error names it.
    fn cut(&self, index: usize, cutting: Cutting, nth: u64) -> ediffi_train::Result<(Said, Vec<u8>)> {
        let sample = self.dataset.sample(index)?;
        let mut rng = batch_rng(self.settings.seed ^ OF_CROPS, nth);
        let cut = cutting.cut(&sample, &mut rng);
        let Cut { pixels, crop, flipped } =
            cut.map_err(|source| crate::error::sample_error(self.dataset.name(index), source))?;
        let size = (sample.height, sample.width);
        Ok((Said { index, caption: sample.caption, size, crop, flipped }, pixels))
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { settings, skipped, .. } = &*self.0;
        f.debug_struct("Loader").field("settings", settings).field("skipped", skipped).finish_non_exhaustive()
    }
}
