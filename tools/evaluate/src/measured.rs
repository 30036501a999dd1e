//! What the results of all evaluations have in common: they go into files and, on demand, into a document.

use std::path::Path;

use ediffi_core::files::{write_json, write_with_folders};
use serde::Serialize;

use crate::document;
use crate::error::Result;
use crate::plot::Plot;

/// The results of an evaluation.
pub trait Measured: Serialize {
    /// What its files are called.
    fn name(&self) -> String;

    /// What its two markers in a document are called.
    fn marker(&self) -> String {
        self.name()
    }

    /// The results as Markdown.
    fn markdown(&self) -> String;

    /// The results as comma-separated values, if there is a file of them.
    fn csv(&self) -> Option<String> {
        None
    }

    /// The plots, each with the name of its file.
    fn plots(&self) -> Vec<(String, Plot)> {
        Vec::new()
    }

    /// Writes JSON, CSV and plots into `out`; with a document, its tables between its markers, and the plots into the folder `images`
    /// beside it.
    fn save(&self, out: &Path, page: Option<&Path>) -> Result<()> {
        let name = self.name();
        write_json(&out.join(format!("{name}.json")), self)?;
        if let Some(csv) = self.csv() {
            write_with_folders(&out.join(format!("{name}.csv")), csv.as_bytes())?;
        }
        let images = page.map_or_else(|| out.to_owned(), |page| page.with_file_name("images"));
        for (name, plot) in self.plots() {
            plot.save(&images.join(format!("{name}.png")))?;
        }
        page.map_or(Ok(()), |page| document::replace(page, &self.marker(), &self.markdown()))
    }
}
