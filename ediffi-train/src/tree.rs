//! Which networks an ensemble is trained as: the expert tree (eDiff-I §4.1).
//!
//! One network is trained on all noise levels. Each child starts from its parent and is trained on half of its levels. Only
//! the branches to the experts are grown: towards the highest noise, where the picture forms, and towards the lowest, where it
//! gets sharp. One more network, the complement, gets the levels that no expert has.

use std::collections::BTreeSet;
use std::iter::successors;

use ediffi_core::interval::{LogNormal, Node, SigmaInterval};

use crate::Result;
use crate::noise_cell::NoiseCell;

/// Which networks stand between the shared one and an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Branching {
    /// One at every level of the tree, each started from the one above, as in the paper. At which levels the paper's own runs
    /// stopped is not published.
    #[default]
    EveryLevel,
    /// None: each expert starts from the shared network. For a small budget and a shallow tree.
    Direct,
}

/// One network to train.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// `e3-0` for the paper's E³₀, `rest` for the complement. The parts of a complement are `rest-0`, `rest-1`, …
    pub name: String,
    /// The part of the noise distribution that it is trained on.
    pub cell: NoiseCell,
    /// The noise levels that it is trained on. An expert owns them in sampling, too.
    pub interval: SigmaInterval,
    /// The index of its parent in [`ExpertTree::networks`]. `None` for the first network, which begins with new weights.
    pub parent: Option<usize>,
    /// Whether it is part of the ensemble. The others are only trained on the way to one that is.
    pub expert: bool,
}

/// The networks that an ensemble is trained as, in an order in which each comes after its parent.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertTree {
    networks: Vec<Planned>,
}

impl ExpertTree {
    /// The tree of an ensemble with one expert for each of `leaves`, and one for each gap between them. Without leaves the shared
    /// network is the only expert. A leaf at either end of the tree owns the open tail there.
    ///
    /// The complement starts from the shared network. What it starts from in the paper is not published.
    ///
    /// # Errors
    /// [`ExpertOverlap`](ediffi_core::Error::ExpertOverlap) if two leaves are the same, or one lies inside another.
    pub fn new(noise: &LogNormal, leaves: &[Node], branching: Branching) -> Result<Self> {
        let root = Node::new(0, 0)?;
        refuse_overlap(noise, leaves)?;
        let between = |leaf: &Node| match branching {
            Branching::EveryLevel => successors(leaf.parent(), Node::parent).collect(),
            Branching::Direct => vec![root],
        };
        // Ordered by level, so a parent comes before its children.
        let mut nodes: BTreeSet<Node> = leaves.iter().flat_map(between).collect();
        nodes.extend(leaves);
        nodes.insert(root);
        let order: Vec<Node> = nodes.into_iter().collect();
        let planned = |node: &Node| Planned {
            name: format!("e{}-{}", node.level(), node.index()),
            cell: NoiseCell::Node(*node),
            interval: noise.interval(*node),
            parent: successors(node.parent(), Node::parent).find_map(|node| order.binary_search(&node).ok()),
            expert: leaves.contains(node) || leaves.is_empty(),
        };
        let mut networks: Vec<Planned> = order.iter().map(planned).collect();
        let gaps = if leaves.is_empty() { Vec::new() } else { noise.complement(leaves)? };
        let parts = gaps.len();
        networks.extend(gaps.into_iter().enumerate().map(|(part, interval)| Planned {
            name: if parts == 1 { "rest".to_owned() } else { format!("rest-{part}") },
            cell: NoiseCell::AllBut(leaves.to_vec()),
            interval,
            parent: Some(0),
            expert: true,
        }));
        Ok(Self { networks })
    }

    /// Every network, in training order.
    #[must_use]
    pub fn networks(&self) -> &[Planned] {
        &self.networks
    }

