//! The held-out cells and pairs leave enough to learn from.

use train_icons::config::SamplerConfig;
use train_icons::icon_set::IconSet;
use train_icons::split::{held_out_style, is_held_out_cell, is_held_out_pair};

fn presets() -> [SamplerConfig; 2] {
    [SamplerConfig::small(), SamplerConfig::all()]
}

#[test]
fn every_concept_keeps_two_styles_and_every_style_most_concepts() {
    for config in presets() {
        for concept in &config.concepts {
            let kept = config.styles.iter().filter(|&&style| !is_held_out_cell(concept, style)).count();
            assert!(kept >= 2, "{concept} keeps {kept} styles");
        }
        for &style in &config.styles {
            let kept = config.concepts.iter().filter(|concept| !is_held_out_cell(concept, style)).count();
            assert!(kept * 10 >= config.concepts.len() * 8, "{style:?} keeps {kept} concepts");
        }
    }
}

#[test]
fn about_eight_percent_are_held_out() {
    for config in presets() {
        let names: Vec<&str> = config.concepts.iter().map(String::as_str).collect();
        let cells = config.styles.iter().flat_map(|&style| names.iter().map(move |name| is_held_out_cell(name, style)));
        let pairs = (0..names.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
        let pairs = pairs.map(|(a, b)| is_held_out_pair(names[a], names[b]));
        for flags in [cells.collect::<Vec<_>>(), pairs.collect::<Vec<_>>()] {
            let share = flags.iter().filter(|&&held_out| held_out).count() as f64 / flags.len() as f64;
            assert!((0.06..0.10).contains(&share), "{share}");
        }
    }
}

#[test]
fn pairs_have_no_order_and_nothing_is_a_pair_with_itself() {
    let names = SamplerConfig::all().concepts;
    for a in &names {
        assert!(!is_held_out_pair(a, a));
        for b in &names {
            assert_eq!(is_held_out_pair(a, b), is_held_out_pair(b, a));
        }
    }
}

#[test]
fn what_the_documentation_shows_is_trained() {
    let shown = ["apple", "cat", "dog", "star"];
    for a in shown {
        assert_eq!(held_out_style(a), None);
        for b in shown {
            assert!(!is_held_out_pair(a, b));
        }
    }
    assert!(IconSet::ALL.iter().any(|&style| is_held_out_cell("mushroom", style)));
}
