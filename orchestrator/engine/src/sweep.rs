//! The sweep (rule F6): it reads the index rows that are overdue, and lets each run's decider look. It heals every message
//! that was lost; what it sends is harmless where nothing was.

use dormouse_core::{
    RunKey, RunState, Timestamp,
    history::{Batch, BatchKind},
};
use std::time::Duration;

use crate::commit::{LoadError, entry};
use crate::decider::{Decider, Surroundings};
use crate::ports::Ports;
use crate::seams::{Overdue, Sweeping};
use crate::states::Commit;
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
        let overdue = rows.into_iter().filter(|row| !stands_still(ports, row)).filter_map(|row| {
            let retry_at = row.parked.map(|parked| parked.retry_at);
            Some(Overdue { due: row.due?, run: row.run, retry_at })
        });
        if ports.runs.sweep(overdue.collect()).await? == Sweeping::Behind {
            tracing::warn!(found, "deciders are far behind: the rest of what is overdue is left to the next sweep");
            break;
        }
    }
    Ok(found)
}

/// Whether this build has parked the run, and tries it again later: a look would find it so.
fn stands_still(ports: &Ports, row: &RunRow) -> bool {
    let waits = |parked: &crate::store::Parked| parked.build == *ports.choices.build && ports.now() < parked.retry_at;
    !row.status.is_closed() && row.parked.as_ref().is_some_and(waits)
}

/// How far in the future a run is due that waits for nothing but people.
const FAR: Duration = Duration::from_hours(24 * 365 * 100);

impl<S: Surroundings + 'static> Decider<S> {
    /// The sweep has looked: the run is due again later, said in one write with a batch of its own (rule F5).
    pub(crate) async fn raise_due(&self, run: &RunKey) -> Result<(), LoadError> {
        let now = self.ports.now();
        if self.warm.borrow().peek(run, |live| live.state().due.is_none_or(|due| due > now)).unwrap_or(true) {
            return Ok(());
        }
        // Not the warm state: a draft that waits for local results does not go along.
        let mut held = self.ports.states.hold(run).await;
        held.refresh().await?;
        let Some(state) =
            held.state().filter(|state| state.closed.is_none() && state.due.is_some_and(|due| due <= now))
        else {
            return Ok(());
        };
        let batch = swept(&self.ports, state);
        let entry = entry(&batch, state);
        // Lost: somebody is at work on the run, and the next sweep looks again.
        if let Commit::Won { sequence, record } = held.commit(&batch, &entry).await? {
            drop(held);
            let live = self.warm.borrow_mut().take(run);
            if let Some(mut live) = live
                && live.extend(sequence, &record)
            {
                self.keep_warm(run, live);
            }
        }
        Ok(())
    }
}

fn swept(ports: &Ports, state: &RunState) -> Batch {
    let clock = ports.now();
    let time = state.recorded_time(clock);
    let due = state.due_after(clock, state.patience(ports.choices.sweep_interval)).unwrap_or(clock + FAR);
    Batch {
        commit_id: ports.commit_id(),
        previous: state.head,
        time,
        kind: BatchKind::Swept,
        events: Vec::new(),
        due: Some(due),
    }
}
