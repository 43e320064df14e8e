//! What became of letters, as a table.

use crate::output::{cell, render, table};

/// A line for each: its id, what became of it, and more of that.
pub(super) fn outcomes<'a>(letters: impl Iterator<Item = (&'a str, String, &'a str)>, colour: bool) -> String {
    let mut table = table(&["ID", "OUTCOME", "DETAIL"], colour);
    for (id, outcome, detail) in letters {
        table.add_row([cell(id), cell(&outcome), cell(detail)]);
    }
    render(&table)
}
