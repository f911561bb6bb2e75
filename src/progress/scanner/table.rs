//! Tables of metrics: a head of names, and a row of numbers for each epoch or so many steps.

use crate::progress::metrics::Report;
use crate::progress::names::{Kind, kind};

const MAX_COLUMNS: usize = 32;

#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    columns: Vec<String>,
}

impl Table {
    /// Tells if the next line may be a row.
    pub(super) fn is_open(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Reads a line into `report` if it is a row. A head opens a table, and any other line but a rule closes it.
    pub(super) fn read(&mut self, line: &str, report: &mut Report) -> bool {
        let is_separator = |text: &&str| !text.trim().is_empty();
        let cells = line
            .split("  ")
            .flat_map(|part| part.split(['|', '\t', '│']));
        let cells: Vec<&str> = cells.filter(is_separator).take(MAX_COLUMNS).collect();
        let Some(first) = cells.first().map(|cell| cell.trim()) else {
            return false;
        };
        if self.is_open() && first.starts_with(|c: char| "-=:─━╞├+".contains(c)) {
            return true;
        }
        if cells.len() == self.columns.len() && first.starts_with(|c: char| c.is_ascii_digit()) {
            for (name, value) in self.columns.iter().zip(cells) {
                report.add(name, value.trim(), "");
            }
            return true;
        }
        let is_count = |(kind, _)| matches!(kind, Kind::Epoch | Kind::Step | Kind::Batch);
        let is_head = cells.len() > 2 && kind(first).is_some_and(is_count);
        let names = cells.iter().filter(|_| is_head);
        self.columns = names.map(|name| name.trim().to_lowercase()).collect();
        false
    }
}
