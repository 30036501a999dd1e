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

/// The folder that was replaced, as an error says it.
fn replaced<T>(result: Result<T>) -> Option<PathBuf> {
    let error = result.err()?;
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(found) = cause {
        if let Some(ediffi_core::Error::FolderReplaced(path)) = found.downcast_ref() {
            return Some(path.clone());
        }
        // Some errors are those of the core, and tell its causes alone.
        cause = match found.downcast_ref() {
            Some(Error::Core(core)) => Some(core),
            _ => std::error::Error::source(found),
        };
    }
    panic!("another error: {error:?}")
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
        let there = Some(room.path(name));
        assert_eq!(replaced(cold.encode(&request)), there, "encoders");
        assert_eq!(replaced(cold.sample(&embeddings, &request)), there, "networks");
        assert_eq!(replaced(cold.provenance(&request)), there, "digests");
        assert_eq!(bytes(&warm.generate(&request).unwrap()), drawn, "what is in memory");
        warm.release().unwrap();
        assert_eq!(replaced(warm.generate(&request)), there, "what was dropped");
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
    assert_eq!(replaced(cold.validate(&Request::new(PROMPT))), Some(room.path("IF-I")));
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
