//! Published folders that are replaced while a pipeline is open.

use std::path::{Path, PathBuf};

use ediffi::{Error, Request, Result, SigmaInterval, Worker};
use ediffi_core::folders;
use tempfile::TempDir;

use super::{PROMPT, builder, bytes, change_weights, copy, fixture};

/// Copies of published stages in a folder of a test.
struct Room(TempDir);

impl Room {
    /// Stage I twice, and stage II.
    fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        for (from, to) in [("stage-1", "IF-I"), ("stage-1", "IF-I-L"), ("stage-2", "IF-II")] {
            copy(&fixture(from), &room.path(to));
        }
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a copy of the folder with a weaker network in its place.
    fn replace(&self, name: &str) {
        let path = self.path(name);
        let write = |new: &Path| {
            copy(&path, new);
            let weights = ["fp16.safetensors", "safetensors"].map(|end| format!("unet/diffusion_pytorch_model.{end}"));
            let weights = weights.iter().map(|name| new.join(name)).find(|path| path.is_file());
            change_weights(&weights.unwrap(), |name, x| match name {
                "conv_out.weight" => x * 0.5,
                _ => x.shallow_clone(),
            });
            Ok::<_, ediffi_core::Error>(())
        };
        folders::replace(&path, write).unwrap();
    }
}

/// Whether the error says that this folder was replaced.
fn refuses<T>(result: Result<T>, folder: &Path) -> bool {
    let mut said = String::new();
    let error = result.err();
    let mut cause = error.as_ref().map(|error| error as &dyn std::error::Error);
    while let Some(error) = cause {
        said.push_str(&format!("{error}: "));
        cause = error.source();
    }
    said.contains(&format!("{} was replaced since it was opened", folder.display()))
}

/// Base, expert and second stage: each of them is watched, and what is in memory goes on.
#[test]
fn nothing_of_a_new_folder_is_loaded_into_an_old_pipeline() {
    for name in ["IF-I", "IF-I-L", "IF-II"] {
        let room = Room::new();
        let above = SigmaInterval::new(1.0, f64::INFINITY).unwrap();
        let builder = || builder(&room.path("IF-I")).expert(above, room.path("IF-I-L")).stage(room.path("IF-II"));
        let request = Request::new(PROMPT).steps("base", 4).steps("sr-32", 2);
        let cold = builder().open().unwrap();
        let warm = builder().keep_encoders(true).residency(ediffi::Residency::All).open().unwrap();
        let drawn = bytes(&warm.generate(&request).unwrap());
        let embeddings = warm.encode(&request).unwrap();
        room.replace(name);
        let there = room.path(name);
        assert!(refuses(cold.encode(&request), &there), "encoders");
        assert!(refuses(cold.provenance(&request), &there), "digests");
        assert!(refuses(cold.sample(&embeddings, &request), &there), "digests, before a network");
        assert_eq!(bytes(&warm.generate(&request).unwrap()), drawn, "what is in memory");
        warm.release().unwrap();
        assert!(refuses(warm.generate(&request), &there), "encoders that were dropped");
        // It has looked at encoders and weights before.
        assert!(refuses(warm.sample(&embeddings, &request), &there), "networks that were dropped");
        // The new folder is another model.
        assert_ne!(bytes(&builder().open().unwrap().generate(&request).unwrap()), drawn, "{name}");
    }
}

/// The tokenizer alone, which the check of a request opens.
#[test]
fn a_request_is_not_checked_by_a_new_tokenizer() {
    let room = Room::new();
    let cold = builder(&room.path("IF-I")).open().unwrap();
    room.replace("IF-I");
    assert!(refuses(cold.validate(&Request::new(PROMPT)), &room.path("IF-I")));
    builder(&room.path("IF-I")).open().unwrap().validate(&Request::new(PROMPT)).unwrap();
}

/// The manifests of both name the second stage alike.
#[test]
fn pipelines_with_another_folder_of_one_name_share_no_queue() {
    let (room, other) = (Room::new(), Room::new());
    let open = |room: &Room| builder(&fixture("stage-1")).stage(room.path("IF-II")).open().unwrap();
    assert!(Worker::over([open(&room), open(&other)], 1).is_ok());
    other.replace("IF-II");
    let error = Worker::over([open(&room), open(&other)], 1).unwrap_err();
    assert!(matches!(error, Error::WorkerPipelinesDiffer("weights")), "{error}");
}
