//! Tables of captions, as the `imagefolder` of Hugging Face's `datasets` has them: `metadata.jsonl`, `metadata.csv` and `metadata.parquet`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Component, Path, PathBuf};

use ediffi_core::files::path_inside;
use serde::Deserialize;

use crate::caption::{Captioned, LONGEST, without_mark};
use crate::error::file_error;
use crate::{Error, Result, rows};

/// The table in Parquet.
pub(crate) const PARQUET: &str = "metadata.parquet";

/// What tables are called.
pub(crate) const NAMES: [&str; 3] = ["metadata.jsonl", "metadata.csv", PARQUET];

/// A caption, and the line of the table that has it; in Parquet the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) line: u64,
    pub(crate) caption: String,
}

/// The rows of a table, by the path of the picture from the table's folder, with `/` between folders.
pub(crate) type Rows = BTreeMap<String, Row>;

/// The one table of a folder, if it has any.
pub(crate) fn find(folder: &Path) -> Result<Option<PathBuf>> {
    let there: Vec<&str> = NAMES.into_iter().filter(|name| folder.join(name).exists()).collect();
    match there.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(folder.join(one))),
        [first, second, ..] => Err(Error::Twice {
            first: folder.join(first).display().to_string(),
            second: (*second).to_owned(),
            reason: "a folder has one table of captions",
        }),
    }
}

/// Reads a table. A path that leads out of its folder is refused, and so is a picture with two rows.
pub(crate) fn read(path: &Path) -> Result<Rows> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut rows = Rows::new();
    let mut add = |line: u64, name: &str, caption: String| {
        let wrong = |reason: String| Error::Table { path: path.to_owned(), line, reason };
        path_inside(folder, Path::new(name)).map_err(|error| wrong(error.to_string()))?;
        let name = plain(name);
        match rows.insert(name.clone(), Row { line, caption }) {
            None => Ok(()),
            Some(first) => Err(wrong(format!("`{name}` has a row in line {} already", first.line))),
        }
    };
    let open = || File::open(path).map(BufReader::new).map_err(file_error(path));
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => csv(path, open()?, &mut add)?,
        Some("parquet") => columns(path, &mut add)?,
        _ => jsonl(path, open()?, &mut add)?,
    }
    Ok(rows)
}

/// A path without what does not lead anywhere, with `/` between folders.
fn plain(name: &str) -> String {
    let parts = Path::new(name).components().filter(|part| matches!(part, Component::Normal(_)));
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// A line of JSON. Other keys are somebody else's.
#[derive(Debug, Deserialize)]
struct Line {
    file_name: String,
    #[serde(flatten)]
    captioned: Captioned,
}

fn jsonl(path: &Path, mut file: impl BufRead, add: &mut impl FnMut(u64, &str, String) -> Result<()>) -> Result<()> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read =
            std::io::Read::take(&mut file, LONGEST + 1).read_until(b'\n', &mut bytes).map_err(file_error(path))?;
        if read == 0 {
            break;
        }
        let wrong = |reason: String| Error::Table { path: path.to_owned(), line, reason };
        if read as u64 > LONGEST {
            return Err(wrong(format!("it has more than {LONGEST} bytes")));
        }
        let bytes = if line == 1 { without_mark(&bytes) } else { &bytes };
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        let row: Line = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let caption = row.captioned.one().map_err(wrong)?;
        add(line, &row.file_name, caption)?;
    }
    Ok(())
}

fn csv(path: &Path, file: impl BufRead, add: &mut impl FnMut(u64, &str, String) -> Result<()>) -> Result<()> {
    let wrong = |line: u64, reason: String| Error::Table { path: path.to_owned(), line, reason };
    let failed = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        wrong(line, error.to_string())
    };
    let mut table = csv::Reader::from_reader(file);
    let head = table.headers().map_err(failed)?.clone();
    let column = |name: &str| head.iter().position(|column| column.trim_start_matches('\u{feff}').trim() == name);
    let Some(files) = column("file_name") else { return Err(wrong(1, "it has no column `file_name`".to_owned())) };
    let captions = match (column("caption"), column("text")) {
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err(wrong(1, "it has neither a column `caption` nor `text`".to_owned())),
        (Some(_), Some(_)) => return Err(wrong(1, "it has columns `caption` and `text`: one has to go".to_owned())),
    };
    for row in table.records() {
        let row = row.map_err(failed)?;
        let line = row.position().map_or(1, csv::Position::line);
        // Every row has as many columns as the heading, or it was an error.
        let field = |column: usize| row.get(column).unwrap_or_default();
        add(line, field(files), field(captions).trim().to_owned())?;
    }
    Ok(())
}

