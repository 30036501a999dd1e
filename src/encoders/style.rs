//! The style of a request: the mean of what CLIP sees in its pictures.

use ediffi_encoders::{Clip, Fingerprint};

use super::seen_style::{Eye, has_pictures, style_of};
use super::{EncoderSet, LoadedEncoders};
use crate::lazy::{get_or_load, get_or_make};
use crate::style::{StyleReference, StyleSource};
use crate::validate::NO_STYLE_ENCODER;
use crate::{Error, Problem, Result, StyleEmbedding};

impl EncoderSet {
    /// The style embeddings that another CLIP than the model's has made. Nothing is loaded for it.
    pub(crate) fn foreign_styles(&self, references: Option<&[StyleReference]>) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for reference in references.unwrap_or_default() {
            let StyleSource::Embedding(embedding) = &reference.source else { continue };
            let Some((own, width)) = self.style_encoder()? else { continue };
            let values = embedding.values().len();
            if embedding.fingerprint() != own.digest() || i64::try_from(values) != Ok(width) {
                let (made_by, wanted) = (embedding.made_by(), own.to_string());
                problems.push(Problem::StyleOfAnother { values, made_by, wanted, width });
            }
        }
        Ok(problems)
    }

    /// The fingerprint of the CLIP that makes styles, and the width of its space; none of a model without one. It is that of the text half, also
    /// where the halves are files of their own.
    fn style_encoder(&self) -> Result<Option<(&Fingerprint, i64)>> {
        let of = |make: &dyn Fn() -> ediffi_encoders::Result<Fingerprint>| {
            get_or_make(&self.clip_fingerprint, || self.own(make()))
        };
        match (&self.clip, &self.vision, self.latent.first().and_then(|text| text.encoders.first())) {
            (Some((folder, config)), ..) => Ok(Some((of(&|| Clip::fingerprint(folder, None))?, config.projection_dim))),
            (None, Some(vision), Some(text)) => Ok(Some((of(&|| text.fingerprint())?, vision.projection))),
            _ => Ok(None),
        }
    }

    /// The mean of references that were checked.
    pub(crate) fn encode_style(
        &self,
        loaded: &mut LoadedEncoders,
        keep: bool,
        references: &[StyleReference],
    ) -> Result<StyleEmbedding> {
        let Some((own, _)) = self.style_encoder()? else {
            return Err(Error::InvalidRequest { problems: vec![Problem::Style(NO_STYLE_ENCODER)] });
        };
        let looks = has_pictures(references);
        let eye = match (&self.clip, &self.vision) {
            _ if !looks => None,
            (Some((folder, _)), _) => {
                Some(Eye::Clip(get_or_load(&mut loaded.clip, || self.own(Clip::open(folder, self.runtime)))?))
            }
            (None, Some(files)) => {
                Some(Eye::Vision(get_or_load(&mut loaded.vision, || self.own(files.load(self.runtime)))?))
            }
            (None, None) => None,
        };
        let mean = style_of(references, eye)?;
        if !keep {
            (loaded.clip, loaded.vision) = (None, None);
        }
        let values = mean.as_ref().map(StyleEmbedding::values_of).transpose()?.unwrap_or_default();
        Ok(StyleEmbedding::new(values, own.name(), own.digest()))
    }
}
