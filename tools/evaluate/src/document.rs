//! Results as JSON and as Markdown tables that are kept in documents.

use std::path::Path;

use ediffi_core::files::write_atomic;
use serde::Serialize;

use crate::bootstrap::Measure;
use crate::error::{Error, Result};

/// Writes a file, and the folder it lies in.
///
/// # Errors
/// [`Error::Write`] or [`Error::Core`] when the file system refuses.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|source| Error::Write { path: path.to_owned(), source })?;
    }
    Ok(write_atomic(path, bytes)?)
}

/// Writes results as JSON.
///
/// # Errors
/// As [`write()`].
pub fn json(path: &Path, results: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// A Markdown table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: usize,
    lines: Vec<String>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let rule = vec!["---"; headings.len()];
        let line = |cells: &[&str]| format!("| {} |", cells.join(" | "));
        Self { columns: headings.len(), lines: vec![line(headings), line(&rule)] }
    }

    /// Adds a row; cells that are missing stay empty, and those past the last column are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
        cells.resize(self.columns, String::new());
        self.lines.push(format!("| {} |", cells.join(" | ")));
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A share in percent with its interval: `91.2 (88.0–94.1)`.
#[must_use]
pub fn percent(measure: Option<Measure>) -> String {
    number(measure.map(|measure| measure.times(100.0)), 1)
}

/// A number with its interval, rounded to some digits; a dash where nothing was measured.
#[must_use]
pub fn number(measure: Option<Measure>, digits: usize) -> String {
    measure.map_or_else(
        || "–".to_owned(),
        |Measure { value, low, high, .. }| format!("{value:.digits$} ({low:.digits$}–{high:.digits$})"),
    )
}

/// Replaces what stands between the lines `<!-- NAME -->` and `<!-- /NAME -->` of a document.
///
/// # Errors
/// [`Error::Marker`] for a document without these lines; [`Error::Read`]; and as [`write()`].
pub fn replace(path: &Path, name: &str, content: &str) -> Result<()> {
    let (before, after) = between(path, name)?;
    write(path, format!("{before}<!-- {name} -->\n\n{}\n\n<!-- /{name} -->{after}", content.trim()).as_bytes())
}

/// What stands before and after the place of `name` in a document.
///
/// # Errors
/// As [`replace`].
pub fn between(path: &Path, name: &str) -> Result<(String, String)> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let missing = |marker: &str| Error::Marker { path: path.to_owned(), marker: marker.to_owned() };
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).ok_or_else(|| missing(begin.trim_end()))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| missing(&end))?;
    Ok((before.to_owned(), after.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_as_many_cells_as_headings() {
        let mut table = Table::new(&["a", "b"]);
        table.row(["1|2".to_owned()]);
        table.row(["1", "2", "3"].map(str::to_owned));
        assert_eq!(table.to_string(), "| a | b |\n| --- | --- |\n| 1\\|2 |  |\n| 1 | 2 |\n");
    }

    #[test]
    fn numbers_are_written_with_their_interval() {
        let measure = Measure { value: 0.9125, low: 0.88, high: 0.941, samples: 80 };
        assert_eq!(percent(Some(measure)), "91.2 (88.0–94.1)");
        assert_eq!(number(Some(measure), 3), "0.912 (0.880–0.941)");
        assert_eq!(percent(None), "–");
    }

    #[test]
    fn only_what_lies_between_the_markers_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.md");
        std::fs::write(&path, "one\n<!-- a -->\nold\n<!-- /a -->\ntwo\n<!-- b -->\nkept\n<!-- /b -->\n").unwrap();
        replace(&path, "a", "new\n").unwrap();
        replace(&path, "a", "new\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "one\n<!-- a -->\n\nnew\n\n<!-- /a -->\ntwo\n<!-- b -->\nkept\n<!-- /b -->\n");
        let error = replace(&path, "c", "").unwrap_err().to_string();
        assert!(error.contains("page.md` has no line `<!-- c -->`"), "{error}");
    }

    #[test]
    fn files_appear_whole_and_failures_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/results.json");
        json(&path, &[1, 2]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
        // A folder cannot be replaced by a file.
        let error = write(folder.path().join("deeper").as_path(), b"x").unwrap_err().to_string();
        assert!(error.starts_with("cannot write") && error.contains("deeper"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
