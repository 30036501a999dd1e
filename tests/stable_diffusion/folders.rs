//! Putting the folders of the fixtures together, and spoiling them.

use std::fs;
use std::path::{Path, PathBuf};

use ediffi::{DeviceChoice, Pipeline, PipelineBuilder, Precision, Tensor};

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ediffi-core/tests/fixtures/stable-diffusion").join(name)
}

/// What `folders.py` made, unpacked: folders without networks, samplers and pictures.
pub(super) fn saved() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = fs::File::open(fixture("folders.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(packed)).unpack(folder.path()).unwrap();
    // Other tests read it where it is.
    copy(&fixture("sd-1"), &folder.path().join("sd-1"));
    folder
}

/// A folder as diffusers saves it: of these networks, of which several folders have the same.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new(name: &str, unet: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&saved().path().join(name), folder.path());
        for (part, network) in [("unet", unet), ("vae", "vae")] {
            let part = folder.path().join(part);
            fs::create_dir_all(&part).unwrap();
            fs::copy(fixture(network).join("config.json"), part.join("config.json")).unwrap();
            let weights = part.join("diffusion_pytorch_model.safetensors");
            fs::copy(fixture(network).join("weights.safetensors"), weights).unwrap();
        }
        Self(folder)
    }

    /// SDXL's base.
    pub(super) fn base() -> Self {
        Self::new("xl-base", "unet-xl").tokenizers(&[("sd-1", "tokenizer"), ("sd-2", "tokenizer_2")])
    }

    /// SDXL's refiner.
    pub(super) fn refiner() -> Self {
        Self::new("xl-refiner", "unet-refiner").tokenizers(&[("sd-2", "tokenizer_2")])
    }

    /// With the tokenizers of other folders.
    fn tokenizers(self, from: &[(&str, &str)]) -> Self {
        let saved = saved();
        for (name, part) in from {
            copy(&saved.path().join(name).join("tokenizer"), &self.path().join(part));
        }
        self
    }

    /// Stable Diffusion 1.
    pub(super) fn first() -> Self {
        Self::new("sd-1", "unet-1")
    }

    /// Stable Diffusion 2.
    pub(super) fn second() -> Self {
        Self::new("sd-2", "unet-2")
    }

    /// With the sampler of another file.
    pub(super) fn sampler(self, name: &str) -> Self {
        let file = format!("schedulers/{name}.json");
        fs::copy(saved().path().join(file), self.path().join("scheduler/scheduler_config.json")).unwrap();
        self
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Copies a part of another folder.
    pub(super) fn add_part(&self, part: &str, other: &Self, of: &str) {
        copy(&other.path().join(of), &self.path().join(part));
    }

    /// Replaces a part of one of its files.
    pub(super) fn replace(&self, file: &str, from: &str, to: &str) {
        let path = self.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }

    /// Changes every tensor of one of its files of weights.
    pub(super) fn change(&self, file: &str, change: impl Fn(&str, Tensor) -> Tensor) {
        let path = self.path().join(file);
        let tensors = Tensor::read_safetensors(&path).unwrap().into_iter();
        let changed: Vec<(String, Tensor)> = tensors.map(|(name, x)| (name.clone(), change(&name, x))).collect();
        Tensor::write_safetensors(&changed, &path).unwrap();
    }

    /// Puts a copy in the place of the whole folder.
    pub(super) fn exchange(&self) {
        let copied = |new: &Path| {
            copy(self.path(), new);
            Ok::<_, ediffi_core::Error>(())
        };
        ediffi_core::folders::replace(self.path(), copied).unwrap();
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
