//! The binary tree of cells that experts own.

use crate::{Error, Result};

/// A cell of the binary tree over the noise distribution: the paper's `E^level_index`.
///
/// It covers the probability mass `[index / 2^level, (index + 1) / 2^level)`; index 0 holds the lowest noise. The root,
/// `Node::new(0, 0)`, is the whole distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    level: u32,
    index: u64,
}

impl Node {
    /// The deepest level whose borders are exact in an `f64`.
    pub const MAX_LEVEL: u32 = 52;

    /// The cell `index` of `level`.
    ///
    /// # Errors
    /// [`Error::InvalidDistribution`] unless `index < 2^level` and `level <= MAX_LEVEL`.
    pub fn new(level: u32, index: u64) -> Result<Self> {
        if level > Self::MAX_LEVEL || index >= 1 << level {
            let reason = format!("there is no node ({level}, {index}): the index has to be below 2^level, level <= 52");
            return Err(Error::InvalidDistribution(reason));
        }
        Ok(Self { level, index })
    }

    /// The level of the cell; the root is at level 0.
    #[must_use]
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The position among the cells of its level, lowest noise first.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The two halves of the cell, lower noise first; `None` at the deepest level.
    #[must_use]
    pub fn children(&self) -> Option<[Self; 2]> {
        let level = self.level + 1;
        let child = |half| Self { level, index: 2 * self.index + half };
        (level <= Self::MAX_LEVEL).then(|| [child(0), child(1)])
    }

    /// The cell that this one is a half of; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.level.checked_sub(1).map(|level| Self { level, index: self.index / 2 })
    }

    /// Probability below the cell and below its end. Both are exact: a small integer over a power of two.
    pub(super) fn mass(&self) -> (f64, f64) {
        let cells = (1_u64 << self.level) as f64;
        (self.index as f64 / cells, (self.index + 1) as f64 / cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(level: u32, index: u64) -> Node {
        Node::new(level, index).unwrap()
    }

    #[test]
    fn nodes_know_their_family() {
        assert_eq!(node(2, 3).children(), Some([node(3, 6), node(3, 7)]));
        assert_eq!(node(3, 7).parent(), Some(node(2, 3)));
        assert_eq!(node(0, 0).parent(), None);
        assert_eq!(node(52, 0).children(), None);
        assert!(matches!(Node::new(3, 8), Err(Error::InvalidDistribution { .. })));
        assert!(matches!(Node::new(64, 0), Err(Error::InvalidDistribution { .. })));
    }
}
