//! Embeddings of several networks side by side.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::Result;

/// Where in wider embeddings those of a network stand. Experts of one stage share what is said of a picture; where they take different things,
/// as SDXL's base and refiner do, these stand side by side, and each takes its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beside {
    /// Of every token of the text.
    pub text: Place,
    /// Of the pooled text.
    pub pooled: Place,
    /// Of the numbers that are said of a picture.
    pub numbers: Place,
}

/// A place in something wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Where it begins.
    pub first: i64,
    /// The width of the whole.
    pub all: i64,
}

impl Place {
    /// The place of `width` in something of just this width.
    #[must_use]
    pub fn whole(width: i64) -> Self {
        Self { first: 0, all: width }
    }

    /// Whether `width` fits in there.
    pub(super) fn holds(self, width: i64) -> bool {
        let Self { first, all } = self;
        (0..=1 << 20).contains(&first) && (1..=1 << 20).contains(&all) && first + width <= all
    }

    /// # Shapes
    /// `x`: [.., all] → [.., width]
    pub(super) fn of(self, x: &Tensor, width: i64) -> Result<Tensor> {
        Ok(x.f_narrow(-1, self.first, width)?)
    }
}
