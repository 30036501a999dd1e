//! The part of the noise distribution that a network is trained on: a cell of the expert tree, or the complement of some cells.

use std::fmt;
use std::str::FromStr;

use ediffi_core::interval::{LogNormal, Node, SigmaInterval};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A part of the noise distribution, written as the paper does: `(9, 511)` for the cell E⁹₅₁₁ of the tree, `all but (9, 511)
/// and (3, 0)` for the complement of two cells.
///
/// ```
/// use ediffi_core::interval::LogNormal;
/// use ediffi_train::noise_cell::NoiseCell;
///
/// let rest: NoiseCell = "all but (9, 511) and (3, 0)".parse()?;
/// assert_eq!(rest.interval(&LogNormal::default())?.to_string(), "[0.07574224194151892, 9.609593235855247)");
/// # Ok::<(), ediffi_train::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NoiseCell {
    /// A cell of the binary tree (eDiff-I §4.1); (0, 0) is the whole distribution.
    Node(Node),
    /// Everything outside these cells.
    AllBut(Vec<Node>),
}

impl NoiseCell {
    /// The whole distribution, which the shared network is trained on.
    #[must_use]
    pub fn whole() -> Self {
        Self::AllBut(Vec::new())
    }

    /// Its noise levels under `noise`. The cells at either end of the tree own the open tail there.
    ///
    /// # Errors
    /// [`Error::Plan`] for a complement that is empty or in several parts: a network owns one interval.
    pub fn interval(&self, noise: &LogNormal) -> Result<SigmaInterval> {
        match self {
            Self::Node(node) => Ok(noise.interval(*node)),
            Self::AllBut(nodes) => match noise.complement(nodes)?.as_slice() {
                [one] => Ok(*one),
                parts => {
                    let reason = format!("the noise levels are in {} parts, a network owns one interval", parts.len());
                    Err(Error::Plan { what: self.to_string(), reason })
                }
            },
        }
    }
}

impl fmt::Display for NoiseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, node: &Node| write!(f, "({}, {})", node.level(), node.index());
        match self {
            Self::Node(node) => write(f, node),
            Self::AllBut(nodes) => {
                f.write_str("all")?;
                for (index, node) in nodes.iter().enumerate() {
                    f.write_str(if index == 0 { " but " } else { " and " })?;
                    write(f, node)?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for NoiseCell {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unreadable = || Error::Plan {
            what: format!("{text:?}"),
            reason: "a cell is written (level, index), all, or all but (level, index) and (level, index)".to_owned(),
        };
        let trimmed = text.trim();
        if trimmed == "all" {
            return Ok(Self::whole());
        }
        let (list, complement) = match trimmed.strip_prefix("all but ") {
            Some(list) => (list, true),
            None => (trimmed, false),
        };
        let mut nodes = Vec::new();
        for part in list.split(" and ") {
            let numbers = part.trim().strip_prefix('(').and_then(|part| part.strip_suffix(')'));
            let (level, index) = numbers.and_then(|numbers| numbers.split_once(',')).ok_or_else(unreadable)?;
            let level = level.trim().parse().map_err(|_| unreadable())?;
            nodes.push(Node::new(level, index.trim().parse().map_err(|_| unreadable())?)?);
        }
        match (complement, nodes.as_slice()) {
            (true, _) => Ok(Self::AllBut(nodes)),
            (false, [node]) => Ok(Self::Node(*node)),
            (false, _) => Err(unreadable()),
        }
    }
}

impl TryFrom<String> for NoiseCell {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<NoiseCell> for String {
    fn from(cell: NoiseCell) -> Self {
        cell.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_as_they_are_read() {
        for text in ["(0, 0)", "(9, 511)", "all", "all but (9, 511)", "all but (9, 511) and (3, 0)"] {
            assert_eq!(text.parse::<NoiseCell>().unwrap().to_string(), text);
        }
        assert_eq!(
            " all but (9,511)  and ( 3 , 0 )".parse::<NoiseCell>().unwrap().to_string(),
            "all but (9, 511) and (3, 0)"
        );
    }

    #[test]
    fn what_is_no_cell_is_quoted() {
        for text in ["", "9, 511", "(9)", "(9, 511", "(1, 0) and (1, 1)", "all but", "all but (x, 0)", "(-1, 0)"] {
            let error = text.parse::<NoiseCell>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        }
        // A node that the tree has not.
        assert!("(3, 8)".parse::<NoiseCell>().unwrap_err().to_string().contains("(3, 8)"));
    }

    #[test]
    fn a_complement_has_the_levels_between_its_cells() {
        let noise = LogNormal::default();
        let interval = |text: &str| text.parse::<NoiseCell>().unwrap().interval(&noise);
        let (low, high) = (interval("(3, 0)").unwrap(), interval("(9, 511)").unwrap());
        let rest = interval("all but (9, 511) and (3, 0)").unwrap();
        assert_eq!((rest.low(), rest.high()), (low.high(), high.low()));
        assert_eq!(interval("all").unwrap(), SigmaInterval::ALL);
        assert_eq!(interval("(0, 0)").unwrap(), SigmaInterval::ALL);
        for (text, parts) in [("all but (2, 1)", "2 parts"), ("all but (1, 0) and (1, 1)", "0 parts")] {
            let error = interval(text).unwrap_err().to_string();
            assert!(error.contains(parts) && error.contains(text), "{error}");
        }
    }
}
