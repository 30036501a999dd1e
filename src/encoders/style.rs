//! The style of a request: the mean of what CLIP sees in its pictures.

use ediffi_encoders::Clip;

use super::seen_style::{has_pictures, style_of};
use super::{EncoderSet, LoadedEncoders};
use crate::lazy::{get_or_load, get_or_make};
use crate::style::{StyleReference, StyleSource};
use crate::validate::NO_STYLE_ENCODER;
use crate::{Error, Problem, Result, StyleEmbedding};

impl EncoderSet {
    /// The style embeddings that another CLIP than the model's has made. Nothing is loaded for it.
    pub(crate) fn foreign_styles(&self, references: Option<&[StyleReference]>) -> Result<Vec<Problem>> {
        let Some((folder, config)) = &self.clip else { return Ok(Vec::new()) };
        let mut problems = Vec::new();
        for reference in references.unwrap_or_default() {
            let StyleSource::Embedding(embedding) = &reference.source else { continue };
            let own = get_or_make(&self.clip_fingerprint, || self.own(Clip::fingerprint(folder, None)))?;
            let (values, width) = (embedding.values().len(), config.projection_dim);
            if embedding.fingerprint() != own.digest() || i64::try_from(values) != Ok(width) {
                let (made_by, wanted) = (embedding.made_by(), own.to_string());
                problems.push(Problem::StyleOfAnother { values, made_by, wanted, width });
            }
        }
        Ok(problems)
    }

    /// The mean of references that were checked.
    pub(crate) fn encode_style(
        &self,
        loaded: &mut LoadedEncoders,
        keep: bool,
        references: &[StyleReference],
    ) -> Result<StyleEmbedding> {
        let Some((folder, _)) = &self.clip else {
            return Err(Error::InvalidRequest { problems: vec![Problem::Style(NO_STYLE_ENCODER)] });
        };
        let own = get_or_make(&self.clip_fingerprint, || self.own(Clip::fingerprint(folder, None)))?;
        if has_pictures(references) {
            get_or_load(&mut loaded.clip, || self.own(Clip::open(folder, self.runtime)))?;
        }
        let mean = style_of(references, loaded.clip.as_ref())?;
        if !keep {
            loaded.clip = None;
        }
        let values = mean.as_ref().map(StyleEmbedding::values_of).transpose()?.unwrap_or_default();
        Ok(StyleEmbedding::new(values, own.name(), own.digest()))
    }
}
