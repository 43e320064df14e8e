//! One pass of an open run through accept, decide and commit, begun again whenever the run has to be read anew.
//!
//! | stage | what happens | then |
//! | --- | --- | --- |
//! | `Inbox` | what waits in the history is decided | `Arrivals` |
//! | `Arrivals` | what came is held against the history | `Decide`; memory refused: read, `Inbox` |
//! | `Decide` | what was taken in is decided | `Commit`; a close that was deaf to its inbox is taken anew: `Inbox` |
//! | `Commit` | one conditional create | won: dispatched, `Done`; lost: taken in or read anew, `Inbox` |
//! | `Done` | what may be lost is seen to; the run stays warm | |
//! | `Ended` | somebody else has closed the run: closed up, without its code | |

use std::collections::BTreeSet;

use dormouse_core::CommandId;
use dormouse_core::operations::NeverTaken;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{ActivityTask, Arrival, Debt, Decision, LiveRun, Merge, Owed, Retake, RunKey, Status, TurnFailure};

use crate::attempts::{SKEW, close_untaken};
use crate::commit::{LoadError, Outcome, commit, entry};
use crate::decider::{Decider, Surroundings};
use crate::dispatch::{discharge, hand_out};
use crate::journal;
use crate::know::{Belief, Known};
use crate::lost::{Lost, SWEPT_ACTIVITIES, losses};
use crate::post::Post;
use crate::states::is_kept;
use crate::store::{AttemptKey, StoreError};
use crate::worker::LocalTask;

/// A run on its way.
pub(crate) struct Pass<'a, S> {
    decider: &'a Decider<S>,
    run: &'a RunKey,
    post: &'a Post,
    live: Box<LiveRun>,
    belief: Belief,
    /// Whether `live` has yet to be shown what came.
    unshown: bool,
    /// What may have been lost before this pass.
    lost: Lost,
    /// Activities whose tasks may have been lost between a commit and its dispatch.
    recent: BTreeSet<CommandId>,
    /// Tasks to send again.
    tasks: Vec<ActivityTask>,
    /// An alarm rang a moment before its time.
    early: bool,
}

enum Stage {
    Inbox,
    Arrivals,
    Decide,
    Commit,
    Done,
    Ended(Status),
}

