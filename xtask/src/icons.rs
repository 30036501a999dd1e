//! `cargo xtask icons`: the sprite pack that the small model is trained on.

use std::fs;
use std::process::Command;

use crate::checkout::{self, Checkout};
use crate::setup;
use ediffi_libtorch::Need;

/// It fetches the icon packages.
const NPM: Need = Need::Program { name: "npm", hint: "install Node.js with npm (Debian, Ubuntu: npm)" };

/// Fetches the pinned icon packages into `.icons`, and packs the sprites of all concepts and styles into one file.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    setup::before_building(checkout, &[NPM])?;
    let folder = checkout.root().join(".icons");
    let pinned = checkout.root().join("tools/icons/package.json");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(&pinned, folder.join("package.json")))
        .map_err(|error| format!("error: cannot copy {} to {}: {error}", pinned.display(), folder.display()))?;

    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".icons"]);
    checkout::run(npm.current_dir(checkout.root()), "npm install")?;

    let mut pack = checkout.cargo(&["run", "--release", "--package", "train-icons", "--bin", "icons", "--", "pack"]);
    pack.args(["--packages", ".icons/node_modules", "--out", ".icons/pack.json"]);
    checkout::run(&mut pack, "packing the icons")?;
    println!("{}", folder.join("pack.json").display());
    Ok(())
}
