//! `pipeline.json` of a model folder whose other files are sound.
#![no_main]

use ediffi::{DeviceChoice, Manifest, Pipeline, Precision, Request};
use ediffi_fuzz::{Room, checked, peak, target};

target!(run);

thread_local! {
    static ROOM: (Room, std::path::PathBuf) = {
        let room = Room::with(&[
            ("ediffi-core/tests/fixtures/ediffi/adm-patch/config.json", "base/config.json"),
            ("ediffi-core/tests/fixtures/ediffi/adm-patch/weights.safetensors", "base/weights.safetensors"),
            ("ediffi-core/tests/fixtures/ediffi/efficient/config.json", "sr/config.json"),
            ("ediffi-core/tests/fixtures/ediffi/efficient/weights.safetensors", "sr/weights.safetensors"),
            ("ediffi-encoders/tests/fixtures/t5/config.json", "t5/config.json"),
            ("ediffi-encoders/tests/fixtures/t5/tokenizer.json", "t5/tokenizer.json"),
            ("ediffi-encoders/tests/fixtures/t5/model.safetensors", "t5/model.safetensors"),
            ("ediffi-encoders/tests/fixtures/clip/config.json", "clip/config.json"),
            ("ediffi-encoders/tests/fixtures/clip/tokenizer.json", "clip/tokenizer.json"),
            ("ediffi-encoders/tests/fixtures/clip/model.safetensors", "clip/model.safetensors"),
        ]);
        let copy = room.put("copy/pipeline.json", b"");
        (room, copy)
    };
}

fn run(data: &[u8]) {
    ROOM.with(|(room, copy)| {
        room.put("pipeline.json", data);
        let (read, bytes) = peak(|| checked(Manifest::read(room.path())));
        assert!(bytes <= (4 << 20) + 256 * data.len(), "a manifest of {} bytes took {bytes}", data.len());
        if let Some(manifest) = read {
            let folder = copy.parent().unwrap();
            std::fs::write(copy, serde_json::to_string(&manifest).unwrap()).unwrap();
            assert!(Manifest::read(folder).unwrap() == manifest, "a manifest comes back as another one");
        }
        let open = || Pipeline::builder(room.path()).device(DeviceChoice::Cpu).precision(Precision::F32).open();
        let (opened, bytes) = peak(|| checked(open()));
        assert!(bytes <= (64 << 20) + 256 * data.len(), "a folder of a manifest of {} bytes took {bytes}", data.len());
        if let Some(pipeline) = opened
            && checked(pipeline.validate(&Request::new("a cat"))).is_some()
        {
            checked(pipeline.plan(&Request::new("a cat"))).expect("a request that was accepted has a plan");
        }
    });
}
