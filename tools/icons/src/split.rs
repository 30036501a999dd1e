//! What is never trained on: some concept × style cells and some pairs of objects.
//!
//! The choice is a hash of the names, so it is the same for every configuration and every version of the table. A
//! concept loses at most one style, so a model always sees it in all the others.

use crate::icon_set::IconSet;
use crate::scene::Scene;

/// Which scenes to sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Scenes without any held-out cell or pair.
    Train,
    /// Scenes with a held-out cell or a held-out pair.
    HeldOut,
}

/// Concepts that the documentation shows in every style and together; nothing of them is held out.
const SHOWN: [&str; 4] = ["apple", "cat", "dog", "star"];

/// One concept in this many percent gives one style away: 32 % of concepts × 1 of 4 styles = 8 % of the cells.
const CONCEPTS_PERCENT: u64 = 32;

/// Percentage of object pairs that are held out.
const PAIRS_PERCENT: u64 = 8;

/// The style in which a concept is never trained, if there is one.
pub fn held_out_style(concept: &str) -> Option<IconSet> {
    let hash = hash(&["unseen style", concept]);
    let chosen = !SHOWN.contains(&concept) && hash % 100 < CONCEPTS_PERCENT;
    chosen.then(|| IconSet::ALL[(hash >> 32) as usize % IconSet::ALL.len()])
}

/// Whether a concept is never trained in this style.
pub fn is_held_out_cell(concept: &str, style: IconSet) -> bool {
    held_out_style(concept) == Some(style)
}

/// Whether two concepts never meet in a training scene. The order does not matter; a concept may always meet itself.
pub fn is_held_out_pair(a: &str, b: &str) -> bool {
    if a == b || (SHOWN.contains(&a) && SHOWN.contains(&b)) {
        return false;
    }
    hash(&["unseen pair", a.min(b), a.max(b)]) % 100 < PAIRS_PERCENT
}

/// The split that a scene belongs to.
pub fn split_of(scene: &Scene) -> Split {
    let names = || scene.objects.iter().map(|object| object.concept.as_str());
    let cell = names().any(|name| is_held_out_cell(name, scene.style));
    let pair = names().any(|a| names().any(|b| is_held_out_pair(a, b)));
    if cell || pair { Split::HeldOut } else { Split::Train }
}

/// FNV-1a over the parts and a separator, then the finaliser of SplitMix64: stable across versions and machines.
fn hash(parts: &[&str]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
