//! Relative positions in buckets (Raffel et al. 2020, §2.1).

use tch::{Device, Tensor};

use ediffi_core::Result;

/// The bucket of a key that stands `relative` positions after its query, for attention in both directions.
///
/// The upper half of the buckets is for keys after the query. In each half, the first half of the buckets holds one distance
/// each. The others hold ranges that grow logarithmically up to `max_distance`; longer distances share the last one. The
/// logarithm is in f32, as in the published models: another precision may move a distance that lies exactly on an edge.
fn bucket(relative: i64, buckets: i64, max_distance: i64) -> i64 {
    let half = buckets / 2;
    let offset = if relative > 0 { half } else { 0 };
    let distance = relative.abs();
    let exact = half / 2;
    if distance < exact {
        return offset + distance;
    }
    let position = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
    offset + (exact + (position * (half - exact) as f32) as i64).min(half - 1)
}

/// The bucket of every pair of a query (row) and a key (column).
///
/// # Shapes
/// → [tokens, tokens] i64
pub(super) fn table(tokens: i64, buckets: i64, max_distance: i64, device: Device) -> Result<Tensor> {
    let entries: Vec<i64> =
        (0..tokens).flat_map(|query| (0..tokens).map(move |key| bucket(key - query, buckets, max_distance))).collect();
    Ok(Tensor::f_from_slice(&entries)?.f_reshape([tokens, tokens])?.f_to_device(device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a run of equal buckets begins, for keys before the query, in the published models: (distance, bucket).
    const EDGES: [(i64, i64); 16] = [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 4),
        (5, 5),
        (6, 6),
        (7, 7),
        (8, 8),
        (12, 9),
        (16, 10),
        (23, 11),
        (32, 12),
        (46, 13),
        (64, 14),
        (91, 15),
    ];

    #[test]
    fn buckets_are_those_of_the_published_models() {
        for distance in 0..1000 {
            let expected = EDGES.iter().rev().find(|(edge, _)| *edge <= distance).unwrap().1;
            assert_eq!(bucket(-distance, 32, 128), expected, "{distance} before");
            if distance > 0 {
                assert_eq!(bucket(distance, 32, 128), 16 + expected, "{distance} after");
            }
        }
    }

    #[test]
    fn rows_are_queries_and_columns_are_keys() {
        let table = table(3, 32, 128, Device::Cpu).unwrap();
        let entries = Vec::<i64>::try_from(table.flatten(0, -1)).unwrap();
        assert_eq!(entries, [0, 17, 18, 1, 0, 17, 2, 1, 0]);
    }
}
