//! A last enlargement by one evaluation of a plain convolutional network: Real-ESRGAN's (Wang et al. 2021).
//!
//! It draws nothing new, as a stage does, but takes a second where a stage takes minutes; and there are published weights for
//! it under a free licence, where the pixels of DeepFloyd IF end at 256.

mod networks;

use std::path::{Path, PathBuf};

use ediffi_core::denoiser::is_finite;
use ediffi_core::runtime::Runtime;
use ediffi_core::weights::{self, Table, WeightsFile};
use tch::{Kind, Tensor};

use networks::{Dimensions, Network};

use crate::observer::{Batch, StageEvent, Watch};
use crate::tiled::TileGrid;
use crate::tiling::Tiling;
use crate::{Error, Result};

/// A network that makes finished pictures larger. It is loaded when it is first needed.
#[derive(Debug)]
pub struct Enlarger {
    path: PathBuf,
    dimensions: Dimensions,
    runtime: Runtime,
    tiling: Tiling,
    network: Option<Network>,
}

impl Enlarger {
    /// How pictures are cut unless [`Enlarger::with_tiling`] says otherwise: those of 1024 pixels square into four tiles, those
    /// of up to 592 not at all.
    ///
    /// Tiles see 40 pixels more than is used of them. Real-ESRGAN's compact networks, of up to 34 convolutions, look no
    /// further, so for them tiles are the whole picture to rounding. Its `RRDBNet` looks further, but hardly: its own program
    /// gives tiles a margin of 10 (`inference_realesrgan.py`, `tile_pad`).
    pub const TILING: Tiling = Tiling { tile: 592, overlap: 160 };

    /// Channels of its pictures.
    pub(crate) const CHANNELS: i64 = 3;

    /// Opens a network of Real-ESRGAN, a safetensors file with the names that its own code gives to the tensors. Which of
    /// the two architectures it is, and its dimensions, are seen from names and shapes; no tensor is read.
    ///
    /// # Errors
    /// [`Error::Enlarger`] for a file that holds neither; an error of the core for one that cannot be read or has tensors
    /// missing.
    pub fn open(path: &Path, runtime: Runtime) -> Result<Self> {
        let file = WeightsFile::open(path, own_name)?;
        let Some(dimensions) = Dimensions::of(&file) else {
            let reason = format!("{} is neither an SRVGGNetCompact nor an RRDBNet of RGB pictures", path.display());
            return Err(Error::Enlarger(reason));
        };
        file.check(&Table::of(|scope| Network::new(scope, dimensions))?)?;
        tracing::debug!(file = %path.display(), ?dimensions, "opened an enlarger");
        Ok(Self { path: path.to_owned(), dimensions, runtime, tiling: Self::TILING, network: None })
    }

    /// Cuts pictures that are larger than a tile.
    ///
    /// # Errors
    /// [`Error::Enlarger`] for tiles without pixels or with too much overlap.
    pub fn with_tiling(mut self, tiling: Tiling) -> Result<Self> {
        tiling.check(1).map_err(|error| Error::Enlarger(error.to_string()))?;
        self.tiling = tiling;
        Ok(self)
    }

    /// How many times as wide and as high pictures become.
    #[must_use]
    pub fn scale(&self) -> i64 {
        self.dimensions.scale()
    }

    /// Whether the network is in memory.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.network.is_some()
    }

    /// Drops the network from memory; it is loaded again when it is next needed.
    pub fn release(&mut self) {
        self.network = None;
    }

    /// Makes pictures larger.
    ///
    /// # Shapes
    /// `x`: [n, 3, h, w] in [-1, 1] → [n, 3, scale h, scale w] f32 in [-1, 1], on the network's device
    ///
    /// # Errors
    /// [`Error::Enlarger`] for a picture that comes out with a NaN; a file that cannot be read; an error of libtorch.
    pub fn enlarge(&mut self, x: &Tensor) -> Result<Tensor> {
        self.enlarge_batch(x, &Watch::new("enlarger", Batch::ONLY, &mut ()))
    }

    /// Into how many tiles a picture is cut.
    pub(crate) fn tiles(&self, height: i64, width: i64) -> Result<usize> {
        Ok(self.grid(height, width)?.len())
    }

    /// As [`enlarge`](Self::enlarge), watched.
    pub(crate) fn enlarge_batch(&mut self, x: &Tensor, watch: &Watch<'_>) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let x = self.to_device(x)?;
        let (_, _, height, width) = x.size4().map_err(ediffi_core::Error::from)?;
        let grid = self.grid(height, width)?;
        let (kind, scale, tiles, mut index) = (self.runtime.kind, self.scale(), grid.len(), 0);
        let network = self.network()?;
        let enlarged = grid.evaluate(&x, scale, |tile, _| {
            watch.poll()?;
            let enlarged = network.enlarge(tile, kind)?;
            watch.report(&StageEvent::TileEnlarged { batch: watch.batch, index, tiles })?;
            index += 1;
            Ok(enlarged)
        })?;
        if is_finite(&enlarged)? {
            return Ok(enlarged);
        }
        let reason = "the enlarged picture holds a NaN or an infinity; in f16 that may be an overflow".to_owned();
        Err(Error::Enlarger(reason))
    }

    fn grid(&self, height: i64, width: i64) -> Result<TileGrid> {
        TileGrid::new(self.tiling, height, width, 1).map_err(|error| Error::Enlarger(error.to_string()))
    }

    fn to_device(&self, x: &Tensor) -> ediffi_core::Result<Tensor> {
        Ok(x.f_to_device(self.runtime.device)?.f_to_kind(Kind::Float)?)
    }

    fn network(&mut self) -> ediffi_core::Result<&Network> {
        let network = match self.network.take() {
            Some(network) => network,
            None => {
                let Runtime { device, kind } = self.runtime;
                weights::load(&self.path, own_name, device, kind, |scope| Network::new(scope, self.dimensions))?
            }
        };
        Ok(self.network.insert(network))
    }
}

