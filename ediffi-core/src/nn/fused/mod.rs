//! Norms of maps on a CPU, and what stands beside them, in one pass over the map.
//!
//! libtorch goes through a map once for each operation: the sum with the noise embedding, the statistics, the norm, the modulation, the
//! nonlinearity. On a processor that convolves in bf16 these take longer than the convolutions. Here statistics are one pass, and all that
//! follows is another. Between them nothing is rounded to the precision of the map, so results agree with libtorch's to rounding.
#![allow(unsafe_code, reason = "tensors are read and written through their pointers")]

mod kernel;
mod number;

use std::marker::PhantomData;

use kernel::{Affine, BLOCK, Blocks, Kernel, Output, Positions, Rows, Sums};
use number::{Bf16, Number, with_function};
use tch::{Device, Kind, Tensor};

use super::Activation;
use crate::Result;
use crate::operation::Operations;

/// What stands around a norm: activation((1 + scale) · norm(x + added) + shift).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Around<'a> {
    /// What is added before it, [n or 1, channels, 1, 1].
    pub(crate) added: Option<&'a Tensor>,
    /// Scale and shift, each [n or 1, channels, 1, 1].
    pub(crate) modulation: Option<[&'a Tensor; 2]>,
    /// The nonlinearity after it.
    pub(crate) activation: Option<Activation>,
    /// The kind of the result, if not that of x.
    pub(crate) kind: Option<Kind>,
}

/// The norm itself: its gain and bias of each channel, in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameters<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) bias: &'a Tensor,
    pub(super) eps: f64,
}

/// The norm over groups of channels, and what stands around it; `None` where libtorch's own operations have to do it: on another device
/// or processor, for a map that is not channels-last, where a gradient is wanted, and where shapes are not those of [`Around`].
///
/// # Shapes
/// `x`: [n, channels, h, w] → the same
///
/// # Errors
/// What libtorch says.
pub(super) fn over_groups(
    x: &Tensor,
    groups: i64,
    norm: Parameters<'_>,
    around: &Around<'_>,
) -> Result<Option<Tensor>> {
    let Some(map) = Map::of(x, norm, around)? else { return Ok(None) };
    let (channels, positions) = (map.blocks.channels, map.blocks.positions);
    let wide = channels / usize::try_from(groups).unwrap_or(1).max(1);
    if wide == 0 || !channels.is_multiple_of(wide) {
        return Ok(None);
    }
    let sums = match x.kind() {
        Kind::BFloat16 => map.sums::<Bf16>(),
        _ => map.sums::<f32>(),
    };
    let Factors { mut gains, mut shifts, added } = map.factors(norm, around)?;
    let blocks = map.blocks.of_a_row();
    for (row, sums) in sums.chunks_exact(blocks * 2 * channels).enumerate() {
        let own = row * channels..(row + 1) * channels;
        let (Some(gains), Some(shifts)) = (gains.get_mut(own.clone()), shifts.get_mut(own.clone())) else { continue };
        let added = added.get(own).unwrap_or_default();
        let of_channels = |first: usize| -> Vec<f64> {
            let mut totals = vec![0.0; channels];
            for block in sums.chunks_exact(2 * channels) {
                let part = block.iter().skip(first).take(channels);
                totals.iter_mut().zip(part).for_each(|(total, sum)| *total += f64::from(*sum));
            }
            totals
        };
        let (totals, squares) = (of_channels(0), of_channels(channels));
        let count = positions as f64;
        let parts = totals.chunks_exact(wide).zip(squares.chunks_exact(wide));
        let parts = parts.zip(gains.chunks_exact_mut(wide)).zip(shifts.chunks_exact_mut(wide)).enumerate();
        for (group, (((totals, squares), gains), shifts)) in parts {
            let added = |channel: usize| f64::from(added.get(group * wide + channel).copied().unwrap_or_default());
            let (mut sum, mut square) = (0.0, 0.0);
            for (channel, (total, of_squares)) in totals.iter().zip(squares).enumerate() {
                let more = added(channel);
                sum += total + count * more;
                square += of_squares + 2.0 * more * total + count * more * more;
            }
            let all = count * wide as f64;
            let mean = sum / all;
            let scale = 1.0 / ((square / all - mean * mean).max(0.0) + norm.eps).sqrt();
            for (channel, (gain, shift)) in gains.iter_mut().zip(shifts).enumerate() {
                let factor = f64::from(*gain) * scale;
                *shift = (f64::from(*shift) + (added(channel) - mean) * factor) as f32;
                *gain = factor as f32;
            }
        }
    }
    let y = map.result(around)?;
    with_function!(around.activation, F => match (x.kind(), y.kind()) {
        (Kind::BFloat16, Kind::BFloat16) => map.affine::<Bf16, Bf16, F>(&y, &gains, &shifts),
        (Kind::BFloat16, _) => map.affine::<Bf16, f32, F>(&y, &gains, &shifts),
        (_, Kind::BFloat16) => map.affine::<f32, Bf16, F>(&y, &gains, &shifts),
        _ => map.affine::<f32, f32, F>(&y, &gains, &shifts),
    });
    Ok(Some(y))
}

