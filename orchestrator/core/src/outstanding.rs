//! `outstanding`: what a history leaves to be done. The history is the outbox: whoever reads it knows what to hand out.

use std::time::Duration;

use crate::history::{Batch, Command, CommandId, Event, Input, RunState, Turn};
use crate::ids::{RunId, RunKey};
use crate::options::RecordedOptions;
use crate::payload::Payload;
use crate::planted::{Bug, planted};
use crate::time::Timestamp;

/// A queued activity that waits for a worker. Deterministic: whoever derives it derives the same.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivityTask {
    /// The run.
    pub run: RunKey,
    /// Its identity: with the id, the idempotency key.
    pub run_id: RunId,
    /// The activity's id within the run.
    pub id: CommandId,
    /// Its wire name.
    pub activity_type: String,
    /// Its argument.
    pub input: Payload,
    /// Its limits and retry policy.
    pub options: RecordedOptions,
    /// When the workflow asked for it.
    pub scheduled_at: Timestamp,
    /// The last attempt whose lease the history has ended; 0 when none. The next to claim is at least one more.
    pub lost: u32,
    /// It begins no earlier than this.
    pub not_before: Timestamp,
}

/// One thing that a history leaves to be done. Doing it twice is harmless.
#[derive(Clone, Debug, PartialEq)]
pub enum Debt {
    /// Hand this to a worker.
    Task(ActivityTask),
    /// Nobody wants this activity any more: its attempt record says so from now on (rule A1).
    Unwanted(CommandId),
    /// The run's one alarm rings at this time, or not at all.
    Alarm(Option<Timestamp>),
    /// Batch 0 of the run that comes after this one (rule C6).
    NextRun(Box<Batch>),
}

/// Which of a history's debts are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Owed<'a> {
    /// What this batch, just committed, adds to them.
    New(&'a Batch),
    /// What the last decided batch, and what was recorded after it, have added: all that may be lost when somebody died
    /// between a commit and its dispatch.
    Recent,
    /// All of an open run's.
    All,
    /// What a closed run owes.
    Closing,
}

/// How far the sweep's patience grows: the interval times two to this power, at most.
const MAX_SWEEP_DOUBLINGS: u32 = 6;

impl RunState {
    /// Whether inputs wait for a decision.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.closed.is_none() && !self.inbox.is_empty()
    }

    /// The task of one pending activity.
    #[must_use]
    pub fn task(&self, id: CommandId) -> Option<ActivityTask> {
        let pending = self.activities.get(&id)?;
        Some(ActivityTask {
            run: self.run.clone(),
            run_id: self.run_id(),
            id,
            activity_type: pending.activity_type.clone(),
            input: pending.input.clone(),
            options: pending.options.clone(),
            scheduled_at: pending.scheduled_at,
            lost: pending.lost,
            not_before: pending.retry_at,
        })
    }

    /// The run's one alarm after this time: the earliest of its timers and time limits. A schedule-to-start limit
    /// that has passed rings no more (whether the activity was taken up, only its record knows), nor does a local
    /// activity that may begin already.
    #[must_use]
    pub fn alarm(&self, now: Timestamp) -> Option<Timestamp> {
        let timers = self.timers.values().copied();
        let limits = self
            .activities
            .values()
            .flat_map(|a| [a.close_deadline(), a.start_deadline().filter(|deadline| *deadline > now)])
            .flatten();
        let locals = self.locals.values().map(|local| local.retry_at).filter(|at| *at > now);
        timers.chain(limits).chain(locals).min()
    }

    /// Activities whose schedule-to-start limit has passed. Whether a worker took them up, only their records know.
    pub fn start_deadlines_passed(&self, now: Timestamp) -> impl Iterator<Item = CommandId> + '_ {
        self.activities
            .iter()
            .filter(move |(_, pending)| pending.start_deadline().is_some_and(|deadline| deadline <= now))
            .map(|(id, _)| *id)
    }

    /// Whether the run is closed and owes something yet: the next run, or word that its activities are not wanted.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.closed.as_ref().is_some_and(|closed| closed.next().is_some() || !self.canceled_activities.is_empty())
    }

    /// What the history leaves to be done; at `now`, by the host's clock.
    #[must_use]
    pub fn debts(&self, owed: Owed<'_>, now: Timestamp) -> Vec<Debt> {
        let tasks = |ids: &mut dyn Iterator<Item = CommandId>| -> Vec<Debt> {
            ids.filter_map(|id| self.task(id)).map(Debt::Task).collect()
        };
        let mut debts = match owed {
            _ if self.closed.is_some() => return self.closing_debts(),
            Owed::Closing => return Vec::new(),
            Owed::New(batch) => return self.new_debts(batch, now),
            Owed::Recent => tasks(&mut self.recent_tasks()),
            Owed::All => tasks(&mut self.activities.keys().copied()),
        };
        debts.push(Debt::Alarm(self.alarm(now)));
        debts
    }

    fn new_debts(&self, batch: &Batch, now: Timestamp) -> Vec<Debt> {
        let mut debts = Vec::new();
        let mut alarm = false;
        for event in &batch.events {
            match event {
                Event::Command(Command::ScheduleActivity { id, .. }) | Event::Input(Input::AttemptLost { id, .. }) => {
                    if let Some(task) = self.task(*id) {
                        alarm |= task.options.schedule_to_close_ms.or(task.options.schedule_to_start_ms).is_some();
                        debts.push(Debt::Task(task));
                    }
                }
                Event::Command(Command::CancelActivity { id }) if self.canceled_activities.contains(id) => {
                    debts.push(Debt::Unwanted(*id));
                }
                Event::Command(Command::StartTimer { .. } | Command::CancelTimer { .. })
                | Event::Input(Input::LocalBackoff { .. }) => alarm = true,
                Event::Turn(turn) => alarm |= matches!(turn, Turn { input: Some(Input::TimerFired { .. }), .. }),
                Event::Command(_) | Event::Input(_) => {}
            }
        }
        if alarm {
            debts.push(Debt::Alarm(self.alarm(now)));
        }
        debts
    }

    fn closing_debts(&self) -> Vec<Debt> {
        let unwanted = self.canceled_activities.iter().map(|id| Debt::Unwanted(*id));
        let next = self.next_run().map(|batch| Debt::NextRun(Box::new(batch)));
        [Debt::Alarm(None)].into_iter().chain(unwanted).chain(next).collect()
    }

    /// How long the sweep waits before it looks again, having found nothing new now: longer each time.
    #[must_use]
    pub fn patience(&self, sweep: Duration) -> Duration {
        sweep * 2u32.pow(self.sweeps.min(MAX_SWEEP_DOUBLINGS))
    }

    /// When somebody must look at the run next if nothing happens after a commit at this time (rule F5): a function of
    /// the history alone.
    /// Undecided inputs and outstanding tasks are due so long after the commit: one sweep interval, or the sweep's
    /// [`patience`](Self::patience) when it is the sweep that commits. Alarms are due when they ring.
    #[must_use]
    pub fn due_after(&self, commit: Timestamp, patience: Duration) -> Option<Timestamp> {
        let waits = self.is_undecided() || !self.activities.is_empty() || !self.locals.is_empty();
        let owes = self.owes() && !planted(Bug::F5ForgetDebts);
        let look = (waits || owes).then(|| commit + patience);
        look.into_iter().chain(self.alarm(commit)).min()
    }
}