fn own_name(name: &str) -> Option<String> {
    Some(name.to_owned())
}

impl Network {
    /// One evaluation in the precision `kind`, of pixels from -1 to 1.
    fn enlarge(&self, x: &Tensor, kind: Kind) -> ediffi_core::Result<Tensor> {
        // The networks see pixels from 0 to 1.
        let pixels = x.f_mul_scalar(0.5)?.f_add_scalar(0.5)?.f_clamp(0.0, 1.0)?;
        let enlarged = self.forward(&pixels.f_to_kind(kind)?)?.f_to_kind(Kind::Float)?;
        Ok(enlarged.f_clamp(0.0, 1.0)?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use ediffi_core::noise::NoiseSource;
    use ediffi_core::seed::Noise;
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
            let mut enlarger = Enlarger::open(&fixture(&format!("{name}.safetensors")), CPU).unwrap();
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

    /// The compact fixtures have at most four convolutions and look four pixels far, the dense one 19: 17 before it enlarges,
    /// and less than two after that.
    #[test]
    fn tiles_are_the_whole_where_the_network_looks_no_further() {
        let x = Noise::new(&[1, 2], 0).normal(&[2, 3, 100, 70]).unwrap().tanh();
        for (name, reach, tile) in [("compact", 4, 32), ("compact-2", 3, 25), ("rrdb", 19, 90)] {
            let enlarge = |tile, overlap| {
                let enlarger = Enlarger::open(&fixture(&format!("{name}.safetensors")), CPU).unwrap();
                enlarger.with_tiling(Tiling { tile, overlap }).unwrap().enlarge(&x).unwrap()
            };
            let difference = |a: &Tensor, b: &Tensor| f64::try_from((a - b).abs().max()).unwrap();
            let whole = enlarge(100, 0);
            assert!(difference(&whole, &enlarge(tile, 4 * reach)) < 1e-5, "{name}");
            // A margin of one pixel shows the edges of the tiles.
            assert!(difference(&whole, &enlarge(tile, 4)) > 1e-4, "{name}");
        }
    }

    /// A flag that is set after any number of looks stops the network there, in the middle of a tile.
    #[test]
    fn a_cancel_is_seen_before_every_convolution() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};

        let x = Noise::new(&[1], 0).normal(&[1, 3, 8, 8]).unwrap().tanh();
        for (name, convolutions) in [("compact", 4), ("rrdb", 20)] {
            let mut enlarger = Enlarger::open(&fixture(&format!("{name}.safetensors")), CPU).unwrap();
            let _ = enlarger.enlarge(&x).unwrap();
            let mut enlarged_after = |looks: usize| {
                let seen = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&seen);
                let watched = ediffi_core::interrupt::watch_if(move || count.fetch_add(1, Ordering::Relaxed) >= looks);
                let enlarged = enlarger.enlarge(&x);
                drop(watched);
                (enlarged, seen.load(Ordering::Relaxed))
            };
            let (whole, looks) = enlarged_after(usize::MAX);
            assert!(whole.is_ok() && looks >= convolutions, "{name}: {looks}");
            for looks in 0..looks {
                assert!(matches!(enlarged_after(looks), (Err(Error::Cancelled), seen) if seen == looks + 1));
            }
        }
    }

    #[test]
    fn tiles_that_make_no_sense_are_refused() {
        let with = |tile, overlap| {
            let enlarger = Enlarger::open(&fixture("compact.safetensors"), CPU).unwrap();
            enlarger.with_tiling(Tiling { tile, overlap }).unwrap_err().to_string()
        };
        assert_eq!(with(0, 0), "enlarger: the side of a tile is 0");
        assert!(with(8, 8).contains("the overlap must be smaller"));
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