    /// The networks of the ensemble, lowest noise first. Their intervals tile (0, ∞).
    pub fn experts(&self) -> impl Iterator<Item = &Planned> {
        let mut experts: Vec<_> = self.networks.iter().filter(|network| network.expert).collect();
        experts.sort_by(|a, b| a.interval.low().total_cmp(&b.interval.low()));
        experts.into_iter()
    }
}

fn refuse_overlap(noise: &LogNormal, leaves: &[Node]) -> Result<()> {
    let inside = |inner: Node, outer: Node| successors(Some(inner), Node::parent).any(|node| node == outer);
    for (index, &first) in leaves.iter().enumerate() {
        let mut others = leaves.iter().skip(index + 1);
        if let Some(&second) = others.find(|&&second| inside(first, second) || inside(second, first)) {
            let (first, second) = (noise.interval(first), noise.interval(second));
            Err(ediffi_core::Error::ExpertOverlap { first, second })?;
        }
    }
    Ok(())
}

/// The ensembles that the paper compares (eDiff-I, table 1 and §5). Their 1024 stage is a single network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Configuration {
    /// No ensemble.
    A,
    /// Two experts for 256 pixels: E¹₀ and E¹₁.
    B,
    /// B, and two for the base: E⁹₅₁₁ and everything else.
    C,
    /// B, and three for the base: E⁹₅₁₁ (σ from 9.610), E³₀ (up to 0.076) and the rest. The paper's best.
    D,
}

impl Configuration {
    /// The tree of the base.
    ///
    /// # Errors
    /// Those of [`ExpertTree::new`]. None occur for these leaves.
    pub fn base(self, noise: &LogNormal) -> Result<ExpertTree> {
        let (high, low) = (Node::new(9, 511)?, Node::new(3, 0)?);
        let leaves: &[Node] = match self {
            Self::A | Self::B => &[],
            Self::C => &[high],
            Self::D => &[high, low],
        };
        ExpertTree::new(noise, leaves, Branching::EveryLevel)
    }

    /// The tree of the super-resolution to 256 pixels.
    ///
    /// # Errors
    /// As [`base`](Self::base).
    pub fn sr_256(self, noise: &LogNormal) -> Result<ExpertTree> {
        let halves = [Node::new(1, 0)?, Node::new(1, 1)?];
        let leaves: &[Node] = if self == Self::A { &[] } else { &halves };
        ExpertTree::new(noise, leaves, Branching::EveryLevel)
    }
}

#[cfg(test)]
mod tests {
    use ediffi_core::experts::Experts;

    use super::*;
    use crate::Error;

    fn node(level: u32, index: u64) -> Node {
        Node::new(level, index).unwrap()
    }

    fn experts(plan: &ExpertTree) -> Vec<(&str, f64, f64)> {
        let intervals = plan.experts().map(|e| e.interval).collect();
        Experts::new(intervals).unwrap();
        plan.experts().map(|e| (e.name.as_str(), e.interval.low(), e.interval.high())).collect()
    }

    fn assert_experts(plan: &ExpertTree, expected: &[(&str, f64, f64)]) {
        let got = experts(plan);
        let close = |a: f64, b: f64| a == b || (a / b - 1.0).abs() < 6e-4;
        let same = got.iter().zip(expected).all(|(g, e)| g.0 == e.0 && close(g.1, e.1) && close(g.2, e.2));
        assert!(same && got.len() == expected.len(), "{got:?}, expected {expected:?}");
    }

