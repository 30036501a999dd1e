//! Which of several processes this one is, as launchers say.

use ediffi::DeviceChoice;
use ediffi_core::runtime::cuda_devices;

use super::failure::Failure;

/// The number of a process, of how many, and its number on its own machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank {
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) local: usize,
}

/// Variables of rank, size and local rank: `torchrun`, Open MPI's `mpirun`, MPICH's and Intel's, Slurm's `srun`. One may start another, whose
/// variables stand before. Slurm's number of tasks is that of the step: a script has that of its job, but is one process.
const LAUNCHERS: [[&str; 3]; 4] = [
    ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
    ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"],
    ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"],
];

impl Rank {
    /// A process by itself.
    pub(super) const ALONE: Self = Self { rank: 0, size: 1, local: 0 };

    /// What the variables of the first launcher say that has set both rank and size; alone without one.
    ///
    /// # Errors
    /// The variable that holds no number, or a rank that is not below the size.
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let number = |name: &str| match variable(name) {
            None => Ok(None),
            Some(text) => text.trim().parse::<usize>().map(Some).map_err(|_| format!("{name} is `{text}`: no number")),
        };
        for [rank, size, local] in LAUNCHERS {
            // One that started a single process may stand below another that started several.
            let (Some(number_of), Some(count)) = (number(rank)?, number(size)?) else { continue };
            if count == 1 {
                continue;
            }
            if number_of >= count {
                return Err(format!("{rank} is {number_of}, {size} is {count}"));
            }
            return Ok(Self { rank: number_of, size: count, local: number(local)?.unwrap_or(number_of) });
        }
        Ok(Self::ALONE)
    }

    /// What the launcher of this process says.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn of_process() -> Result<Self, Failure> {
        Self::of(|name| std::env::var(name).ok()).map_err(Failure::usage)
    }

    /// The device of this process: of several on a machine with CUDA devices, each has the next one.
    pub(super) fn device(self) -> DeviceChoice {
        match cuda_devices() {
            Ok(count) if count > 0 && self.size > 1 => DeviceChoice::Cuda(self.local % count),
            _ => DeviceChoice::Auto,
        }
    }

    /// Whether the item of this number is for this process.
    pub(super) fn has(self, index: usize) -> bool {
        index % self.size == self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(set: &[(&str, &str)]) -> Result<Rank, String> {
        Rank::of(|name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn launchers_say_which_process_it_is() {
        assert_eq!(of(&[]), Ok(Rank::ALONE));
        let slurm = [("SLURM_PROCID", "3"), ("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_LOCALID", "1")];
        assert_eq!(of(&slurm), Ok(Rank { rank: 3, size: 8, local: 1 }));
        // torchrun by srun: two nodes of eight.
        let both = [slurm[0], slurm[1], ("RANK", "9"), ("WORLD_SIZE", "16"), ("LOCAL_RANK", "1")];
        assert_eq!(of(&both), Ok(Rank { rank: 9, size: 16, local: 1 }));
        // One process of torchrun on each node, and a script of a job of four tasks.
        assert_eq!(of(&[slurm[0], slurm[1], ("RANK", "0"), ("WORLD_SIZE", "1")]).map(|rank| rank.rank), Ok(3));
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]), Ok(Rank::ALONE));
        let mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        assert_eq!(of(&mpi), Ok(Rank { rank: 1, size: 2, local: 1 }));
        assert!(of(&[("RANK", "2"), ("WORLD_SIZE", "2")]).unwrap_err().contains("RANK is 2"));
        assert!(of(&[("RANK", "x"), ("WORLD_SIZE", "2")]).unwrap_err().contains("RANK is `x`"));
    }

    #[test]
    fn every_item_is_for_one_process() {
        for index in 0..20 {
            let owners = (0..3).filter(|&rank| Rank { rank, size: 3, local: 0 }.has(index));
            assert_eq!(owners.count(), 1);
        }
    }
}
