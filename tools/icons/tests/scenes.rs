//! What the sampler promises: purity, splits, captions that tell the truth.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helper functions of a test file")]

use std::collections::HashSet;

use train_icons::background::Background;
use train_icons::colour::{Colour, contrast};
use train_icons::concepts;
use train_icons::config::SamplerConfig;
use train_icons::error::IconsError;
use train_icons::icon_set::IconSet;
use train_icons::layout::PLACES;
use train_icons::sampler::Sampler;
use train_icons::scene::{Object, Scene};
use train_icons::split::{Split, is_held_out_cell, is_held_out_pair, split_of};

const SCENES: u64 = 3000;

fn presets() -> [Sampler; 2] {
    [SamplerConfig::small(), SamplerConfig::all()].map(|config| Sampler::new(config).unwrap())
}

fn sample(sampler: &Sampler, seed: u64, split: Split) -> Vec<Scene> {
    (0..SCENES).map(|index| sampler.scene(seed, index, split).unwrap()).collect()
}

fn share(scenes: &[Scene], holds: impl Fn(&Scene) -> bool) -> f64 {
    scenes.iter().filter(|scene| holds(scene)).count() as f64 / scenes.len() as f64
}

fn kinds(scene: &Scene) -> HashSet<&str> {
    scene.objects.iter().map(|object| object.concept.as_str()).collect()
}

#[test]
fn a_scene_is_a_function_of_seed_and_index() {
    for sampler in presets() {
        let scenes = sample(&sampler, 3, Split::Train);
        for index in [17, 2, 999, 2] {
            assert_eq!(sampler.scene(3, index, Split::Train).unwrap(), scenes[index as usize]);
        }
        let captions: HashSet<_> = scenes.iter().map(|scene| &scene.caption).collect();
        assert!(captions.len() > SCENES as usize / 3, "only {} different captions", captions.len());
        assert_ne!(sampler.scene(4, 2, Split::Train).unwrap(), scenes[2]);
    }
}

