//! Loops over the positions of channels-last maps.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::number::{Function, Number};

/// Positions whose numbers are added up in f32. Sums of blocks are added in f64.
pub(super) const BLOCK: usize = 128;

/// Positions that are normed together.
const TOGETHER: usize = 16;

/// Work that is cut into numbered pieces.
pub(super) trait Kernel: Sync {
    /// Does these pieces.
    fn run(&self, pieces: Range<usize>);
}

/// A row of numbers that several threads write, each its own places.
pub(super) struct Output<T> {
    start: *mut T,
    length: usize,
}

// SAFETY: a place is written by one thread alone, as `Output::part` asks.
unsafe impl<T: Send> Sync for Output<T> {}

impl<T> Output<T> {
    /// # Safety
    /// `length` places from `start` on have to be there for as long as this is, and nobody else may use them.
    pub(super) unsafe fn new(start: *mut T, length: usize) -> Self {
        Self { start, length }
    }

    /// Places from `from` on, as many as there are of `length`.
    ///
    /// # Safety
    /// No two threads may ask for the same place.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "no two threads ask for the same place")]
    unsafe fn part(&self, from: usize, length: usize) -> &mut [MaybeUninit<T>] {
        let from = from.min(self.length);
        let length = length.min(self.length - from);
        // SAFETY: the places are within those of `new`, and `MaybeUninit` may be of any content.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from).cast(), length) }
    }
}

/// How the positions of a map are cut into blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    /// Positions of a row.
    pub(super) positions: usize,
    pub(super) channels: usize,
}

impl Blocks {
    /// Blocks that a row has.
    pub(super) fn of_a_row(self) -> usize {
        self.positions.div_ceil(BLOCK)
    }

    /// The row of a block, and the places of its numbers in the map.
    #[inline(always)]
    fn places(self, block: usize) -> (usize, Range<usize>) {
        let (row, inside) = (block / self.of_a_row(), block % self.of_a_row());
        let (from, end) = (inside * BLOCK, ((inside + 1) * BLOCK).min(self.positions));
        let start = row * self.positions;
        (row, (start + from) * self.channels..(start + end) * self.channels)
    }
}

/// For each block the sum of every channel, and then that of every channel's squares.
pub(super) struct Sums<'a, X> {
    pub(super) x: &'a [X],
    pub(super) blocks: Blocks,
    pub(super) sums: Output<f32>,
}

impl<X: Number> Kernel for Sums<'_, X> {
    #[inline(always)]
    fn run(&self, pieces: Range<usize>) {
        let channels = self.blocks.channels;
        for block in pieces {
            let (_, places) = self.blocks.places(block);
            // SAFETY: each block has places of its own, and one thread.
            let sums = unsafe { self.sums.part(block * 2 * channels, 2 * channels) };
            let (sums, squares) = sums.split_at_mut(channels.min(sums.len()));
            let rows = self.x.get(places).unwrap_or_default();
            let mut done = 0;
            while channels - done >= 64 {
                add_up::<X, 64>((rows, channels), done, sums, squares);
                done += 64;
            }
            while channels - done >= 16 {
                add_up::<X, 16>((rows, channels), done, sums, squares);
                done += 16;
            }
            while done < channels {
                add_up::<X, 1>((rows, channels), done, sums, squares);
                done += 1;
            }
        }
    }
}

/// The sums of `WIDTH` channels from `first` on.
#[inline(always)]
fn add_up<X: Number, const WIDTH: usize>(
    (rows, channels): (&[X], usize),
    first: usize,
    sums: &mut [MaybeUninit<f32>],
    squares: &mut [MaybeUninit<f32>],
) {
    let (mut total, mut square) = ([0.0_f32; WIDTH], [0.0_f32; WIDTH]);
    for row in rows.chunks_exact(channels) {
        let Some(part) = row.get(first..).and_then(|row| row.first_chunk::<WIDTH>()) else { return };
        for ((total, square), x) in total.iter_mut().zip(&mut square).zip(part) {
            let x = x.read();
            *total += x;
            *square = x.mul_add(x, *square);
        }
    }
    for (places, values) in [(sums, total), (squares, square)] {
        for (place, value) in places.iter_mut().skip(first).zip(values) {
            place.write(value);
        }
    }
}

