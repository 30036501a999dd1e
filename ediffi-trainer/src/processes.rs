//! The processes of a training, and the groups of them that train networks side by side.

use ediffi_train::plan::{Task, TrainingPlan};
use ediffi_train::reduce::Reduce;
use ediffi_train::waves::{is_dealt, waves};

/// The processes of a training, as one of them sees them. Those of a group train a network together, beside other groups.
#[derive(Debug, Clone, Copy)]
pub struct Processes<'a> {
    /// All of them.
    pub everyone: &'a dyn Reduce,
    /// Those of this process's group.
    pub own: &'a dyn Reduce,
    /// How many groups there are, as large as can be alike.
    pub groups: usize,
    /// The number of this process's group, from 0. Rank 0 of all processes is in group 0.
    pub group: usize,
}

impl<'a> Processes<'a> {
    /// One group.
    #[must_use]
    pub fn together(reduce: &'a dyn Reduce) -> Self {
        Self { everyone: reduce, own: reduce, groups: 1, group: 0 }
    }

    /// How many processes the largest group has.
    pub(crate) fn largest(&self) -> usize {
        self.everyone.world().div_ceil(self.groups.max(1))
    }

    /// Who trains the task that stands at `turn` of a wave of `tasks`, if this process is one of them. A task that stands alone is everyone's, if
    /// its `batches` of a step are enough for all.
    pub(crate) fn at(&self, turn: usize, tasks: usize, batches: u64) -> Option<&'a dyn Reduce> {
        if self.groups <= 1 || (tasks == 1 && batches >= self.everyone.world() as u64) {
            return Some(self.everyone);
        }
        is_dealt(turn, self.group, self.groups).then_some(self.own)
    }
}

/// What is trained of a plan, in waves: all that is in one can be trained at once. Encoders come before networks. Of one group, each waits for
/// the one before it in the plan.
pub(crate) fn of_plan<'t>(training: &'t TrainingPlan, only: &[String], groups: usize) -> Vec<Vec<Task<'t>>> {
    let is_wanted = |task: &Task<'_>| only.is_empty() || only.contains(&task.name());
    let (encoders, networks): (Vec<Task<'t>>, Vec<Task<'t>>) =
        training.tasks().partition(|task| matches!(task, Task::Encoder(_)));
    let of_networks = if groups > 1 {
        waves(networks.iter().map(|network| parent(network, &networks)))
    } else {
        (0..networks.len()).map(|index| vec![index]).collect()
    };
    let of_networks =
        of_networks.into_iter().map(|wave| wave.iter().filter_map(|index| networks.get(*index)).copied().collect());
    let all = encoders.iter().map(|encoder| vec![*encoder]).chain(of_networks);
    let wanted = all.map(|wave: Vec<Task<'t>>| wave.into_iter().filter(is_wanted).collect::<Vec<_>>());
    wanted.filter(|wave| !wave.is_empty()).collect()
}

/// The place of a network's parent among `networks`.
fn parent(network: &Task<'_>, networks: &[Task<'_>]) -> Option<usize> {
    let Task::Network(stage, network) = network else { return None };
    let name = format!("{}.{}", stage.name, network.parent.as_ref()?);
    networks.iter().position(|other| other.name() == name)
}

#[cfg(test)]
mod tests {
    use ediffi_train::reduce::Alone;

    use super::*;
    use crate::plan::find;

    fn names(groups: usize, only: &[&str]) -> Vec<Vec<String>> {
        let training = find("gpu-24gb").unwrap().training();
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let waves = of_plan(&training, &only, groups);
        waves.iter().map(|wave| wave.iter().map(Task::name).collect()).collect()
    }

    #[test]
    fn groups_train_what_has_its_parent_and_one_group_trains_in_the_order_of_the_plan() {
        assert_eq!(names(2, &[]), [vec!["base.shared", "sr256.shared"], vec!["base.high", "base.middle", "base.low"],]);
        assert_eq!(names(2, &["base.low", "base.high"]), [["base.high", "base.low"]]);
        let order = ["base.shared", "base.high", "base.middle", "base.low", "sr256.shared"];
        assert_eq!(names(1, &[]), order.map(|name| [name]));
        let own = find("laptop").unwrap().training();
        assert_eq!(of_plan(&own, &[], 4)[0].iter().map(Task::name).collect::<Vec<_>>(), ["t5"]);
    }

    /// Four processes, as none of them is.
    #[derive(Debug)]
    struct Four;

    impl Reduce for Four {
        fn rank(&self) -> usize {
            0
        }

        fn world(&self) -> usize {
            4
        }

        fn sum(&self, _: &mut tch::Tensor) -> ediffi_train::Result<()> {
            Ok(())
        }

        fn broadcast(&self, _: &mut tch::Tensor) -> ediffi_train::Result<()> {
            Ok(())
        }

        fn barrier(&self) -> ediffi_train::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_network_alone_is_for_all_if_its_batches_are_enough() {
        let processes = Processes { everyone: &Four, own: &Alone, groups: 4, group: 1 };
        let worlds = |turn, tasks, batches| processes.at(turn, tasks, batches).map(Reduce::world);
        assert_eq!(
            [worlds(0, 1, 4), worlds(0, 1, 3), worlds(1, 2, 8), worlds(0, 2, 8)],
            [Some(4), None, Some(1), None]
        );
        assert_eq!(worlds(5, 6, 8), Some(1), "the groups take turns");
        assert_eq!((processes.largest(), Processes::together(&Alone).largest()), (1, 1));
    }
}
