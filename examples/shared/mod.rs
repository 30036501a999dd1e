//! What the examples that draw have in common.

use std::path::{Path, PathBuf};

mod bars;
mod report;

pub(crate) use bars::Bars;
pub(crate) use report::report;

/// `out.png` of one image, `out-1.png`, `out-2.png`, ... of several.
pub(crate) fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, ending) = (part(path.file_stem()), part(path.extension()));
    let ending = if ending.is_empty() { ending } else { format!(".{ending}") };
    path.with_file_name(format!("{stem}-{}{ending}", index + 1))
}

/// `1024x768`.
pub(crate) fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.ok_or_else(|| "expected WIDTHxHEIGHT".to_owned())
}

/// `base=30`.
pub(crate) fn of_stage<T: std::str::FromStr>(text: &str) -> Result<(String, T), String> {
    let setting = text.split_once('=').and_then(|(stage, value)| Some((stage.to_owned(), value.parse().ok()?)));
    setting.ok_or_else(|| "expected STAGE=NUMBER".to_owned())
}
