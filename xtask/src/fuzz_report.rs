//! What libFuzzer said of a run, and the table of all runs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What a target did.
#[derive(Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) target: &'static str,
    executions: u64,
    seconds: u64,
    /// Branches that were reached.
    coverage: u64,
    /// What broke a promise: what was said, and the file that holds the input.
    found: Option<(String, Option<PathBuf>)>,
}

impl Run {
    /// Reads what libFuzzer wrote to `log`; `sound`: whether it ended well.
    pub(crate) fn read(target: &'static str, said: &str, sound: bool, log: &Path) -> Self {
        let number = |text: &str| text.trim().split(' ').next().and_then(|digits| digits.parse().ok());
        let last = |key: &str| said.lines().rev().find_map(|line| number(line.split_once(key)?.1)).unwrap_or(0);
        let file =
            said.lines().find_map(|line| Some(PathBuf::from(line.split_once("Test unit written to ")?.1.trim())));
        let first =
            said.lines().find(|line| line.starts_with("find: ") || line.starts_with("==") || line.contains("ALARM"));
        let told = || format!("{}; the rest is in {}", first.unwrap_or("it ended early").trim(), log.display());
        // A program that is ended tells no sum.
        let executions =
            last("stat::number_of_executed_units:").max(said.lines().rev().find_map(beginning).unwrap_or(0));
        Self {
            target,
            executions,
            seconds: last(" in ").max(1),
            coverage: last(" cov: "),
            found: (!sound).then(|| (told(), file)),
        }
    }

    /// What broke a promise, and how it is seen again.
    pub(crate) fn find(&self) -> Option<String> {
        let (said, file) = self.found.as_ref()?;
        let Self { target, .. } = self;
        let again = file.as_ref().map_or_else(String::new, |file| {
            format!("\n  again: cargo xtask fuzz {target} --replay {}", file.display())
        });
        Some(format!("error: fuzzing {target}: {said}{again}"))
    }
}

/// The number of executions with which a line of libFuzzer begins: `#123 NEW cov: ...`.
fn beginning(line: &str) -> Option<u64> {
    line.strip_prefix('#')?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, executions, seconds, coverage, found } = self;
        let found = if found.is_some() { "a find" } else { "no find" };
        write!(f, "{target}: {executions} executions in {seconds} s, {coverage} branches, {found}")
    }
}

/// The table of these runs.
pub(crate) fn page(runs: &[Run], seconds: u64) -> String {
    let mut text = format!(
        "`cargo xtask fuzz --seconds {seconds}`:\n\n\
         | reader | executions | a second | branches reached | finds |\n| --- | --- | --- | --- | --- |\n"
    );
    for Run { target, executions, seconds, coverage, found } in runs {
        let (a_second, finds) = (executions / seconds, usize::from(found.is_some()));
        text.push_str(&format!("| {target} | {executions} | {a_second} | {coverage} | {finds} |\n"));
    }
    text
}

/// Replaces what stands between the lines `<!-- NAME -->` and `<!-- /NAME -->` of a document.
pub(crate) fn replace(path: &Path, name: &str, content: &str) -> Result<(), String> {
    let failed = |error: &dyn fmt::Display| format!("error: {}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.ok_or_else(|| failed(&format!("it has no lines {begin} and {end}")))?;
    let text = format!("{before}{begin}\n\n{}\n\n{end}{after}", content.trim());
    fs::write(path, text).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "INFO: Seed: 1\n#2\tINITED cov: 10 ft: 11 corp: 1/1b exec/s: 0 rss: 90Mb\n#900\tNEW    cov: 57 ft: 60\n\
        #8000\tDONE   cov: 58 ft: 61 corp: 9/1b lim: 5 exec/s: 800 rss: 99Mb\nDone 8000 runs in 10 second(s)\n\
        stat::number_of_executed_units: 8000\nstat::average_exec_per_sec:     727\n";

    #[test]
    fn what_libfuzzer_says_is_read() {
        let run = Run::read("png", SOUND, true, Path::new("png.log"));
        assert_eq!(run, Run { target: "png", executions: 8000, seconds: 10, coverage: 58, found: None });
        assert_eq!(run.find(), None);
        assert!(page(&[run], 10).ends_with("| png | 8000 | 800 | 58 | 0 |\n"));
    }

    #[test]
    fn a_find_names_its_file_and_how_to_see_it_again() {
        let said = "#900\tNEW    cov: 57 ft: 60\nfind: panicked at src/x.rs:1:2:\nno\n==7== ERROR: libFuzzer: deadly signal\n\
            artifact_prefix='.fuzz/'; Test unit written to .fuzz/finds/png/crash-ab\n";
        let run = Run::read("png", said, false, Path::new("png.log"));
        assert_eq!((run.executions, run.coverage), (900, 57));
        let find = run.find().unwrap();
        for part in ["panicked at src/x.rs:1:2", "png.log", "cargo xtask fuzz png --replay .fuzz/finds/png/crash-ab"] {
            assert!(find.contains(part), "{find}");
        }
        let silent = Run::read("png", "", false, Path::new("png.log")).find().unwrap();
        assert!(silent.contains("it ended early") && !silent.contains("--replay"), "{silent}");
    }

    #[test]
    fn only_what_is_between_the_lines_is_replaced() {
        let path = std::env::temp_dir().join(format!("ediffi-xtask-{}.md", std::process::id()));
        fs::write(&path, "a\n<!-- fuzz -->\nold\n<!-- /fuzz -->\nb\n").unwrap();
        replace(&path, "fuzz", "new\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let error = replace(&path, "soak", "x").unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(text, "a\n<!-- fuzz -->\n\nnew\n\n<!-- /fuzz -->\nb\n");
        assert!(error.contains("<!-- soak -->"), "{error}");
    }
}
