//! What can go wrong with the icons: one enum for the crate.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T> = std::result::Result<T, IconsError>;

/// An error of the icons data set. Every message names the culprit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IconsError {
    /// There is no sprite pack at the given path.
    #[error("no sprite pack at `{path}`: run `cargo xtask icons` to build it", path = path.display())]
    PackMissing {
        /// Where the pack was looked for.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read `{path}`", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Core(#[from] ediffi_core::Error),
    /// A file is not the JSON that was expected.
    #[error("`{path}` is not valid JSON of the expected shape", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The pack was written by another version of this program.
    #[error("sprite pack has format `{found}`, expected `{expected}`: run `cargo xtask icons` to rebuild it")]
    PackFormat {
        /// The format that the file names.
        found: String,
        /// The format that this program reads.
        expected: &'static str,
    },
    /// An installed icon package has another version than the pinned one.
    #[error("package `{package}` is version {found}, expected {expected}")]
    PackageVersion {
        /// The npm package.
        package: &'static str,
        /// The version that is installed.
        found: String,
        /// The version that is pinned.
        expected: &'static str,
    },
    /// An icon package has no drawing of a concept.
    #[error("package `{package}` has no icon for `{concept}` (code point {code})")]
    IconMissing {
        /// The npm package.
        package: &'static str,
        /// The concept.
        concept: String,
        /// Its code point, in lower-case hexadecimal digits.
        code: String,
    },
    /// An icon is not valid SVG.
    #[error("the {style} drawing of `{concept}` is not valid SVG")]
    Svg {
        /// The concept.
        concept: String,
        /// The style's name.
        style: &'static str,
        /// Why.
        #[source]
        source: resvg::usvg::Error,
    },
    /// An icon draws nothing.
    #[error("the {style} drawing of `{concept}` is empty")]
    EmptySprite {
        /// The concept.
        concept: String,
        /// The style's name.
        style: &'static str,
    },
    /// A scene asks for a drawing that the pack does not hold.
    #[error("the sprite pack has no {style} drawing of `{concept}`")]
    SpriteMissing {
        /// The concept.
        concept: String,
        /// The style's name.
        style: &'static str,
    },
    /// A concept that is not in the table.
    #[error("unknown concept `{concept}`")]
    UnknownConcept {
        /// The concept.
        concept: String,
    },
    /// A sampler configuration that cannot be sampled.
    #[error("sampler configuration: {problem}")]
    Config {
        /// What is wrong with it.
        problem: String,
    },
    /// An object index outside the scene.
    #[error("object {object} does not exist: the scene has {objects}")]
    NoSuchObject {
        /// The index that was asked for.
        object: usize,
        /// How many objects the scene has.
        objects: usize,
    },
    /// A window that is empty or leaves the picture.
    #[error("window {width}x{height} at ({x}, {y}) does not fit in a picture of {size}x{size}")]
    Window {
        /// Left edge, in pixels.
        x: u32,
        /// Top edge, in pixels.
        y: u32,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The side of the whole picture, in pixels.
        size: u32,
    },
    /// A picture could not be encoded.
    #[error("cannot encode `{path}`", path = path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: image::ImageError,
    },
}
