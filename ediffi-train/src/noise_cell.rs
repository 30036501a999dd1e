//! The part of the noise distribution that a network is trained on: a cell of the expert tree, or the complement of some cells.

use std::fmt;
use std::str::FromStr;

use ediffi_core::interval::{LogNormal, Node, SigmaInterval};
use serde::{Deserialize, Serialize};

use crate::error::wrong;
use crate::{Error, Result};

/// A part of the noise distribution, written as the paper does: `(9, 511)` for the cell E⁹₅₁₁ of the tree, `all but (9, 511)
/// and (3, 0)` for the complement of two cells.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NoiseCell {
    /// A cell of the binary tree (eDiff-I §4.1); (0, 0) is the whole distribution.
    Node(Node),
    /// Everything outside these cells. Without cells it is the whole distribution, too.
    AllBut(Vec<Node>),
}

impl NoiseCell {
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
                    wrong(self.to_string(), reason)
                }
            },
        }
    }
}

impl fmt::Display for NoiseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = |node: &Node| format!("({}, {})", node.level(), node.index());
        let nodes = match self {
            Self::Node(node) => return f.write_str(&written(node)),
            Self::AllBut(nodes) => nodes.iter().map(written).collect::<Vec<_>>(),
        };
        f.write_str(if nodes.is_empty() { "all" } else { "all but " })?;
        f.write_str(&nodes.join(" and "))
    }
}

impl FromStr for NoiseCell {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = "a cell is written (level, index), all, or all but (level, index) and (level, index)";
        let unreadable = || wrong(format!("{text:?}"), form);
        let node = |text: &str| -> Result<Node> {
            let numbers = text.trim().strip_prefix('(').and_then(|text| text.strip_suffix(')')?.split_once(','));
            let parsed =
                numbers.and_then(|(level, index)| Some((level.trim().parse().ok()?, index.trim().parse().ok()?)));
            parsed.map_or_else(unreadable, |(level, index)| Ok(Node::new(level, index)?))
        };
        match (text.trim(), text.trim().strip_prefix("all but ")) {
            ("all", _) => Ok(Self::AllBut(Vec::new())),
            (_, Some(list)) => Ok(Self::AllBut(list.split(" and ").map(node).collect::<Result<_>>()?)),
            (one, None) => Ok(Self::Node(node(one)?)),
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
