//! What a caption asks for, and which of it a picture shows.

use train_icons::colour::Colour;
use train_icons::icon_set::IconSet;
use train_icons::scene::Scene;

use crate::judge::{Detection, Verdict, matched, right};

/// How two objects stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The first is left of the second.
    Left,
    /// The first is right of the second.
    Right,
    /// The first is above the second.
    Above,
    /// The first is below the second.
    Below,
}

impl Relation {
    /// The relation that the words between two objects name, if they name one ("next to" does not).
    pub fn of(words: &str) -> Option<Self> {
        let named = |options: &[&str]| words.split_whitespace().any(|word| options.contains(&word));
        [
            (Self::Left, ["left", "left"]),
            (Self::Right, ["right", "right"]),
            (Self::Above, ["above", "over"]),
            (Self::Below, ["below", "under"]),
        ]
        .into_iter()
        .find_map(|(relation, options)| named(&options).then_some(relation))
    }

    /// Whether it holds: the centres are apart in this direction, and further than across it.
    pub fn holds(self, first: &Detection, second: &Detection) -> bool {
        let (dx, dy) = (second.x - first.x, second.y - first.y);
        let (along, across) = match self {
            Self::Left => (dx, dy),
            Self::Right => (-dx, dy),
            Self::Above => (dy, dx),
            Self::Below => (-dy, dx),
        };
        along > across.abs()
    }
}

/// An object that a caption names.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedObject {
    /// The concept.
    pub concept: String,
    /// Its colour, if the caption says it.
    pub colour: Option<Colour>,
}

/// What a caption asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The objects, in the order of the scene.
    pub objects: Vec<WantedObject>,
    /// Positions of the two objects that the caption relates, first named first, and how.
    pub relation: Option<(usize, usize, Relation)>,
    /// The style, if it is named.
    pub style: Option<IconSet>,
    /// The colour of the background, if it is named.
    pub background: Option<Colour>,
}

impl Wanted {
    /// What the caption of a scene asks for. What it leaves out is open.
    pub fn of(scene: &Scene) -> Self {
        let caption: Vec<char> = scene.caption.chars().collect();
        let objects = (0..scene.objects.len()).map(|index| {
            let phrase = scene.phrase(index);
            let named = |colour: &Colour| phrase.split_whitespace().any(|word| word == colour.word());
            let concept = scene.objects.get(index).map(|object| object.concept.clone()).unwrap_or_default();
            WantedObject { concept, colour: Colour::ALL.into_iter().find(named) }
        });
        let relation = match scene.objects.as_slice() {
            [a, b] if a.span != b.span => {
                let (first, second, swapped) = if a.span.start < b.span.start { (a, b, false) } else { (b, a, true) };
                let between = caption.get(first.span.end..second.span.start).unwrap_or_default();
                let words: String = between.iter().collect();
                Relation::of(&words).map(|relation| (usize::from(swapped), usize::from(!swapped), relation))
            }
            _ => None,
        };
        let named = scene.caption.contains(&format!("{} style", scene.style.word()));
        Self {
            objects: objects.collect(),
            relation,
            style: named.then_some(scene.style),
            background: scene.caption.contains(" background").then(|| scene.background.colour()),
        }
    }

    /// Whether it asks for several of one thing.
    pub fn counts(&self) -> bool {
        let first = self.objects.first().map(|object| &object.concept);
        self.objects.len() > 1 && self.objects.iter().all(|object| Some(&object.concept) == first)
    }
}

/// What of a caption a picture shows, each as (right, asked).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Facts {
    /// Objects that are there.
    pub objects: (f64, f64),
    /// Whether all of them are there.
    pub whole: (f64, f64),
    /// Detections that were asked for.
    pub asked_for: (f64, f64),
    /// The style.
    pub style: (f64, f64),
    /// Both objects are there and stand to each other as asked.
    pub relation: (f64, f64),
    /// They do so, where both are there.
    pub placed: (f64, f64),
    /// There are as many of the thing as asked, no more and no less.
    pub count: (f64, f64),
    /// Colours of objects that are there.
    pub colour: (f64, f64),
    /// The colour of the background.
    pub background: (f64, f64),
}

