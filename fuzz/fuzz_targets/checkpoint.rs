//! A checkpoint of a training that goes on from it.
#![no_main]

use std::collections::HashMap;

use ediffi_fuzz::{Room, checked, peak, target};
use ediffi_train::lineage::Lineage;
use ediffi_train::optimizer::AdamWSettings;
use ediffi_train::state::TrainState;
use tch::{Device, Kind, Tensor};

target!(run);

thread_local! {
    static ROOM: Room = Room::new();
}

/// The state that the seeds are of.
fn state(value: f64) -> TrainState {
    let tensor = |shape: &[i64]| Tensor::full(shape, value, (Kind::Float, Device::Cpu));
    let parameters = vec![("a".to_owned(), tensor(&[2, 3])), ("b".to_owned(), tensor(&[]))];
    TrainState::new(parameters, AdamWSettings::default(), 0.9).unwrap()
}

fn run(data: &[u8]) {
    ROOM.with(|room| {
        let path = room.put("run.safetensors", data);
        let _ = checked(Lineage::default().with("seed", 7).check(&path));
        let (mut begun, untouched) = (state(1.0), state(1.0));
        let (resumed, bytes) = peak(|| checked(begun.resume(&path)));
        assert!(bytes <= (1 << 18) + 128 * data.len(), "a checkpoint of {} bytes took {bytes}", data.len());
        if resumed.is_none() {
            assert_eq!((begun.step(), begun.pictures()), (0, 0));
            for ((name, now), (_, before)) in begun.parameters().iter().zip(untouched.parameters()) {
                assert!(now == before, "{name} was changed by a file that was refused");
            }
            return;
        }
        let again = room.path().join("again.safetensors");
        begun.save(&again, HashMap::new()).unwrap();
        let mut other = state(2.0);
        other.resume(&again).expect("what was resumed can be written and read");
        assert_eq!((begun.step(), begun.pictures()), (other.step(), other.pictures()));
    });
}
