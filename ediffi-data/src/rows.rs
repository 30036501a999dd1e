//! Rows of Parquet files.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;

use crate::caption::{Captioned, LONGEST};
use crate::error::file_error;
use crate::{Error, Result};

/// What is wrong with a row of a file, counted from 1; 0 is the file itself.
pub(crate) fn wrong(path: &Path, row: u64, reason: impl Into<String>) -> Error {
    let (path, reason) = (path.to_owned(), reason.into());
    if row == 0 { Error::Shard { path, reason } } else { Error::Table { path, line: row, reason } }
}

/// Calls `each` with every row, counted from 1, of the columns that `is_wanted` by their names. Others are not read.
pub(crate) fn each(
    path: &Path,
    is_wanted: impl Fn(&Type) -> bool,
    mut each: impl FnMut(u64, &Row) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).map_err(file_error(path))?;
    let reader = guarded(path, 0, || SerializedFileReader::new(file))?;
    let all = reader.metadata().file_metadata().schema();
    let fields: Vec<Arc<Type>> = all.get_fields().iter().filter(|field| is_wanted(field)).cloned().collect();
    if fields.is_empty() {
        let names: Vec<&str> = all.get_fields().iter().map(|field| field.name()).collect();
        return Err(wrong(path, 0, format!("none of its columns is wanted: {}", names.join(", "))));
    }
    let schema = guarded(path, 0, || Type::group_type_builder(all.name()).with_fields(fields).build())?;
    let mut rows = guarded(path, 0, || reader.get_row_iter(Some(schema)))?;
    for number in 1.. {
        let Some(row) = guarded(path, number, || rows.next().transpose())? else { break };
        each(number, &row)?;
    }
    Ok(())
}

/// The text of a column; none where the row has none.
pub(crate) fn text<'r>(row: &'r Row, column: &str) -> Option<&'r str> {
    row.get_column_iter().find_map(|(name, field)| match field {
        Field::Str(text) if name == column => Some(text.as_str()),
        _ => None,
    })
}

/// The bytes of a column; none where the row has none.
pub(crate) fn bytes<'r>(row: &'r Row, column: &str) -> Option<&'r [u8]> {
    row.get_column_iter().find_map(|(name, field)| match field {
        Field::Bytes(bytes) if name == column => Some(bytes.data()),
        _ => None,
    })
}

/// The row in a column of several; none where there is none.
pub(crate) fn group<'r>(row: &'r Row, column: &str) -> Option<&'r Row> {
    row.get_column_iter().find_map(|(name, field)| match field {
        Field::Group(group) if name == column => Some(group),
        _ => None,
    })
}

/// The caption of a row, under one of its two names.
pub(crate) fn caption(row: &Row) -> Result<String, String> {
    let of = |column| text(row, column).map(str::to_owned);
    let said = Captioned::of(of("caption"), of("text")).one()?;
    if said.len() as u64 > LONGEST { Err(format!("its caption has more than {LONGEST} bytes")) } else { Ok(said) }
}

/// The reader believes what a damaged file says of lengths, and panics where it cannot.
fn guarded<T>(path: &Path, row: u64, work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| wrong(path, row, error.to_string())),
        Err(_) => Err(wrong(path, row, "it is damaged")),
    }
}
