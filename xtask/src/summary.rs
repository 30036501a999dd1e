//! Adds up what the test binaries say.

use std::fmt;

/// How many tests passed, failed, and were skipped.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// Tests that Cargo counts as passed, but that said that they did not run.
    said_skipped: usize,
}

impl Summary {
    /// Takes one line of the output of `cargo test`:
    /// - `test result: ok. 3 passed; 0 failed; 1 ignored; ...`, which closes each test binary;
    /// - `skipped: NAME: WHY`, which a test prints past the harness's capture when the machine lacks what it needs.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|result| result.split_once(". ")) {
            for count in counts.split("; ") {
                let Some((number, what)) = count.split_once(' ') else { continue };
                let Ok(number) = number.parse::<usize>() else { continue };
                match what {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.skipped += number,
                    _ => {}
                }
            }
        } else if line.starts_with("skipped: ") || (line.starts_with("test ") && line.contains(" ... skipped: ")) {
            // The second form: with one test thread the harness has already begun the line.
            self.said_skipped += 1;
        }
    }

    /// The sum, with every test counted once.
    pub(crate) fn closed(self) -> Self {
        Self {
            passed: self.passed.saturating_sub(self.said_skipped),
            skipped: self.skipped + self.said_skipped,
            said_skipped: 0,
            ..self
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(output: &str) -> String {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.line(line));
        summary.closed().to_string()
    }

    #[test]
    fn all_binaries_are_added_up() {
        let output = "\
running 2 tests
test a ... ok
test b ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 4 tests
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 12.30s
all doctests ran in 0.44s; merged doctests compilation took 0.42s
";
        assert_eq!(sum(output), "4 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_says_skipped_is_not_counted_as_passed() {
        let output = "\
test a ... ok
skipped: on_cuda: no CUDA device
test on_cuda ... ok
test other ... skipped: other: no CUDA device
ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        assert_eq!(sum(output), "1 passed, 0 failed, 3 skipped");
    }

    #[test]
    fn text_that_only_looks_similar_counts_nothing() {
        assert_eq!(
            sum("7 passed; 1 failed\ntest result: \ntest skipped ... ok\nnot skipped: x\n"),
            "0 passed, 0 failed, 0 skipped"
        );
    }
}
