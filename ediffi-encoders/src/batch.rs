//! Running a network over many texts, without computing much of the padding.

use ediffi_core::Result;
use tch::{Kind, Tensor};

use crate::tokenizer::Tokens;

/// The most tokens (rows · columns) of one pass through a network. A longer text is a pass of its own.
const TOKENS: usize = 4096;

/// Texts of similar length that are computed together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Their places in the batch.
    pub(crate) rows: Vec<usize>,
    /// The tokens of the longest.
    pub(crate) columns: usize,
}

/// Divides texts of the given lengths into groups. Each text has at least three quarters of the length of the longest of its
/// group, so the padding costs little. A network does not attend to the padding, so the embedding of a text does not depend
/// on its group.
pub(crate) fn groups(lengths: &[usize]) -> Vec<Group> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    let length = |row: usize| lengths.get(row).copied().unwrap_or(0).max(1);
    order.sort_by_key(|&row| (std::cmp::Reverse(length(row)), row));
    let mut groups: Vec<Group> = Vec::new();
    for row in order {
        match groups.last_mut() {
            Some(group) if 4 * length(row) >= 3 * group.columns && (group.rows.len() + 1) * group.columns <= TOKENS => {
                group.rows.push(row);
            }
            _ => groups.push(Group { rows: vec![row], columns: length(row) }),
        }
    }
    groups
}

/// Runs `network` over the groups of a batch and puts the rows back in order, zero after the end of each text.
///
/// # Shapes
/// `network`: (ids [rows, columns], mask [rows, columns]) → tensors [rows, columns, ...] or [rows, ...]; each comes back as
/// [n, tokens, ...] or [n, ...], f32
pub(crate) fn run<const OUTPUTS: usize>(
    cut: &Tokens,
    device: tch::Device,
    mut network: impl FnMut(&Tensor, &Tensor) -> Result<[Tensor; OUTPUTS]>,
) -> Result<[Tensor; OUTPUTS]> {
    let (n, tokens) = cut.ids.size2()?;
    let lengths = lengths(&cut.mask)?;
    let mut whole: Vec<Option<Tensor>> = (0..OUTPUTS).map(|_| None).collect();
    for group in groups(&lengths) {
        let rows: Vec<i64> = group.rows.iter().map(|&row| row as i64).collect();
        let rows = Tensor::f_from_slice(&rows)?;
        let part = |x: &Tensor| x.f_index_select(0, &rows)?.f_narrow(1, 0, group.columns as i64)?.f_to_device(device);
        let (ids, mask) = (part(&cut.ids)?, part(&cut.mask)?);
        let left_out = mask.f_logical_not()?.f_unsqueeze(-1)?;
        let rows = rows.f_to_device(device)?;
        for (whole, output) in whole.iter_mut().zip(network(&ids, &mask)?) {
            let per_token = output.dim() == 3;
            let mut shape = output.size();
            if let [first, rest @ ..] = shape.as_mut_slice() {
                *first = n;
                if let (true, Some(columns)) = (per_token, rest.first_mut()) {
                    *columns = tokens;
                }
            }
            let mut target = match whole.take() {
                Some(target) => target,
                None => Tensor::f_zeros(&shape, (Kind::Float, device))?,
            };
            if per_token {
                let output = output.f_masked_fill(&left_out, 0.0)?;
                let _ = target.f_narrow(1, 0, group.columns as i64)?.f_index_copy_(0, &rows, &output)?;
            } else {
                let _ = target.f_index_copy_(0, &rows, &output)?;
            }
            *whole = Some(target);
        }
    }
    let mut outputs = [(); OUTPUTS].map(|()| Tensor::new());
    for (output, whole) in outputs.iter_mut().zip(whole.into_iter().flatten()) {
        *output = whole;
    }
    Ok(outputs)
}

/// The number of tokens of each text, including those of start and end.
///
/// # Shapes
/// `mask`: [n, tokens] bool
pub(crate) fn lengths(mask: &Tensor) -> Result<Vec<usize>> {
    let counts = Vec::<i64>::try_from(&mask.f_sum_dim_intlist(-1, false, Kind::Int64)?)?;
    Ok(counts.into_iter().map(|count| usize::try_from(count).unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_in_one_group_and_little_is_filled_up() {
        let lengths: Vec<usize> = (0..500).map(|k| 1 + k * k % 113).collect();
        let groups = groups(&lengths);
        let mut rows: Vec<usize> = groups.iter().flat_map(|group| group.rows.clone()).collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..500).collect::<Vec<_>>());
        for group in &groups {
            assert!(group.rows.len() * group.columns <= TOKENS);
            assert!(
                group.rows.iter().all(|&row| lengths[row] <= group.columns && 4 * lengths[row] >= 3 * group.columns)
            );
        }
        assert!(groups.len() < 40, "{}", groups.len());
    }

    #[test]
    fn a_text_longer_than_a_pass_is_a_pass() {
        assert_eq!(groups(&[3, 9000, 9000]).len(), 3);
        assert!(groups(&[]).is_empty());
    }
}
