//! The shipped model on a CUDA device, beside the CPU.
//!
//! Where there is no CUDA device, each test says that it was skipped. `EDIFFI_TEST_DEVICE=cpu` runs them on the CPU in its place:
//! that tests the tests.
#![allow(clippy::unwrap_used, reason = "a test stops where something fails")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ediffi::{
    Canvas, Device, DeviceChoice, Kind, Pipeline, PipelineBuilder, Precision, Region, Request, Residency, Tensor,
    Tiling,
};
use ediffi_core::runtime::cuda_devices;

/// One test at a time has the device.
fn device(test: &str) -> Option<(DeviceChoice, MutexGuard<'static, ()>)> {
    static ONE: Mutex<()> = Mutex::new(());
    let on_cpu = std::env::var_os("EDIFFI_TEST_DEVICE").is_some_and(|device| device == "cpu");
    let found = cuda_devices();
    if !on_cpu && !found.as_ref().is_ok_and(|&count| count > 0) {
        let reason = found.err().unwrap_or_default();
        // `print!` would be captured.
        let _ = writeln!(std::io::stdout(), "skipped: {test}: no CUDA device {reason}");
        return None;
    }
    let device = if on_cpu { DeviceChoice::Cpu } else { DeviceChoice::Cuda(0) };
    Some((device, ONE.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The model beside the test, or that of the checkout.
fn folder() -> PathBuf {
    let here = PathBuf::from("models/icons");
    if here.is_dir() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("models/icons") }
}

fn builder(device: DeviceChoice) -> PipelineBuilder {
    Pipeline::builder(folder()).device(device).precision(Precision::F32).keep_floats(true)
}

fn open(device: DeviceChoice) -> Pipeline {
    builder(device).open().unwrap()
}

/// All stages, few steps.
fn apple() -> Request {
    Request::new("a red apple, flat style").seed(3).steps("base", 6).steps("sr256", 2).steps("sr1024", 1)
}

/// The first stage alone.
fn small_apple() -> Request {
    Request::new("a red apple, flat style").seed(3).steps("base", 6).last_stage("base")
}

fn draw(pipeline: &Pipeline, request: &Request) -> Vec<Tensor> {
    let images = pipeline.generate(request).unwrap().images;
    images.iter().map(|image| image.tensor().unwrap()).collect()
}

/// The largest and the mean difference of two lists of pictures.
fn apart(a: &[Tensor], b: &[Tensor]) -> (f64, f64) {
    let difference = (Tensor::stack(a, 0) - Tensor::stack(b, 0)).abs();
    (difference.max().double_value(&[]), difference.mean(Kind::Float).double_value(&[]))
}

/// In f32 a device differs from the CPU by rounding, which the steps of a generation make a little larger.
#[test]
fn a_picture_is_that_of_the_cpu() {
    let Some((device, _one)) = device("a_picture_is_that_of_the_cpu") else { return };
    let (largest, mean) = apart(&draw(&open(device), &apple()), &draw(&open(DeviceChoice::Cpu), &apple()));
    assert!(mean < 1e-4 && largest < 5e-2, "{mean:.1e} apart, {largest:.1e} at most");
}

#[test]
fn a_picture_in_bf16_is_near_that_in_f32() {
    let Some((device, _one)) = device("a_picture_in_bf16_is_near_that_in_f32") else { return };
    let half = builder(device).precision(Precision::Bf16).open().unwrap();
    let request = small_apple();
    let (_, mean) = apart(&draw(&half, &request), &draw(&open(device), &request));
    assert!(mean > 0.0 && mean < 4e-2, "{mean:.1e} apart");
}

#[test]
fn a_painted_picture_is_that_of_the_cpu() {
    let Some((device, _one)) = device("a_painted_picture_is_that_of_the_cpu") else { return };
    let region = Region::rectangle("red apple", (8, 8), 0..4, 0..8).unwrap();
    let painted = small_apple().canvas(Canvas::new([region]).unwrap());
    let drawn = draw(&open(device), &painted);
    let (_, mean) = apart(&drawn, &draw(&open(DeviceChoice::Cpu), &painted));
    let (_, unpainted) = apart(&drawn, &draw(&open(device), &small_apple()));
    assert!(mean < 1e-4 && unpainted > 1e-2, "{mean:.1e} apart; {unpainted:.1e} from the unpainted");
}

#[test]
fn a_picture_in_tiles_is_that_of_the_cpu() {
    let Some((device, _one)) = device("a_picture_in_tiles_is_that_of_the_cpu") else { return };
    let tiled = small_apple().last_stage("sr256").steps("sr256", 2);
    let tiled = tiled.tiling("sr256", Tiling { tile: 128, overlap: 32 });
    let (_, mean) = apart(&draw(&open(device), &tiled), &draw(&open(DeviceChoice::Cpu), &tiled));
    assert!(mean < 1e-4, "{mean:.1e} apart");
}

/// The experts that are loaded when they are needed are those that stay.
#[test]
fn residencies_agree() {
    let Some((device, _one)) = device("residencies_agree") else { return };
    // The model's own steps: all three experts have work.
    let request = Request::new("a cat").seed(1).images(3).last_stage("base");
    let all = draw(&open(device), &request);
    for residency in [Residency::Relay, Residency::RelayPrefetch] {
        let relay = builder(device).residency(residency).batch(1).open().unwrap();
        let (largest, mean) = apart(&all, &draw(&relay, &request));
        assert!(mean < 1e-4 && largest < 5e-2, "{residency:?}: {mean:.1e} apart, {largest:.1e} at most");
    }
}

/// Experts on the device and on the CPU in turn, painted and in tiles, draw what the CPU draws.
#[test]
fn experts_may_be_on_several_devices() {
    let Some((device, _one)) = device("experts_may_be_on_several_devices") else { return };
    let region = Region::rectangle("cat", (8, 8), 0..4, 0..8).unwrap();
    let request =
        Request::new("a cat").seed(1).steps("base", 8).last_stage("base").canvas(Canvas::new([region]).unwrap());
    let request = request.size(96, 64).tiling("base", Tiling { tile: 64, overlap: 32 });
    let spread = builder(DeviceChoice::Cpu).expert_devices([device, DeviceChoice::Cpu]).open().unwrap();
    let (_, mean) = apart(&draw(&spread, &request), &draw(&open(DeviceChoice::Cpu), &request));
    assert!(mean < 1e-4, "{mean:.1e} apart");
}

/// A picture is that of its own seed, whatever else is in the batch.
#[test]
fn a_seed_is_one_picture() {
    let Some((device, _one)) = device("a_seed_is_one_picture") else { return };
    let pipeline = open(device);
    let request = small_apple();
    let together = draw(&pipeline, &request.clone().images(3));
    let alone = draw(&pipeline, &request.clone().seed(4));
    let (_, mean) = apart(&together[1..2], &alone);
    assert!(mean < 1e-4, "{mean:.1e} apart");
    assert_eq!(apart(&alone, &draw(&pipeline, &request.seed(4))).0, 0.0, "the same request again");
}

/// What one generation took is there for the next: ten take no more than one.
#[test]
fn memory_is_given_back() {
    let Some((device, _one)) = device("memory_is_given_back") else { return };
    let pipeline = builder(device).residency(Residency::Relay).open().unwrap();
    let taken = |times: usize| {
        (0..times).for_each(|_| drop(draw(&pipeline, &small_apple())));
        used_memory(device)
    };
    let (one, ten) = (taken(2), taken(10));
    let Some((one, ten)) = one.zip(ten) else {
        let _ = writeln!(std::io::stdout(), "skipped: memory_is_given_back: no nvidia-smi");
        return;
    };
    assert!(ten <= one + one / 50 + 64, "{one} MiB after two generations, {ten} after ten more");
}

/// MiB that the first CUDA device has given away, or that this process holds.
fn used_memory(device: DeviceChoice) -> Option<u64> {
    if device == DeviceChoice::Cpu {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
        return Some(kib.trim().parse::<u64>().ok()? / 1024);
    }
    let asked = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"];
    let output = Command::new("nvidia-smi").args(asked).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// A device without room is an error of the request; the next one is drawn.
#[test]
fn a_full_device_is_an_error() {
    let Some((device, _one)) = device("a_full_device_is_an_error") else { return };
    if device == DeviceChoice::Cpu {
        let _ = writeln!(std::io::stdout(), "skipped: a_full_device_is_an_error: the CPU's memory is not filled");
        return;
    }
    let pipeline = open(device);
    let before = draw(&pipeline, &apple());
    let mut filling = Vec::new();
    for power in (16..34).rev() {
        while let Ok(taken) = Tensor::f_zeros([1 << power], (Kind::Uint8, Device::Cuda(0))) {
            filling.push(taken);
        }
    }
    let large = apple().size(256, 256).images(4);
    let error = pipeline.generate(&large).unwrap_err().to_string();
    assert!(error.contains("memory"), "{error}");
    drop(filling);
    assert!(apart(&before, &draw(&pipeline, &apple())).1 < 1e-4);
}
