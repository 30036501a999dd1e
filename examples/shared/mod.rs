//! What the examples that draw have in common.

mod bars;
mod report;

pub(crate) use bars::Bars;
pub(crate) use report::report;

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
