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

    /// What sample `index` is called where it lies, for messages: a path, or a shard and a key.
    fn name(&self, index: usize) -> String {
        format!("number {index}")
    }

    /// What is said of the picture of sample `index`; whether the picture can be read does not matter to data sets that know captions alone.
    ///
    /// # Errors
    /// As [`Dataset::sample`].
    fn caption(&self, index: usize) -> Result<String> {
        Ok(self.sample(index)?.caption)
    }

    /// Height and width of the upright picture of sample `index`; data sets that can tell by its first bytes do not decode it.
    ///
    /// # Errors
    /// As [`Dataset::sample`].
    fn size(&self, index: usize) -> Result<(u32, u32)> {
        let sample = self.sample(index)?;
        Ok((sample.height, sample.width))
    }

    /// Which data this is: equal for equal data, wherever they lie. A run that is resumed compares it.
    fn fingerprint(&self) -> String;
}
