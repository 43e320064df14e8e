//! Debts: what a history leaves to be done, as one list. The history is the outbox: whoever reads it knows what to hand
//! out.

use std::collections::BTreeSet;
use std::time::Duration;

use super::state::RunState;
use crate::history::{Batch, BatchKind, Event, Turn};
use crate::ids::{CommandId, RunId, RunKey};
use crate::operations::kind::Chore;
use crate::options::RecordedOptions;
use crate::payload::Payload;
use crate::planted::{Bug, planted};
use crate::time::Timestamp;

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "the large one is the common one")]
pub enum Debt {
    /// This task goes to a worker.
    Task(ActivityTask),
    /// The attempt record of this activity is closed: nobody wants its outcome.
    Unwanted(CommandId),
    /// The run's one alarm becomes this.
    Alarm(Option<Timestamp>),
    /// Batch 0 of the run that follows is created.
    NextRun(Box<Batch>),
}

/// Which debts are asked for.
#[derive(Clone, Copy, Debug)]
pub enum Owed<'a> {
    /// What this batch adds, which was just committed and is the last that the state knows.
    New(&'a Batch),
    /// What the last decided batch, and what was recorded after it, have added: all that may be lost when somebody died
    /// between a commit and its dispatch.
    Recent,
    /// Everything outstanding of an open run: after a start-up or a sweep.
    All,
    /// What a closed run owes.
    Closing,
}

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

/// How far the sweep's patience grows: the interval times two to this power, at most.
const MAX_SWEEP_DOUBLINGS: u32 = 6;

impl RunState {
    /// What is to be done, in the order in which it became so. Nothing here is new to whoever has done it before:
    /// tasks, marks and batches are the same each time.
    ///
    /// - `New`: the tasks that the batch calls for, the marks, and the alarm when it is another than before.
    /// - `Recent`: the tasks of the last decided batch and of what was recorded since, and the alarm.
    /// - `All`: each pending activity's task, and the alarm.
    /// - `Closing`: nothing of an open run.
    ///
    /// A closed run owes the same whatever is asked for: that its alarm is taken away, the marks of activities that
    /// nobody wants any more, and the next run. One that owes nothing by its own last batch owes nothing here; only
    /// who has just closed it takes an alarm away that was set.
    #[must_use]
    pub fn debts(&self, owed: Owed<'_>, now: Timestamp) -> Vec<Debt> {
        if self.closed.is_some() {
            return self.closing_debts(matches!(owed, Owed::New(_)));
        }
        let tasks = |chores: Vec<Chore>| chores.into_iter().filter_map(|chore| self.debt(chore));
        match owed {
            Owed::Closing => Vec::new(),
            Owed::New(batch) => self.new_debts(batch, now),
            Owed::Recent => {
                tasks(self.recent().map(Chore::Task).collect()).chain([Debt::Alarm(self.alarm(now))]).collect()
            }
            Owed::All => tasks(self.pending.chores()).chain([Debt::Alarm(self.alarm(now))]).collect(),
        }
    }

    fn new_debts(&self, batch: &Batch, now: Timestamp) -> Vec<Debt> {
        // What is scheduled and lost in one batch is one task.
        let mut seen = BTreeSet::new();
        let chores = batch.events.iter().filter_map(|event| match event {
            Event::Input(input) | Event::Turn(Turn { input: Some(input), .. }) => input.chore(),
            Event::Command(command) => command.chore(),
            Event::Turn(Turn { input: None, .. }) | Event::DecidedBy(_) => None,
        });
        let debts = chores.filter_map(|chore| self.debt(chore)).filter(|debt| match debt {
            Debt::Task(task) => seen.insert(task.id),
            Debt::Unwanted(_) | Debt::Alarm(_) | Debt::NextRun(_) => true,
        });
        let mut debts: Vec<_> = debts.collect();
        let alarm = self.alarm(now);
        if batch.kind == BatchKind::Decided && alarm != self.alarm_before {
            debts.push(Debt::Alarm(alarm));
        }
        debts
    }

    fn closing_debts(&self, just_closed: bool) -> Vec<Debt> {
        // What a closed run owes stands in its last batch, by a due time.
        let owes = self.owes() && (self.due.is_some() || planted(Bug::F5ForgetDebts));
        let rings = owes || (just_closed && self.alarm_before.or(self.alarm).is_some());
        let alarm = rings.then_some(Debt::Alarm(None));
        let marks = if owes { self.pending.chores_closed() } else { Vec::new() };
        let marks = marks.into_iter().filter_map(|chore| self.debt(chore));
        let next = self.next_run().filter(|_| owes).map(|batch| Debt::NextRun(Box::new(batch)));
        alarm.into_iter().chain(marks).chain(next).collect()
    }

    /// A chore as a debt, as long as it is still to be done.
    fn debt(&self, chore: Chore) -> Option<Debt> {
        match chore {
            Chore::Task(id) => self.task(id).map(Debt::Task),
            Chore::Unwanted(id) => self.pending.activities.unwanted.contains(&id).then_some(Debt::Unwanted(id)),
        }
    }

    /// Whether inputs wait for a decision.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.closed.is_none() && !self.inbox.is_empty()
    }

    /// The task of one pending activity.
    #[must_use]
    pub fn task(&self, id: CommandId) -> Option<ActivityTask> {
        let pending = self.pending.activities.open.get(&id)?;
        Some(ActivityTask {
            run: self.run.clone(),
            run_id: self.run_id(),
            id,
            activity_type: pending.activity_type.clone(),
            input: pending.input.clone(),
            options: pending.options.clone(),
            scheduled_at: pending.scheduled_at,
            lost: pending.lost,
            // The first attempt waits for nothing, whatever a clock shows that was ahead.
            not_before: if pending.lost == 0 { Timestamp::default() } else { pending.retry_at },
        })
    }

    /// The run's one alarm after this time: the earliest of its timers and time limits.
    #[must_use]
    pub fn alarm(&self, now: Timestamp) -> Option<Timestamp> {
        self.pending.alarm(now)
    }

    /// Activities whose schedule-to-start limit has passed. Whether a worker took them up, only their records know.
    pub fn start_deadlines_passed(&self, now: Timestamp) -> impl Iterator<Item = CommandId> + '_ {
        self.pending.activities.start_deadlines_passed(now).into_iter()
    }

    /// Whether the run is closed and calls for something more: the next run, or word that its activities are not
    /// wanted.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.closed.as_ref().is_some_and(|closed| closed.next().is_some() || !self.pending.chores_closed().is_empty())
    }

    /// How long the sweep waits before it looks again, having found nothing new now: longer each time.
    #[must_use]
    pub fn patience(&self, sweep: Duration) -> Duration {
        sweep * 2u32.pow(self.sweeps.min(MAX_SWEEP_DOUBLINGS))
    }

    /// When somebody must look at the run next if nothing happens after a commit at this time, by the clock (rule F5): a
    /// function of the history alone.
    /// Undecided inputs and outstanding tasks are due so long after the commit: one sweep interval, or the sweep's
    /// [`patience`](Self::patience) when it is the sweep that commits. Alarms are due when they ring.
    #[must_use]
    pub fn due_after(&self, commit: Timestamp, patience: Duration) -> Option<Timestamp> {
        let waits = self.is_undecided() || self.pending.waits();
        let owes = self.owes() && !planted(Bug::F5ForgetDebts);
        let look = (waits || owes).then(|| commit + patience);
        look.into_iter().chain(self.alarm(commit)).min()
    }
}
