//! A model folder that is replaced while a pipeline is open.

use std::path::Path;

use ediffi::{Error, Request};
use ediffi_core::folders;

use crate::model::{Model, apple, bytes};

/// Puts a copy of `with` in the place of `model`'s folder.
fn replace(model: &Model, with: &Model) {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let write = |new: &Path| {
        copy(with.path(), new);
        Ok::<_, ediffi_core::Error>(())
    };
    folders::replace(model.path(), write).unwrap();
}

fn was_replaced(error: &Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("was replaced since it was opened") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Both models fit the manifest that was read: nothing but the folder tells them apart.
#[test]
fn nothing_of_a_new_model_is_loaded_into_an_old_pipeline() {
    let (model, other) = (Model::new(), Model::new());
    std::fs::copy(other.path().join("base/low.safetensors"), other.path().join("base/high.safetensors")).unwrap();
    let (cold, request) = (model.open(), apple());
    let embeddings = cold.encode(&request).unwrap();
    let warm = model.builder().keep_encoders(true).open().unwrap();
    let drawn = bytes(&warm.generate(&request).unwrap());
    replace(&model, &other);
    // Neither encoders, nor experts, nor digests.
    let error = cold.generate(&Request::new("a cat")).unwrap_err();
    assert!(was_replaced(&error), "{error}");
    let error = cold.sample(&embeddings, &request).unwrap_err();
    assert!(was_replaced(&error), "{error}");
    let error = cold.provenance(&request).unwrap_err();
    assert!(was_replaced(&error), "{error}");
    // What is in memory goes on.
    assert_eq!(bytes(&warm.generate(&request).unwrap()), drawn);
    warm.release().unwrap();
    assert!(was_replaced(&warm.generate(&request).unwrap_err()));
    assert_ne!(bytes(&model.open().generate(&request).unwrap()), drawn);
}
