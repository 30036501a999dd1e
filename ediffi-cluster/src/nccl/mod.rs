//! Processes whose GPUs talk over NCCL. They find each other over MPI, as in NCCL's own tests.

use ediffi_train::reduce::Reduce;
use tch::Tensor;

use crate::mpi::{Mpi, expect_flat};
use crate::{Error, Result};

mod library;

pub(crate) use library::Library;
use library::{Communicator, ID_BYTES, UniqueId};

/// Processes that add up gradients together, on GPUs. Numbers that are not on a GPU go over MPI, and a process that is missing is found
/// there, too.
#[derive(Debug)]
pub(crate) struct Nccl {
    communicator: Communicator,
    // Behind the communicator: MPI ends when it is dropped.
    mpi: Mpi,
}

impl Nccl {
    /// The GPUs of the processes of `mpi`.
    pub(crate) fn over(mpi: Mpi, library: &Library) -> Result<Self> {
        expect_one_device(tch::Cuda::device_count(), &mpi.name(mpi.rank()))?;
        let id = if mpi.rank() == 0 { library.unique_id()? } else { UniqueId([0; ID_BYTES]) };
        let mut sent = Tensor::f_from_slice(&id.0.map(f64::from))?;
        mpi.broadcast(&mut sent)?;
        let mut id = UniqueId([0; ID_BYTES]);
        for (byte, number) in id.0.iter_mut().zip(Vec::<f64>::try_from(&sent)?) {
            *byte = number as u8;
        }
        let communicator = Communicator::join(library, id, mpi.rank(), mpi.world())?;
        Ok(Self { communicator, mpi })
    }
}

/// Fails if process `who` sees several GPUs: NCCL takes the one that CUDA has for the thread, which is the first.
fn expect_one_device(count: i64, who: &str) -> Result<()> {
    if count > 1 { Err(Error::Devices { who: who.to_owned(), count }) } else { Ok(()) }
}

impl Reduce for Nccl {
    fn rank(&self) -> usize {
        self.mpi.rank()
    }

    fn world(&self) -> usize {
        self.mpi.world()
    }

    fn sum(&self, buffer: &mut Tensor) -> ediffi_train::Result<()> {
        if !buffer.device().is_cuda() {
            return self.mpi.sum(buffer);
        }
        expect_flat(buffer)?;
        // Nobody is waited for on a GPU: who does not come is named here.
        self.mpi.meet();
        Ok(self.communicator.sum(buffer)?)
    }

    fn broadcast(&self, buffer: &mut Tensor) -> ediffi_train::Result<()> {
        if !buffer.device().is_cuda() {
            return self.mpi.broadcast(buffer);
        }
        expect_flat(buffer)?;
        self.mpi.meet();
        Ok(self.communicator.broadcast(buffer)?)
    }

    fn barrier(&self) -> ediffi_train::Result<()> {
        self.mpi.barrier()
    }

    fn name(&self, rank: usize) -> String {
        self.mpi.name(rank)
    }
}

#[cfg(test)]
mod tests;
