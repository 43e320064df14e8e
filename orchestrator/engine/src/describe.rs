//! Everything about a run but its history, as people and programs see it.

use dormouse_core::api::{
    ChangedArgumentsBody, DescribeBody, ParkedBody, PatchBody, PendingActivityBody, RunSummary, TimerBody,
    UnreadSignalsBody,
};
use dormouse_core::history::ChangedArguments;
use dormouse_core::operations::{Closed, PendingActivity, PendingLocal};
use dormouse_core::{CommandId, Failure, Payload, RunState, Timestamp};
use futures::{StreamExt, TryStreamExt};

use crate::attempts::{AttemptRecord, AttemptState};
use crate::store::{AttemptKey, Parked, RunRow, Store, StoreError};

/// So many activities and so many timers are described, those that were asked for first: the record of each activity is a
/// read. The totals count all of them.
pub const MAX_DESCRIBED: usize = 100;

/// Attempt records read at a time.
const READS: usize = 16;

/// The run of this row, with this state.
pub(crate) async fn describe(store: &dyn Store, row: RunRow, state: &RunState) -> Result<DescribeBody, StoreError> {
    let pending = &state.pending;
    let mut pending_activities = queued(store, state).await?;
    let locals = pending.locals.open.iter().map(|(id, local)| local_body(*id, local));
    pending_activities.extend(locals.take(MAX_DESCRIBED - pending_activities.len()));
    let timers = pending.timers.open.iter().take(MAX_DESCRIBED);
    let patches = pending.patches.recorded.iter().take(MAX_DESCRIBED);
    let published = pending.published.values.iter();
    let (result, failure) = ending(state);
    Ok(DescribeBody {
        ordinal: row.run.ordinal,
        input: state.started.call.input.clone(),
        continued_from: state.started.continued_from,
        history_events: state.events,
        history_bytes: state.bytes,
        changed_arguments: state
            .decided_by
            .changed
            .clone()
            .map(|ChangedArguments { commands, first }| ChangedArgumentsBody { commands, first }),
        cancel_requested: pending.cancellation.requested,
        pending_activities,
        pending_activities_total: (pending.activities.open.len() + pending.locals.open.len()) as u64,
        timers: timers.map(|(id, fires_at)| TimerBody { timer_id: id.to_string(), fires_at: *fires_at }).collect(),
        timers_total: pending.timers.open.len() as u64,
        unread_signals: unread(state),
        patches: patches.map(|(id, deprecated)| PatchBody { patch_id: id.clone(), deprecated: *deprecated }).collect(),
        published: published.map(|(name, value)| (name.clone(), value.clone())).collect(),
        result,
        failure,
        run: summary(RunRow { parked: row.parked.filter(|parked| holds(parked, state)), ..row }),
    })
}

/// Signals that the code has not taken: those that were delivered, and those that wait to be.
fn unread(state: &RunState) -> Vec<UnreadSignalsBody> {
    let mut unread = state.pending.signals.clone();
    unread.deliver(&state.inbox);
    let named = unread.unread.into_iter().map(|(name, signals)| UnreadSignalsBody {
        count: signals.count(),
        bytes: signals.bytes(),
        carried: signals.carried(),
        name,
    });
    named.take(MAX_DESCRIBED).collect()
}

/// What the run came to, if it has ended with a result or a failure.
pub(crate) fn ending(state: &RunState) -> (Option<Payload>, Option<Failure>) {
    match &state.closed {
        Some(Closed::Completed(result)) => (Some(result.clone()), None),
        Some(Closed::Failed(failure) | Closed::Canceled(failure) | Closed::Terminated(failure, _)) => {
            (None, Some(failure.clone()))
        }
        Some(Closed::ContinuedAsNew(_)) | None => (None, None),
    }
}

/// Parked is void after any later commit, unless the code may take its process along: it waits, whatever comes.
pub(crate) fn holds(parked: &Parked, state: &RunState) -> bool {
    parked.ends_process || parked.sequence >= state.next_sequence
}

/// The first of the activities that workers run, with what their records tell.
async fn queued(store: &dyn Store, state: &RunState) -> Result<Vec<PendingActivityBody>, StoreError> {
    let looks = state.pending.activities.open.iter().take(MAX_DESCRIBED).map(|(id, pending)| {
        let key = AttemptKey { run: state.run.clone(), activity: *id };
        async move {
            let found = store.attempt(&key).await?;
            // One that this build cannot read hides its attempts, and nothing else of the run.
            let record = found.and_then(|found| AttemptRecord::decode(&found.record).ok());
            Ok(queued_body(*id, pending, record))
        }
    });
    let looks: Vec<_> = looks.collect();
    futures::stream::iter(looks).buffered(READS).try_collect().await
}

fn queued_body(id: CommandId, pending: &PendingActivity, record: Option<AttemptRecord>) -> PendingActivityBody {
    let (stage, next_attempt_at) = match record.as_ref().map(|record| (&record.state, record.attempt)) {
        Some((AttemptState::Claimed { .. }, attempt)) if attempt > pending.lost => ("running", None),
        Some((AttemptState::Waiting { retry_at_ms, .. }, attempt)) if attempt > pending.lost => {
            ("backing_off", Some(Timestamp::from_millis(*retry_at_ms)))
        }
        _ if pending.lost > 0 => ("backing_off", Some(pending.retry_at)),
        _ => ("scheduled", None),
    };
    PendingActivityBody {
        activity_id: id.to_string(),
        activity_type: pending.activity_type.clone(),
        local: false,
        task_queue: pending.options.task_queue.clone(),
        state: stage.into(),
        attempt: record.as_ref().map_or(0, |record| record.attempt).max(pending.lost),
        scheduled_at: Some(pending.scheduled_at),
        next_attempt_at,
        last_failure: record.as_ref().and_then(|record| record.last_failure.clone()),
        last_heartbeat: record.and_then(|record| record.heartbeat),
    }
}

fn local_body(id: CommandId, local: &PendingLocal) -> PendingActivityBody {
    let backs_off = local.attempts > 0;
    PendingActivityBody {
        activity_id: id.to_string(),
        activity_type: local.activity_type.clone(),
        local: true,
        task_queue: None,
        state: if backs_off { "backing_off" } else { "running" }.into(),
        attempt: local.attempts,
        scheduled_at: None,
        next_attempt_at: backs_off.then_some(local.retry_at),
        last_failure: local.last_failure.clone(),
        last_heartbeat: None,
    }
}

impl From<Parked> for ParkedBody {
    fn from(Parked { reason, cause, build, retry_at, since, .. }: Parked) -> Self {
        Self { reason, cause, build, retry_at, since }
    }
}

/// A row, as lists show it.
pub(crate) fn summary(row: RunRow) -> RunSummary {
    RunSummary {
        workflow_id: row.run.workflow.workflow_id.to_string(),
        run_id: row.run_id,
        workflow_type: row.workflow_type,
        status: row.status,
        started_at: row.started_at,
        closed_at: row.closed_at,
        // Nothing can stand still that has ended.
        parked: row.parked.filter(|_| !row.status.is_closed()).map(ParkedBody::from),
    }
}
