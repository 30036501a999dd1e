//! The frozen encoders of a plan: where they are, whether they fit the networks, and what they make of captions.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ediffi::Manifest;
use ediffi_core::conditioning::Conditioning;
use ediffi_core::files::path_inside;
use ediffi_core::runtime::Runtime;
use ediffi_core::unet::EmbeddingShapes;
use ediffi_encoders::{Clip, T5};
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::error::wrong;
use crate::plan::{EncoderPlan, OWN_T5};
use crate::start::model_folder;

/// The most memory that encoded captions are kept in, in bytes. More of them belong into files: `--embeddings`.
const KEPT: usize = 1 << 30;

/// The folders of the encoders.
#[derive(Debug, Clone, Default)]
pub(crate) struct EncoderPaths {
    pub(crate) t5: Option<PathBuf>,
    pub(crate) clip: Option<PathBuf>,
    /// The width of the T5 that the plan trains.
    own: Option<i64>,
}

impl EncoderPaths {
    /// Those of a plan that is trained in `run`.
    pub(crate) fn of(plan: &EncoderPlan, run: &Path) -> Result<Self> {
        if let Some(model) = &plan.model {
            let folder = model_folder(model)?;
            let encoders = Manifest::read(&folder)?.encoders;
            let inside = |path: Option<PathBuf>| path.map(|path| path_inside(&folder, &path)).transpose();
            return Ok(Self { t5: inside(encoders.t5)?, clip: inside(encoders.clip)?, own: None });
        }
        let own = plan.own.as_ref().map(|own| own.width);
        let t5 = own.map(|_| run.join(OWN_T5)).or_else(|| plan.t5.clone());
        Ok(Self { t5, clip: plan.clip.clone(), own })
    }

    /// Those that networks which take `needs` have a use for.
    pub(crate) fn needed(self, needs: &EmbeddingShapes) -> Self {
        let Self { t5, clip, own } = self;
        let clip_is_needed = needs.clip_text.is_some() || needs.clip_image.is_some();
        Self { t5: t5.filter(|_| needs.t5.is_some()), clip: clip.filter(|_| clip_is_needed), own }
    }

    /// Refuses encoders whose embeddings are of another width than the networks take, and networks that take what no encoder gives.
    /// Configurations are read, weights are not.
    pub(crate) fn check(&self, needs: &EmbeddingShapes) -> Result<()> {
        let fits = |what: &str, got: i64, taken: i64| {
            if got == taken {
                return Ok(());
            }
            wrong("encoders", format!("the {what} is {got}, the networks take {taken}"))
        };
        if let Some(t5) = needs.t5 {
            let width = match (&self.t5, self.own) {
                (_, Some(width)) => width,
                (Some(folder), None) => T5::read_config(folder)?.d_model,
                (None, None) => return wrong("encoders", "the networks take T5, and the plan names none"),
            };
            fits("width of T5", width, t5.width)?;
        }
        if needs.clip_text.is_none() && needs.clip_image.is_none() {
            return Ok(());
        }
        let Some(folder) = &self.clip else {
            return wrong("encoders", "the networks take CLIP, and the plan names none");
        };
        let config = Clip::read_config(folder)?;
        if let Some(text) = needs.clip_text {
            fits("width of CLIP's text", config.text_config.hidden_size, text.width)?;
            text.pooled.map_or(Ok(()), |pooled| fits("projection of CLIP", config.projection_dim, pooled))?;
        }
        if let Some(image) = needs.clip_image {
            fits("projection of CLIP", config.projection_dim, image)?;
            if config.vision_config.is_none() {
                return wrong("encoders", "the networks take pictures of CLIP, which has no image tower");
            }
        }
        Ok(())
    }

    /// What tells these encoders from others, by name.
    pub(crate) fn fingerprints(&self) -> Result<Vec<(&'static str, String)>> {
        let t5 = self.t5.as_ref().map(|folder| Ok(("t5", T5::fingerprint(folder, None)?.digest().to_owned())));
        let clip = self.clip.as_ref().map(|folder| Ok(("clip", Clip::fingerprint(folder, None)?.digest().to_owned())));
        t5.into_iter().chain(clip).collect()
    }
}