/// The norm over the channels of each position, and what stands around it; `None` as of [`over_groups`], and where something is added.
///
/// # Shapes
/// `x`: [n, channels, h, w] → the same
///
/// # Errors
/// What libtorch says.
pub(super) fn over_positions(x: &Tensor, norm: Parameters<'_>, around: &Around<'_>) -> Result<Option<Tensor>> {
    let Some(map) = Map::of(x, norm, around)?.filter(|_| around.added.is_none()) else { return Ok(None) };
    let Factors { gains, shifts, .. } = map.factors(norm, around)?;
    let y = map.result(around)?;
    let factors = (gains.as_slice(), shifts.as_slice(), norm.eps as f32);
    with_function!(around.activation, F => match (x.kind(), y.kind()) {
        (Kind::BFloat16, Kind::BFloat16) => map.positions::<Bf16, Bf16, F>(&y, factors),
        (Kind::BFloat16, _) => map.positions::<Bf16, f32, F>(&y, factors),
        (_, Kind::BFloat16) => map.positions::<f32, Bf16, F>(&y, factors),
        _ => map.positions::<f32, f32, F>(&y, factors),
    });
    Ok(Some(y))
}

/// A channels-last map on a CPU for which there are kernels.
struct Map<'a> {
    x: &'a Tensor,
    rows: usize,
    blocks: Blocks,
    operations: &'static Operations,
    processor: Processor,
}

/// Gain and shift of every channel of every row, and what is added before the norm.
struct Factors {
    gains: Vec<f32>,
    shifts: Vec<f32>,
    added: Vec<f32>,
}

impl<'a> Map<'a> {
    fn of(x: &'a Tensor, norm: Parameters<'_>, around: &Around<'_>) -> Result<Option<Self>> {
        let known = |kind| matches!(kind, Kind::Float | Kind::BFloat16);
        let Ok((n, channels, height, width)) = x.size4() else { return Ok(None) };
        let of_channels = |x: &&Tensor| x.size() == [channels];
        let of_rows = |x: &&Tensor| [1, n].iter().any(|rows| x.size() == [*rows, channels, 1, 1]);
        let parameters = [norm.weight, norm.bias];
        let more: Vec<&Tensor> = around.added.into_iter().chain(around.modulation.into_iter().flatten()).collect();
        let fits = x.numel() > 0 && parameters.iter().all(of_channels) && more.iter().all(of_rows);
        let plain = |x: &Tensor| x.device() == Device::Cpu && !x.requires_grad();
        let plain = plain(x) && parameters.into_iter().chain(more).all(plain);
        if !fits || !plain || !known(x.kind()) || !around.kind.is_none_or(known) {
            return Ok(None);
        }
        let (Some(operations), Some(processor)) = (Operations::find(), Processor::of_this_machine()) else {
            return Ok(None);
        };
        if !x.f_permute([0, 2, 3, 1])?.is_contiguous() {
            return Ok(None);
        }
        let blocks = Blocks { positions: (height * width) as usize, channels: channels as usize };
        Ok(Some(Self { x, rows: n as usize, blocks, operations, processor }))
    }

    /// The numbers of the map, the channels of a position beside each other.
    fn numbers<X: Number>(&self) -> &[X] {
        let length = self.rows * self.blocks.positions * self.blocks.channels;
        // SAFETY: the tensor is dense, of this kind and as long, as `of` and its callers have seen, and lives as long as this.
        unsafe { std::slice::from_raw_parts(self.x.data_ptr().cast::<X>().cast_const(), length) }
    }

    /// A map like this one, of any content.
    fn result(&self, around: &Around<'_>) -> Result<Tensor> {
        let (n, channels, height, width) = self.x.size4()?;
        let kind = around.kind.unwrap_or(self.x.kind());
        Ok(Tensor::f_empty([n, height, width, channels], (kind, Device::Cpu))?.f_permute([0, 3, 1, 2])?)
    }

