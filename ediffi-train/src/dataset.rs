//! Captioned pictures, one by one.

use crate::Result;

/// A picture and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The picture, row by row, three bytes a pixel: red, green and blue in sRGB.
    pub pixels: Vec<u8>,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// What is said of it. It may be empty.
    pub caption: String,
}

/// Captioned pictures that have numbers.
pub trait Dataset: Send + Sync {
    /// How many samples there are, broken ones included.
    fn len(&self) -> usize;

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `index`, from 0, with its picture decoded and upright. The same number gives the same sample, always.
    ///
    /// # Errors
    /// A sample that cannot be read, by its name; a number that is too large.
    fn sample(&self, index: usize) -> Result<Sample>;

    /// Which data this is: equal for equal data, wherever they lie. A run that is resumed compares it.
    fn fingerprint(&self) -> String;
}
