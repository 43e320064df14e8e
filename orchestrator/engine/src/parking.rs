//! Runs whose code cannot go on: divergence, damage, a panic, a turn that never ends. They stand still with an
//! explanation, take inputs in meanwhile, and are tried again: by another build at once, by the same one later.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::operations::Closed;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{ParkedCause, RunKey, RunState, Timestamp, TurnFailure};

use crate::commit::LoadError;
use crate::decider::{Decider, Surroundings};
use crate::intake::{Announce, Intake};
use crate::ports::Ports;
use crate::post::{Coming, Post};
use crate::store::{Parked, RunFilter, RunRow, StoreError};

/// Takes in what the index row of an open run says that this process has not in memory, and that others may have
/// parked. Another build's parking is void: the run is tried at once.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn learn(ports: &Ports, row: &RunRow) -> Result<(), StoreError> {
    let run = &row.run;
    if ports.parkings.is_suspect(run) {
        return Ok(());
    }
    let Some(parked) = row.parked.clone() else {
        ports.parkings.remove(run);
        return Ok(());
    };
    let parked = if *parked.build == *ports.choices.build {
        parked
    } else {
        Parked { build: ports.choices.build.to_string(), attempts: 0, retry_at: ports.now(), ..parked }
    };
    if parked.ends_process && parked.retry_at <= ports.now() {
        return try_under_suspicion(ports, run, parked).await;
    }
    ports.parkings.insert(run.clone(), parked);
    Ok(())
}

/// What is done with a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its code runs once more, under suspicion.
    Try,
    /// Processes have died over it before: it is left alone until this time.
    LeaveAlone(Timestamp),
    /// It has ended.
    Over,
}

/// So many processes have died over messages of this run, or of one beside it. Its row says that it is parked before its
/// code runs once more: should this process die too, the next leaves it alone. Once it has not died,
/// [`acquit`] it.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn suspect(ports: &Ports, run: &RunKey, deaths: u32) -> Result<Verdict, StoreError> {
    let Some(row) = ports.store.row(run).await?.filter(|row| !row.status.is_closed()) else { return Ok(Verdict::Over) };
    let build = &*ports.choices.build;
    let since = row.parked.as_ref().and_then(|parked| parked.since).or(Some(ports.now()));
    let known = row.parked.filter(|parked| parked.build == build);
    if let Some(parked) = known.as_ref().filter(|parked| ports.now() < parked.retry_at) {
        return Ok(Verdict::LeaveAlone(parked.retry_at));
    }
    let sequence = readable(ports, run).await?.map_or(0, |state| state.next_sequence);
    let parked = Parked {
        cause: Some(ParkedCause::ProcessEnded { times: deaths }),
        reason: format!(
            "the process that ran this run's code has ended {}: the code may exhaust memory or stack, or end the \
             process. Deploy code that does not, or terminate the run",
            if deaths == 1 { "once".to_owned() } else { format!("{deaths} times") }
        ),
        build: build.to_owned(),
        sequence,
        attempts: known.map_or(0, |parked| parked.attempts),
        retry_at: ports.now(),
        ends_process: true,
        since,
    };
    try_under_suspicion(ports, run, parked).await?;
    Ok(Verdict::Try)
}

/// The row says that the run is parked, and this process tries it.
async fn try_under_suspicion(ports: &Ports, run: &RunKey, parked: Parked) -> Result<(), StoreError> {
    let now = ports.now();
    let parked = Parked { attempts: parked.attempts + 1, ..parked };
    let said = Parked { retry_at: now + pause(parked.attempts, true), ..parked.clone() };
    ports.store.park(run, Some(said)).await?;
    ports.parkings.try_suspect(run, Parked { retry_at: now, ..parked });
    Ok(())
}

/// The process has outlived its try, however that ended: the row says so, unless it was parked anew.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn acquit(ports: &Ports, run: &RunKey) -> Result<(), StoreError> {
    if ports.parkings.is_suspect(run) {
        if ports.parkings.get(run).is_some() {
            ports.store.park(run, None).await?;
            ports.parkings.remove(run);
        }
        ports.parkings.has_tried(run);
    }
    Ok(())
}

/// A process was to try this run and has ended before its code ran, or is about to: the row takes the try back.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub(crate) async fn take_try_back(ports: &Ports, run: &RunKey) -> Result<(), StoreError> {
    let Some(row) = ports.store.row(run).await? else { return Ok(()) };
    match row.parked {
        Some(parked) if parked.ends_process && !row.status.is_closed() => {
            let attempts = parked.attempts.saturating_sub(1);
            ports.store.park(run, Some(Parked { attempts, retry_at: ports.now(), ..parked })).await
        }
        Some(_) | None => Ok(()),
    }
}

/// A process has tried this run and was ended by something else: the row does not say any more that it is parked.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub(crate) async fn acquit_for(ports: &Ports, run: &RunKey) -> Result<(), StoreError> {
    let row = ports.store.row(run).await?;
    if row.is_some_and(|row| !row.status.is_closed() && row.parked.is_some_and(|parked| parked.ends_process)) {
        ports.store.park(run, None).await?;
    }
    Ok(())
}

/// How long a parked run waits before the same build tries it again; it doubles.
const PAUSE: Duration = Duration::from_secs(1);

/// The same for code that takes its process along: longer than it takes until the messages that the process had are
/// delivered again.
const LONG_PAUSE: Duration = Duration::from_mins(1);

fn pause(attempts: u32, ends_process: bool) -> Duration {
    let (first, doublings) = if ends_process { (LONG_PAUSE, 6) } else { (PAUSE, 9) };
    first * 2u32.pow(attempts.saturating_sub(1).min(doublings))
}