/// A map, what is made of it, and a gain and a shift for every channel of every row.
pub(super) struct Rows<'a, X, Y> {
    pub(super) x: &'a [X],
    pub(super) y: Output<Y>,
    pub(super) blocks: Blocks,
    pub(super) gains: &'a [f32],
    pub(super) shifts: &'a [f32],
}

/// A block of [`Rows`].
struct Piece<'a, X, Y> {
    x: &'a [X],
    y: &'a mut [MaybeUninit<Y>],
    gains: &'a [f32],
    shifts: &'a [f32],
}

impl<X: Number, Y: Number> Rows<'_, X, Y> {
    /// # Safety
    /// No two threads may ask for the same block.
    #[inline(always)]
    unsafe fn piece(&self, block: usize) -> Option<Piece<'_, X, Y>> {
        let channels = self.blocks.channels;
        let (row, places) = self.blocks.places(block);
        let own = row * channels..(row + 1) * channels;
        let (gains, shifts) = (self.gains.get(own.clone())?, self.shifts.get(own)?);
        let x = self.x.get(places.clone())?;
        // SAFETY: each block has places of its own, and one thread.
        let y = unsafe { self.y.part(places.start, places.len()) };
        Some(Piece { x, y, gains, shifts })
    }
}

/// function(gain · x + shift).
pub(super) struct Affine<'a, X, Y, F> {
    pub(super) rows: Rows<'a, X, Y>,
    pub(super) function: PhantomData<F>,
}

impl<X: Number, Y: Number, F: Function> Kernel for Affine<'_, X, Y, F> {
    #[inline(always)]
    fn run(&self, pieces: Range<usize>) {
        let channels = self.rows.blocks.channels;
        for block in pieces {
            // SAFETY: each block has one thread.
            let Some(Piece { x, y, gains, shifts }) = (unsafe { self.rows.piece(block) }) else { return };
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                for (((x, y), gain), shift) in x.iter().zip(y).zip(gains).zip(shifts) {
                    y.write(Y::write(F::of(x.read().mul_add(*gain, *shift))));
                }
            }
        }
    }
}

/// function(gain · norm(x) + shift), where the norm is over the channels of each position.
pub(super) struct Positions<'a, X, Y, F> {
    pub(super) rows: Rows<'a, X, Y>,
    pub(super) eps: f32,
    pub(super) function: PhantomData<F>,
}

impl<X: Number, Y: Number, F: Function> Kernel for Positions<'_, X, Y, F> {
    #[inline(always)]
    fn run(&self, pieces: Range<usize>) {
        let channels = self.rows.blocks.channels;
        // So many positions at a time, so that the processor need not wait for the statistics of one before it begins with the next.
        let mut wide = vec![0.0_f32; TOGETHER * channels];
        let mut statistics = [(0.0_f32, 0.0_f32); TOGETHER];
        for block in pieces {
            // SAFETY: each block has one thread.
            let Some(Piece { x, y, gains, shifts }) = (unsafe { self.rows.piece(block) }) else { return };
            for (x, y) in x.chunks(TOGETHER * channels).zip(y.chunks_mut(TOGETHER * channels)) {
                wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.read());
                for (x, (mean, variance)) in wide.chunks_exact(channels).zip(&mut statistics) {
                    *mean = total(x, |x| x) / channels as f32;
                    *variance = total(x, |x| (x - *mean) * (x - *mean)) / channels as f32;
                }
                for (_, variance) in &mut statistics {
                    *variance = 1.0 / (*variance + self.eps).sqrt();
                }
                let rows = wide.chunks_exact(channels).zip(y.chunks_exact_mut(channels)).zip(&statistics);
                for ((x, y), &(mean, scale)) in rows {
                    for (((x, y), gain), shift) in x.iter().zip(y).zip(gains).zip(shifts) {
                        y.write(Y::write(F::of(((x - mean) * scale).mul_add(*gain, *shift))));
                    }
                }
            }
        }
    }
}

/// The sum of a function of the numbers, in sixteen sums beside each other.
#[inline(always)]
fn total(x: &[f32], function: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for part in whole {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane += function(*x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += function(*x);
    }
    let halves = |lanes: &[f32; 16]| -> [f32; 8] {
        let (left, right) = lanes.split_at(8);
        let mut sums = [0.0; 8];
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum = left + right;
        }
        sums
    };
    let [a, b, c, d, e, f, g, h] = halves(&lanes);
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}
