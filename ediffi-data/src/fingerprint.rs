//! Which data it is.

use sha2::{Digest, Sha256};

/// Names, lengths and captions of samples, in their order.
#[derive(Debug)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Of data of a layout.
    pub(crate) fn new(layout: &str) -> Self {
        let mut new = Self(Sha256::new());
        new.text(layout);
        new
    }

    /// One sample more: its name, the bytes of its picture, and what is said of it.
    pub(crate) fn sample(&mut self, name: &str, length: u64, caption: &str) {
        self.text(name);
        self.0.update(length.to_le_bytes());
        self.text(caption);
    }

    /// A text, and its length, so that two texts are never two others.
    pub(crate) fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    /// As hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
