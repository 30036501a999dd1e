//! Tensors that lie one after another in one buffer, so that one operation goes through all of them.

use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Each tensor begins at a multiple of this many elements: 128 bytes of f32 and 64 of bf16, which suits vector loads everywhere.
const ALIGNMENT: i64 = 32;

/// A buffer is a whole number of rows of this length. The norm of a buffer is that of the norms of its rows: as exact as one number
/// after another in f64, and the same on any number of threads.
const ROW: i64 = 4096;

/// Where one tensor lies.
#[derive(Debug)]
struct Place {
    shape: Vec<i64>,
    strides: Vec<i64>,
    /// Its elements, and those up to the next tensor, which stay zero.
    room: Range<i64>,
    /// Whether it has more than one axis: matrices and kernels decay, and lie before all others.
    is_matrix: bool,
}

/// Where each of a list of tensors lies in a buffer that holds all of them.
#[derive(Debug)]
pub(crate) struct Layout {
    places: Vec<Place>,
    length: i64,
    device: Device,
}

impl Layout {
    /// A layout that keeps the memory order of the tensors: a channels-last kernel stays channels-last.
    ///
    /// # Errors
    /// Tensors that are not f32 on one device.
    pub(crate) fn of(tensors: &[(String, Tensor)]) -> Result<Self> {
        let device = tensors.first().map_or(Device::Cpu, |(_, tensor)| tensor.device());
        let place = |(name, tensor): &(String, Tensor)| {
            if tensor.kind() != Kind::Float || tensor.device() != device {
                let reason = format!("{name} is not f32 on {device:?}, where the first one is");
                return Err(Error::Setting { field: "parameters", reason });
            }
            Ok(Place { shape: tensor.size(), strides: strides(tensor)?, room: 0..0, is_matrix: tensor.dim() > 1 })
        };
        let mut places = tensors.iter().map(place).collect::<Result<Vec<_>>>()?;
        let mut end = 0;
        for matrices in [true, false] {
            for place in places.iter_mut().filter(|place| place.is_matrix == matrices) {
                let elements: i64 = place.shape.iter().product();
                place.room = end..up(end + elements, ALIGNMENT);
                end = place.room.end;
            }
        }
        Ok(Self { places, length: up(end, ROW), device })
    }

    /// A buffer of zeros.
    ///
    /// # Errors
    /// A device without room.
    pub(crate) fn zeros(&self, kind: Kind) -> Result<Tensor> {
        Ok(Tensor::f_zeros([self.length], (kind, self.device))?)
    }

    /// Every tensor of a buffer, in the order of the list, sharing its storage.
    ///
    /// # Errors
    /// A buffer of another layout.
    pub(crate) fn views(&self, buffer: &Tensor) -> Result<Vec<Tensor>> {
        let _no_grad = tch::no_grad_guard();
        self.places.iter().map(|place| view(place, buffer)).collect()
    }

    /// One tensor of a buffer.
    fn view(&self, buffer: &Tensor, index: usize) -> Result<Option<Tensor>> {
        self.places.get(index).map(|place| view(place, buffer)).transpose()
    }

    /// The longest pieces of a buffer in which all tensors are `used` and all are matrices or none is. A tensor that no loss has
    /// used is in none of them.
    pub(crate) fn pieces(&self, used: &[bool], matrices: bool) -> Vec<Range<i64>> {
        let wanted = self.places.iter().zip(used).filter(|(place, used)| **used && place.is_matrix == matrices);
        let mut pieces: Vec<Range<i64>> = Vec::new();
        for (Place { room, .. }, _) in wanted {
            match pieces.last_mut().filter(|last| last.end == room.start) {
                Some(last) => last.end = room.end,
                None => pieces.push(room.clone()),
            }
        }
        pieces
    }
}

/// The next multiple of `step`.
fn up(length: i64, step: i64) -> i64 {
    (length + step - 1) / step * step
}

