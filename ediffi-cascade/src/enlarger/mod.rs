//! A last enlargement by one evaluation of a plain convolutional network: Real-ESRGAN's (Wang et al. 2021).
//!
//! It draws nothing new, as a stage does, but takes a second where a stage takes minutes; and there are published weights for
//! it under a free licence, where the pixels of DeepFloyd IF end at 256.

mod networks;

use std::path::Path;

use ediffi_core::denoiser::is_finite;
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::WeightsFile;
use tch::{Kind, Tensor};

use networks::{Dimensions, Network};

use crate::{Error, Result};

/// A network that makes finished pictures larger.
#[derive(Debug)]
pub struct Enlarger {
    network: Network,
    dimensions: Dimensions,
    runtime: Runtime,
}

impl Enlarger {
    /// Reads a network of Real-ESRGAN from a safetensors file, with the names that its own code gives to the tensors. Which of
    /// the two architectures it is, and its dimensions, are seen from names and shapes.
    ///
    /// # Errors
    /// [`Error::Enlarger`] for a file that holds neither; an error of the core for one that cannot be read or has tensors
    /// missing.
    pub fn open(path: &Path, runtime: Runtime) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let file = WeightsFile::open(path, |name| Some(name.to_owned()))?;
        let Some(dimensions) = Dimensions::of(&file) else {
            let reason = format!("{} is neither an SRVGGNetCompact nor an RRDBNet of RGB pictures", path.display());
            return Err(Error::Enlarger { reason });
        };
        let network = file.build(runtime.device, runtime.kind, |scope| Network::new(scope, dimensions))?;
        tracing::debug!(file = %path.display(), ?dimensions, "opened an enlarger");
        Ok(Self { network, dimensions, runtime })
    }

    /// How many times as wide and as high pictures become.
    #[must_use]
    pub fn scale(&self) -> i64 {
        self.dimensions.scale()
    }

    /// Makes pictures larger.
    ///
    /// # Shapes
    /// `x`: [n, 3, h, w] in [-1, 1] → [n, 3, scale h, scale w] f32 in [-1, 1], on the network's device
    ///
    /// # Errors
    /// [`Error::Enlarger`] for a picture that comes out with a NaN; an error of libtorch.
    pub fn enlarge(&self, x: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let enlarged = self.run(x)?;
        if is_finite(&enlarged)? {
            return Ok(enlarged);
        }
        let reason = "the enlarged picture holds a NaN or an infinity; in f16 that may be an overflow".to_owned();
        Err(Error::Enlarger { reason })
    }

    fn run(&self, x: &Tensor) -> ediffi_core::Result<Tensor> {
        // The networks see pixels from 0 to 1.
        let x = x.f_to_device(self.runtime.device)?.f_to_kind(Kind::Float)?;
        let pixels = x.f_mul_scalar(0.5)?.f_add_scalar(0.5)?.f_clamp(0.0, 1.0)?;
        let enlarged = self.network.forward(&pixels.f_to_kind(self.runtime.kind)?)?.f_to_kind(Kind::Float)?;
        Ok(enlarged.f_clamp(0.0, 1.0)?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use tch::Device;

    use super::*;

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/enlarger").join(name)
    }

    const CPU: Runtime = Runtime { device: Device::Cpu, kind: Kind::Float };

    /// Tiny random networks of both architectures beside what another implementation computes with them.
    #[test]
    fn both_architectures_are_those_of_the_reference() {
        let io: BTreeMap<String, Tensor> =
            Tensor::read_safetensors(fixture("io.safetensors")).unwrap().into_iter().collect();
        for (name, scale) in [("compact", 4), ("compact-2", 2), ("rrdb", 4)] {
            let enlarger = Enlarger::open(&fixture(&format!("{name}.safetensors")), CPU).unwrap();
            assert_eq!(enlarger.scale(), scale);
            let x = &io["x"] * 2.0 - 1.0;
            let found = enlarger.enlarge(&x).unwrap();
            let expected = io[name].clamp(0.0, 1.0) * 2.0 - 1.0;
            assert_eq!(found.size(), expected.size());
            let worst = f64::try_from((found - expected).abs().max()).unwrap();
            assert!(worst < 1e-5, "{name}: {worst:.1e}");
        }
    }

    /// The real networks, where `cargo xtask enlarger` has fetched them, beside what PyTorch computes with weights that it read
    /// by itself (`real.py`). That and ncnn's own evaluation differ by 8.5e-7 (animevideov3-x4), 7.9e-6 (x4plus-anime) and
    /// 3.4e-6 (x4plus), of pixels from 0 to 1; here they go from -1 to 1.
    #[test]
    fn real_networks_give_what_other_implementations_do() {
        let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.enlarger");
        for name in ["animevideov3-x4", "x4plus-anime", "x4plus"] {
            let path = fetched.join(format!("{name}.safetensors"));
            if !path.is_file() {
                let test = "real_networks_give_what_other_implementations_do";
                writeln!(std::io::stdout(), "skipped: {test}: `cargo xtask enlarger` has not been run").unwrap();
                return;
            }
            let io: BTreeMap<String, Tensor> =
                Tensor::read_safetensors(fixture(&format!("real-{name}.safetensors"))).unwrap().into_iter().collect();
            let found = Enlarger::open(&path, CPU).unwrap().enlarge(&(&io["x"] * 2.0 - 1.0)).unwrap();
            let expected = io["out"].clamp(0.0, 1.0) * 2.0 - 1.0;
            assert_eq!(found.size(), expected.size());
            let worst = f64::try_from((found - expected).abs().max()).unwrap();
            assert!(worst < 2e-5, "{name}: {worst:.1e}");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let write = |named: &[(&str, Tensor)]| Tensor::write_safetensors(named, &path).unwrap();
        let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
        write(&[("body.0.weight", ones(&[4, 1, 3, 3]))]);
        assert!(matches!(Enlarger::open(&path, CPU), Err(Error::Enlarger { .. })));
        let nowhere = Enlarger::open(&fixture("nowhere.safetensors"), CPU).unwrap_err().to_string();
        assert!(nowhere.contains("nowhere.safetensors"), "{nowhere}");
        write(&[("stem.weight", ones(&[4]))]);
        let error = Enlarger::open(&path, CPU).unwrap_err().to_string();
        assert!(error.contains("neither") && error.contains("x.safetensors"), "{error}");
        // One that is begun but not whole names what is missing.
        write(&[("conv_first.weight", ones(&[4, 3, 3, 3])), ("body.0.rdb1.conv1.weight", ones(&[2, 4, 3, 3]))]);
        let error = Enlarger::open(&path, CPU).unwrap_err().to_string();
        assert!(error.contains("missing body.0.rdb1.conv1.bias, body.0.rdb1.conv2.weight"), "{error}");
    }
}
