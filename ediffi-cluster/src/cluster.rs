//! The processes of a job, and how this one finds the others.

use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use ediffi_train::reduce::{Alone, Reduce};

use crate::{Error, Result};

/// By what the processes of a job talk to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// By nothing: there is one.
    #[default]
    Alone,
    /// MPI, for tensors on any device (feature `mpi`).
    Mpi,
    /// NCCL for tensors on GPUs, and MPI for all else (feature `nccl`).
    Nccl,
}

impl FromStr for Transport {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "alone" => Ok(Self::Alone),
            "mpi" => Ok(Self::Mpi),
            "nccl" => Ok(Self::Nccl),
            _ => Err(Error::UnknownTransport { name: name.to_owned() }),
        }
    }
}

/// How to find the others.
#[derive(Debug, Clone)]
pub struct Options {
    /// By what they talk.
    pub transport: Transport,
    /// Into how many groups the processes are divided, each of which trains a network of its own.
    pub groups: usize,
    /// How long to wait for a process that does not come to a sum. The job is ended then, with the name of the process.
    pub timeout: Duration,
    /// NCCL's library, where the loader finds another than the one wanted.
    pub nccl: PathBuf,
}

impl Default for Options {
    /// One process. Ten minutes are as long as PyTorch waits over NCCL.
    fn default() -> Self {
        let timeout = Duration::from_secs(600);
        Self { transport: Transport::default(), groups: 1, timeout, nccl: "libnccl.so.2".into() }
    }
}

/// The processes of a job, as this one sees them.
///
/// When it is dropped, it waits until the others have come as far: MPI ends in all processes at once. A process that failed should not
/// wait: [`run`] takes care of that.
#[derive(Debug)]
pub struct Cluster {
    own: Rc<dyn Reduce>,
    everyone: Rc<dyn Reduce>,
    groups: usize,
    group: usize,
    #[cfg(feature = "mpi")]
    session: Option<Rc<crate::mpi::Session>>,
}

impl Cluster {
    /// This process's group, which trains a network together. Without groups, everyone.
    #[must_use]
    pub fn reduce(&self) -> &dyn Reduce {
        &*self.own
    }

    /// All processes of the job.
    #[must_use]
    pub fn everyone(&self) -> &dyn Reduce {
        &*self.everyone
    }

    /// How many groups there are.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The number of this process's group, from 0.
    #[must_use]
    pub fn group(&self) -> usize {
        self.group
    }

    fn alone(groups: usize) -> Result<Self> {
        if groups != 1 {
            return Err(Error::Groups { groups, world: 1 });
        }
        let alone: Rc<dyn Reduce> = Rc::new(Alone);
        Ok(Self {
            own: alone.clone(),
            everyone: alone,
            groups,
            group: 0,
            #[cfg(feature = "mpi")]
            session: None,
        })
    }
}

/// Finds the other processes of the job. Everything that they do together, this process does on the thread that calls this.
///
/// # Errors
/// [`Error::NotBuilt`], [`Error::Groups`], [`Error::Start`] for an MPI that does not start, or that knows nothing of the processes that Slurm started;
/// with NCCL [`Error::Library`], [`Error::Nccl`], and [`Error::Devices`] for a process that sees several GPUs.
pub fn connect(options: &Options) -> Result<Cluster> {
    match options.transport {
        Transport::Alone => Cluster::alone(options.groups),
        #[cfg(feature = "mpi")]
        Transport::Mpi => over_mpi(options),
        #[cfg(feature = "nccl")]
        Transport::Nccl => over_nccl(options),
        #[cfg(not(feature = "mpi"))]
        Transport::Mpi => Err(Error::NotBuilt { feature: "mpi" }),
        #[cfg(not(feature = "nccl"))]
        Transport::Nccl => Err(Error::NotBuilt { feature: "nccl" }),
    }
}

/// The number of the group of process `rank`: neighbours are together, since they are on one machine.
#[cfg(feature = "mpi")]
fn group_of(rank: usize, world: usize, groups: usize) -> usize {
    rank * groups / world.max(1)
}

#[cfg(feature = "mpi")]
fn over_mpi(options: &Options) -> Result<Cluster> {
    divided(options, |mpi| Ok(Rc::new(mpi)))
}

#[cfg(feature = "nccl")]
fn over_nccl(options: &Options) -> Result<Cluster> {
    let library = crate::nccl::Library::load(&options.nccl)?;
    divided(options, |mpi| Ok(Rc::new(crate::nccl::Nccl::over(mpi, &library)?)))
}

/// Everyone, and the group of this process, each as `make` has it.
#[cfg(feature = "mpi")]
fn divided(options: &Options, make: impl Fn(crate::mpi::Mpi) -> Result<Rc<dyn Reduce>>) -> Result<Cluster> {
    let (world, groups) = (crate::mpi::Mpi::start(options.timeout)?, options.groups);
    let (rank, count, session) = (world.rank(), world.world(), world.session());
    if groups == 0 || groups > count {
        return Err(Error::Groups { groups, world: count });
    }
    let group = group_of(rank, count, groups);
    let parted = (groups > 1).then(|| world.part(group)).transpose()?;
    let everyone = make(world)?;
    let own = parted.map_or_else(|| Ok(everyone.clone()), make)?;
    Ok(Cluster { own, everyone, groups, group, session: Some(session) })
}

/// [Connects](connect), and does `work` with the other processes. When this process fails, whatever the others do is ended within a few
/// seconds; if all fail together, each returns its own error.
///
/// # Errors
/// Those of [`connect`] and of `work`.
pub fn run<T, E: From<Error> + std::fmt::Display>(
    options: &Options,
    work: impl FnOnce(&Cluster) -> Result<T, E>,
) -> Result<T, E> {
    let cluster = connect(options)?;
    let result = work(&cluster);
    #[cfg(feature = "mpi")]
    if let (Err(error), Some(session)) = (&result, &cluster.session) {
        session.fail(error.to_string());
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_has_a_name_and_any_other_is_refused() {
        let names = [("alone", Transport::Alone), ("mpi", Transport::Mpi), ("nccl", Transport::Nccl)];
        for (name, transport) in names {
            assert_eq!(name.parse::<Transport>().unwrap(), transport);
        }
        let error = "gloo".parse::<Transport>().unwrap_err().to_string();
        assert!(error.contains("no transport \"gloo\""), "{error}");
    }

    #[test]
    fn one_process_makes_one_group() {
        let cluster = connect(&Options::default()).unwrap();
        assert_eq!((cluster.groups(), cluster.group(), cluster.reduce().world()), (1, 0, 1));
        for groups in [0, 2] {
            let error = connect(&Options { groups, ..Options::default() }).unwrap_err();
            assert!(matches!(error, Error::Groups { world: 1, .. }), "{error}");
        }
    }

    #[cfg(feature = "mpi")]
    #[test]
    fn groups_are_neighbours_and_nearly_as_large() {
        let groups = |world, groups| (0..world).map(|rank| group_of(rank, world, groups)).collect::<Vec<_>>();
        assert_eq!(groups(4, 2), [0, 0, 1, 1]);
        assert_eq!(groups(5, 2), [0, 0, 0, 1, 1]);
        assert_eq!(groups(3, 3), [0, 1, 2]);
    }
}