fn columns(path: &Path, add: &mut impl FnMut(u64, &str, String) -> Result<()>) -> Result<()> {
    let wanted = ["file_name", "caption", "text"];
    rows::each(
        path,
        |column| wanted.contains(&column.name()),
        |row, fields| {
            let failed = |reason| rows::wrong(path, row, reason);
            let name = rows::text(fields, "file_name");
            let name = name.ok_or_else(|| failed("it has no text in a column `file_name`".to_owned()))?;
            add(row, name, rows::caption(fields).map_err(failed)?)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, content: &str) -> Result<Vec<(String, u64, String)>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        let found = find(folder.path())?.unwrap();
        Ok(read(&found)?.into_iter().map(|(name, row)| (name, row.line, row.caption)).collect())
    }

    #[test]
    fn both_forms_say_the_same() {
        let jsonl = table(
            "metadata.jsonl",
            "{\"file_name\": \"./b/2.png\", \"text\": \"a dog, \\\"sitting\\\"\", \"width\": 3}\n\n{\"file_name\": \"1.jpg\", \"text\": \" a cat\"}",
        );
        let csv =
            table("metadata.csv", "width,caption,file_name\n3,\"a dog, \"\"sitting\"\"\",b/2.png\n,a cat,1.jpg\n");
        let rows = |lines: [u64; 2]| {
            [("1.jpg", lines[1], "a cat"), ("b/2.png", lines[0], "a dog, \"sitting\"")]
                .map(|(name, line, caption)| (name.to_owned(), line, caption.to_owned()))
        };
        assert_eq!(jsonl.unwrap(), rows([1, 3]));
        assert_eq!(csv.unwrap(), rows([2, 3]));
    }

    /// As editors of Windows write them.
    #[test]
    fn a_mark_of_utf_8_is_passed_over() {
        let line = "{\"file_name\": \"a.png\", \"text\": \"a cat\"}\r\n";
        for (name, content) in [
            ("metadata.jsonl", format!("\u{feff}{line}")),
            ("metadata.csv", "\u{feff}file_name,text\r\na.png,a cat\r\n".to_owned()),
            ("metadata.csv", "\u{feff}\"file_name\",\"text\"\r\n\"a.png\",\"a cat\"\r\n".to_owned()),
        ] {
            let rows = table(name, &content).unwrap();
            assert!(matches!(&rows[..], [(file, _, said)] if file == "a.png" && said == "a cat"), "{name}: {rows:?}");
        }
        assert!(table("metadata.jsonl", &format!("{line}\u{feff}{line}")).is_err(), "it stands at the beginning alone");
    }

    #[test]
    fn what_cannot_be_followed_is_named_with_its_line() {
        let line = |file: &str| format!("{{\"file_name\": \"{file}\", \"text\": \"\"}}\n");
        for (name, content, at, said) in [
            ("metadata.jsonl", line("a.png") + &line("../a.png"), 2, ".."),
            ("metadata.jsonl", line("/etc/passwd"), 1, "/etc/passwd"),
            ("metadata.jsonl", line(""), 1, ""),
            ("metadata.jsonl", line("a.png") + &line("b.png") + &line("./a.png"), 3, "line 1"),
            ("metadata.jsonl", line("a.png") + "{\"file_name\": 3}", 2, "integer"),
            ("metadata.jsonl", "{\"file_name\": \"a.png\"}".to_owned(), 1, "neither"),
            ("metadata.csv", "file_name,text\n../../a.png,x\n".to_owned(), 2, ".."),
            ("metadata.csv", "file_name,text\na.png,x\na.png,y\n".to_owned(), 3, "line 2"),
            ("metadata.csv", "file_name,text\na.png\n".to_owned(), 2, "field"),
            ("metadata.csv", "file,text\n".to_owned(), 1, "file_name"),
            ("metadata.csv", "file_name,label\n".to_owned(), 1, "neither"),
            ("metadata.csv", "file_name,text,caption\n".to_owned(), 1, "one has to go"),
        ] {
            let error = table(name, &content).unwrap_err();
            let named = matches!(&error, Error::Table { line, reason, .. } if *line == at && reason.contains(said));
            assert!(named, "{content}: {error:?}");
        }
        let long = format!("{{\"file_name\": \"a.png\", \"text\": \"{}\"}}", "x".repeat(LONGEST as usize));
        assert!(matches!(table("metadata.jsonl", &long), Err(Error::Table { line: 1, .. })));
    }

    #[test]
    fn a_folder_has_one_table() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(folder.path()).unwrap(), None);
        std::fs::write(folder.path().join("metadata.parquet"), "PAR1").unwrap();
        let error = read(&find(folder.path()).unwrap().unwrap()).unwrap_err();
        assert!(matches!(&error, Error::Shard { path, .. } if path.ends_with(PARQUET)), "{error}");
        std::fs::write(folder.path().join("metadata.csv"), "").unwrap();
        assert!(matches!(find(folder.path()), Err(Error::Twice { .. })));
    }
}
