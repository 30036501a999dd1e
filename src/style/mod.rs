//! The style of a request: pictures, or embeddings of them, and how much of their style to take.

mod embedding;
mod image;
mod mean;

use serde::{Deserialize, Serialize};

pub use embedding::StyleEmbedding;
pub use image::{STYLE_SIDE, StyleImage};
pub(crate) use mean::mean;

/// The style of a picture, and how much of it to take (eDiff-I, section 4.4).
///
/// ```no_run
/// use ediffi::{Request, Style, StyleImage};
///
/// let ink = StyleImage::open("ink.png")?;
/// let flat = StyleImage::open("flat.png")?;
/// let style = Style::mean([(ink, 2.0), (flat, 1.0)]).strength(0.8);
/// let request = Request::new("a red apple").style(style);
/// # Ok::<(), ediffi::Error>(())
/// ```
///
/// In JSON: `{"references": [{"image": "BASE64", "weight": 2.0}, {"embedding": {..}}], "strength": 0.8}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
#[must_use]
pub struct Style {
    /// Where the style comes from: at least one. The network sees the mean of their embeddings under
    /// their weights, brought to the mean of their lengths: embeddings that point in different directions have a mean that
    /// is shorter than any of them, and would be a weaker style. A single reference is taken as it is.
    pub references: Vec<StyleReference>,
    /// How much of the style to take: 1 as in training, 0 none, more than 1 exaggerates. It scales the image embedding, whose
    /// zeros mean no style; at most [`MAX_STRENGTH`](crate::MAX_STRENGTH). The paper has no such setting.
    #[serde(default = "whole")]
    pub strength: f64,
}

/// One source of a style, and its share in the mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
#[non_exhaustive]
pub struct StyleReference {
    /// A picture, or an embedding of one.
    pub source: StyleSource,
    /// Its weight in the mean, at least 0 (default: 1). Weights need not add up to one.
    pub weight: f64,
}

/// What a style can come from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StyleSource {
    /// A picture. The model's CLIP encodes it.
    Image(StyleImage),
    /// An embedding that the model's CLIP made earlier.
    Embedding(StyleEmbedding),
}

fn whole() -> f64 {
    1.0
}

impl Style {
    /// The mean of several pictures or embeddings, each with its weight.
    pub fn mean<S: Into<StyleSource>>(references: impl IntoIterator<Item = (S, f64)>) -> Self {
        let reference = |(source, weight): (S, f64)| StyleReference { source: source.into(), weight };
        Self { references: references.into_iter().map(reference).collect(), strength: whole() }
    }

    /// Adds a picture or an embedding with its weight.
    pub fn and(mut self, source: impl Into<StyleSource>, weight: f64) -> Self {
        self.references.push(StyleReference { source: source.into(), weight });
        self
    }

    /// The style as a stored request keeps it: large pictures scaled down. All are decoded for it. `None` if it is so already.
    ///
    /// # Errors
    /// [`Error::StyleImage`](crate::Error::StyleImage) for damaged pixels.
    pub(crate) fn settled(&self) -> crate::Result<Option<Self>> {
        let mut settled = None;
        for (index, reference) in self.references.iter().enumerate() {
            let StyleSource::Image(image) = &reference.source else { continue };
            let Some(smaller) = image.settled()? else { continue };
            let style: &mut Self = settled.get_or_insert_with(|| self.clone());
            if let Some(reference) = style.references.get_mut(index) {
                reference.source = smaller.into();
            }
        }
        Ok(settled)
    }

    /// Bytes of the files of its pictures together.
    pub(crate) fn bytes(&self) -> usize {
        let of = |reference: &StyleReference| match &reference.source {
            StyleSource::Image(image) => image.length(),
            StyleSource::Embedding(_) => 0,
        };
        self.references.iter().map(of).sum()
    }

    /// Pixels of its pictures together.
    pub(crate) fn pixels(&self) -> u64 {
        let of = |reference: &StyleReference| match &reference.source {
            StyleSource::Image(image) => u64::from(image.width()) * u64::from(image.height()),
            StyleSource::Embedding(_) => 0,
        };
        self.references.iter().map(of).sum()
    }

    /// Sets how much of the style to take: see the field [`strength`](Self::strength).
    pub fn strength(mut self, strength: f64) -> Self {
        self.strength = strength;
        self
    }
}

impl<S: Into<StyleSource>> From<S> for Style {
    fn from(source: S) -> Self {
        Self::mean([(source, 1.0)])
    }
}

impl From<StyleImage> for StyleSource {
    fn from(image: StyleImage) -> Self {
        Self::Image(image)
    }
}

impl From<StyleEmbedding> for StyleSource {
    fn from(embedding: StyleEmbedding) -> Self {
        Self::Embedding(embedding)
    }
}

/// The stored form of a reference.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<StyleImage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    embedding: Option<StyleEmbedding>,
    #[serde(default = "whole")]
    weight: f64,
}

impl From<StyleReference> for Stored {
    fn from(StyleReference { source, weight }: StyleReference) -> Self {
        match source {
            StyleSource::Image(image) => Self { image: Some(image), embedding: None, weight },
            StyleSource::Embedding(embedding) => Self { image: None, embedding: Some(embedding), weight },
        }
    }
}

impl TryFrom<Stored> for StyleReference {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let source = match (stored.image, stored.embedding) {
            (Some(image), None) => image.into(),
            (None, Some(embedding)) => embedding.into(),
            _ => return Err("a style reference has either an `image` or an `embedding`"),
        };
        Ok(Self { source, weight: stored.weight })
    }
}

#[cfg(test)]
mod tests {
    use ::image::RgbImage;

    use super::*;

    fn picture(level: u8) -> StyleImage {
        StyleImage::new(RgbImage::from_pixel(3, 2, ::image::Rgb([level, 8, 7]))).unwrap()
    }

    #[test]
    fn a_style_comes_back_from_json() {
        let embedding = StyleEmbedding::new(vec![0.1, -3e-9, 7.5], "clip", &"ab".repeat(32));
        let style = Style::from(picture(1)).and(picture(2), 0.3).and(embedding, 2.0).strength(1.7);
        let json = serde_json::to_string(&style).unwrap();
        assert_eq!(serde_json::from_str::<Style>(&json).unwrap(), style, "{json}");
        assert_eq!(style.references.iter().map(|reference| reference.weight).collect::<Vec<_>>(), [1.0, 0.3, 2.0]);
    }

    #[test]
    fn a_reference_has_one_source() {
        let image = serde_json::to_value(picture(1)).unwrap();
        let read = |json: serde_json::Value| serde_json::from_value::<Style>(json).map_err(|error| error.to_string());
        let short = read(serde_json::json!({ "references": [{ "image": image }] })).unwrap();
        assert_eq!(short, Style::from(picture(1)));
        let none = read(serde_json::json!({ "references": [{ "weight": 2 }] })).unwrap_err();
        assert!(none.contains("either an `image` or an `embedding`"), "{none}");
        let unknown = read(serde_json::json!({ "references": [{ "image": image, "hue": 1 }] })).unwrap_err();
        assert!(unknown.contains("hue"), "{unknown}");
    }
}
