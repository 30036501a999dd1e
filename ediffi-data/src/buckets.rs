//! Batches of several shapes.

use std::sync::Arc;

use ediffi_train::dataset::Dataset;
use rayon::prelude::*;

use crate::cut::Size;
use crate::error::is_of_the_system;
use crate::fingerprint::Fingerprint;
use crate::{AspectBuckets, Error, LoaderSettings, Order, Result};

/// The bits that make the seed of the order of batches another than that of the order in a bucket.
const OF_BATCHES: u64 = 0x6261_7463_6865_7321;

/// Samples by their shapes. A bucket has a run of its samples without an end, each once in an epoch of its own, and its batches take from that
/// run one after another; which bucket a batch is of is drawn without putting back, each as often as it has samples for.
#[derive(Debug)]
pub(crate) struct Buckets {
    buckets: Vec<Bucket>,
    /// How many batches there are up to the end of each bucket, of those that see each sample about once.
    ends: Vec<u64>,
    order: Order,
}

/// Samples of one shape.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) size: Size,
    pub(crate) members: Vec<usize>,
    pub(crate) order: Order,
    /// Batches that see each about once.
    batches: u64,
}

impl Buckets {
    /// Sorts samples by the shapes that their files' first bytes tell. Those that are broken or gone are left out; how many is the second result.
    pub(crate) fn new(
        dataset: &Arc<dyn Dataset>,
        samples: Vec<usize>,
        settings: &LoaderSettings,
        shapes: AspectBuckets,
    ) -> Result<(Self, u64)> {
        let sizes = shapes.sizes(settings.side);
        let found: Vec<_> = samples.into_par_iter().map(|sample| (sample, dataset.size(sample))).collect();
        let mut members = vec![Vec::new(); sizes.len()];
        let (mut skipped, mut last) = (0, None);
        for (sample, size) in found {
            match size {
                Ok(size) => members.get_mut(nearest(&sizes, size)).into_iter().for_each(|all| all.push(sample)),
                Err(error) if is_of_the_system(&error) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(sample = dataset.name(sample), %error, "a broken picture is skipped");
                    skipped += 1;
                    last = Some(error);
                }
            }
        }
        let mut buckets = Vec::new();
        for ((number, members), &size) in (0_u64..).zip(members).zip(&sizes) {
            if !members.is_empty() {
                let order = Order::new(settings.seed.wrapping_add(number.wrapping_mul(OF_BATCHES)), members.len())?;
                let batches = ((members.len() + settings.batch / 2) / settings.batch).max(1) as u64;
                buckets.push(Bucket { size, members, order, batches });
            }
        }
        let mut end = 0;
        let ends: Vec<u64> = buckets.iter().map(|bucket| (end += bucket.batches, end).1).collect();
        match last {
            Some(source) if buckets.is_empty() => Err(Error::Broken { tried: skipped, source: source.into() }),
            _ => Ok((Self { order: Order::new(settings.seed ^ OF_BATCHES, end as usize)?, buckets, ends }, skipped)),
        }
    }

    /// How many samples there are.
    pub(crate) fn samples(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.members.len()).sum()
    }

    /// Which samples have which shape.
    pub(crate) fn members(&self) -> String {
        let mut fingerprint = Fingerprint::new("buckets");
        self.buckets.iter().for_each(|bucket| fingerprint.text(&format!("{:?} {:?}", bucket.size, bucket.members)));
        fingerprint.finish()
    }

    /// Batches that see each sample about once.
    pub(crate) fn batches(&self) -> u64 {
        self.ends.last().copied().unwrap_or_default()
    }

    /// The bucket of batch `number`, and which of that bucket's batches it is. There is always one, as an order is over the batches of all.
    pub(crate) fn batch(&self, number: u64) -> Option<(&Bucket, u64)> {
        let epoch = number / self.batches().max(1);
        let nth = self.order.at(number) as u64;
        let (bucket, end) = self.buckets.iter().zip(&self.ends).find(|&(_, &end)| end > nth)?;
        Some((bucket, epoch.wrapping_mul(bucket.batches).wrapping_add(nth + bucket.batches - end)))
    }
}

/// How many times `side`² pixels a shape may have: batches of it take as much more memory and time.
const LARGEST: f64 = 1.5;

impl AspectBuckets {
    /// The height and width of the largest shape of about `side`² pixels, if it is too large for that: where `multiple` is no small part of
    /// `side`, sides cannot shrink as the others grow.
    #[must_use]
    pub fn too_large(&self, side: u32) -> Option<(u32, u32)> {
        let area = |&(height, width): &Size| u64::from(height) * u64::from(width);
        let most = LARGEST * f64::from(side) * f64::from(side);
        self.sizes(side).into_iter().max_by_key(area).filter(|size| area(size) as f64 > most)
    }

