//! What can go wrong with the icons: one enum for the crate.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, IconsError>;

/// An error of the icons data set. Every message names the culprit.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what variants and fields are")]
pub enum IconsError {
    #[error("no sprite pack at `{path}`: run `cargo xtask icons` to build it", path = path.display())]
    PackMissing { path: PathBuf },
    /// A file could not be read or written.
    #[error(transparent)]
    Core(#[from] ediffi_core::Error),
    #[error("sprite pack has format `{found}`, expected `{expected}`: run `cargo xtask icons` to rebuild it")]
    PackFormat { found: String, expected: &'static str },
    #[error("package `{package}` is version {found}, expected {expected}")]
    PackageVersion { package: &'static str, found: String, expected: &'static str },
    #[error("package `{package}` has no icon for `{concept}` (code point {code})")]
    IconMissing { package: &'static str, concept: String, code: String },
    #[error("the {style} drawing of `{concept}` is not valid SVG")]
    Svg {
        concept: String,
        style: &'static str,
        #[source]
        source: resvg::usvg::Error,
    },
    #[error("the {style} drawing of `{concept}` is empty")]
    EmptySprite { concept: String, style: &'static str },
    #[error("the sprite pack has no {style} drawing of `{concept}`")]
    SpriteMissing { concept: String, style: &'static str },
    #[error("unknown concept `{concept}`")]
    UnknownConcept { concept: String },
    #[error("sampler configuration: {problem}")]
    Config { problem: String },
    #[error("window {width}x{height} at ({x}, {y}) does not fit in a picture of {size}x{size}")]
    Window { x: u32, y: u32, width: u32, height: u32, size: u32 },
    #[error("cannot encode `{path}`", path = path.display())]
    Encode {
        path: PathBuf,
        #[source]
        source: image::ImageError,
    },
}
