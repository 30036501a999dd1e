//! What a check has found, and the table of all of them.

use std::fmt;

use evaluate::document::Table;
use evaluate::machine;

/// What a check has found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was done.
    pub done: String,
    /// What was seen.
    pub seen: String,
    /// Everything that should not have been.
    pub faults: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, seen, faults } = self;
        write!(f, "{done}: {seen}; {} faults", faults.len())?;
        faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// The table, and what measured it.
pub fn page(outcomes: &[Outcome]) -> String {
    let mut table = Table::new(["done", "seen", "faults"]);
    for Outcome { done, seen, faults } in outcomes {
        table.row([done.clone(), seen.clone(), faults.len().to_string()]);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("`cargo xtask soak` on {}, {threads} cores:\n\n{table}", machine::processor())
}