/// The encoders in memory, and what they made of the last captions.
#[derive(Debug)]
pub(crate) struct Texts {
    t5: Option<T5>,
    clip: Option<Clip>,
    needs: EmbeddingShapes,
    kept: HashMap<String, Conditioning>,
    bytes: usize,
}

impl Texts {
    /// Loads the encoders for networks that take `needs`.
    pub(crate) fn open(paths: &EncoderPaths, needs: EmbeddingShapes, runtime: Runtime) -> Result<Self> {
        let t5 = paths.t5.as_ref().map(|folder| T5::open(folder, runtime)).transpose()?;
        let clip = paths.clip.as_ref().map(|folder| Clip::open(folder, runtime)).transpose()?;
        Ok(Self { t5, clip, needs, kept: HashMap::new(), bytes: 0 })
    }

    /// The embeddings of captions, a row each, on the CPU. A blank one has none, as in drawing: zeros in its row.
    pub(crate) fn encode(&mut self, captions: &[&str]) -> Result<Conditioning> {
        for caption in captions {
            if self.kept.contains_key(*caption) {
                continue;
            }
            let row = self.alone(caption)?;
            let bytes = row.named().map(|(_, tensor)| tensor.numel() * 4).sum::<usize>();
            if self.bytes + bytes > KEPT {
                (self.kept, self.bytes) = (HashMap::new(), 0);
            }
            self.bytes += bytes;
            self.kept.insert((*caption).to_owned(), row);
        }
        let mut rows = Vec::with_capacity(captions.len());
        let mut again = Vec::new();
        for caption in captions {
            // One that made room for a later one of this batch.
            if !self.kept.contains_key(*caption) {
                again.push(self.alone(caption)?);
            }
        }
        let mut again = again.iter();
        for caption in captions {
            rows.extend(self.kept.get(*caption).or_else(|| again.next()).map(|row| (row, 1)));
        }
        Ok(Conditioning::gathered(&rows)?)
    }

    /// The embeddings of one caption: [1, ...] each. It is encoded alone, so that it does not depend on the others of its batch.
    pub(crate) fn alone(&self, caption: &str) -> Result<Conditioning> {
        let mut row = Conditioning::default();
        if caption.trim().is_empty() {
            return Ok(row);
        }
        let cpu = |x: &Tensor| x.f_to_device(Device::Cpu);
        if let Some((t5, needed)) = self.t5.as_ref().zip(self.needs.t5) {
            row.t5 = Some(cpu(&t5.encode(&[caption], needed.tokens)?.tokens)?);
        }
        if let Some((clip, needed)) = self.clip.as_ref().zip(self.needs.clip_text) {
            let encoded = clip.encode_text(&[caption], needed.tokens)?;
            row.clip_text = Some(cpu(&encoded.tokens)?);
            row.clip_text_pooled = needed.pooled.map(|_| cpu(&encoded.pooled)).transpose()?;
        }
        Ok(row)
    }

    /// CLIP's embeddings of the rows of `pictures` that `seen` names; zeros in the other rows.
    ///
    /// # Shapes
    /// `pictures`: [n, 3, h, w] in [-1, 1] → [n, projection] f32
    pub(crate) fn pictures(&self, pictures: &Tensor, seen: &[i64]) -> Result<Option<Tensor>> {
        let Some((clip, width)) = self.clip.as_ref().zip(self.needs.clip_image) else { return Ok(None) };
        let zeros = Tensor::f_zeros([pictures.size4()?.0, width], (Kind::Float, Device::Cpu))?;
        if seen.is_empty() {
            return Ok(Some(zeros));
        }
        let unit = pictures.f_add_scalar(1.0)?.f_div_scalar(2.0)?;
        let rows = seen.iter().map(|&row| Ok(unit.f_select(0, row)?)).collect::<Result<Vec<_>>>()?;
        let embedded = clip.encode_image(&rows)?.f_to_device(Device::Cpu)?;
        Ok(Some(zeros.f_index_copy(0, &Tensor::f_from_slice(seen)?, &embedded)?))
    }
}