/// The strides with which a tensor lies densely in memory: its own, or else those of its shape.
fn strides(tensor: &Tensor) -> Result<Vec<i64>> {
    let channels_last = tensor.dim() == 4 && tensor.f_permute([0, 2, 3, 1])?.is_contiguous();
    if tensor.is_contiguous() || channels_last {
        return Ok(tensor.stride());
    }
    let mut strides = vec![1; tensor.dim()];
    let mut next = 1;
    for (stride, size) in strides.iter_mut().zip(tensor.size()).rev() {
        *stride = next;
        next *= size;
    }
    Ok(strides)
}

fn view(place: &Place, buffer: &Tensor) -> Result<Tensor> {
    Ok(buffer.f_as_strided(&place.shape, &place.strides, place.room.start)?.f_detach()?)
}

/// The norm of a buffer.
///
/// # Shapes
/// → [] f64, on the device of the buffer
///
/// # Errors
/// An error of libtorch.
pub(crate) fn norm(buffer: &Tensor) -> Result<Tensor> {
    let rows = buffer.f_view([-1, ROW])?.f_norm_scalaropt_dim(2, [1_i64], false)?;
    Ok(rows.f_to_kind(Kind::Double)?.f_norm()?)
}

/// The gradients of a set of parameters in one buffer, in which every backward pass adds to them.
#[derive(Debug)]
pub(crate) struct Gradients {
    layout: Arc<Layout>,
    /// Made when the first gradient comes.
    buffer: Option<Tensor>,
    /// Parameters that have had no gradient yet, and their places. One place may have several.
    waiting: Vec<(usize, Tensor)>,
    /// The places that have.
    used: Vec<bool>,
}

impl Gradients {
    /// The gradients of `leaves`, each with its place.
    pub(crate) fn of(layout: &Arc<Layout>, leaves: Vec<(usize, Tensor)>) -> Self {
        let used = vec![false; layout.places.len()];
        Self { layout: layout.clone(), buffer: None, waiting: leaves, used }
    }

