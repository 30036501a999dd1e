//! How long a file may be.

use crate::files::Files;

/// The most lines of a file that gives no reason.
const LINES: usize = 400;

/// What the line in the head of a longer file begins with.
const REASON: &str = "//! Long because ";

/// One line for each Rust file that is too long without a reason, and for each that gives a reason it does not need.
pub(crate) fn wrong_lengths(files: &Files) -> Vec<String> {
    let problems = files.ending(".rs").filter_map(|(path, text)| {
        let lines = text.lines().count();
        let mut head = text.lines().take_while(|line| line.starts_with("//!"));
        let reason = head.any(|line| line.strip_prefix(REASON).is_some_and(|reason| !reason.is_empty()));
        match (lines > LINES, reason) {
            (true, false) => Some(format!("{path}: {lines} lines: split it, or say why in its head: `{REASON}...`")),
            (false, true) => Some(format!("{path}: {lines} lines: `{REASON}...` is for files of more than {LINES}")),
            _ => None,
        }
    });
    problems.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_gives_a_reason_in_its_head_and_a_short_one_none() {
        let long = "x\n".repeat(LINES + 1);
        let check = |text: &str| wrong_lengths(&Files::from([("src/a.rs", text)]));
        assert_eq!(check(&"x\n".repeat(LINES)), [""; 0]);
        assert!(check(&long)[0].starts_with("src/a.rs: 401 lines: split it"));
        assert_eq!(check(&format!("//! A table.\n//!\n//! Long because it is one table.\n{long}")), [""; 0]);
        for not_a_reason in ["//! Long because \n", "// Long because x\n", "use a;\n//! Long because x\n"] {
            assert_eq!(check(&format!("{not_a_reason}{long}")).len(), 1, "{not_a_reason}");
        }
        assert!(check("//! Long because x\n")[0].contains("is for files of more than 400"));
    }
}
