//! What can be trained side by side.

/// The numbers of networks of which each comes after its parent, in the order of their generations: none has its parent in its own wave or
/// a later one.
#[must_use]
pub fn waves(parents: impl IntoIterator<Item = Option<usize>>) -> Vec<Vec<usize>> {
    let mut generations: Vec<usize> = Vec::new();
    let mut waves: Vec<Vec<usize>> = Vec::new();
    for (index, parent) in parents.into_iter().enumerate() {
        let above = parent.and_then(|parent| generations.get(parent));
        let generation = above.map_or(0, |above| above + 1);
        generations.push(generation);
        match waves.get_mut(generation) {
            Some(wave) => wave.push(index),
            None => waves.push(vec![index]),
        }
    }
    waves
}

/// Whether what stands at `turn` of a wave is that of group `group`, of so many `groups`: they take turns, from group 0 on.
#[must_use]
pub fn is_dealt(turn: usize, group: usize, groups: usize) -> bool {
    turn % groups.max(1) == group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_has_those_whose_parents_are_trained() {
        assert_eq!(waves([None, Some(0), None, Some(1), Some(0)]), [vec![0, 2], vec![1, 4], vec![3]]);
        assert!(waves([]).is_empty());
    }

    #[test]
    fn groups_take_turns() {
        let dealt = |group, groups| (0..5).filter(|turn| is_dealt(*turn, group, groups)).collect::<Vec<_>>();
        assert_eq!(
            [dealt(0, 2), dealt(1, 2), dealt(3, 4), dealt(0, 1)],
            [vec![0, 2, 4], vec![1, 3], vec![3], vec![0, 1, 2, 3, 4]]
        );
        assert_eq!(dealt(0, 0).len(), 5, "no groups are one");
    }
}