    /// The cuts of ln σ ~ N(−1.2, 1.2²) at 1/8, 1/2 and 511/512 of the mass.
    #[test]
    fn the_paper_s_configurations_have_the_paper_s_intervals() {
        let noise = LogNormal::default();
        let all = [("e0-0", 0.0, f64::INFINITY)];
        let halves = [("e1-0", 0.0, 0.3012), ("e1-1", 0.3012, f64::INFINITY)];
        assert_experts(&Configuration::A.base(&noise).unwrap(), &all);
        assert_experts(&Configuration::A.sr_256(&noise).unwrap(), &all);
        assert_experts(&Configuration::B.base(&noise).unwrap(), &all);
        for configuration in [Configuration::B, Configuration::C, Configuration::D] {
            assert_experts(&configuration.sr_256(&noise).unwrap(), &halves);
        }
        let two = [("rest", 0.0, 9.610), ("e9-511", 9.610, f64::INFINITY)];
        assert_experts(&Configuration::C.base(&noise).unwrap(), &two);
        let three = [("e3-0", 0.0, 0.0757), ("rest", 0.0757, 9.610), ("e9-511", 9.610, f64::INFINITY)];
        assert_experts(&Configuration::D.base(&noise).unwrap(), &three);
    }

    /// Config-D: the root, three levels down the left-most branch, nine down the right-most, and the complement.
    #[test]
    fn children_start_from_their_parents_along_both_branches() {
        let plan = Configuration::D.base(&LogNormal::default()).unwrap();
        let networks = plan.networks();
        assert_eq!(networks.len(), 1 + 3 + 9 + 1);
        assert_eq!(networks[0].cell, NoiseCell::Node(node(0, 0)));
        assert_eq!((networks[0].parent, networks[0].expert), (None, false));
        for (index, network) in networks.iter().enumerate().skip(1) {
            let parent = network.parent.unwrap();
            assert!(parent < index, "{} is trained before its parent", network.name);
            match &network.cell {
                NoiseCell::Node(node) => {
                    assert!(node.index() == 0 || node.index() == (1 << node.level()) - 1, "{}", network.name);
                    assert_eq!(networks[parent].cell, NoiseCell::Node(node.parent().unwrap()));
                }
                NoiseCell::AllBut(nodes) => {
                    assert_eq!((network.name.as_str(), parent, nodes.len()), ("rest", 0, 2));
                }
            }
        }
        assert_eq!(networks.iter().filter(|n| n.expert).count(), 3);
        assert_eq!(networks.last().unwrap().name, "rest");
    }

    /// The small model's plan: quarters at both ends, started from the shared network.
    #[test]
    fn a_direct_plan_has_no_networks_in_between() {
        let noise = LogNormal::new(0.4, 1.4).unwrap();
        let plan = ExpertTree::new(&noise, &[node(2, 0), node(2, 3)], Branching::Direct).unwrap();
        let networks: Vec<_> = plan.networks().iter().map(|n| (n.name.as_str(), n.parent)).collect();
        assert_eq!(networks, [("e0-0", None), ("e2-0", Some(0)), ("e2-3", Some(0)), ("rest", Some(0))]);
        let (low, high) = (noise.quantile(0.25), noise.quantile(0.75));
        assert_eq!(experts(&plan), [("e2-0", 0.0, low), ("rest", low, high), ("e2-3", high, f64::INFINITY)]);
    }

    #[test]
    fn leaves_inside_the_tree_leave_a_complement_in_parts() {
        let plan = ExpertTree::new(&LogNormal::default(), &[node(2, 1)], Branching::EveryLevel).unwrap();
        let names: Vec<_> = experts(&plan).iter().map(|e| e.0.to_owned()).collect();
        assert_eq!(names, ["rest-0", "e2-1", "rest-1"]);
        let root = ExpertTree::new(&LogNormal::default(), &[node(0, 0)], Branching::EveryLevel).unwrap();
        assert_eq!(root, Configuration::A.base(&LogNormal::default()).unwrap());
    }

    #[test]
    fn overlapping_leaves_are_refused() {
        for leaves in [[node(3, 0), node(3, 0)], [node(1, 1), node(9, 511)], [node(4, 3), node(2, 0)]] {
            let error = ExpertTree::new(&LogNormal::default(), &leaves, Branching::EveryLevel).unwrap_err();
            let overlap = matches!(error, Error::Core { source: ediffi_core::Error::ExpertOverlap { .. } });
            assert!(overlap, "{leaves:?}: {error}");
        }
    }
}
