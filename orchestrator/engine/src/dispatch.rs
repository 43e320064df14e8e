//! Dispatch: what a history leaves to be done is handed out after it is in the history, and never before.

use std::collections::BTreeSet;
use std::time::Duration;

use dormouse_core::history::{Batch, BatchKind, Command, CommandId, Event, Input};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{Arrival, LiveRun, RunKey};

use crate::attempts::mark_unwanted;
use crate::commit::{LoadError, Outcome, commit, entry, read_state};
use crate::handle::{Decider, Surroundings};
use crate::intake::Taken;
use crate::seams::RunMessage;
use crate::store::{AttemptKey, StoreError};
use crate::worker::LocalTask;

/// How much of what is outstanding is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dispatch {
    /// What the last commit added.
    New,
    /// Everything: after a start-up, a sweep, or a message that came again.
    All,
}

impl<S: Surroundings> Decider<S> {
    /// Hands out what is left after the commits, and keeps the run warm.
    pub(crate) async fn hand_out(
        &self,
        run: &RunKey,
        live: LiveRun,
        mut dispatch: Dispatch,
        sent: &BTreeSet<CommandId>,
        may_close: bool,
    ) -> Result<(), LoadError> {
        if self.ports.parkings.get(run).is_some() {
            // Under suspicion until all of its messages are handled: its next turn may be the deadly one.
            if !self.ports.parkings.is_suspect(run) {
                // Forgotten only when the row knows: should this fail, the next message finds it still to be done.
                self.ports.store.park(run, None).await?;
                self.ports.parkings.remove(run);
            }
            dispatch = Dispatch::All;
        }
        if live.state().closed.is_some() {
            self.ports.closings.closed(run);
            if dispatch == Dispatch::All || may_close {
                self.after_close(&live).await?;
            }
            return Ok(());
        }
        if dispatch == Dispatch::All {
            let ids: Vec<_> = live.state().activities.keys().copied().collect();
            if !planted(Bug::F6SkipActivities) {
                let ids = ids.into_iter().filter(|id| !sent.contains(id));
                for task in ids.filter_map(|id| live.state().task(id)) {
                    self.ports.activities.send(task).await?;
                }
            }
            self.set_alarm(&live).await?;
        }
        for (id, attempt, call) in live.local_calls(self.ports.now()) {
            if self.locals.borrow_mut().insert((run.clone(), id)) {
                let run_id = live.state().run_id();
                self.surroundings.run_local(LocalTask { run: run.clone(), run_id, id, attempt, call });
            }
        }
        self.warm.borrow_mut().put(run.clone(), live);
        Ok(())
    }

    /// Hands out what one committed batch calls for.
    pub(crate) async fn dispatch_batch(
        &self,
        live: &LiveRun,
        batch: &Batch,
        sent: &mut BTreeSet<CommandId>,
    ) -> Result<(), LoadError> {
        let state = live.state();
        let mut alarm = false;
        for event in &batch.events {
            match event {
                Event::Command(Command::ScheduleActivity { id, .. }) | Event::Input(Input::AttemptLost { id, .. }) => {
                    if let Some(task) = state.task(*id) {
                        alarm |= task.options.schedule_to_close_ms.or(task.options.schedule_to_start_ms).is_some();
                        self.ports.activities.send(task).await?;
                        sent.insert(*id);
                    }
                }
                Event::Command(Command::CancelActivity { id }) if state.canceled_activities.contains(id) => {
                    let key = AttemptKey { run: state.run.clone(), activity: *id };
                    mark_unwanted(&*self.ports.store, &key).await?;
                }
                Event::Command(Command::StartTimer { .. } | Command::CancelTimer { .. })
                | Event::Input(Input::LocalBackoff { .. }) => alarm = true,
                Event::Turn(turn) => alarm |= matches!(turn.input, Some(Input::TimerFired { .. })),
                Event::Command(_) | Event::Input(_) => {}
            }
        }
        if state.closed.is_some() {
            self.after_close(live).await?;
        } else if alarm {
            self.set_alarm(live).await?;
        }
        Ok(())
    }

    /// A caller's message for a run that has closed: taken in by the run that it continues as, if it does (rule F4).
    pub(crate) async fn pass_on(&self, run: &RunKey, arrival: &Arrival) -> Result<(), LoadError> {
        match self.intake.follow(run, arrival, false, false).await? {
            Taken::Recorded { run, sequence, record } => {
                Ok(self.ports.runs.send(RunMessage::Accepted { run, sequence, record }).await?)
            }
            Taken::Duplicate(_) | Taken::Refused(_) | Taken::NoSuchRun => Ok(()),
        }
    }

    async fn after_close(&self, live: &LiveRun) -> Result<(), LoadError> {
        let state = live.state();
        self.ports.alarms.set(&state.run, state.run_id(), None).await?;
        if state.owes() {
            self.intake.roll_forward(&state.run).await?;
        }
        Ok(())
    }

    async fn set_alarm(&self, live: &LiveRun) -> Result<(), StoreError> {
        let state = live.state();
        self.ports.alarms.set(&state.run, state.run_id(), state.alarm(self.ports.now())).await
    }

    /// The sweep has looked: the run is due again later, said in one write with a batch of its own (rule F5).
    pub(crate) async fn raise_due(&self, run: &RunKey) -> Result<(), StoreError> {
        let Some(mut live) = self.warm.borrow_mut().pop(run) else { return Ok(()) };
        let now = self.ports.now();
        if live.state().due > now || live.must_commit() {
            self.warm.borrow_mut().put(run.clone(), live);
            return Ok(());
        }
        // A draft that waits for local results does not go along: read the run afresh and sweep that.
        let state = match read_state(&*self.ports.store, run).await {
            Ok(Some(state)) if state.closed.is_none() && state.due <= now => state,
            Ok(_) | Err(LoadError::Turn(_)) => return Ok(()),
            Err(LoadError::Store(error)) => return Err(error),
        };
        let time = state.recorded_time(now);
        let far = Duration::from_hours(24 * 365 * 100);
        let due = state.due_after(time, state.patience(self.ports.choices.sweep_interval)).unwrap_or(time + far);
        let batch = Batch {
            commit_id: self.ports.commit_id(),
            previous: state.head,
            time,
            kind: BatchKind::Swept,
            events: Vec::new(),
            due: Some(due),
        };
        let record = batch.encode();
        let entry = entry(&batch, &state);
        // Lost: somebody is at work on the run, and the next sweep looks again.
        if commit(&*self.ports.store, None, run, &record, &entry).await? == Outcome::Won
            && live.extend(state.next_sequence, &record)
        {
            self.warm.borrow_mut().put(run.clone(), live);
        }
        Ok(())
    }
}
