//! Libtorch's threads belong to the process: a test of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::ops::ControlFlow;
use std::time::Duration;

use ediffi_core::weights::{Init, Params, Scope};
use ediffi_train::fit::{Setup, fit};
use ediffi_train::lineage::Lineage;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::run::{Begin, Run};
use ediffi_train::{Error, Result, data_parallel};
use tch::{Device, Kind};

/// Six threads shared by two workers are three for each, and six again afterwards, for this thread and for new ones, whether the
/// training ends well or not. To ask how many workers are best changes nothing.
#[test]
fn workers_share_the_threads_while_they_train() {
    tch::set_num_threads(6);
    assert_eq!(data_parallel::workers(Device::Cpu, 1), 1);
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    assert_eq!((data_parallel::workers(Device::Cpu, 1 << 40), data_parallel::workers(Device::Cpu, 0)), (cores, 1));
    assert_eq!(tch::get_num_threads(), 6);
    for fails in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (checkpoint_every, lineage) = (Duration::from_secs(3600), Lineage::default());
        let (name, folder, begin, steps, batch, accumulate, first_batch) =
            ("net", folder.path(), Begin::New, 2, 1, 2, 0);
        let run = Run { name, folder, begin, steps, batch, accumulate, first_batch, checkpoint_every, lineage };
        let optimizer = AdamWSettings::default();
        let (device, kind) = (Device::Cpu, Kind::Float);
        let setup = Setup { seed: 1, parent: None, device, kind, optimizer, ema: 0.9, workers: 2 };
        let learner = |params: &mut dyn Params| -> Result<_> {
            let weight = Scope::root(params).weight("w", &[2], Init::Ones)?;
            Ok(move |_, ()| {
                assert_eq!(tch::get_num_threads(), 3);
                if fails { Err(Error::NoBatches) } else { Ok(weight.f_sum(Kind::Float)?) }
            })
        };
        let trained = fit(
            &run,
            &setup,
            |_| Ok::<_, Error>(()),
            learner,
            |_, _| {
                assert_eq!(tch::get_num_threads(), 3);
                Ok(ControlFlow::Continue(()))
            },
        );
        assert_eq!(trained.is_err(), fails);
        assert!(!matches!(trained, Err(Error::WorkerPanicked)), "a worker had another number of threads");
        let new = std::thread::spawn(tch::get_num_threads).join().unwrap();
        assert_eq!((tch::get_num_threads(), new), (6, 6));
    }
}
