//! Putting the folders of the fixtures together, and spoiling them.

use std::fs;
use std::path::{Path, PathBuf};

use ediffi::{DeviceChoice, Pipeline, PipelineBuilder, Precision, Tensor};

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ediffi-core/tests/fixtures/unclip").join(name)
}

/// What `make.py` put into the archive: the rest of `text`, `variations` and pictures.
pub(super) fn saved() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = fs::File::open(fixture("folders.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(packed)).unpack(folder.path()).unwrap();
    folder
}

/// A folder as diffusers saves it.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    /// Of a model that draws from texts.
    pub(super) fn text() -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture("text"), folder.path());
        copy(&saved().path().join("text"), folder.path());
        copy(&fixture("../stable-diffusion/sd-1/tokenizer"), &folder.path().join("tokenizer"));
        Self(folder)
    }

    /// Of one that varies pictures.
    pub(super) fn variations() -> Self {
        let folder = Self::text();
        for part in ["prior", "prior_scheduler"] {
            fs::remove_dir_all(folder.path().join(part)).unwrap();
        }
        copy(&saved().path().join("variations"), folder.path());
        folder
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces a part of one of its files.
    pub(super) fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    /// Changes every tensor of one of its files of weights.
    pub(super) fn change(&self, part: &str, change: impl Fn(&str, Tensor) -> Option<Tensor>) {
        let path = self.path().join(part).join("diffusion_pytorch_model.safetensors");
        let path = if path.is_file() { path } else { self.path().join(part).join("model.safetensors") };
        let tensors = Tensor::read_safetensors(&path).unwrap().into_iter();
        let changed = tensors.filter_map(|(name, x)| Some((name.clone(), change(&name, x)?)));
        Tensor::write_safetensors(&changed.collect::<Vec<_>>(), &path).unwrap();
    }

    pub(super) fn builder(&self) -> PipelineBuilder {
        Pipeline::builder(self.path()).device(DeviceChoice::Cpu).precision(Precision::F32).keep_floats(true)
    }

    pub(super) fn open(&self) -> Pipeline {
        self.builder().open().unwrap()
    }

    /// What opening it says.
    pub(super) fn refused(&self) -> String {
        self.builder().open().unwrap_err().to_string()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
