//! Results as comma-separated values and as Markdown tables, which are kept in documents.

use std::path::Path;

use ediffi_core::files::{read_text, write_atomic};

use crate::bootstrap::Measure;
use crate::error::{Error, Result};

/// A Markdown table.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: usize,
    lines: Vec<String>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let headings: Vec<String> = headings.into_iter().map(Into::into).collect();
        let columns = headings.len();
        Self { columns, lines: vec![line(&headings), line(&vec!["---".to_owned(); columns])] }
    }

    /// Adds a row; cells that are missing stay empty, and those past the last column are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
        cells.resize(self.columns, String::new());
        self.lines.push(line(&cells));
    }
}

fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A share in percent with its interval: `91.2 (88.0–94.1)`.
pub fn percent(measure: Option<Measure>) -> String {
    number(measure.map(|measure| measure.times(100.0)), 1)
}

/// A number with its interval, rounded to some digits; a dash where nothing was measured.
pub fn number(measure: Option<Measure>, digits: usize) -> String {
    measure.map_or_else(
        || "–".to_owned(),
        |Measure { value, low, high, .. }| format!("{value:.digits$} ({low:.digits$}–{high:.digits$})"),
    )
}

/// Rows as comma-separated values: what a row is of, then each measure with the ends of its interval.
pub fn csv<const N: usize>(
    of: &str,
    measures: [&str; N],
    rows: impl Iterator<Item = (String, [Option<Measure>; N])>,
) -> String {
    let headings = measures.map(|name| format!(",{name},{name}_low,{name}_high")).concat();
    let cells = |measure: Option<Measure>| match measure {
        Some(Measure { value, low, high, .. }) => format!(",{value},{low},{high}"),
        None => ",,,".to_owned(),
    };
    let rows: String = rows.map(|(of, measures)| format!("{of}{}\n", measures.map(cells).concat())).collect();
    format!("{of}{headings}\n{rows}")
}

/// Replaces what stands between the lines `<!-- NAME -->` and `<!-- /NAME -->` of a document.
///
/// # Errors
/// [`Error::Marker`] for a document without these lines; one that cannot be read or written.
pub fn replace(path: &Path, name: &str, content: &str) -> Result<()> {
    let (before, after) = between(path, name)?;
    let text = format!("{before}<!-- {name} -->\n\n{}\n\n<!-- /{name} -->{after}", content.trim());
    Ok(write_atomic(path, text.as_bytes())?)
}

/// What stands before and after the place of `name` in a document.
pub fn between(path: &Path, name: &str) -> Result<(String, String)> {
    let text = read_text(path)?;
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
        let mut table = Table::new(["a", "b"]);
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
    fn values_are_separated_by_commas() {
        let measure = Measure { value: 0.5, low: 0.25, high: 0.75, samples: 80 };
        let rows = [("x,1".to_owned(), [Some(measure), None])];
        let text = csv("what,at", ["a", "b"], rows.into_iter());
        assert_eq!(text, "what,at,a,a_low,a_high,b,b_low,b_high\nx,1,0.5,0.25,0.75,,,\n");
    }
}