/// Parks a run durably: why, since when, and when it is tried again.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn park(ports: &Ports, run: &RunKey, failure: &TurnFailure) -> Result<(), StoreError> {
    let known = ports.parkings.get(run);
    let tries = known.as_ref().map_or(0, |parked| parked.attempts);
    // One under suspicion is counted already.
    let attempts = tries + u32::from(!ports.parkings.is_suspect(run));
    // Elsewhere it costs a thread, and is held (`hold`).
    let ends_process = ports.choices.shared && matches!(failure, TurnFailure::Endless { .. });
    let state = readable(ports, run).await?;
    let parked = Parked {
        reason: failure.to_string(),
        cause: Some(failure.into()),
        build: ports.choices.build.to_string(),
        sequence: state.as_ref().map_or(0, |state| state.next_sequence),
        attempts,
        retry_at: ports.now() + pause(attempts, ends_process),
        ends_process,
        since: known.and_then(|parked| parked.since).or(Some(ports.now())),
    };
    tracing::error!(%run, retry_at = %parked.retry_at, reason = %parked.reason, "the run is parked");
    ports.store.park(run, Some(parked.clone())).await?;
    if let Some(state) = state.filter(|state| state.closed.is_none()) {
        ports.alarms.set(run, state.run_id(), Some(parked.retry_at)).await?;
    }
    ports.parkings.insert(run.clone(), parked);
    ports.parkings.has_tried(run);
    Ok(())
}

/// Parked runs are counted up to here: a look at them has its bound, however many a bad build parks.
pub const MOST_COUNTED: usize = 1_000;

/// So many of them are named where they are counted.
const NAMED: usize = 5;

/// The parked runs of a namespace, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingStill {
    /// How many there are; [`MOST_COUNTED`] means at least so many.
    pub count: usize,
    /// Since when the one of them that was parked first stands still, if its row says so.
    pub since: Option<Timestamp>,
    /// Some of them, those that were parked first.
    pub first: Vec<RunKey>,
}

/// Counts the runs that are parked, up to [`MOST_COUNTED`] of them: one page of an index that holds no others.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn standing_still(ports: &Ports) -> Result<StandingStill, StoreError> {
    let parked = RunFilter { parked: true, ..RunFilter::default() };
    let mut rows = ports.store.list(&ports.choices.namespace, &parked, None, MOST_COUNTED).await?;
    let since = |row: &RunRow| row.parked.as_ref().and_then(|parked| parked.since);
    rows.sort_by_cached_key(|row| (since(row).unwrap_or(Timestamp::from_millis(u64::MAX)), row.run.clone()));
    Ok(StandingStill {
        count: rows.len(),
        since: rows.first().and_then(since),
        first: rows.into_iter().take(NAMED).map(|row| row.run).collect(),
    })
}

/// Records arrivals of a run whose code cannot go on, without running it.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub(crate) async fn take_in_only(intake: &Intake, run: &RunKey, arrivals: &[Coming]) -> Result<(), StoreError> {
    for Coming { run_id, arrival, .. } in arrivals {
        match intake.take(run, *run_id, arrival, Announce::No).await {
            Ok(taken) => tracing::debug!(%run, ?taken, "taken in while parked"),
            Err(LoadError::Store(error)) => return Err(error),
            Err(LoadError::Turn(failure)) => tracing::error!(%run, %failure, "not taken in: the history is damaged"),
        }
    }
    Ok(())
}

/// The state of a run, unless its history is damaged.
async fn readable(ports: &Ports, run: &RunKey) -> Result<Option<Arc<RunState>>, StoreError> {
    match ports.states.fresh(run).await {
        Ok(state) => Ok(state),
        Err(LoadError::Turn(_)) => Ok(None),
        Err(LoadError::Store(error)) => Err(error),
    }
}

impl<S: Surroundings + 'static> Decider<S> {
    /// The run's code cannot go on. What came is taken in without it; unless that ends the run, it is parked.
    pub(crate) async fn on_stuck(&self, run: &RunKey, post: &Post, failure: &TurnFailure) -> Result<(), StoreError> {
        take_in_only(&self.intake, run, &post.arrivals).await?;
        let closed = readable(&self.ports, run).await?.and_then(|state| state.closed.as_ref().map(Closed::status));
        match closed {
            Some(status) if !planted(Bug::O1ReplayClosed) => self.on_ended(run, status, post).await,
            Some(_) | None => park(&self.ports, run, failure).await,
        }
    }

    /// Messages for a run that stands still: taken in, without its code. What closes it is carried out all the same.
    pub(crate) async fn on_parked(&self, run: &RunKey, post: &Post) -> Result<(), StoreError> {
        take_in_only(&self.intake, run, &post.arrivals).await?;
        if post.accepted.is_empty() && post.arrivals.is_empty() {
            return Ok(());
        }
        let Some(row) = self.ports.store.row(run).await? else { return Ok(()) };
        if row.status.is_closed() {
            return self.on_closed(run, row.status, &row, post).await;
        }
        // The history has grown, and the row says that it is parked all the same. (Damaged: that is why it is parked.)
        let state = readable(&self.ports, run).await?;
        if let (Some(state), Some(parked)) = (state, self.ports.parkings.get(run)) {
            let parked = Parked { sequence: state.next_sequence, ..parked };
            self.ports.store.park(run, Some(parked.clone())).await?;
            self.ports.parkings.insert(run.clone(), parked);
        }
        Ok(())
    }
}
