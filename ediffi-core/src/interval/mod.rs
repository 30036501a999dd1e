//! Intervals of noise levels, and the tree of intervals that experts own.
//!
//! Training draws `ln(sigma) ~ N(p_mean, p_std^2)` (EDM, table 1; eDiff-I, section 3). The experts of eDiff-I own cells of a
//! binary tree over that distribution: level `l` divides it into `2^l` cells of equal probability (eDiff-I, section 4.1). A
//! cell is a [`Node`]; [`LogNormal::interval`] gives its noise levels.
//!
//! ```
//! use ediffi_core::interval::{LogNormal, Node};
//!
//! // The three base experts of eDiff-I's best configuration ("Config-D").
//! let noise = LogNormal::default();
//! let low = noise.interval(Node::new(3, 0)?);
//! let high = noise.interval(Node::new(9, 511)?);
//! let middle = noise.complement(&[Node::new(3, 0)?, Node::new(9, 511)?])?;
//! assert_eq!(format!("{low:.3} {:.3} {high:.3}", middle[0]), "[0.000, 0.076) [0.076, 9.610) [9.610, inf)");
//! # Ok::<(), ediffi_core::Error>(())
//! ```

mod check;
mod log_normal;
mod tree;

pub use crate::sigma_interval::SigmaInterval;
pub use log_normal::LogNormal;
pub use tree::Node;
