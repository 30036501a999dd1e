//! The fixed prompts of an evaluation, each with the scene that it was written for.

use train_icons::config::{Mix, SamplerConfig};
use train_icons::sampler::Sampler;
use train_icons::scene::Scene;
use train_icons::split::{Split, is_held_out_cell};

use crate::error::{Error, Result};
use crate::judge::Verdict;
use crate::pairs::paired;
use crate::wanted::{Facts, Wanted};

/// How many prompts a whole evaluation has.
pub const ALL: usize = 600;
/// Seed of the scenes; the generator's seeds are small numbers.
const SEED: u64 = 0x6576_616C_7501;
/// Seed of the first picture.
const PICTURES: u64 = 1_000_000;

/// After so many scenes in a row without a usable one, there is none.
pub(crate) const CANDIDATES: u64 = 10_000;

/// What kind of prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One object.
    One,
    /// Two different objects.
    Two,
    /// Two or three of the same.
    Same,
    /// Three different objects.
    Three,
    /// One object in a style that it was never trained in.
    HeldOutStyle,
    /// Two objects that never met in training.
    HeldOutPair,
}

impl Kind {
    /// What the generator was trained on.
    pub(crate) const TRAINED: [Self; 4] = [Self::One, Self::Two, Self::Same, Self::Three];

    /// Every kind with its share of the prompts, in sixtieths.
    const SHARES: [(Self, usize); 6] = [
        (Self::One, 16),
        (Self::Two, 20),
        (Self::Same, 8),
        (Self::Three, 4),
        (Self::HeldOutStyle, 6),
        (Self::HeldOutPair, 6),
    ];
}

/// One prompt of an evaluation.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// What kind.
    pub kind: Kind,
    /// The scene; its caption is the prompt.
    pub scene: Scene,
    /// What the caption asks for.
    pub wanted: Wanted,
    /// Seed of the picture.
    pub seed: u64,
}

impl Prompt {
    /// What a model is asked for.
    pub(crate) fn asked(&self) -> (&Scene, u64) {
        (&self.scene, self.seed)
    }
}

/// What was right, and what was asked, about the pictures of the prompts of these kinds.
pub(crate) fn facts(
    prompts: &[Prompt],
    verdicts: &[Verdict],
    kinds: &[Kind],
    of: fn(&Facts) -> (f64, f64),
) -> Result<Vec<(f64, f64)>> {
    let pairs = paired("verdicts", prompts, verdicts)?.filter(|(prompt, _)| kinds.contains(&prompt.kind));
    Ok(pairs.map(|(prompt, verdict)| of(&Facts::new(&prompt.wanted, verdict))).collect())
}

/// The first thing that `of` finds in the scenes from number `from` on, which then is the number of the scene behind it.
pub(crate) fn next<T>(what: &'static str, from: &mut u64, of: impl Fn(u64) -> Result<Option<T>>) -> Result<T> {
    // The first that is usable, or the first error.
    let mut found = (*from..*from + CANDIDATES).filter_map(|index| Some((index, of(index).transpose()?)));
    let (index, first) = found.next().ok_or(Error::Candidates { what, tried: CANDIDATES })?;
    *from = index + 1;
    first
}

/// `count` prompts, of every kind its share. The same count always gives the same prompts with the same seeds.
pub fn prompts(count: usize) -> Result<Vec<Prompt>> {
    drawn(count, SEED)
}

/// Other scenes of the same kinds in the same shares: what pictures are compared with as a whole.
pub fn references(count: usize) -> Result<Vec<Prompt>> {
    drawn(count, SEED + 0x100)
}

fn drawn(count: usize, seed: u64) -> Result<Vec<Prompt>> {
    let mut prompts = Vec::with_capacity(count);
    for (kind, share) in Kind::SHARES {
        let sampler = Sampler::new(config(kind))?;
        let split = match kind {
            Kind::HeldOutStyle | Kind::HeldOutPair => Split::HeldOut,
            _ => Split::Train,
        };
        let wanted = (count * share).div_ceil(60);
        let scenes = (0..).map(|index| sampler.scene(seed + kind as u64, index, split));
        let of_kind = scenes.filter(|scene| scene.as_ref().map_or(true, |scene| is_of(kind, scene)));
        for scene in of_kind.take(wanted) {
            let scene = scene?;
            let wanted = Wanted::of(&scene);
            prompts.push(Prompt { kind, scene, wanted, seed: PICTURES + prompts.len() as u64 });
        }
    }
    prompts.truncate(count);
    Ok(prompts)
}

/// Whether a scene of the sampler of `kind` is of that kind: what is held out comes as both kinds.
fn is_of(kind: Kind, scene: &Scene) -> bool {
    let cell = scene.objects.iter().any(|object| is_held_out_cell(&object.concept, scene.style));
    match kind {
        Kind::HeldOutStyle => cell,
        Kind::HeldOutPair => !cell,
        _ => true,
    }
}

fn config(kind: Kind) -> SamplerConfig {
    let none = Mix::default();
    let mix = match kind {
        Kind::One | Kind::HeldOutStyle | Kind::HeldOutPair => Mix { one: 1.0, ..none },
        Kind::Two => Mix { two: 1.0, ..none },
        Kind::Three => Mix { three: 1.0, ..none },
        Kind::Same => Mix { same: 1.0, ..none },
    };
    SamplerConfig { mix, ..SamplerConfig::small() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use train_icons::split::split_of;

    use super::*;

    #[test]
    fn every_kind_is_there_and_is_what_it_says() {
        let prompts = prompts(ALL).unwrap();
        assert_eq!(prompts.len(), ALL);
        for (kind, share) in Kind::SHARES {
            let of: Vec<_> = prompts.iter().filter(|prompt| prompt.kind == kind).collect();
            assert_eq!(of.len(), share * ALL / 60, "{kind:?}");
            for prompt in of {
                let (objects, counts) = (prompt.wanted.objects.len(), prompt.wanted.counts());
                let held_out = split_of(&prompt.scene) == Split::HeldOut;
                let right = match kind {
                    Kind::One => objects == 1 && !held_out,
                    Kind::Two => objects == 2 && !counts && !held_out,
                    Kind::Same => counts && !held_out,
                    Kind::Three => objects == 3 && !counts && !held_out,
                    Kind::HeldOutStyle => objects == 1 && held_out,
                    Kind::HeldOutPair => objects == 2 && held_out,
                };
                assert!(right, "{kind:?}: {}", prompt.scene.caption);
            }
        }
        let seeds: BTreeSet<u64> = prompts.iter().map(|prompt| prompt.seed).collect();
        assert_eq!(seeds.len(), ALL, "each picture has a seed of its own");
        let captions: BTreeSet<&str> = prompts.iter().map(|prompt| prompt.scene.caption.as_str()).collect();
        assert!(captions.len() > ALL * 8 / 10, "{} different captions", captions.len());
    }

    #[test]
    fn few_prompts_have_every_kind_too() {
        let prompts = prompts(30).unwrap();
        assert_eq!(prompts.len(), 30);
        assert!(Kind::SHARES.iter().all(|(kind, _)| prompts.iter().any(|prompt| prompt.kind == *kind)));
    }
}