    /// Brings the gradients of parameters that got their first into the buffer. Later ones are added there by libtorch itself, which
    /// adds to a gradient in place.
    ///
    /// # Errors
    /// A device without room.
    pub(crate) fn gather(&mut self) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for (index, leaf) in take(&mut self.waiting) {
            let mut gradient = leaf.f_grad()?;
            if !gradient.defined() {
                self.waiting.push((index, leaf));
                continue;
            }
            let buffer = match &mut self.buffer {
                Some(buffer) => buffer,
                none => none.insert(self.layout.zeros(Kind::Float)?),
            };
            if let (Some(mut view), Some(used)) = (self.layout.view(buffer, index)?, self.used.get_mut(index)) {
                let _ = view.f_add_(&gradient)?;
                // The gradient stays the same object for libtorch, and has its numbers in the buffer from now on.
                gradient.f_set_data(&view)?;
                *used = true;
            }
        }
        Ok(())
    }

    /// The buffer, if there has been a gradient, and which places have had one.
    pub(crate) fn gathered(&mut self) -> Result<Option<(&mut Tensor, &[bool])>> {
        self.gather()?;
        Ok(self.buffer.as_mut().map(|buffer| (buffer, self.used.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(shape: &[i64], first: i64) -> Tensor {
        let elements: i64 = shape.iter().product();
        Tensor::arange_start(first, first + elements, (Kind::Float, Device::Cpu)).reshape(shape)
    }

    fn channels_last(x: &Tensor) -> Tensor {
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    }

    /// A vector, a kernel that is channels-last, a matrix that is transposed, a scalar, and nothing.
    fn tensors() -> Vec<(String, Tensor)> {
        let kernel = channels_last(&ramp(&[4, 3, 2, 2], 100));
        let tensors = [ramp(&[5], 1), kernel, ramp(&[3, 7], 200).transpose(0, 1), ramp(&[], 7), ramp(&[0, 3], 0)];
        tensors.into_iter().map(|tensor| ("x".to_owned(), tensor)).collect()
    }

    #[test]
    fn tensors_lie_apart_in_a_buffer_and_keep_their_order_in_memory() {
        let tensors = tensors();
        let layout = Layout::of(&tensors).unwrap();
        let buffer = layout.zeros(Kind::Float).unwrap();
        let views = layout.views(&buffer).unwrap();
        for (mut view, (_, tensor)) in views.into_iter().zip(&tensors) {
            view.copy_(tensor);
        }
        let views = layout.views(&buffer).unwrap();
        for (view, (_, tensor)) in views.iter().zip(&tensors) {
            assert_eq!(view, tensor);
            let apart = (view.data_ptr() as usize).wrapping_sub(buffer.data_ptr() as usize);
            assert!(view.numel() == 0 || apart.is_multiple_of(128), "{apart}");
        }
        assert_eq!(views[1].stride(), tensors[1].1.stride());
        assert_eq!(views[2].stride(), [3, 1], "what lies densely in no order of ours lies in that of its axes");
        // Between them are zeros, which do not matter for the norm.
        let squares = tensors.iter().map(|(_, x)| x.square().sum(Kind::Double).double_value(&[])).sum::<f64>();
        assert!((norm(&buffer).unwrap().double_value(&[]) / squares.sqrt() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn pieces_are_as_long_as_they_can_be() {
        let tensors = tensors();
        let layout = Layout::of(&tensors).unwrap();
        let pieces = |used: [bool; 5], matrices| -> Vec<(i64, i64)> {
            layout.pieces(&used, matrices).into_iter().map(|piece| (piece.start, piece.end)).collect()
        };
        assert_eq!(pieces([true; 5], true), [(0, 96)]);
        assert_eq!(pieces([true; 5], false), [(96, 160)]);
        assert_eq!(pieces([false, true, false, true, false], true), [(0, 64)]);
        assert_eq!(pieces([true, false, true, false, false], false), [(96, 128)]);
        assert_eq!(pieces([false; 5], false), []);
    }

    /// Sixteen million equal numbers. One f32 square added to the sum after the other, most would be rounded the same way.
    #[test]
    fn the_norm_of_many_is_exact() {
        let buffer = Tensor::full([1 << 24], 0.1, (Kind::Float, Device::Cpu));
        let off = norm(&buffer).unwrap().double_value(&[]) / (4096.0 * f64::from(0.1_f32)) - 1.0;
        assert!(off.abs() < 1e-5, "{off:e}");
    }

    #[test]
    fn other_than_f32_on_one_device_is_refused_by_name() {
        let mut tensors = tensors();
        tensors.push(("odd".to_owned(), ramp(&[2], 0).to_kind(Kind::BFloat16)));
        let error = Layout::of(&tensors).unwrap_err().to_string();
        assert!(error.contains("odd is not f32"), "{error}");
    }

    /// Whatever order libtorch makes a gradient in, and in whatever precision: it is added in f32, in the order of the parameter.
    #[test]
    fn gradients_are_added_up_in_the_buffer() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let kernel = channels_last(&ramp(&[4, 3, 2, 2], 0));
            let named = [("kernel".to_owned(), kernel), ("idle".to_owned(), ramp(&[3], 0))];
            let layout = Arc::new(Layout::of(&named).unwrap());
            let leaf = named[0].1.to_kind(kind).set_requires_grad(true);
            let idle = named[1].1.copy().set_requires_grad(true);
            let mut gradients = Gradients::of(&layout, vec![(0, leaf.shallow_clone()), (1, idle)]);
            assert!(gradients.gathered().unwrap().is_none());
            // 256 + 1 has no place in bf16.
            for (pass, factor) in [256.0, 1.0, 2.0].into_iter().enumerate() {
                (&leaf * factor).sum(Kind::Float).backward();
                let (buffer, used) = gradients.gathered().unwrap().unwrap();
                assert_eq!(used, [true, false]);
                let view = layout.view(buffer, 0).unwrap().unwrap();
                let expected = [256.0, 257.0, 259.0][pass];
                assert_eq!(view.min().double_value(&[]), expected);
                assert_eq!(view.max().double_value(&[]), expected);
                assert_eq!(buffer.sum(Kind::Double).double_value(&[]), 48.0 * expected);
                assert_eq!((leaf.grad().kind(), leaf.grad().stride()), (Kind::Float, leaf.stride()));
            }
        }
    }
}
