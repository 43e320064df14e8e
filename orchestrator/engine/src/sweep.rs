//! The sweep (rule F6): it reads the index rows that are overdue, and lets each run's decider look. It heals every message
//! that was lost; what it sends is harmless where nothing was.

use dormouse_core::{RunKey, Timestamp};

use crate::ports::Ports;
use crate::seams::{Overdue, Sweeping};
use crate::store::{RunRow, Store, StoreError};

/// Rows looked at per read.
const ROWS: usize = 500;

/// All rows that are due by a time, page by page.
pub(crate) struct DueRows {
    by: Timestamp,
    after: Option<(Timestamp, RunKey)>,
    ended: bool,
}

impl DueRows {
    pub(crate) fn by(by: Timestamp) -> Self {
        Self { by, after: None, ended: false }
    }

    /// Every row that is owed anything at all.
    pub(crate) fn all() -> Self {
        Self::by(Timestamp::from_millis(i64::MAX as u64))
    }

    /// The next page; empty when there is none.
    pub(crate) async fn next(&mut self, store: &dyn Store) -> Result<Vec<RunRow>, StoreError> {
        if self.ended {
            return Ok(Vec::new());
        }
        let rows = store.due(self.by, self.after.take(), ROWS).await?;
        self.ended = rows.len() < ROWS;
        self.after = rows.last().and_then(|row| Some((row.due?, row.run.clone())));
        Ok(rows)
    }
}

/// Sends word to every run that is overdue, as long as `go_on` says so and deciders are not far behind. How many were
/// found.
///
/// # Errors
/// [`StoreError`] when store or queue did not answer; the next sweep looks again.
pub async fn sweep_once(ports: &Ports, go_on: impl Fn() -> bool) -> Result<usize, StoreError> {
    let mut pages = DueRows::by(ports.now());
    let mut found = 0;
    while go_on() {
        let rows = pages.next(&*ports.store).await?;
        if rows.is_empty() {
            break;
        }
        found += rows.len();
        let overdue = rows.into_iter().filter_map(|row| Some(Overdue { due: row.due?, run: row.run }));
        if ports.runs.sweep(overdue.collect()).await? == Sweeping::Behind {
            tracing::warn!(found, "deciders are far behind: the rest of what is overdue is left to the next sweep");
            break;
        }
    }
    Ok(found)
}