    /// The sizes of pictures of about `side`² pixels, from the tallest to the widest.
    pub(crate) fn sizes(&self, side: u32) -> Vec<Size> {
        let (area, multiple) = (f64::from(side) * f64::from(side), f64::from(self.multiple));
        let fitting = |length: f64| ((area / length / multiple).round() as u32).max(1) * self.multiple;
        // Widths of landscapes and the square; portraits are the same, turned.
        let wide = (side..).step_by(self.multiple as usize).map(|width| (fitting(f64::from(width)), width));
        let wide: Vec<Size> =
            wide.take_while(|&(height, width)| f64::from(width) <= self.widest * f64::from(height)).collect();
        let tall = wide.iter().rev().map(|&(height, width)| (width, height));
        let mut sizes: Vec<Size> = tall.chain(wide.iter().copied()).collect();
        sizes.dedup();
        sizes
    }
}

/// The number of the size whose shape is nearest, by the quotient of sides.
fn nearest(sizes: &[Size], (height, width): Size) -> usize {
    let aspect = |height: u32, width: u32| (f64::from(width.max(1)) / f64::from(height.max(1))).ln();
    let wanted = aspect(height, width);
    let far = |&(height, width): &Size| (aspect(height, width) - wanted).abs();
    let found = sizes.iter().enumerate().min_by(|(_, a), (_, b)| far(a).total_cmp(&far(b)));
    found.map_or(0, |(number, _)| number)
}

#[cfg(test)]
mod tests {
    use ediffi_train::dataset::Sample;

    use super::*;

    #[derive(Debug)]
    struct Sizes(Vec<Option<Size>>);

    impl Dataset for Sizes {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample(&self, _: usize) -> ediffi_train::Result<Sample> {
            Err(ediffi_train::Error::NoBatches)
        }

        fn size(&self, index: usize) -> ediffi_train::Result<Size> {
            self.0[index].ok_or(ediffi_train::Error::NoBatches)
        }

        fn fingerprint(&self) -> String {
            String::new()
        }
    }

    const SHAPES: AspectBuckets = AspectBuckets { widest: 2.0, multiple: 8 };

    fn buckets(sizes: Vec<Option<Size>>, batch: usize) -> Result<(Buckets, u64)> {
        let samples = (0..sizes.len()).collect();
        let dataset: Arc<dyn Dataset> = Arc::new(Sizes(sizes));
        Buckets::new(&dataset, samples, &LoaderSettings { batch, side: 64, ..LoaderSettings::default() }, SHAPES)
    }

    #[test]
    fn shapes_go_from_tall_to_wide_and_have_about_the_same_area() {
        let sizes = SHAPES.sizes(64);
        assert_eq!(sizes, [(88, 48), (80, 48), (72, 56), (64, 64), (56, 72), (48, 80), (48, 88)]);
        assert_eq!(AspectBuckets { widest: 1.0, multiple: 8 }.sizes(64), [(64, 64)]);
        assert_eq!(sizes[nearest(&sizes, (600, 800))], (56, 72));
        assert_eq!(sizes[nearest(&sizes, (1, 4000))], (48, 88));
    }

    #[test]
    fn a_multiple_that_makes_large_shapes_is_told() {
        for (widest, multiple, expected) in [
            (2.0, 8, None),
            (8.0, 8, None),
            (2.0, 32, None),
            (8.0, 32, Some((32, 256))),
            (2.0, 64, Some((64, 128))),
            (1.0, 64, None),
        ] {
            assert_eq!(AspectBuckets { widest, multiple }.too_large(64), expected, "{widest} {multiple}");
        }
    }

    #[test]
    fn members_are_told_by_their_shapes() {
        let members = |sizes: &[Option<Size>]| buckets(sizes.to_vec(), 2).unwrap().0.members();
        let (square, wide) = (Some((9, 9)), Some((9, 18)));
        let first = members(&[square, wide, square]);
        assert_eq!(first, members(&[Some((99, 99)), wide, square]), "shapes count, not sizes");
        for other in [[square, square, square], [wide, square, square], [square, wide, None]] {
            assert_ne!(first, members(&other));
        }
    }

    #[test]
    fn an_epoch_has_each_bucket_as_often_as_it_has_samples_for() {
        // 40 squares, 12 wide ones and one tall one, in batches of 4, and one that is broken.
        let sizes = [vec![Some((9, 9)); 40], vec![Some((9, 18)); 12], vec![Some((18, 9)), None]].concat();
        let (buckets, skipped) = buckets(sizes, 4).unwrap();
        assert_eq!((buckets.samples(), buckets.batches(), skipped), (53, 10 + 3 + 1, 1));
        for epoch in 0..3 {
            let mut seen: Vec<(Size, u64)> = (epoch * 14..epoch * 14 + 14)
                .map(|number| buckets.batch(number).unwrap())
                .map(|(bucket, nth)| (bucket.size, nth))
                .collect();
            seen.sort_unstable();
            let of = |size, count: u64| (epoch * count..(epoch + 1) * count).map(move |nth| (size, nth));
            let expected: Vec<_> = of((48, 88), 3).chain(of((64, 64), 10)).chain(of((88, 48), 1)).collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn where_nothing_can_be_read_there_are_no_buckets() {
        assert!(matches!(buckets(vec![None; 3], 2), Err(Error::Broken { tried: 3, .. })));
    }
}
