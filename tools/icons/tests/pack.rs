//! Building, writing and reading sprite packs.
#![allow(clippy::unwrap_used, reason = "helper functions of a test file")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use train_icons::assemble::assemble;
use train_icons::colour::Colour;
use train_icons::concepts;
use train_icons::error::IconsError;
use train_icons::icon_set::IconSet;
use train_icons::pack::Pack;
use train_icons::render::Renderer;
use train_icons::sprite;

const SQUARE: &str = "<path fill=\"currentColor\" d=\"M2 2h6v6h-6z\"/>";

fn write(path: &Path, value: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value.to_string()).unwrap();
}

/// A `node_modules` folder in which every icon is a square, found by each of the three ways that packages use.
fn packages() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let labels: Vec<_> = concepts::ALL
        .iter()
        .map(|concept| json!({ "hexcode": concept.code.to_uppercase() + "-FE0F", "label": format!("The {}", concept.name) }))
        .collect();
    write(&root.join("emojibase-data/en/data.json"), &Value::from(labels));
    for style in IconSet::ALL {
        let home = root.join(style.package());
        write(&home.join("package.json"), &json!({ "name": style.package(), "version": style.version() }));
        let slug = |name: &str| format!("the-{}", name.replace(' ', "-"));
        let mut icons: serde_json::Map<_, _> =
            concepts::ALL.iter().map(|concept| (slug(concept.name), json!({ "body": SQUARE }))).collect();
        icons.insert("stray".to_owned(), json!({ "body": format!("{SQUARE}<path d=\"M20 20h2v2z\"/>") }));
        // The first concept is an alias, the second has a stray shape outside its picture.
        let first = slug(concepts::ALL[0].name);
        let body = icons.remove(&first).unwrap();
        icons.insert("original".to_owned(), body);
        let chars = if style == IconSet::Vintage { json!({}) } else { json!({ concepts::ALL[1].code: "stray" }) };
        let aliases = json!({ first: { "parent": "original" } });
        write(
            &home.join("icons.json"),
            &json!({ "prefix": "x", "width": 10, "height": 10, "icons": icons, "aliases": aliases }),
        );
        write(&home.join("chars.json"), &chars);
    }
    folder
}

#[test]
fn a_pack_has_every_concept_in_every_style() {
    let folder = packages();
    let pack = assemble(folder.path()).unwrap();
    let cells: HashSet<_> = pack.sprites.iter().map(|sprite| (&sprite.concept, sprite.style)).collect();
    assert_eq!(cells.len(), concepts::ALL.len() * IconSet::ALL.len());
    for sprite in &pack.sprites {
        // The square, to the 1/512 that bounds are measured to; the stray shape is not part of it.
        for (measured, expected) in sprite.bounds.into_iter().zip([2.0, 2.0, 6.0, 6.0]) {
            assert!((measured - expected).abs() < 0.05, "{} {:?}", sprite.concept, sprite.bounds);
        }
    }
    assert_eq!(pack.sources.len(), IconSet::ALL.len());

    let path = folder.path().join("pack.json");
    pack.save(&path).unwrap();
    let read = Pack::open(&path).unwrap();
    assert_eq!(read, pack);
    assert!(Renderer::new(&read).is_ok());
    assert!(!path.with_extension("json.tmp").exists());
}

#[test]
fn stray_shapes_are_clipped() {
    let pack = assemble(packages().path()).unwrap();
    let stray = concepts::ALL[1].name;
    for sprite in pack.sprites.iter().filter(|sprite| sprite.concept == stray && sprite.style != IconSet::Vintage) {
        assert!(sprite.svg.contains("M20 20"));
        assert!(!sprite::overflows(&sprite.svg, stray, sprite.style).unwrap());
    }
    let bare = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"10\" height=\"10\">{SQUARE}<path d=\"M11 2h2v2z\"/></svg>"
    );
    assert!(sprite::overflows(&bare, stray, IconSet::Noto).unwrap());
}

#[test]
fn another_version_of_a_package_is_refused() {
    let folder = packages();
    write(&folder.path().join(IconSet::Flat.package()).join("package.json"), &json!({ "version": "9.9.9" }));
    let error = assemble(folder.path()).unwrap_err();
    assert!(
        matches!(&error, IconsError::PackageVersion { found, expected: "1.2.6", .. } if found == "9.9.9"),
        "{error}"
    );
}

#[test]
fn a_missing_icon_is_named() {
    let folder = packages();
    let home = folder.path().join(IconSet::Noto.package());
    write(&home.join("icons.json"), &json!({ "width": 10, "height": 10, "icons": {} }));
    let error = assemble(folder.path()).unwrap_err();
    assert!(matches!(&error, IconsError::IconMissing { concept, .. } if concept == concepts::ALL[0].name), "{error}");
    let nowhere = assemble(&folder.path().join("nowhere")).unwrap_err();
    assert!(matches!(nowhere, IconsError::Core(ediffi_core::Error::ReadFile { .. })));
}

#[test]
fn a_missing_pack_says_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let error = Pack::open(folder.path().join("pack.json")).unwrap_err();
    assert!(matches!(error, IconsError::PackMissing { .. }));
    assert!(error.to_string().contains("cargo xtask icons"));
}

#[test]
fn a_pack_that_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pack.json");
    fs::write(&path, "{").unwrap();
    assert!(matches!(Pack::open(&path), Err(IconsError::Core(ediffi_core::Error::Json { .. }))));
    fs::write(&path, "{ \"format\": \"ediffi-icons/0\", \"other\": 1 }").unwrap();
    let error = Pack::open(&path).unwrap_err();
    assert!(matches!(&error, IconsError::PackFormat { found, .. } if found == "ediffi-icons/0"));
    let lost = common::pack().save(folder.path().join("nowhere/pack.json"));
    assert!(matches!(lost, Err(IconsError::Core(ediffi_core::Error::WriteFile { .. }))));
}

#[test]
fn a_drawing_must_be_svg_and_show_something() {
    let mut pack = common::pack();
    pack.sprites[0].svg = "<svg".to_owned();
    assert!(matches!(Renderer::new(&pack), Err(IconsError::Svg { concept, .. }) if concept == "apple"));
    let empty = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"10\" height=\"10\"/>";
    assert!(matches!(sprite::bounds(empty, "apple", IconSet::Noto), Err(IconsError::EmptySprite { .. })));
}

#[test]
fn the_pinned_versions_are_those_of_package_json() {
    let package: Value = serde_json::from_str(include_str!("../package.json")).unwrap();
    for style in IconSet::ALL {
        assert_eq!(package["dependencies"][style.package()], style.version());
    }
}

/// Labels of training are these numbers, and are read with these lists.
#[test]
fn colours_and_styles_stand_at_their_numbers() {
    assert!(Colour::ALL.iter().enumerate().all(|(place, &colour)| colour as usize == place));
    assert!(IconSet::ALL.iter().enumerate().all(|(place, &style)| style as usize == place));
}

#[test]
fn the_table_of_concepts_is_consistent() {
    let names: HashSet<_> = concepts::ALL.iter().map(|concept| concept.name).collect();
    let codes: HashSet<_> = concepts::ALL.iter().map(|concept| concept.code).collect();
    assert_eq!((names.len(), codes.len()), (concepts::ALL.len(), concepts::ALL.len()));
    assert!(names.len() >= 64);
    let small: HashSet<_> = concepts::SMALL.into_iter().collect();
    assert!(small.len() == concepts::SMALL.len() && small.is_subset(&names));
    assert!(concepts::find("griffin").is_err());
}