    fn factors(&self, norm: Parameters<'_>, around: &Around<'_>) -> Result<Factors> {
        // Of one row as many as there are rows.
        let of_rows = |x: &Tensor| -> Result<Vec<f32>> {
            let one = Vec::<f32>::try_from(x.f_to_kind(Kind::Float)?.f_reshape([-1])?)?;
            Ok(if one.len() == self.blocks.channels { one.repeat(self.rows) } else { one })
        };
        let (mut gains, mut shifts) = (of_rows(norm.weight)?, of_rows(norm.bias)?);
        if let Some([scale, shift]) = around.modulation {
            let modulation = of_rows(scale)?.into_iter().zip(of_rows(shift)?);
            for ((gain, bias), (scale, shift)) in gains.iter_mut().zip(&mut shifts).zip(modulation) {
                *bias = bias.mul_add(1.0 + scale, shift);
                *gain *= 1.0 + scale;
            }
        }
        Ok(Factors { gains, shifts, added: around.added.map(of_rows).transpose()?.unwrap_or_default() })
    }

    fn sums<X: Number>(&self) -> Vec<f32> {
        let blocks = self.rows * self.blocks.of_a_row();
        let mut sums = vec![0.0; blocks * 2 * self.blocks.channels];
        // SAFETY: the vector lives until the kernel is done, and is not used before.
        let places = unsafe { Output::new(sums.as_mut_ptr(), sums.len()) };
        self.run(&Sums { x: self.numbers::<X>(), blocks: self.blocks, sums: places });
        sums
    }

    /// The places of a new map.
    fn places<Y>(&self, y: &Tensor) -> Output<Y> {
        // SAFETY: `result` made it dense, and its callers of this kind; it is as long as x, and nobody else has it yet.
        unsafe { Output::new(y.data_ptr().cast(), self.rows * self.blocks.positions * self.blocks.channels) }
    }

    fn affine<X: Number, Y: Number, F: number::Function>(&self, y: &Tensor, gains: &[f32], shifts: &[f32]) {
        let (x, y) = (self.numbers::<X>(), self.places::<Y>(y));
        let rows = Rows { x, y, blocks: self.blocks, gains, shifts };
        self.run(&Affine { rows, function: PhantomData::<F> });
    }

    fn positions<X: Number, Y: Number, F: number::Function>(
        &self,
        y: &Tensor,
        (gains, shifts, eps): (&[f32], &[f32], f32),
    ) {
        let (x, y) = (self.numbers::<X>(), self.places::<Y>(y));
        let rows = Rows { x, y, blocks: self.blocks, gains, shifts };
        self.run(&Positions { rows, eps, function: PhantomData::<F> });
    }

    /// All blocks, on libtorch's threads.
    fn run(&self, kernel: &impl Kernel) {
        // As many numbers as libtorch gives a thread at least (`at::internal::GRAIN_SIZE`).
        let grain = (32_768 / (BLOCK * self.blocks.channels)).max(1);
        let processor = self.processor;
        let work = |pieces| match processor {
            // SAFETY: the processor has these instructions, as `of_this_machine` has seen.
            #[cfg(target_arch = "x86_64")]
            Processor::Avx512 => unsafe { on_avx512(kernel, pieces) },
            // SAFETY: likewise.
            #[cfg(target_arch = "x86_64")]
            Processor::Avx2 => unsafe { on_avx2(kernel, pieces) },
        };
        self.operations.share_out(self.rows * self.blocks.of_a_row(), grain, &work);
    }
}

/// The vector instructions that there are kernels for.
#[derive(Debug, Clone, Copy)]
enum Processor {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Processor {
    #[cfg(target_arch = "x86_64")]
    fn of_this_machine() -> Option<Self> {
        use std::is_x86_feature_detected as has;
        if !(has!("avx2") && has!("fma")) {
            return None;
        }
        let wide = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        Some(if wide { Self::Avx512 } else { Self::Avx2 })
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_this_machine() -> Option<Self> {
        None
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
fn on_avx512(kernel: &impl Kernel, pieces: std::ops::Range<usize>) {
    kernel.run(pieces);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn on_avx2(kernel: &impl Kernel, pieces: std::ops::Range<usize>) {
    kernel.run(pieces);
}

#[cfg(test)]
mod tests;
