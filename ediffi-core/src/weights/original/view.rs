//! How a tensor of a folder lies in a checkpoint.

use safetensors::tensor::TensorInfo;

/// How the bytes of a stored tensor are those of the named one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::weights) enum View {
    Whole,
    /// This third of the rows.
    Third(usize),
    /// Without the sides of one pixel.
    Matrix,
    /// The other way round.
    Transposed,
}

impl View {
    /// The named tensor in the file, if the stored one has such a shape. A transposed one has its own shape, and is turned when it is read.
    pub(in crate::weights) fn of(self, stored: &TensorInfo) -> Option<TensorInfo> {
        let TensorInfo { dtype, shape, data_offsets: (begin, end) } = stored.clone();
        let (shape, data_offsets) = match (self, shape.as_slice()) {
            (Self::Whole, _) => (shape, (begin, end)),
            (Self::Third(third), [rows, rest @ ..]) if rows % 3 == 0 => {
                let bytes = (end - begin) / 3;
                let first = begin + third * bytes;
                ([&[rows / 3], rest].concat(), (first, first + bytes))
            }
            (Self::Matrix, &[outputs, inputs, 1, 1] | &[outputs, inputs, 1]) => (vec![outputs, inputs], (begin, end)),
            (Self::Matrix, [_, _] | [_]) => (shape, (begin, end)),
            (Self::Transposed, &[rows, columns]) => (vec![columns, rows], (begin, end)),
            _ => return None,
        };
        Some(TensorInfo { dtype, shape, data_offsets })
    }
}

/// A tensor by the name that it has in a folder.
pub(super) type Named = (String, View);

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    fn info(shape: &[usize]) -> TensorInfo {
        let bytes: usize = shape.iter().product::<usize>() * 4;
        TensorInfo { dtype: Dtype::F32, shape: shape.to_vec(), data_offsets: (100, 100 + bytes) }
    }

    #[test]
    fn a_view_leads_to_the_bytes() {
        let second = View::Third(1).of(&info(&[6, 5])).unwrap();
        assert_eq!((second.shape, second.data_offsets), (vec![2, 5], (140, 180)));
        assert_eq!(View::Third(2).of(&info(&[6])).unwrap().data_offsets, (116, 124));
        assert_eq!(View::Matrix.of(&info(&[4, 3, 1, 1])).unwrap().shape, [4, 3]);
        assert_eq!(View::Matrix.of(&info(&[4, 3])).unwrap().shape, [4, 3]);
        assert_eq!(View::Transposed.of(&info(&[4, 3])).unwrap().shape, [3, 4]);
        for (view, shape) in [
            (View::Third(0), &[4, 3][..]),
            (View::Matrix, &[4, 3, 3, 3]),
            (View::Transposed, &[4]),
            (View::Third(0), &[]),
        ] {
            assert!(view.of(&info(shape)).is_none(), "{view:?} {shape:?}");
        }
    }
}