impl Facts {
    /// Compares a verdict with what was asked for.
    pub fn new(wanted: &Wanted, verdict: &Verdict) -> Self {
        let found = matched(&wanted.objects, &verdict.detections, |object, seen| seen.concept == object.concept);
        let hits = found.iter().flatten().count();
        let mut facts = Self {
            objects: (hits as f64, found.len() as f64),
            whole: right(hits == found.len()),
            asked_for: (hits as f64, verdict.detections.len() as f64),
            ..Self::default()
        };
        if let Some(style) = wanted.style {
            facts.style = right(verdict.style == style);
        }
        if let Some(background) = wanted.background {
            facts.background = right(verdict.background == background);
        }
        if let Some((first, second, relation)) = wanted.relation {
            let of = |place: usize| found.get(place).copied().flatten();
            let both = of(first).zip(of(second)).map(|(first, second)| relation.holds(first, second));
            facts.relation = right(both == Some(true));
            if let Some(holds) = both {
                facts.placed = right(holds);
            }
        }
        if wanted.counts() {
            let thing = wanted.objects.first().map(|object| object.concept.as_str());
            let seen = verdict.detections.iter().filter(|detection| Some(detection.concept.as_str()) == thing).count();
            facts.count = right(seen == wanted.objects.len());
        }
        for (object, detection) in wanted.objects.iter().zip(&found) {
            if let (Some(colour), Some(detection)) = (object.colour, detection) {
                facts.colour.0 += right(detection.colour == colour).0;
                facts.colour.1 += 1.0;
            }
        }
        facts
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use train_icons::config::SamplerConfig;
    use train_icons::sampler::Sampler;
    use train_icons::split::Split;

    use super::*;

    fn detection(concept: &str, x: f32, y: f32, colour: Colour) -> Detection {
        Detection { concept: concept.to_owned(), confidence: 0.9, x, y, width: 0.3, height: 0.3, colour }
    }

    /// The perfect verdict on a scene.
    pub(crate) fn perfect(scene: &Scene) -> Verdict {
        let wanted = Wanted::of(scene);
        let seen = scene.objects.iter().zip(&wanted.objects);
        let detections = seen
            .map(|(object, wanted)| {
                detection(&object.concept, object.x, object.y, wanted.colour.unwrap_or(Colour::Teal))
            })
            .collect();
        let (style, background) = (scene.style, scene.background.colour());
        Verdict { detections, style, style_confidence: 1.0, background, features: Vec::new() }
    }

    fn scenes() -> Vec<Scene> {
        let mut config = SamplerConfig::small();
        config.mix.same = 0.3;
        let sampler = Sampler::new(config).unwrap();
        (0..400).map(|index| sampler.scene(3, index, Split::Train).unwrap()).collect()
    }

    /// Everything that captions ask for is read from them, and holds in the scene they were written for.
    #[test]
    fn a_scene_is_what_its_caption_asks_for() {
        let mut asked = Facts::default();
        for scene in scenes() {
            let facts = Facts::new(&Wanted::of(&scene), &perfect(&scene));
            let parts = |facts: &Facts| {
                let Facts { objects, whole, asked_for, style, relation, placed, count, colour, background } = *facts;
                [objects, whole, asked_for, style, relation, placed, count, colour, background]
            };
            for (right, of) in parts(&facts) {
                assert_eq!(right, of, "{}: {facts:?}", scene.caption);
            }
            asked.relation.1 += facts.relation.1;
            asked.count.1 += facts.count.1;
            asked.colour.1 += facts.colour.1;
            asked.style.1 += facts.style.1;
            asked.background.1 += facts.background.1;
        }
        let Facts { relation, count, colour, style, background, .. } = asked;
        assert!(relation.1 > 40.0 && count.1 > 40.0 && colour.1 > 40.0, "{asked:?}");
        assert!(style.1 > 200.0 && style.1 < 400.0 && background.1 > 200.0 && background.1 < 400.0, "{asked:?}");
    }

    #[test]
    fn what_is_wrong_is_counted() {
        let scene = scenes()
            .into_iter()
            .find(|scene| {
                let wanted = Wanted::of(scene);
                wanted.relation.is_some() && wanted.style.is_some() && wanted.objects.iter().all(|o| o.colour.is_some())
            })
            .unwrap();
        let wanted = Wanted::of(&scene);
        let verdict = perfect(&scene);
        let facts = |change: &dyn Fn(&mut Verdict)| {
            let mut changed = verdict.clone();
            change(&mut changed);
            Facts::new(&wanted, &changed)
        };
        let missing = facts(&|verdict| drop(verdict.detections.pop()));
        assert_eq!((missing.objects, missing.whole), ((1.0, 2.0), (0.0, 1.0)));
        assert_eq!((missing.relation, missing.placed), ((0.0, 1.0), (0.0, 0.0)));
        let swapped = facts(&|verdict| {
            let places: Vec<_> = verdict.detections.iter().rev().map(|d| (d.x, d.y)).collect();
            for (detection, (x, y)) in verdict.detections.iter_mut().zip(places) {
                (detection.x, detection.y) = (x, y);
            }
        });
        assert_eq!((swapped.relation, swapped.placed, swapped.whole), ((0.0, 1.0), (0.0, 1.0), (1.0, 1.0)));
        let extra = facts(&|verdict| verdict.detections.push(detection("crown", 0.1, 0.1, Colour::Red)));
        assert_eq!(extra.asked_for, (2.0, 3.0));
        let style = if scene.style == IconSet::Ink { IconSet::Noto } else { IconSet::Ink };
        assert_eq!(facts(&|verdict| verdict.style = style).style, (0.0, 1.0));
        let gray = facts(&|verdict| verdict.detections.iter_mut().for_each(|d| d.colour = Colour::Gray));
        assert_eq!(gray.colour, (0.0, 2.0));
    }

    #[test]
    fn counts_are_exact() {
        let scene = scenes().into_iter().find(|scene| Wanted::of(scene).counts()).unwrap();
        let wanted = Wanted::of(&scene);
        let mut verdict = perfect(&scene);
        verdict.detections.push(detection(&scene.objects[0].concept, 0.1, 0.9, Colour::Red));
        assert_eq!(Facts::new(&wanted, &verdict).count, (0.0, 1.0));
        verdict.detections.truncate(1);
        assert_eq!(Facts::new(&wanted, &verdict).count, (0.0, 1.0));
    }

    #[test]
    fn relations_have_to_be_clear() {
        let at = |x, y| detection("cat", x, y, Colour::Red);
        assert!(Relation::Left.holds(&at(0.2, 0.5), &at(0.7, 0.6)));
        assert!(!Relation::Left.holds(&at(0.7, 0.5), &at(0.2, 0.6)));
        assert!(!Relation::Left.holds(&at(0.4, 0.2), &at(0.6, 0.8)), "rather above than left");
        assert!(Relation::Below.holds(&at(0.5, 0.8), &at(0.4, 0.3)));
        let words = [("to the left of", Relation::Left), ("right of", Relation::Right), ("under", Relation::Below)];
        for (words, relation) in words {
            assert_eq!(Relation::of(words), Some(relation));
        }
        assert_eq!(Relation::of("next to"), None);
        assert_eq!(Relation::of("and"), None);
    }
}
