//! How long a step takes on many machines: a model on paper.
//!
//! A step computes the gradients of its pictures, adds them up over all processes, and updates the weights. The sum goes around a ring
//! (Patarasuk & Yuan 2009): 2(n − 1) messages one after another, which cost α each, and 2(n − 1)/n of the bytes past every process, which
//! cost β each. Nothing overlaps, as in this program. What a sum could hide behind the backward pass is given beside it.

/// What messages cost between processes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Seconds a message.
    pub alpha: f64,
    /// Seconds a byte, with all processes at it.
    pub beta: f64,
}

impl Link {
    /// The seconds in which `bytes` are added up over `ranks` processes.
    #[must_use]
    pub fn sum(&self, bytes: f64, ranks: u64) -> f64 {
        let (messages, share) = ring(ranks);
        messages * self.alpha + share * bytes * self.beta
    }

    /// The link that fits measured sums over `ranks` processes best, with the least square of the relative errors. Each has its bytes
    /// and its seconds. `None` for fewer than two, or for one process, which sends nothing.
    #[must_use]
    pub fn fitted(ranks: u64, sums: &[(f64, f64)]) -> Option<Self> {
        let (messages, share) = ring(ranks);
        if ranks < 2 || sums.len() < 2 {
            return None;
        }
        // Each row is a x + b y = 1, with a and b over the seconds.
        let rows = sums.iter().map(|(bytes, seconds)| (messages / seconds, share * bytes / seconds));
        let zero = [0.0; 5];
        let [aa, ab, bb, a, b] =
            rows.fold(zero, |[aa, ab, bb, a, b], (x, y)| [aa + x * x, ab + x * y, bb + y * y, a + x, b + y]);
        let determinant = aa * bb - ab * ab;
        let (alpha, beta) = ((a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant);
        // Two sums may be such that messages seem to cost nothing.
        let link = if alpha >= 0.0 { Self { alpha, beta } } else { Self { alpha: 0.0, beta: b / bb } };
        (link.beta.is_finite() && link.beta > 0.0).then_some(link)
    }
}

/// How many messages a sum has one after another, and how often each byte passes a process.
fn ring(ranks: u64) -> (f64, f64) {
    let steps = 2.0 * ranks.saturating_sub(1) as f64;
    (steps, steps / ranks.max(1) as f64)
}

/// What a training costs on a kind of machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Seconds in which one process computes the gradients of a picture.
    pub picture: f64,
    /// Seconds in which it updates all weights.
    pub update: f64,
    /// The bytes of the gradients.
    pub bytes: f64,
    /// The processes of one node.
    pub node: u64,
    /// What messages cost inside a node.
    pub inside: Link,
    /// What they cost from node to node.
    pub outside: Link,
}

/// A step on paper, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Until the gradients are there.
    pub compute: f64,
    /// Until they are added up.
    pub sum: f64,
    /// Until the weights are updated.
    pub update: f64,
}

impl Machine {
    /// A step of `batch` pictures on `ranks` processes. With less than a picture for each, a process still computes one.
    #[must_use]
    pub fn step(&self, ranks: u64, batch: u64) -> Step {
        let pictures = batch.div_ceil(ranks.max(1)) as f64;
        let link = if ranks > self.node { self.outside } else { self.inside };
        Step { compute: pictures * self.picture, sum: link.sum(self.bytes, ranks), update: self.update }
    }

    /// The share of the time of `ranks` processes in which they do what one would have to do as well.
    #[must_use]
    pub fn efficiency(&self, ranks: u64, batch: u64) -> f64 {
        self.step(1, batch).seconds() / (ranks.max(1) as f64 * self.step(ranks, batch).seconds())
    }
}

impl Step {
    /// All of it.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.compute + self.sum + self.update
    }

    /// The share of the sum.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.sum / self.seconds()
    }

    /// The same if each of `ranks` processes updated its part of the weights alone. Gradients go around the ring once, in f32, and weights
    /// once, in half as many bytes: three quarters of what a sum sends.
    #[must_use]
    pub fn sharded(&self, ranks: u64) -> Self {
        Self { sum: 0.75 * self.sum, update: self.update / ranks.max(1) as f64, ..*self }
    }

    /// All of it if the sum ran beside the backward pass, which is two thirds of the computing, as far as it has room there.
    #[must_use]
    pub fn overlapped(&self) -> f64 {
        self.compute.max(self.compute / 3.0 + self.sum) + self.update
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { alpha: 1e-5, beta: 1e-9 };

    #[test]
    fn a_link_is_found_from_what_it_costs() {
        for ranks in [2, 4, 7] {
            let sums = [4e6, 64e6, 700e6].map(|bytes| (bytes, LINK.sum(bytes, ranks)));
            let found = Link::fitted(ranks, &sums).unwrap();
            assert!(
                (found.alpha / LINK.alpha - 1.0).abs() < 1e-6 && (found.beta / LINK.beta - 1.0).abs() < 1e-9,
                "{found:?}"
            );
        }
        // A large sum that was faster for a byte than a small one leaves nothing below zero.
        let found = Link::fitted(2, &[(1e6, 1e-3), (1e9, 1.2)]).unwrap();
        assert_eq!(found.alpha, 0.0);
        assert!(found.beta > 0.9e-9 && found.beta < 1.3e-9, "{found:?}");
        assert_eq!(Link::fitted(1, &[(1.0, 1.0), (2.0, 2.0)]), None);
        assert_eq!(Link::fitted(2, &[(1.0, 1.0)]), None);
    }

    /// Two processes send each byte past each other once there and once back, halved: 1 · bytes. Many send it twice.
    #[test]
    fn a_ring_passes_each_byte_nearly_twice() {
        assert_eq!(LINK.sum(1e9, 1), 0.0);
        assert!((LINK.sum(1e9, 2) - 1.000_02).abs() < 1e-9);
        assert!((LINK.sum(1e9, 1000) - (1.998 + 1998.0 * 1e-5)).abs() < 1e-9);
    }

    #[test]
    fn a_step_is_its_parts_and_cannot_be_halved_for_ever() {
        let slow = Link { alpha: 1e-4, beta: 1e-8 };
        let machine = Machine { picture: 0.01, update: 0.05, bytes: 1e7, node: 4, inside: LINK, outside: slow };
        let step = machine.step(4, 64);
        assert_eq!((step.compute, step.update), (0.16, 0.05));
        assert_eq!(step.sum, LINK.sum(1e7, 4));
        assert_eq!(machine.step(8, 64).sum, slow.sum(1e7, 8));
        assert_eq!(machine.step(1000, 64).compute, 0.01);
        assert!((machine.efficiency(1, 64) - 1.0).abs() < 1e-12);
        let efficiency = [2, 4, 8, 16, 64].map(|ranks| machine.efficiency(ranks, 64));
        assert!(efficiency.windows(2).all(|pair| pair[1] < pair[0]), "{efficiency:?}");
        // A sum that has room behind the backward pass costs nothing; one that has none costs what is left.
        assert_eq!(step.overlapped(), 0.16 + 0.05);
        let long = Step { sum: 1.0, ..step };
        assert!((long.overlapped() - (0.16 / 3.0 + 1.0 + 0.05)).abs() < 1e-12);
        assert_eq!(long.sharded(5), Step { compute: 0.16, sum: 0.75, update: 0.01 });
    }
}
