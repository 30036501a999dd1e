//! A cancel is seen within the encoding of one text or picture.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{CPU, fixture};
use ediffi_core::interrupt;
use ediffi_encoders::{Clip, Error, Result, T5};
use tch::{Device, Kind, Tensor};

/// How an encoding ends that may look at its flag `looks` times before the flag is set, and how often it looked.
fn stopped_after<T>(looks: usize, encode: impl Fn() -> Result<T>) -> (Result<T>, usize) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let watched = interrupt::watch_if(move || count.fetch_add(1, Ordering::Relaxed) >= looks);
    let encoded = encode();
    drop(watched);
    (encoded, seen.load(Ordering::Relaxed))
}

/// Asserts that the flag is looked at `least` times, and that the encoding ends at whichever look finds it set.
fn stops<T>(least: usize, encode: impl Fn() -> Result<T>) {
    // What the first run reads or packs, it does once.
    assert!(encode().is_ok());
    let (whole, looks) = stopped_after(usize::MAX, &encode);
    assert!(whole.is_ok() && looks >= least, "{looks} looks, {least} layers");
    for looks in 0..looks {
        let (ended, seen) = stopped_after(looks, &encode);
        let ended = ended.map(drop).unwrap_err();
        assert!(matches!(ended, Error::Core(ediffi_core::Error::Cancelled)) && seen == looks + 1, "{ended}, {seen}");
    }
    assert!(encode().is_ok());
}

#[test]
fn t5_looks_before_each_product() {
    let t5 = T5::open(&fixture("t5"), CPU).unwrap();
    // Seven in each of two layers.
    stops(14, || t5.encode(&["a red apple"], 16));
    stops(14, || t5.encode_with_padding(&["a red apple"], 16));
}

#[test]
fn clip_looks_before_each_layer() {
    let clip = Clip::open(&fixture("clip"), CPU).unwrap();
    stops(2, || clip.encode_text(&["a red apple"], 20));
    let picture = Tensor::ones([3, 20, 20], (Kind::Uint8, Device::Cpu));
    stops(2, || clip.encode_image(std::slice::from_ref(&picture)));
}

#[test]
fn the_making_of_a_fingerprint_is_stopped() {
    stops(1, || T5::fingerprint(&fixture("t5"), None));
}
