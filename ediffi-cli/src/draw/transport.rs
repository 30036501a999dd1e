//! The processes that train one model together.

use ediffi_cluster::{Options, Transport};
use ediffi_train::reduce::Reduce;

use super::failure::Failure;
use super::rank::Rank;

/// Does `work` in all processes that the launcher started, as they find each other over `transport`.
///
/// # Errors
/// One of several processes that is told no transport, or does not find the others; a transport that was left out of this command; those of
/// `work`.
pub(super) fn together<T>(
    transport: Option<Transport>,
    rank: Rank,
    work: impl FnOnce(&dyn Reduce) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transport = match transport {
        None if rank.size > 1 => {
            let line = format!("started as one of {} processes: say --transport mpi, or nccl on GPUs", rank.size);
            return Err(Failure::refused(vec![line]));
        }
        transport => transport.unwrap_or_default(),
    };
    let options = Options { transport, ..Options::default() };
    ediffi_cluster::run(&options, |cluster| {
        let reduce = cluster.reduce();
        if transport != Transport::Alone && reduce.world() == 1 && rank.size > 1 {
            let line = format!("started as one of {} processes, and MPI finds this one alone", rank.size);
            return Err(Failure::refused(vec![format!("{line}: start it with mpirun, or srun --mpi=pmix")]));
        }
        // Before the processes part: a launcher ends those that are left when the first one is gone.
        work(reduce).map_err(|mut failure| {
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
        let rank = Rank { rank: 1, size: 4, local: 1 };
        let failure = together(None, rank, |_| Ok(())).unwrap_err().to_string();
        assert!(failure.contains("one of 4 processes: say --transport mpi"), "{failure}");
        assert_eq!(together(None, Rank::ALONE, |reduce| Ok(reduce.world())).unwrap(), 1);
        let failure = Failure::from(Error::NotBuilt { feature: "nccl" }).to_string();
        assert!(failure.contains("without the transport nccl") && failure.contains("draw and nccl"), "{failure}");
    }
}
