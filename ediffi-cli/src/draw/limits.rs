//! `--limit`: the most that a request may ask for.

use clap::Args;
use ediffi::Limits;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::once::expect_once;

/// The most that a request may ask for.
#[derive(Args)]
pub(super) struct Allowed {
    /// The most that a request may ask for, as pixels=16777216.
    ///
    /// May be repeated. It stands in the place of what is safe for strangers. The names are those of `Limits` in the library's
    /// documentation: pixels, images, steps, edit_pixels, working_memory and others; a name that does not exist is answered with all of
    /// them.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = limit, help_heading = "Model")]
    limit: Vec<(String, u64)>,
}

impl Allowed {
    /// Limits with these numbers in the place of their own.
    pub(super) fn limits(&self, of: &Limits) -> Result<Limits, Failure> {
        expect_once("--limit", self.limit.iter().map(|(name, _)| name.clone()))?;
        let mut limits = by_name(of)?;
        limits.extend(self.limit.iter().map(|(name, number)| (name.clone(), Value::from(*number))));
        serde_json::from_value(Value::Object(limits)).map_err(|error| Failure::usage(format!("--limit: {error}")))
    }
}

/// Limits by their names.
fn by_name(limits: &Limits) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(limits) {
        Ok(Value::Object(limits)) => Ok(limits),
        Ok(_) => Err("the limits are no object".into()),
        Err(error) => Err(error.to_string().into()),
    }
}

/// `pixels=16777216`.
fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=NUMBER")?;
    let limits = by_name(&Limits::default()).map_err(|failure| failure.to_string())?;
    if !limits.contains_key(name) {
        let names: Vec<&str> = limits.keys().map(String::as_str).collect();
        return Err(format!("there is no limit `{name}`; those that are: {}", names.join(", ")));
    }
    let number = number.parse().map_err(|error| format!("{number}: {error}"))?;
    Ok((name.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_name() {
        let allowed = |texts: &[&str]| Allowed { limit: texts.iter().map(|text| limit(text).unwrap()).collect() };
        let own = Limits { images: 5, ..Limits::default() };
        let limits = allowed(&["pixels=7", "edit_pixels=16777217"]).limits(&own).unwrap();
        assert_eq!(limits, Limits { pixels: 7, edit_pixels: 16_777_217, ..own.clone() });
        assert_eq!(allowed(&[]).limits(&own).unwrap(), own);
        assert!(limit("pixel=7").unwrap_err().contains("`pixel`; those that are: edit_pixels, images,"));
        assert!(limit("pixels").unwrap_err().contains("NAME=NUMBER"));
        assert!(limit("pixels=-1").unwrap_err().contains("-1"));
        assert!(allowed(&["pixels=7", "pixels=8"]).limits(&own).is_err());
    }
}