/// The data that a model was trained on must not change unnoticed: whoever changes it sees it here.
#[test]
fn the_first_captions_stay_what_they_are() {
    let [small, all] = presets();
    let captions = |sampler: &Sampler, split| {
        (0..4).map(|index| sampler.scene(0, index, split).unwrap().caption).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(captions(&small, Split::Train), include_str!("captions/small.txt").trim_end());
    assert_eq!(captions(&small, Split::HeldOut), include_str!("captions/held_out.txt").trim_end());
    assert_eq!(captions(&all, Split::Train), include_str!("captions/all.txt").trim_end());
}

#[test]
fn training_never_sees_what_is_held_out_and_the_rest_is_exactly_that() {
    for sampler in presets() {
        for scene in sample(&sampler, 1, Split::Train) {
            assert_eq!(split_of(&scene), Split::Train, "{}", scene.caption);
        }
        let held_out = sample(&sampler, 1, Split::HeldOut);
        let has_cell = |scene: &Scene| kinds(scene).iter().any(|name| is_held_out_cell(name, scene.style));
        let has_pair = |scene: &Scene| kinds(scene).iter().any(|a| kinds(scene).iter().any(|b| is_held_out_pair(a, b)));
        for scene in &held_out {
            assert!(has_cell(scene) != has_pair(scene), "{}", scene.caption);
        }
        assert!((0.4..0.6).contains(&share(&held_out, has_cell)));
    }
}

#[test]
fn a_style_reference_shows_other_things_in_the_same_style() {
    for sampler in presets() {
        for split in [Split::Train, Split::HeldOut] {
            for index in 0..500 {
                let scene = sampler.scene(5, index, split).unwrap();
                let reference = sampler.style_reference(5, index, split).unwrap();
                assert_eq!(reference.style, scene.style);
                assert!(kinds(&reference).is_disjoint(&kinds(&scene)), "{} / {}", reference.caption, scene.caption);
                assert_eq!(split_of(&reference), Split::Train);
                assert_eq!(sampler.style_reference(5, index, split).unwrap(), reference);
            }
        }
    }
}

#[test]
fn every_span_names_its_object() {
    for scene in presets().iter().flat_map(|sampler| sample(sampler, 2, Split::Train)) {
        for (place, object) in scene.objects.iter().enumerate() {
            let concept = concepts::find(&object.concept).unwrap();
            let phrase = scene.phrase(place);
            let same = scene.objects.iter().filter(|other| other.concept == object.concept).count();
            let (number, noun) = match same {
                1 => ("", concept.name),
                2 => ("two ", concept.plural),
                _ => ("three ", concept.plural),
            };
            assert!(phrase.starts_with(number) && phrase.ends_with(noun), "`{phrase}` in `{}`", scene.caption);
            let colours = phrase.split(' ').filter_map(|word| Colour::ALL.into_iter().find(|c| c.word() == word));
            for colour in colours {
                let drawn = if scene.style.is_mono() { object.ink } else { concept.colour_in(scene.style) };
                assert_eq!(drawn, Some(colour), "{}", scene.caption);
            }
            assert_eq!(object.ink.is_some(), scene.style.is_mono());
        }
        assert_eq!(scene.phrase(scene.objects.len()), "");
    }
}

#[test]
fn the_caption_tells_where_things_are() {
    let mut seen = HashSet::new();
    for scene in presets().iter().flat_map(|sampler| sample(sampler, 8, Split::Train)) {
        let [a, b] = scene.objects.as_slice() else { continue };
        if a.concept == b.concept {
            assert!(a.x < b.x);
            continue;
        }
        let (first, second) = if a.span.start < b.span.start { (a, b) } else { (b, a) };
        let between: String =
            scene.caption.chars().skip(first.span.end).take(second.span.start - first.span.end).collect();
        let relation = between.trim_end_matches(" a ").trim_end_matches(" an ").trim().to_owned();
        let apart = |low: &Object, high: &Object| (high.x - low.x, high.y - low.y);
        let (across, down) = apart(first, second);
        match relation.as_str() {
            "left of" | "to the left of" => assert!(across > 0.2, "{}", scene.caption),
            "right of" | "to the right of" => assert!(across < -0.2, "{}", scene.caption),
            "above" | "over" => assert!(down > 0.2, "{}", scene.caption),
            "below" | "under" => assert!(down < -0.2, "{}", scene.caption),
            "next to" | "beside" => assert!(across.abs() > 0.2, "{}", scene.caption),
            "and" => {}
            other => panic!("unknown relation `{other}` in `{}`", scene.caption),
        }
        seen.insert(relation);
    }
    assert_eq!(seen.len(), 11, "{seen:?}");
}

#[test]
fn and_says_nothing_about_places() {
    let [small, _] = presets();
    let scenes = sample(&small, 15, Split::Train);
    let of_two = |scene: &&Scene| scene.objects.len() == 2 && kinds(scene).len() == 2;
    let two: Vec<&Scene> = scenes.iter().filter(of_two).collect();
    let between = |scene: &Scene| {
        let (start, end) = (scene.objects[0].span.clone(), scene.objects[1].span.clone());
        let (from, to) = (start.end.min(end.end), start.start.max(end.start));
        scene.caption.chars().skip(from).take(to.saturating_sub(from)).collect::<String>()
    };
    let joined: Vec<&&Scene> = two.iter().filter(|scene| between(scene).trim_start().starts_with("and ")).collect();
    let of_all = joined.len() as f64 / two.len() as f64;
    assert!((of_all - small.config().scattered).abs() < 0.05, "{of_all}");
    // The first named object is on every side of the second, and aslant of it.
    let named_first = |scene: &Scene| usize::from(scene.objects[0].span.start > scene.objects[1].span.start);
    let apart = joined.iter().map(|scene| {
        let (a, b) = (&scene.objects[named_first(scene)], &scene.objects[1 - named_first(scene)]);
        (b.x - a.x, b.y - a.y)
    });
    let apart: Vec<(f32, f32)> = apart.collect();
    let often =
        |holds: fn(&(f32, f32)) -> bool| apart.iter().filter(|&step| holds(step)).count() as f64 / apart.len() as f64;
    for share in [often(|s| s.0 > 0.3), often(|s| s.0 < -0.3), often(|s| s.1 > 0.3), often(|s| s.1 < -0.3)] {
        assert!(share > 0.2, "{share}");
    }
    assert!(often(|s| s.0.abs().min(s.1.abs()) > 0.1) > 0.5);
}

/// Scattered objects that have no room stand in a row.
#[test]
fn objects_that_cannot_be_scattered_stand_in_a_row() {
    let mut config = SamplerConfig { scattered: 1.0, ..SamplerConfig::small() };
    config.sizes.two = [0.48, 0.48];
    let scenes = sample(&Sampler::new(config.clone()).unwrap(), 1, Split::Train);
    let two: Vec<&Scene> = scenes.iter().filter(|scene| kinds(scene).len() == 2).collect();
    let in_a_row = |scene: &Scene| scene.objects[0].x < 0.3 && scene.objects[1].x > 0.7;
    assert!(two.len() > 100 && two.iter().all(|scene| scene.caption.contains(" and ") && in_a_row(scene)));
    config.sizes.two = [0.48, 0.5];
    assert!(Sampler::new(config).is_err(), "objects that have no room in a row either");
}

#[test]
fn another_configuration_is_another_version_of_the_data() {
    let [small, all] = presets().map(|sampler| sampler.version().unwrap());
    assert_eq!(small, Sampler::new(SamplerConfig::small()).unwrap().version().unwrap());
    assert_ne!(small, all);
    let rare = SamplerConfig { patterned: 0.1501, ..SamplerConfig::small() };
    assert_ne!(small, Sampler::new(rare).unwrap().version().unwrap());
}

#[test]
fn places_are_where_the_caption_says() {
    let [_, all] = presets();
    let mut places = 0;
    for scene in sample(&all, 4, Split::Train) {
        let [object] = scene.objects.as_slice() else { continue };
        let Some(place) = PLACES.into_iter().find(|place| scene.caption.contains(place.words)) else { continue };
        places += 1;
        for (centre, side) in [(object.x, place.across), (object.y, place.down)] {
            let third = (centre * 3.0) as i8 - 1;
            assert_eq!(third, side, "{} at ({}, {})", scene.caption, object.x, object.y);
        }
    }
    assert!(places > 100);
}

#[test]
fn style_and_background_are_named_truly() {
    for sampler in presets() {
        let scenes = sample(&sampler, 6, Split::Train);
        for scene in &scenes {
            for style in IconSet::ALL {
                let named = scene.caption.contains(&format!("{} style", style.word()));
                assert!(!named || style == scene.style, "{}", scene.caption);
            }
            if scene.caption.contains("background") {
                assert!(
                    scene.caption.contains(&format!("{} background", scene.background.words())),
                    "{}",
                    scene.caption
                );
            } else {
                assert!(matches!(scene.background, Background::Plain(_)), "{}", scene.caption);
            }
        }
        let near = |share: f64, expected: f64| (share - expected).abs() < 0.03;
        assert!(near(share(&scenes, |scene| !scene.caption.contains(" style")), sampler.config().omit_style));
        assert!(near(share(&scenes, |scene| !scene.caption.contains("background")), sampler.config().omit_background));
    }
}

#[test]
fn articles_fit_the_sound() {
    for scene in presets().iter().flat_map(|sampler| sample(sampler, 9, Split::Train)) {
        let words: Vec<_> = scene.caption.split(' ').collect();
        for pair in words.windows(2) {
            let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']) && !pair[1].starts_with("unicorn");
            assert!(pair[0] != "a" || !vowel, "{}", scene.caption);
            assert!(pair[0] != "an" || vowel, "{}", scene.caption);
        }
    }
}

#[test]
fn objects_stay_in_the_picture_and_off_each_other() {
    for scene in presets().iter().flat_map(|sampler| sample(sampler, 10, Split::Train)) {
        for object in &scene.objects {
            for centre in [object.x, object.y] {
                let half = object.size / 2.0;
                assert!(centre - half >= 0.0 && centre + half <= 1.0, "{scene:?}");
            }
        }
        for pair in scene.objects.windows(2) {
            let distance = (pair[0].x - pair[1].x).abs().max((pair[0].y - pair[1].y).abs());
            assert!(distance >= (pair[0].size + pair[1].size) / 2.0, "{scene:?}");
        }
    }
}

#[test]
fn ink_shows_and_coloured_objects_do_not_hide() {
    for scene in presets().iter().flat_map(|sampler| sample(sampler, 11, Split::Train)) {
        for object in &scene.objects {
            match object.ink {
                Some(ink) => {
                    for tone in scene.background.tones() {
                        assert!(contrast(ink.ink(), tone) >= 3.0, "{ink:?} on {:?}", scene.background);
                    }
                }
                None => {
                    let colour = concepts::find(&object.concept).unwrap().colour_in(scene.style);
                    assert_ne!(colour, Some(scene.background.colour()), "{}", scene.caption);
                }
            }
        }
    }
}

#[test]
fn the_small_preset_is_mostly_one_object_or_two() {
    let [small, _] = presets();
    let scenes = sample(&small, 12, Split::Train);
    let near = |share: f64, expected: f64| (share - expected).abs() < 0.03;
    assert!(near(share(&scenes, |scene| scene.objects.len() == 1), 0.45));
    assert!(near(share(&scenes, |scene| kinds(scene).len() == 2), 0.47));
    for style in [IconSet::Noto, IconSet::Flat, IconSet::Ink] {
        assert!(near(share(&scenes, |scene| scene.style == style), 1.0 / 3.0));
    }
    let shown: HashSet<_> = scenes.iter().flat_map(kinds).collect();
    assert_eq!(shown.len(), 36);
}

#[test]
fn scenes_and_configurations_survive_json() {
    let [_, all] = presets();
    for scene in sample(&all, 13, Split::Train).into_iter().take(50) {
        let json = serde_json::to_string(&scene).unwrap();
        assert_eq!(serde_json::from_str::<Scene>(&json).unwrap(), scene);
    }
    let json = serde_json::to_string(all.config()).unwrap();
    assert_eq!(serde_json::from_str::<SamplerConfig>(&json).unwrap(), *all.config());
    assert!(serde_json::from_str::<SamplerConfig>(&json.replacen("jitter", "jiter", 1)).is_err());
}

#[test]
fn a_configuration_that_cannot_be_sampled_names_every_problem() {
    let mut config = SamplerConfig::small();
    config.styles.clear();
    config.white = 1.5;
    config.jitter = f32::NAN;
    config.mix.one = -1.0;
    config.sizes.three = [0.3, 0.4];
    let IconsError::Config { problem } = Sampler::new(config).unwrap_err() else { panic!("another error") };
    for name in ["no styles", "`white`", "`jitter`", "`mix`", "`sizes.three`"] {
        assert!(problem.contains(name), "{problem}");
    }

    let mut config = SamplerConfig::small();
    config.concepts.push("griffin".to_owned());
    let error = Sampler::new(config).unwrap_err();
    assert!(matches!(&error, IconsError::UnknownConcept { concept } if concept == "griffin"));
}

#[test]
fn a_configuration_without_held_out_cells_says_so() {
    let mut config = SamplerConfig::small();
    config.concepts = vec!["apple".to_owned(), "cat".to_owned()];
    let sampler = Sampler::new(config).unwrap();
    assert!(matches!(sampler.scene(0, 0, Split::HeldOut), Err(IconsError::Config { .. })));
    // With two concepts a reference may have to show one of the scene's.
    assert!(sampler.style_reference(0, 0, Split::Train).is_ok());
}
