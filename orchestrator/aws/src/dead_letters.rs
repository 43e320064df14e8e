//! Dead letters: messages that were delivered again and again, and never handled.
//!
//! Each is to be quarantined, visibly, with a reason; nothing depends on it any more, since the sweep hands out again
//! what a run still needs. One kind tells something that nobody else may know: a task whose attempt was claimed and
//! whose lease is over. Its worker died each time, and the run is told so at once. Nothing is claimed here, and only
//! the history ends a lease (rule A1).

use dormouse_core::operations;
use dormouse_core::{Arrival, RunKey, Timestamp};

use crate::queues::ReceiveError;
use crate::wire::{Message, Task, decode};
use dormouse_engine::attempts::{AttemptRecord, AttemptState, key_of, lost_to};
use dormouse_engine::ports::Ports;
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::StoreError;

/// What a dead letter comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The run that it was about, where that can be read.
    pub run: Option<RunKey>,
    /// Why it is quarantined, for people.
    pub reason: String,
    /// What its run is told.
    pub report: Option<RunMessage>,
}

/// What a dead letter means. `record` is the attempt record of a task, if there is one.
#[must_use]
pub fn judge(
    letter: &Result<Message, ReceiveError>,
    record: Option<&AttemptRecord>,
    epoch: u64,
    now: Timestamp,
) -> DeadLetter {
    let quarantined =
        |run: Option<&RunKey>, reason: &str| DeadLetter { run: run.cloned(), reason: reason.to_owned(), report: None };
    let message = match letter {
        Ok(message) => message,
        Err(error) => return quarantined(None, &error.to_string()),
    };
    match message {
        Message::Task(task) => judge_task(task, record, epoch, now),
        Message::Run(message) => {
            quarantined(Some(message.run()), "the run's decider failed on it each time; the sweep looks at the run")
        }
        Message::Alarm(alarm) => {
            quarantined(Some(&alarm.run), "an alarm that could not be forwarded; the sweep rings when it is due")
        }
        Message::Deferred(deferred) => {
            let run = match decode(&deferred.body) {
                Ok(Message::Task(task)) => Some(task.task.run),
                _ => None,
            };
            quarantined(run.as_ref(), "a task for later that could not be forwarded; the sweep hands it out again")
        }
        Message::Stored(_) => quarantined(None, "a pointer to a message in the bucket that was never read"),
    }
}

fn judge_task(
    Task { task, not_after }: &Task,
    record: Option<&AttemptRecord>,
    epoch: u64,
    now: Timestamp,
) -> DeadLetter {
    let mut report = None;
    let reason = match record {
        None if now > *not_after => "the task came too late to be run".to_owned(),
        None => "no worker began the task: throttled, or none is there; the sweep hands it out again".to_owned(),
        Some(record) => match record.state {
            AttemptState::Closed => "the activity is over".to_owned(),
            _ if record.attempt <= task.lost => {
                format!("attempt {} is known to be lost, and the next did not begin", record.attempt)
            }
            AttemptState::Waiting { .. } => {
                format!("attempt {} failed, and the next did not begin; the sweep hands it out again", record.attempt)
            }
            AttemptState::Claimed { .. } if record.is_dead(epoch, now) => {
                let arrival = Arrival::AttemptLost(operations::WorkerGone {
                    id: task.id,
                    attempt: record.attempt,
                    timeout: lost_to(task),
                    last_heartbeat: record.heartbeat.clone(),
                });
                report = Some(RunMessage::Arrived { run: task.run.clone(), run_id: task.run_id, arrival });
                format!("the worker of attempt {} is gone; the run was told", record.attempt)
            }
            AttemptState::Claimed { .. } => {
                format!("attempt {} is believed to run; should it be lost, the sweep finds out", record.attempt)
            }
        },
    };
    DeadLetter { run: Some(task.run.clone()), reason, report }
}

/// Judges a dead letter and tells the run what it should know. The caller quarantines it, then acknowledges it; dying
/// in between tells the run twice, which is harmless.
///
/// # Errors
/// [`StoreError`] when store, bucket or queue did not answer: let the letter be delivered again.
pub async fn examine(ports: &Ports, letter: &Result<Message, ReceiveError>) -> Result<DeadLetter, StoreError> {
    if let Err(ReceiveError::Store(error)) = letter {
        return Err(error.clone());
    }
    let record = match letter {
        Ok(Message::Task(Task { task, .. })) => ports.store.attempt(&key_of(task)).await?,
        _ => None,
    };
    let record = record.map(|found| AttemptRecord::decode(&found.record)).transpose()?;
    let dead = judge(letter, record.as_ref(), ports.store.epoch(), ports.now());
    if let Some(report) = &dead.report {
        ports.runs.send(report.clone()).await?;
    }
    Ok(dead)
}
