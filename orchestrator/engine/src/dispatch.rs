//! Dispatch: what a history leaves to be done is handed out after it is in the history, and never before.

use dormouse_core::history::{Batch, Event};
use dormouse_core::operations::Input;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{ActivityTask, Debt, Owed, RunId, RunKey, RunState};
use futures::{StreamExt, TryStreamExt};

use crate::attempts::{mark_unwanted, note_homeless};
use crate::commit::{LoadError, Outcome, commit_telling, opening};
use crate::journal;
use crate::ports::Ports;
use crate::seams::RunMessage;
use crate::store::{AttemptKey, Entry, StoreError};

/// Attempt records written at a time.
const WRITES: usize = 16;

/// Does what a run's history leaves to be done. Anyone may do it, any number of times: whatever is written is derived
/// from the history, so all write the same.
///
/// # Errors
/// [`LoadError`]: some of it may be done.
pub(crate) async fn discharge(ports: &Ports, state: &RunState, debts: Vec<Debt>) -> Result<(), LoadError> {
    let (mut tasks, mut unwanted) = (Vec::new(), Vec::new());
    let mut next_run = None;
    for debt in debts {
        match debt {
            Debt::Task(task) => tasks.push(task),
            Debt::Alarm(at) => ports.alarms.set(&state.run, state.run_id(), at).await?,
            Debt::Unwanted(id) => unwanted.push(AttemptKey { run: state.run.clone(), activity: id }),
            Debt::NextRun(batch) => next_run = Some(batch),
        }
    }
    hand_out(ports, tasks).await?;
    let marks = unwanted.into_iter().map(|key| async move { mark_unwanted(ports, &key).await });
    futures::stream::iter(marks).buffer_unordered(WRITES).try_collect::<()>().await?;
    match next_run {
        Some(batch) => begin_next(ports, state, *batch).await,
        None => Ok(()),
    }
}

/// Sends tasks to workers. Of one for a queue that is not there, its record says so.
///
/// # Errors
/// [`StoreError`]: any of them may be sent.
pub(crate) async fn hand_out(ports: &Ports, tasks: Vec<ActivityTask>) -> Result<(), StoreError> {
    let (mut sent, mut homeless) = (Vec::with_capacity(tasks.len()), Vec::new());
    for task in tasks {
        match ports.activities.no_such_queue(task.options.task_queue.as_deref()) {
            None => sent.push(task),
            Some(why) => homeless.push((task, why)),
        }
    }
    if !sent.is_empty() {
        ports.activities.send(sent).await?;
    }
    let notes = homeless.into_iter().map(|(task, why)| async move { note_homeless(ports, &task, &why).await });
    futures::stream::iter(notes).buffer_unordered(WRITES).try_collect().await
}

/// Does what a closed run owes: closes the attempt records of activities that nobody wants any more (rule A1), creates
/// the run that it calls for (rule C6), and then takes the row out of the sweep's sight.
///
/// # Errors
/// [`LoadError`]: some of it may be done; the row stays due.
pub(crate) async fn close_up(ports: &Ports, state: &RunState) -> Result<(), LoadError> {
    discharge(ports, state, state.debts(Owed::Closing, ports.now())).await?;
    if state.owes() {
        ports.store.settle(&state.run).await?;
    }
    Ok(())
}

/// The same, if the row says that anything is owed.
///
/// # Errors
/// As [`close_up`].
pub(crate) async fn close_up_if_due(ports: &Ports, run: &RunKey) -> Result<(), LoadError> {
    let owes = ports.store.row(run).await?.is_some_and(|row| row.status.is_closed() && row.due.is_some());
    if owes && let Some(state) = ports.states.fresh(run).await? {
        close_up(ports, &state).await?;
    }
    Ok(())
}

/// Creates the run that a closed one calls for, if it is missing, and lets its decider know (rule C6).
async fn begin_next(ports: &Ports, state: &RunState, mut batch: Batch) -> Result<(), LoadError> {
    if planted(Bug::C6InventNextRun)
        && let Some(Event::Input(Input::Started(started))) = batch.events.first_mut()
    {
        started.run_id = RunId::of_run(ports.host.fresh_id(), state.run.ordinal + 1);
    }
    let run = state.run.workflow.run(state.run.ordinal + 1);
    if commit_first(ports, &run, &batch).await? == Outcome::Won {
        warn_of_unread(state);
        ports.runs.send(RunMessage::Accepted { run, sequence: 0, record: batch.encode() }).await?;
    }
    Ok(())
}

/// A whole run has not taken what the one before left unread: nobody may ever do, and it goes along for ever.
fn warn_of_unread(state: &RunState) {
    let unread = state.pending.signals.unread.iter().filter(|(_, signals)| signals.carried() > 0);
    let unread: Vec<_> =
        unread.map(|(name, signals)| format!("{name:?} ({}, {} bytes)", signals.count(), signals.bytes())).collect();
    if !unread.is_empty() {
        tracing::warn!(
            run = %state.run, signals = unread.join(", "),
            "signals go along unread once more when the run continues as new: does its code know their names?"
        );
    }
}

/// Commits batch 0 of a run, and its row.
///
/// # Errors
/// [`StoreError`]: it may be there.
pub(crate) async fn commit_first(ports: &Ports, run: &RunKey, batch: &Batch) -> Result<Outcome, StoreError> {
    let Some(Event::Input(Input::Started(started))) = batch.events.first() else {
        return Err(StoreError::refused("a first batch begins with the start of its run"));
    };
    let entry = Entry::Open(opening(started, batch));
    let (outcome, now) = commit_telling(&*ports.store, &*ports.host, run, &batch.encode(), &entry).await?;
    if now {
        journal::started(run, started);
    }
    Ok(outcome)
}
