//! A published folder of DeepFloyd IF in which one file is another: the first byte says which.
#![no_main]

use ediffi::{DeviceChoice, Pipeline, Precision, Request};
use ediffi_fuzz::{Room, checked, fixture, peak, target};

target!(run);

const FOLDER: &str = "ediffi-core/tests/fixtures/deepfloyd/stage-1";
const OTHERS: [&str; 3] = [
    "text_encoder/model.fp16.safetensors",
    "tokenizer/tokenizer.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
];
const READ: [&str; 4] =
    ["model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "unet/config.json"];

thread_local! {
    static ROOM: (Room, [Vec<u8>; 4]) = {
        let copied = |name: &&str| (format!("{FOLDER}/{name}"), (*name).to_owned());
        let files: Vec<(String, String)> = OTHERS.iter().chain(&READ).map(copied).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        (Room::with(&files), READ.map(|name| std::fs::read(fixture(&format!("{FOLDER}/{name}"))).unwrap()))
    };
}

fn run(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    let which = usize::from(which) % READ.len();
    ROOM.with(|(room, sound)| {
        room.put(READ[which], data);
        let open = || Pipeline::builder(room.path()).device(DeviceChoice::Cpu).precision(Precision::F32).open();
        let (opened, bytes) = peak(|| checked(open()));
        assert!(bytes <= (64 << 20) + 256 * data.len(), "a folder with a file of {} bytes took {bytes}", data.len());
        if let Some(pipeline) = opened {
            let _ = checked(pipeline.validate(&Request::new("a cat")));
        }
        room.put(READ[which], &sound[which]);
    });
}
