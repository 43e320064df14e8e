//! What of a run's outstanding work is lost. A task that is sent again costs a message, an invocation and a refused claim;
//! so nothing is sent again on suspicion: the attempt record is read first, and tells whether a worker has it.

use dormouse_core::operations::WorkerGone;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{ActivityTask, Arrival};
use futures::{StreamExt, TryStreamExt};

use crate::attempts::{AttemptRecord, AttemptState, key_of, lost_to};
use crate::ports::Ports;
use crate::store::StoreError;

/// What may have been lost before messages came, as far as they tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Lost {
    /// Nothing that they know of: a message that comes for the first time, late, or for nothing, proves no loss.
    #[default]
    Nothing,
    /// They were delivered before, and whoever had them may have died between a commit and its dispatch.
    LastDispatch,
    /// The run is overdue: any message may be lost.
    Anything,
}

/// Attempt records read at a time.
const READS: usize = 16;

/// Of how many activities of a run one sweep reads the attempt records, at most, where that is paid for. Of more it
/// looks at others each time.
pub(crate) const SWEPT_ACTIVITIES: usize = 1000;

/// What has become of a task, by its attempt record.
enum Fate {
    /// A worker has it, or had it and the record waits for its time; or nobody wants it any more.
    Known,
    /// No worker is known to have it: it may still wait in its queue, or it is lost.
    Unheard(ActivityTask),
    /// Its worker is gone: the run is to be told.
    Dead(Arrival),
}

/// What is to be done about tasks that may be lost.
#[derive(Default)]
pub(crate) struct Losses {
    /// To send again.
    pub(crate) tasks: Vec<ActivityTask>,
    /// To take in: attempts whose workers are gone.
    pub(crate) arrivals: Vec<Arrival>,
}

/// Reads the attempt records of these tasks.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub(crate) async fn losses(ports: &Ports, tasks: Vec<ActivityTask>) -> Result<Losses, StoreError> {
    let fates = futures::stream::iter(tasks).map(|task| fate(ports, task)).buffered(READS);
    let mut losses = Losses::default();
    let mut fates = std::pin::pin!(fates);
    while let Some(fate) = fates.try_next().await? {
        match fate {
            Fate::Known => {}
            Fate::Unheard(task) => losses.tasks.push(task),
            Fate::Dead(arrival) => losses.arrivals.push(arrival),
        }
    }
    Ok(losses)
}

async fn fate(ports: &Ports, task: ActivityTask) -> Result<Fate, StoreError> {
    let Some(found) = ports.store.attempt(&key_of(&task)).await? else { return Ok(Fate::Unheard(task)) };
    let record = match AttemptRecord::decode(&found.record) {
        Ok(record) => record,
        Err(error) => {
            // Another build's worker has it; what cannot be read stops nobody but itself.
            tracing::warn!(run = %task.run, activity = task.id, %error, "its attempts are left to whoever can read them");
            return Ok(Fate::Known);
        }
    };
    let now = ports.now();
    if planted(Bug::R1SendAgain) {
        return Ok(Fate::Unheard(task));
    }
    if record.cancel_requested {
        return Ok(Fate::Known);
    }
    Ok(match record.state {
        AttemptState::Closed => Fate::Known,
        // The history has ended its lease, and nobody has claimed the next attempt yet.
        _ if record.attempt <= task.lost => Fate::Unheard(task),
        // Its retry has had its time; or it was on a queue that ended with its process.
        AttemptState::Waiting { retry_at_ms, epoch }
            if retry_at_ms <= now.as_millis() || epoch < ports.store.epoch() =>
        {
            let not_before = dormouse_core::Timestamp::from_millis(retry_at_ms);
            Fate::Unheard(ActivityTask { not_before, ..task })
        }
        AttemptState::Claimed { .. } if record.is_dead(ports.store.epoch(), now) => {
            Fate::Dead(Arrival::AttemptLost(WorkerGone {
                id: task.id,
                attempt: record.attempt,
                timeout: lost_to(&task),
                last_heartbeat: record.heartbeat,
            }))
        }
        AttemptState::Waiting { .. } | AttemptState::Claimed { .. } => Fate::Known,
    })
}
