//! Seeded choices: one ChaCha stream per (seed, index, purpose).

use ediffi_train::random::uniform;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

/// A source of choices.
#[derive(Debug)]
pub struct Dice {
    generator: ChaCha8Rng,
}

impl Dice {
    /// The choices of a scene. `stream` separates what is drawn for different purposes.
    pub fn new(seed: u64, index: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream);
        Self { generator }
    }

    /// A number in [0, 1), of 53 random bits.
    pub fn unit(&mut self) -> f64 {
        uniform(&mut self.generator)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A number between the two bounds.
    pub fn between(&mut self, [low, high]: [f32; 2]) -> f32 {
        low + (high - low) * self.unit() as f32
    }

    /// One of the items, all equally likely; `None` when there are none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let place = (self.unit() * items.len() as f64) as usize;
        items.get(place).copied()
    }

    /// One of the items, likely in proportion to its weight; the last one if the weights sum to nothing.
    pub fn weighted<T: Copy, const N: usize>(&mut self, items: [(f64, T); N]) -> Option<T> {
        let mut rest = self.unit() * items.iter().map(|(weight, _)| weight).sum::<f64>();
        for (weight, item) in items {
            if rest < weight {
                return Some(item);
            }
            rest -= weight;
        }
        items.last().map(|(_, item)| *item)
    }
}
