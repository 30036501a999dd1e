//! The sampler: a scene is a pure function of (seed, index).

use crate::background::Background;
use crate::caption::{self, Content, Phrase};
use crate::colour::{Colour, contrast};
use crate::concepts::{self, Concept};
use crate::config::SamplerConfig;
use crate::dice::Dice;
use crate::error::{IconsError, Result};
use crate::icon_set::IconSet;
use crate::layout::{self, Arrangement, PLACES};
use crate::scene::{Object, Scene};
use crate::split::{Split, is_held_out_cell, is_held_out_pair};

/// An ink shows on a background when their contrast is at least this (WCAG 2.2, success criterion 1.4.11).
const SHOWS: f64 = 3.0;

/// Scenes that tell one version of the data from another: enough for something that one in fifty shows.
const VERSION_SCENES: u64 = 256;

/// ChaCha stream of the scenes.
const SCENE: u64 = 0;
/// ChaCha stream of the style references.
const REFERENCE: u64 = 1;

/// Samples scenes.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    concepts: Vec<&'static Concept>,
    held_out_cells: Vec<(IconSet, &'static Concept)>,
    held_out_pairs: Vec<(IconSet, [&'static Concept; 2])>,
}

/// What a scene is about, before it is laid out.
struct Subject {
    style: IconSet,
    /// Different concepts.
    concepts: Vec<&'static Concept>,
    /// How many of each.
    count: usize,
    placed: bool,
}

impl Sampler {
    /// A sampler of this configuration.
    pub fn new(config: SamplerConfig) -> Result<Self> {
        config.validate()?;
        let concepts = config.concepts.iter().map(|name| concepts::find(name)).collect::<Result<Vec<_>>>()?;
        let mut held_out_cells = Vec::new();
        let mut held_out_pairs = Vec::new();
        for &style in &config.styles {
            for (place, &a) in concepts.iter().enumerate() {
                if is_held_out_cell(a.name, style) {
                    held_out_cells.push((style, a));
                    continue;
                }
                let partners = concepts.iter().skip(place + 1).filter(|b| !is_held_out_cell(b.name, style));
                held_out_pairs.extend(partners.filter(|b| is_held_out_pair(a.name, b.name)).map(|&b| (style, [a, b])));
            }
        }
        Ok(Self { config, concepts, held_out_cells, held_out_pairs })
    }

    /// The configuration.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// The scene of a seed and an index. The same arguments give the same scene, whatever was sampled before.
    ///
    /// # Errors
    /// [`IconsError::Config`] when the configuration has nothing in this split.
    pub fn scene(&self, seed: u64, index: u64, split: Split) -> Result<Scene> {
        let mut dice = Dice::new(seed, index, SCENE);
        let subject = match split {
            Split::Train => {
                let style = dice.pick(&self.config.styles).ok_or_else(|| nothing("no styles"))?;
                self.train_subject(style, &[], &mut dice)
            }
            Split::HeldOut => self.held_out_subject(&mut dice),
        }?;
        Ok(self.compose(&subject, &mut dice))
    }

    /// What tells this data from other data: the configuration and the first training scenes, as JSON. A change of the code that none of
    /// these scenes shows goes unseen, and so does how they are drawn.
    pub fn version(&self) -> Result<String> {
        let scenes = (0..VERSION_SCENES).map(|index| self.scene(0, index, Split::Train)).collect::<Result<Vec<_>>>()?;
        // Plain data of strings and finite numbers has a JSON.
        serde_json::to_string(&(&self.config, scenes))
            .map_err(|error| IconsError::Config { problem: format!("a scene without JSON: {error}") })
    }

    /// A style reference for the scene of the same arguments: another training scene in its style, that shows other
    /// concepts if there are any.
    ///
    /// # Errors
    /// [`IconsError::Config`] when the configuration has nothing in this split.
    pub fn style_reference(&self, seed: u64, index: u64, split: Split) -> Result<Scene> {
        let scene = self.scene(seed, index, split)?;
        let avoid: Vec<&str> = scene.objects.iter().map(|object| object.concept.as_str()).collect();
        let mut dice = Dice::new(seed, index, REFERENCE);
        let subject = match self.train_subject(scene.style, &avoid, &mut dice) {
            Ok(subject) => subject,
            Err(_) => self.train_subject(scene.style, &[], &mut dice)?,
        };
        Ok(self.compose(&subject, &mut dice))
    }

    fn train_subject(&self, style: IconSet, avoid: &[&str], dice: &mut Dice) -> Result<Subject> {
        let mix = self.config.mix;
        let (kinds, count, placed) = dice
            .weighted([
                (mix.one, (1, 1, false)),
                (mix.placed, (1, 1, true)),
                (mix.two, (2, 1, false)),
                (mix.three, (3, 1, false)),
                (mix.same * 0.5, (1, 2, false)),
                (mix.same * 0.5, (1, 3, false)),
            ])
            .ok_or_else(|| nothing("no arrangement"))?;
        let allowed = |concept: &Concept| !is_held_out_cell(concept.name, style) && !avoid.contains(&concept.name);
        let mut candidates: Vec<_> = self.concepts.iter().copied().filter(|concept| allowed(concept)).collect();
        let mut concepts: Vec<&'static Concept> = Vec::new();
        while concepts.len() < kinds {
            // A small configuration may run out of concepts that may meet: the scene then has fewer objects.
            let Some(concept) = dice.pick(&candidates) else { break };
            concepts.push(concept);
            candidates.retain(|other| other.name != concept.name && !is_held_out_pair(concept.name, other.name));
        }
        if concepts.is_empty() {
            return Err(nothing(&format!("every concept is held out in {} style", style.word())));
        }
        Ok(Subject { style, concepts, count, placed })
    }

    /// Half of the scenes show one object in a held-out cell, half a held-out pair in trained cells.
    fn held_out_subject(&self, dice: &mut Dice) -> Result<Subject> {
        let cell = dice.pick(&self.held_out_cells);
        let pair = dice.pick(&self.held_out_pairs);
        match (cell, pair, dice.chance(0.5)) {
            (Some((style, concept)), _, true) | (Some((style, concept)), None, _) => {
                Ok(Subject { style, concepts: vec![concept], count: 1, placed: false })
            }
            (_, Some((style, mut pair)), _) => {
                if dice.chance(0.5) {
                    pair.reverse();
                }
                Ok(Subject { style, concepts: pair.to_vec(), count: 1, placed: false })
            }
            (None, None, _) => Err(nothing("these concepts and styles have no held-out cell and no held-out pair")),
        }
    }

    /// Lays a subject out, colours it and writes the caption.
    fn compose(&self, subject: &Subject, dice: &mut Dice) -> Scene {
        let config = &self.config;
        let number = subject.concepts.len() * subject.count;
        let arrangement = match number {
            1 if subject.placed => Arrangement::Single(dice.pick(&PLACES)),
            1 => Arrangement::Single(None),
            // Nothing is drawn where nothing scatters: the judge's scenes are those of before.
            2 if subject.count == 1 && config.scattered > 0.0 && dice.chance(config.scattered) => {
                Arrangement::Scattered
            }
            _ if subject.concepts.len() > 1 && dice.chance(0.5) => Arrangement::Column,
            _ => Arrangement::Row,
        };
        let spots = layout::place(config, arrangement, number, dice);
        let background_named = !dice.chance(config.omit_background);
        let background = self.background(subject, background_named, dice);

        let single = (number == 1).then(|| spots.first().map_or(0.5, |spot| spot.size));
        let mut inks = Vec::new();
        let mut phrases = Vec::new();
        for &concept in &subject.concepts {
            let ink = subject.style.is_mono().then(|| self.ink(background, dice));
            let colour = match ink {
                // Black is what an ink drawing is expected to be: it mostly goes without saying.
                Some(Colour::Black) => dice.chance(config.mention_colour / 3.0).then_some(Colour::Black),
                Some(ink) => Some(ink),
                None => concept.colour_in(subject.style).filter(|_| dice.chance(config.mention_colour)),
            };
            let size = single.and_then(size_word).filter(|_| dice.chance(config.mention_size));
            inks.push(ink);
            phrases.push(Phrase { concept, count: subject.count, size, colour });
        }
        let style_named = !dice.chance(config.omit_style);
        let content = Content {
            phrases: &phrases,
            arrangement,
            background: background_named.then_some(background),
            style: style_named.then_some(subject.style),
        };
        let (caption, spans) = caption::write(&content, config.paraphrase, dice);

        let named = phrases.iter().zip(inks).zip(spans);
        let named = named.flat_map(|item| std::iter::repeat_n(item, subject.count));
        let objects = spots
            .into_iter()
            .zip(named)
            .map(|(spot, ((phrase, ink), span))| Object {
                concept: phrase.concept.name.to_owned(),
                x: spot.x,
                y: spot.y,
                size: spot.size,
                rotation: dice.between([-config.rotation, config.rotation]),
                ink,
                span,
            })
            .collect();
        Scene { caption, style: subject.style, background, objects }
    }

    /// A background that the objects stand out on.
    fn background(&self, subject: &Subject, named: bool, dice: &mut Dice) -> Background {
        let config = &self.config;
        // A caption that leaves the background out must not leave much open: mostly white.
        let white = if named { config.white } else { 0.8 };
        let clashes =
            |colour: Colour| subject.concepts.iter().any(|concept| concept.colour_in(subject.style) == Some(colour));
        let colours: Vec<_> = config.backgrounds.iter().copied().filter(|&colour| !clashes(colour)).collect();
        let colour = if dice.chance(white) { None } else { dice.pick(&colours) }.unwrap_or(Colour::White);
        if named && dice.chance(config.patterned) {
            let pattern = dice.pick(&Background::PATTERNS).unwrap_or(Background::Striped);
            return pattern(colour);
        }
        Background::Plain(colour)
    }

    /// An ink that shows on the background: black mostly, white where black does not show.
    fn ink(&self, background: Background, dice: &mut Dice) -> Colour {
        let shows = |ink: &Colour| background.tones().iter().all(|&tone| contrast(ink.ink(), tone) >= SHOWS);
        let plain = if shows(&Colour::Black) { Colour::Black } else { Colour::White };
        if dice.chance(self.config.black) {
            return plain;
        }
        let inks: Vec<_> = self.config.inks.iter().copied().filter(shows).collect();
        dice.pick(&inks).unwrap_or(plain)
    }
}

/// The word for a single object of this size, if it is far from the usual.
fn size_word(size: f32) -> Option<&'static str> {
    match size {
        _ if size < 0.5 => Some("small"),
        _ if size > 0.75 => Some("big"),
        _ => None,
    }
}

fn nothing(problem: &str) -> IconsError {
    IconsError::Config { problem: problem.to_owned() }
}
