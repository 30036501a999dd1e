//! The processes that train one model together.

use std::time::Duration;

use ediffi_cluster::{Cluster, Options, Transport};

use super::failure::Failure;
use super::rank::Rank;

/// Does `work` in all processes that the launcher started, as they find each other over `transport`, in so many `groups`. After the `timeout` a
/// process that does not come to a sum is given up, and the job ended.
///
/// # Errors
/// One of several processes that is told no transport, or does not find the others; a transport that was left out of this command; more groups
/// than processes; those of `work`.
pub(super) fn together<T>(
    transport: Option<Transport>,
    (groups, timeout): (usize, Duration),
    rank: Rank,
    work: impl FnOnce(&Cluster) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transport = match transport {
        None if rank.size > 1 => {
            let line = format!("started as one of {} processes: say --transport mpi, or nccl on GPUs", rank.size);
            return Err(Failure::refused(vec![line]));
        }
        transport => transport.unwrap_or_default(),
    };
    let options = Options { transport, groups, timeout, ..Options::default() };
    ediffi_cluster::run(&options, |cluster| {
        if transport != Transport::Alone && cluster.everyone().world() == 1 && rank.size > 1 {
            let line = format!("started as one of {} processes, and MPI finds this one alone", rank.size);
            return Err(Failure::refused(vec![format!("{line}: start it with mpirun, or srun --mpi=pmix")]));
        }
        // Before the processes part: a launcher ends those that are left when the first one is gone.
        work(cluster).map_err(|mut failure| {
            failure.tell();
            failure
        })
    })
}

#[cfg(test)]
mod tests {
    use ediffi_cluster::Error;

    use super::*;

    #[test]
    fn several_processes_without_a_transport_and_one_that_was_left_out_are_refused() {
        let (one, two) = ((1, Duration::from_secs(9)), (2, Duration::from_secs(9)));
        let rank = Rank { rank: 1, size: 4, local: 1 };
        let failure = together(None, one, rank, |_| Ok(())).unwrap_err().to_string();
        assert!(failure.contains("one of 4 processes: say --transport mpi"), "{failure}");
        assert_eq!(together(None, one, Rank::ALONE, |cluster| Ok(cluster.everyone().world())).unwrap(), 1);
        let failure = together(None, two, Rank::ALONE, |_| Ok(())).unwrap_err().to_string();
        assert!(failure.contains("1 processes cannot be divided into 2 groups"), "{failure}");
        let failure = Failure::from(Error::NotBuilt { feature: "nccl" }).to_string();
        assert!(failure.contains("without the transport nccl") && failure.contains("draw and nccl"), "{failure}");
    }
}
