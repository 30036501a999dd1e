//! What may be said once.

use std::collections::BTreeSet;

use super::failure::Failure;

/// Refuses an option that is given twice for the same thing: one of the two would be lost.
pub(super) fn expect_once(option: &str, names: impl Iterator<Item = String>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for name in names {
        if seen.contains(&name) {
            return Err(Failure::usage(format!("{option} has `{name}` twice")));
        }
        seen.insert(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_twice_is_named() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().into_iter();
        assert!(expect_once("--steps", names(&["base", "sr256"])).is_ok());
        let error = expect_once("--steps", names(&["base", "sr256", "base"])).unwrap_err().to_string();
        assert_eq!(error, "--steps has `base` twice");
    }
}
