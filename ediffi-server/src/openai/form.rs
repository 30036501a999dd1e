//! The forms in which pictures are sent.

use axum::body::Bytes;
use axum::extract::Multipart;

use super::answer::Refused;
use crate::fields::{Fields, Wrong, brief};

/// The most pictures of one form.
const PICTURES: usize = 16;

/// The most fields that hold no picture.
const TEXTS: usize = 64;

/// A form that was read.
#[derive(Debug)]
pub(super) struct Form {
    /// All fields that hold no picture.
    pub(super) fields: Fields,
    /// The pictures, one at least, in their order.
    pub(super) pictures: Vec<Bytes>,
    pub(super) mask: Option<Bytes>,
}

impl Form {
    pub(super) async fn read(mut form: Multipart) -> Result<Self, Refused> {
        let (mut texts, mut pictures, mut mask) = (Vec::new(), Vec::new(), None);
        while let Some(part) = form.next_field().await? {
            let name = part.name().unwrap_or_default().to_owned();
            match name.as_str() {
                // Clients send many as `image[]`, or numbered.
                "image" => pictures.push(part.bytes().await?),
                many if many.starts_with("image[") => pictures.push(part.bytes().await?),
                "mask" => mask = Some(part.bytes().await?),
                _ => {
                    let text = part.text().await?;
                    if texts.iter().any(|(other, _)| *other == name) {
                        let message = format!("`{}` stands twice in the form", brief(&name));
                        return Err(Wrong::value(&name, message).into());
                    }
                    texts.push((name, text));
                }
            }
            if pictures.len() > PICTURES {
                return Err(Wrong::value("image", format!("there are more than {PICTURES} pictures")).into());
            }
            if texts.len() > TEXTS {
                return Err(Wrong::body(format!("the form has more than {TEXTS} fields")).into());
            }
        }
        if pictures.is_empty() {
            return Err(Wrong::missing("image").into());
        }
        // A client that sends a nested value as such would have lost its types.
        if let Some((name, _)) = texts.iter().find(|(name, _)| name.starts_with("ediffi[")) {
            let message = "in a form, `ediffi` is the text of a JSON object";
            return Err(Wrong::value(name, message).into());
        }
        Ok(Self { fields: Fields::of_form(texts)?, pictures, mask })
    }
}
