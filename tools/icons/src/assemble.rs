//! Builds the sprite pack from the installed icon packages.
//!
//! The packages are in the Iconify JSON format: `icons.json` maps a name to an SVG body, `chars.json` a code point to a
//! name. One package has no code points; there the name is the slug of the Unicode label, which `emojibase-data` holds.

use std::collections::HashMap;
use std::path::Path;

use ediffi_core::files::read_json;
use serde::Deserialize;

use crate::concepts::{self, Concept};
use crate::error::{IconsError, Result};
use crate::icon_set::IconSet;
use crate::pack::{Pack, PackedSprite, Source};
use crate::sprite;

#[derive(Deserialize)]
struct Iconify {
    width: f32,
    height: f32,
    icons: HashMap<String, Icon>,
    #[serde(default)]
    aliases: HashMap<String, Alias>,
}

#[derive(Deserialize)]
struct Icon {
    body: String,
    width: Option<f32>,
    height: Option<f32>,
    left: Option<f32>,
    top: Option<f32>,
}

#[derive(Deserialize)]
struct Alias {
    parent: String,
}

#[derive(Deserialize)]
struct Package {
    version: String,
}

#[derive(Deserialize)]
struct Label {
    hexcode: String,
    label: String,
}

/// Builds a pack of every concept in every style from a `node_modules` folder.
///
/// # Errors
/// When a package is not installed, has another version than the pinned one, or lacks a drawing.
pub fn assemble(packages: &Path) -> Result<Pack> {
    let labels: Vec<Label> = read_json(&packages.join("emojibase-data/en/data.json"))?;
    let labels: HashMap<String, String> =
        labels.into_iter().map(|row| (code_key(&row.hexcode), slug(&row.label))).collect();

    let mut sources = Vec::new();
    let mut sprites = Vec::new();
    for style in IconSet::ALL {
        let folder = packages.join(style.package());
        let package: Package = read_json(&folder.join("package.json"))?;
        if package.version != style.version() {
            return Err(IconsError::PackageVersion {
                package: style.package(),
                found: package.version,
                expected: style.version(),
            });
        }
        let set: Iconify = read_json(&folder.join("icons.json"))?;
        let names: HashMap<String, String> = read_json(&folder.join("chars.json"))?;
        for concept in concepts::ALL {
            let name = names.get(concept.code).or_else(|| labels.get(concept.code));
            let icon = name.and_then(|name| set.icon(name)).ok_or_else(|| missing(style, concept))?;
            let mut svg = set.svg(icon, false);
            if sprite::overflows(&svg, concept.name, style)? {
                svg = set.svg(icon, true);
            }
            let bounds = sprite::bounds(&svg, concept.name, style)?;
            sprites.push(PackedSprite { concept: concept.name.to_owned(), style, bounds, svg });
        }
        sources.push(Source {
            style,
            package: style.package().to_owned(),
            version: package.version,
            licence: style.licence().to_owned(),
        });
    }
    Ok(Pack::new(sources, sprites))
}

impl Iconify {
    fn icon(&self, name: &str) -> Option<&Icon> {
        self.icons.get(name).or_else(|| self.icons.get(&self.aliases.get(name)?.parent))
    }

    /// The whole document. `clip` cuts off what lies outside the view box, at a price every time it is drawn.
    fn svg(&self, icon: &Icon, clip: bool) -> String {
        let (left, top) = (icon.left.unwrap_or(0.0), icon.top.unwrap_or(0.0));
        let (width, height) = (icon.width.unwrap_or(self.width), icon.height.unwrap_or(self.height));
        let body = if clip {
            format!(
                "<clipPath id=\"view-box\"><path d=\"M{left} {top}h{width}v{height}h-{width}z\"/></clipPath>\
                 <g clip-path=\"url(#view-box)\">{}</g>",
                icon.body
            )
        } else {
            icon.body.clone()
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{width}\" \
             height=\"{height}\" viewBox=\"{left} {top} {width} {height}\" color=\"#000\">{body}</svg>"
        )
    }
}

fn missing(style: IconSet, concept: &Concept) -> IconsError {
    IconsError::IconMissing {
        package: style.package(),
        concept: concept.name.to_owned(),
        code: concept.code.to_owned(),
    }
}

/// Lower-case code points joined by `-`, without the variation selectors: the key that all the packages share.
fn code_key(hexcode: &str) -> String {
    let code = hexcode.to_lowercase();
    code.split('-').filter(|part| !matches!(*part, "fe0f" | "fe0e")).collect::<Vec<_>>().join("-")
}

fn slug(label: &str) -> String {
    label.to_lowercase().replace(' ', "-").replace(':', "")
}