impl<'a, S: Surroundings + 'static> Pass<'a, S> {
    pub(crate) fn new(
        decider: &'a Decider<S>,
        run: &'a RunKey,
        post: &'a Post,
        live: Box<LiveRun>,
        belief: Belief,
    ) -> Self {
        // While it stood still, inputs were recorded without a dispatch.
        let stood_still = decider.ports.parkings.get(run).is_some();
        let lost = if stood_still { post.lost.max(Lost::LastDispatch) } else { post.lost };
        let mut recent = BTreeSet::new();
        if lost == Lost::LastDispatch && !planted(Bug::F1ForgetOutstanding) {
            let debts = live.state().debts(Owed::Recent, decider.ports.now());
            recent.extend(debts.into_iter().filter_map(|debt| match debt {
                Debt::Task(task) => Some(task.id),
                Debt::Unwanted(_) | Debt::Alarm(_) | Debt::NextRun(_) => None,
            }));
        }
        Self { decider, run, post, live, belief, unshown: true, lost, recent, tasks: Vec::new(), early: false }
    }

    /// Stage by stage, until nothing is left to commit.
    pub(crate) async fn run(mut self) -> Result<(), LoadError> {
        if self.belief == Belief::Fresh && planted(Bug::F1ForgetUndecided) && self.post.arrivals.is_empty() {
            return Ok(());
        }
        let mut stage = Stage::Inbox;
        loop {
            stage = match stage {
                // It comes before what arrives now. It may also be what asks for the local activities whose results
                // arrive.
                Stage::Inbox if self.live.state().is_undecided() => self.decide(Stage::Arrivals).await?,
                Stage::Inbox => Stage::Arrivals,
                Stage::Arrivals => self.accept().await?,
                Stage::Decide => self.decide(Stage::Commit).await?,
                Stage::Commit => self.commit().await?,
                Stage::Done => return self.done().await,
                Stage::Ended(status) => return Ok(self.decider.on_ended(self.run, status, self.post).await?),
            };
        }
    }

    async fn accept(&mut self) -> Result<Stage, LoadError> {
        if !std::mem::take(&mut self.unshown) {
            return Ok(Stage::Decide);
        }
        let now = self.decider.ports.now();
        let mut doubted = false;
        let post = self.post;
        for coming in &post.arrivals {
            if coming.run_id.is_some_and(|run_id| run_id != self.live.state().run_id()) {
                continue;
            }
            match self.live.state().accept_within(&coming.arrival, now, &self.decider.ports.choices.limits) {
                Ok(inputs) => self.live.take_in(inputs),
                Err(refusal) if self.belief == Belief::Fresh || planted(Bug::C3TrustCache) => {
                    tracing::debug!(run = %self.run, ?refusal, "not taken in");
                    self.early |= coming.arrival == Arrival::Alarm;
                }
                Err(_) => doubted = true,
            }
        }
        if post.sweeps() {
            self.see_to_losses().await?;
        }
        if post.sweeps() || post.arrivals.iter().any(|coming| coming.arrival == Arrival::Alarm) {
            self.never_taken().await?;
        }
        // The memory refuses; ask the store (rule C3). What was taken in is known by then.
        if doubted { self.refresh().await } else { Ok(Stage::Decide) }
    }

    /// The run is overdue: what its alarm would have told, and what its attempt records tell of its workers.
    async fn see_to_losses(&mut self) -> Result<(), StoreError> {
        let ports = &self.decider.ports;
        let state = self.live.state();
        let mut ids: Vec<_> = state.pending.activities.open.keys().copied().collect();
        if ids.len() > SWEPT_ACTIVITIES && ports.choices.shared {
            let [a, b, c, d, ..] = ports.host.fresh_id();
            let first = u32::from_le_bytes([a, b, c, d]) as usize % ids.len();
            ids.rotate_left(first);
            ids.truncate(SWEPT_ACTIVITIES);
        }
        let tasks = ids.into_iter().filter_map(|id| state.task(id)).collect();
        let found = losses(ports, tasks).await?;
        let now = ports.now();
        for arrival in found.arrivals.iter().chain([&Arrival::Alarm]) {
            if let Ok(inputs) = self.live.state().accept(arrival, now) {
                self.live.take_in(inputs);
            }
        }
        self.tasks = if planted(Bug::F6SkipActivities) { Vec::new() } else { found.tasks };
        Ok(())
    }

    /// Activities whose schedule-to-start limit has passed and whose records say that nobody took them up.
    async fn never_taken(&mut self) -> Result<(), StoreError> {
        let passed: Vec<_> = self.live.state().start_deadlines_passed(self.decider.ports.now()).collect();
        for id in passed {
            let key = AttemptKey { run: self.live.state().run.clone(), activity: id };
            if close_untaken(&self.decider.ports, &key).await?
                && let Ok(inputs) =
                    self.live.state().accept(&Arrival::NeverTaken(NeverTaken { id }), self.decider.ports.now())
            {
                self.live.take_in(inputs);
            }
        }
        Ok(())
    }

    async fn decide(&mut self, next: Stage) -> Result<Stage, LoadError> {
        let now = self.decider.ports.now();
        let (decider, live) = (self.decider, &mut self.live);
        match decider.in_turn(self.run, || live.decide(now))? {
            Decision::Decided => Ok(next),
            Decision::Retake(retake) => self.resume(retake).await,
        }
    }

    async fn commit(&mut self) -> Result<Stage, LoadError> {
        if !self.live.must_commit() {
            return Ok(Stage::Done);
        }
        let ports = &self.decider.ports;
        let batch = self.live.seal(ports.commit_id(), ports.now(), ports.choices.sweep_interval);
        let record = batch.encode();
        let entry = entry(&batch, self.live.state());
        if planted(Bug::C2DispatchLost) {
            let debts = self.live.state().debts(Owed::New(&batch), ports.now());
            discharge(ports, self.live.state(), debts).await?;
        }
        let outcome = match commit(&*ports.store, &*ports.host, self.run, &record, &entry).await {
            // The same decision would be refused again, for ever.
            Err(StoreError::Refused(reason)) => {
                return Err(TurnFailure::NotStored { reason: reason.to_string() }.into());
            }
            outcome => outcome?,
        };
        match outcome {
            Outcome::Won => {
                let before = self.live.state().events.saturating_sub(batch.events.len() as u64);
                self.live.committed(&batch, &record);
                journal::committed(self.live.state(), &batch);
                if is_kept(self.live.state(), before) {
                    ports.states.keep(self.live.state());
                }
                if self.live.state().closed.is_none() {
                    let debts = self.live.state().debts(Owed::New(&batch), ports.now());
                    discharge(ports, self.live.state(), debts).await?;
                }
                Ok(Stage::Done)
            }
            Outcome::Lost(_) if planted(Bug::C2DropLocalResults) => {
                let stage = self.reload().await?;
                self.unshown = false;
                Ok(stage)
            }
            Outcome::Lost(found) => match self.live.merge(&found) {
                Merge::Merged => Ok(Stage::Inbox),
                Merge::Retake(retake) => self.resume(retake).await,
                Merge::Reload => self.reload().await,
            },
        }
    }

    /// Reads what the run does not know yet, and shows it what came again.
    async fn refresh(&mut self) -> Result<Stage, LoadError> {
        if !self.decider.catch_up(self.run, &mut self.live).await? {
            return self.reload().await;
        }
        (self.belief, self.unshown) = (Belief::Fresh, true);
        Ok(self.live.state().closed.as_ref().map_or(Stage::Inbox, |closed| Stage::Ended(closed.status())))
    }

    /// Reads the run anew, and shows it what came again.
    async fn reload(&mut self) -> Result<Stage, LoadError> {
        match self.decider.read(self.run).await? {
            Known::Open(live, belief) => {
                (self.live, self.belief, self.unshown) = (live, belief, true);
                Ok(Stage::Inbox)
            }
            Known::Closed(status) => Ok(Stage::Ended(status)),
            Known::Nothing => {
                Err(StoreError::unknown(format!("the history of {} is gone; ask again", self.run)).into())
            }
        }
    }

    /// Reads the run anew and puts back what is kept of the draft.
    async fn resume(&mut self, retake: Retake) -> Result<Stage, LoadError> {
        let unshown = self.unshown;
        let stage = self.reload().await?;
        if let Stage::Inbox = stage {
            self.unshown = unshown;
            let (decider, live) = (self.decider, &mut self.live);
            decider.in_turn(self.run, || live.resume(retake))?;
        }
        Ok(stage)
    }

    /// Sees to what may be lost, hands local activities out, and keeps the run warm.
    async fn done(mut self) -> Result<(), LoadError> {
        let (decider, run, ports) = (self.decider, self.run, &self.decider.ports);
        // Under suspicion until all of its messages are handled: its next turn may be the deadly one.
        if ports.parkings.get(run).is_some() && !ports.parkings.is_suspect(run) {
            // Forgotten only when the row knows: should this fail, the next message finds it still to be done.
            ports.store.park(run, None).await?;
            ports.parkings.remove(run);
        }
        let state = self.live.state();
        if state.closed.is_some() {
            return decider.close(run, state, self.post).await;
        }
        let now = ports.now();
        if !self.recent.is_empty() {
            let tasks = self.recent.iter().filter_map(|id| state.task(*id)).collect();
            self.tasks = losses(ports, tasks).await?.tasks;
        }
        self.tasks.retain(|task| state.task(task.id).is_some_and(|now| now.lost == task.lost));
        hand_out(ports, std::mem::take(&mut self.tasks)).await?;
        // One that rang for nothing is not set again, or it would ring for nothing for ever; unless clocks differ.
        let alarm = state.alarm(now);
        let early = self.early && alarm.is_some_and(|at| at.since(now) <= SKEW || planted(Bug::R1RingForEver));
        if self.lost > Lost::Nothing || early {
            ports.alarms.set(run, state.run_id(), alarm).await?;
        }
        for (id, attempt, call) in self.live.local_calls(now) {
            if decider.locals.borrow_mut().insert((run.clone(), id)) {
                let run_id = state.run_id();
                decider.surroundings.run_local(LocalTask { run: run.clone(), run_id, id, attempt, call });
            }
        }
        decider.keep_warm(run, self.live);
        if self.post.sweeps() {
            decider.raise_due(run).await?;
        }
        Ok(())
    }
}
