//! The branches of an expert tree, trained side by side: parallelism outside of a network's own.
//!
//! Networks whose parents are trained make a wave. A wave of one is trained by everyone; those of a larger one are dealt to the groups of
//! the [`Cluster`]. Behind each wave all meet, and the children find what their parents left in the one model folder.

use ediffi_train::reduce::{Reduce, agree};
use ediffi_train::tree::{ExpertTree, Planned};
use ediffi_train::waves::is_dealt;

use crate::{Cluster, Error};

/// The networks of a tree, by their numbers, in the order of their generations: none has its parent in its own wave or a later one.
#[must_use]
pub fn waves(tree: &ExpertTree) -> Vec<Vec<usize>> {
    ediffi_train::waves::waves(tree.networks().iter().map(|network| network.parent))
}

/// Trains every network of a tree: `train` is called with the processes that train it, and has to leave it where its children look. It
/// may find it trained, after a restart. A group that has nothing to do in a wave waits for the others.
///
/// # Errors
/// What `train` fails with here, at once; [`Error::Train`] for a group that fails behind a wave. [`run`](crate::run) ends the other
/// groups then.
pub fn train<E: From<Error> + From<ediffi_train::Error>>(
    cluster: &Cluster,
    tree: &ExpertTree,
    mut train: impl FnMut(&dyn Reduce, &Planned) -> Result<(), E>,
) -> Result<(), E> {
    for wave in waves(tree) {
        let all = wave.len() == 1;
        let reduce = if all { cluster.everyone() } else { cluster.reduce() };
        let own = wave.iter().enumerate().filter(|(turn, _)| all || is_dealt(*turn, cluster.group(), cluster.groups()));
        for network in own.filter_map(|(_, index)| tree.networks().get(*index)) {
            tracing::info!(network = network.name, group = cluster.group(), "training a branch");
            train(reduce, network)?;
        }
        // Others may train for hours yet: nobody is missed here.
        cluster.everyone().barrier()?;
        agree(cluster.everyone(), Ok::<_, ediffi_train::Error>(()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ediffi_core::interval::{LogNormal, Node};
    use ediffi_train::tree::{Branching, Configuration};

    use super::*;
    use crate::{Options, connect};

    fn names(tree: &ExpertTree) -> Vec<Vec<&str>> {
        let name = |index: &usize| tree.networks()[*index].name.as_str();
        waves(tree).iter().map(|wave| wave.iter().map(name).collect()).collect()
    }

    #[test]
    fn a_wave_has_the_networks_whose_parents_are_trained() {
        let noise = LogNormal::default();
        let paper = Configuration::D.base(&noise).unwrap();
        let expected: [&[&str]; 5] =
            [&["e0-0"], &["e1-0", "e1-1", "rest"], &["e2-0", "e2-3"], &["e3-0", "e3-7"], &["e4-15"]];
        assert_eq!(names(&paper)[..5], expected);
        assert_eq!(names(&paper).len(), 10);
        let [low, high] = [0, 3].map(|index| Node::new(2, index).unwrap());
        let direct = ExpertTree::new(&noise, &[low, high], Branching::Direct).unwrap();
        assert_eq!(names(&direct), [vec!["e0-0"], vec!["e2-0", "e2-3", "rest"]]);
    }

    #[test]
    fn one_process_trains_all_networks_in_their_order() {
        let tree = Configuration::D.base(&LogNormal::default()).unwrap();
        let cluster = connect(&Options::default()).unwrap();
        let mut trained: Vec<String> = Vec::new();
        train::<Error>(&cluster, &tree, |reduce, network| {
            assert_eq!(reduce.world(), 1);
            let parent = network.parent.map(|parent| &tree.networks()[parent].name);
            assert!(parent.is_none_or(|parent| trained.contains(parent)), "{}", network.name);
            trained.push(network.name.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(trained.len(), tree.networks().len());
    }
}
