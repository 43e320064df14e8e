//! `handle`: the way of an event. Read this file first.
//!
//! ```text
//! messages of one run -> load -> accept -> decide -> commit -> dispatch -> acknowledge
//! ```
//!
//! - **load**: the warm run, or the history read and replayed. The cache proves nothing by itself: only a won commit
//!   makes a warm run true, and whatever ends without a commit is looked at again on a fresh one (rule C3).
//! - **accept** and **decide** are pure; they live in the core.
//! - **commit**: one conditional create. Losing it is normal (rule C2): if the winner only took inputs in, they are
//!   delivered too and the commit is tried again, with the results of finished local activities kept.
//! - **dispatch**: what the history leaves to be done, after it is in the history and never before.
//! - **acknowledge**: by returning `Ok`. On an error the caller delivers the messages again.
//!
//! A crash before the commit leaves nothing; one after it leaves the outbox, which is the history.

use std::cell::RefCell;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::history::{Batch, BatchKind, Command, CommandId, Event, Input};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{
    App, Arrival, Decision, LiveRun, Merge, Payload, QueryFailure, Refusal, Retake, RunKey, TurnFailure,
};
use lru::LruCache;

use crate::attempts::{close_untaken, mark_unwanted};
use crate::commit::{LoadError, Outcome, commit, read_history, read_state, row_change};
use crate::error::ApiError;
use crate::intake::{Intake, Taken};
use crate::ports::Ports;
use crate::seams::{RunMessage, Wish};
use crate::store::{AttemptKey, Parked, StoreError};
use crate::worker::LocalTask;

/// What a decider needs of the thread that it lives on.
pub trait Surroundings {
    /// Runs a local activity and sends its outcome as a message to its run.
    fn run_local(&self, task: LocalTask);
    /// Workflow code of this run begins to run on this thread.
    fn turn_begins(&self, run: &RunKey);
    /// It gave the thread back.
    fn turn_ends(&self);
}

/// Decides runs: the only place where workflow code runs (rule F1). One per thread, for the runs that live there.
pub struct Decider<S> {
    app: Arc<App>,
    ports: Ports,
    intake: Arc<Intake>,
    surroundings: S,
    warm: RefCell<LruCache<RunKey, LiveRun>>,
    /// Local activities under way, so that none is begun twice.
    locals: RefCell<HashSet<(RunKey, CommandId)>>,
}

/// How much of what is outstanding is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dispatch {
    /// What the last commit added.
    New,
    /// Everything: after a start-up, a sweep, or a message that came again.
    All,
}

impl<S: Surroundings> Decider<S> {
    /// A decider that keeps up to `warm_runs` runs in memory.
    #[must_use]
    pub fn new(app: Arc<App>, ports: Ports, intake: Arc<Intake>, surroundings: S, warm_runs: NonZeroUsize) -> Self {
        let warm = RefCell::new(LruCache::new(warm_runs));
        Self { app, ports, intake, surroundings, warm, locals: RefCell::default() }
    }

    /// Handles messages of one run, in order. When it returns `Ok`, everything in them is recorded or refused, and
    /// what follows from them is handed out.
    ///
    /// # Errors
    /// [`StoreError`]: deliver the messages again, later.
    pub async fn handle(&self, run: &RunKey, messages: Vec<RunMessage>) -> Result<(), StoreError> {
        let mut dispatch = Dispatch::New;
        let mut accepted = Vec::new();
        let mut arrivals = Vec::new();
        let mut fresh = false;
        for message in messages {
            match message {
                RunMessage::Intent(intent) => {
                    // What the caller's crash left out is done here; if he did it, this finds a duplicate.
                    match self.carry_out(run, intent.wish).await {
                        Ok(Some((sequence, record))) => accepted.push((sequence, record)),
                        Ok(None) => (fresh, dispatch) = (true, Dispatch::All),
                        Err(LoadError::Store(error)) => return Err(error),
                        Err(LoadError::Turn(failure)) => return self.park(run, &failure).await,
                    }
                }
                RunMessage::Accepted { sequence, record, .. } => accepted.push((sequence, record)),
                RunMessage::Arrived { run_id, arrival, .. } => {
                    if let Arrival::LocalCompleted { id, .. }
                    | Arrival::LocalFailed { id, .. }
                    | Arrival::LocalBackoff { id, .. } = &arrival
                    {
                        self.locals.borrow_mut().remove(&(run.clone(), *id));
                    }
                    arrivals.push((run_id, arrival));
                }
                RunMessage::Sweep { .. } => (fresh, dispatch) = (true, Dispatch::All),
            }
        }
        let swept = dispatch == Dispatch::All;
        if self.stands_still(run, &accepted) {
            let news = !accepted.is_empty() || !arrivals.is_empty();
            self.take_in_only(run, arrivals).await?;
            if !news || self.stays_parked(run).await? {
                return Ok(());
            }
            // It was terminated: no code runs for that.
            (accepted, arrivals, fresh, dispatch) = (Vec::new(), Vec::new(), true, Dispatch::All);
        }
        match self.advance(run, accepted, &arrivals, fresh, dispatch).await {
            Ok(()) if swept => self.raise_due(run).await,
            Ok(()) => Ok(()),
            Err(LoadError::Store(error)) => Err(error),
            Err(LoadError::Turn(failure)) => {
                self.take_in_only(run, arrivals).await?;
                self.park(run, &failure).await
            }
        }
    }

    async fn advance(
        &self,
        run: &RunKey,
        accepted: Vec<(u64, Bytes)>,
        arrivals: &[(dormouse_core::RunId, Arrival)],
        mut fresh: bool,
        mut dispatch: Dispatch,
    ) -> Result<(), LoadError> {
        let mut live = match self.load(run, accepted, fresh).await? {
            Some((live, read)) => {
                fresh |= read;
                live
            }
            None => return Ok(()),
        };
        if live.state().closed.is_some() {
            // By somebody else, who left to us what follows from it.
            dispatch = Dispatch::All;
        }
        if fresh && planted(Bug::F1ForgetUndecided) && arrivals.is_empty() {
            return Ok(());
        }
        let mut waiting: Vec<_> = arrivals.iter().collect();
        let mut resumed: Option<Retake> = None;
        loop {
            if let Some(retake) = resumed.take() {
                self.in_turn(run, || live.resume(retake))?;
            }
            // What waits in the history comes before what arrives now. It may also be what asks for the local
            // activities whose results arrive.
            let now = self.ports.now();
            if live.state().is_undecided()
                && let Decision::Retake(retake) = self.in_turn(run, || live.decide(now))?
            {
                live = self.replay(run).await?;
                (fresh, resumed) = (true, Some(retake));
                continue;
            }
            // accept
            let mut refused = false;
            for (run_id, arrival) in std::mem::take(&mut waiting) {
                if *run_id != live.state().run_id() {
                    continue;
                }
                match live.state().accept(arrival, now) {
                    Ok(inputs) => live.take_in(inputs),
                    Err(Refusal::NothingDue) => {}
                    Err(refusal) if fresh => tracing::debug!(%run, ?refusal, "not taken in"),
                    Err(_) => refused = true,
                }
            }
            if arrivals.iter().any(|(_, arrival)| *arrival == Arrival::Alarm) || dispatch == Dispatch::All {
                self.never_taken(&mut live).await?;
            }
            if refused {
                // The cache refuses; ask the store (rule C3). What was taken in is taken in again there.
                live = self.replay(run).await?;
                (fresh, waiting) = (true, arrivals.iter().collect());
                continue;
            }
            // decide
            if let Decision::Retake(retake) = self.in_turn(run, || live.decide(now))? {
                live = self.replay(run).await?;
                (fresh, resumed) = (true, Some(retake));
                continue;
            }
            // commit
            if !live.must_commit() {
                break;
            }
            let batch = live.seal(self.ports.commit_id(), self.ports.now(), self.ports.choices.sweep_interval);
            let record = batch.encode();
            let change = row_change(&batch, live.state());
            let sequence = live.state().next_sequence;
            if planted(Bug::C2DispatchLost) {
                self.dispatch_batch(&live, &batch).await?;
            }
            match commit(&*self.ports.store, run, sequence, &record, change).await? {
                Outcome::Won => {
                    live.committed(&batch, &record);
                    self.dispatch_batch(&live, &batch).await?;
                    break;
                }
                Outcome::Lost(_) if planted(Bug::C2DropLocalResults) => {
                    live = self.replay(run).await?;
                    fresh = true;
                }
                Outcome::Lost(found) => match live.merge(&found) {
                    Merge::Merged => {}
                    Merge::Retake(retake) => {
                        live = self.replay(run).await?;
                        (fresh, resumed) = (true, Some(retake));
                    }
                    Merge::Reload => {
                        live = self.replay(run).await?;
                        (fresh, dispatch, waiting) = (true, Dispatch::All, arrivals.iter().collect());
                    }
                },
            }
        }
        self.after(run, live, dispatch).await
    }

    /// Hands out what is left after the commits, and keeps the run warm.
    async fn after(&self, run: &RunKey, live: LiveRun, mut dispatch: Dispatch) -> Result<(), LoadError> {
        if self.ports.parkings.remove(run) {
            self.ports.store.park(run, None).await?;
            dispatch = Dispatch::All;
        }
        if live.state().closed.is_some() {
            self.ports.closings.closed(run);
            if dispatch == Dispatch::All {
                self.after_close(&live).await?;
            }
            return Ok(());
        }
        if dispatch == Dispatch::All {
            let ids: Vec<_> = live.state().activities.keys().copied().collect();
            if !planted(Bug::F6SkipActivities) {
                for task in ids.into_iter().filter_map(|id| live.state().task(id)) {
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
    async fn dispatch_batch(&self, live: &LiveRun, batch: &Batch) -> Result<(), LoadError> {
        let state = live.state();
        let mut alarm = false;
        for event in &batch.events {
            match event {
                Event::Command(Command::ScheduleActivity { id, .. }) | Event::Input(Input::AttemptLost { id, .. }) => {
                    if let Some(task) = state.task(*id) {
                        alarm |= task.options.schedule_to_close_ms.or(task.options.schedule_to_start_ms).is_some();
                        self.ports.activities.send(task).await?;
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

    async fn after_close(&self, live: &LiveRun) -> Result<(), LoadError> {
        let state = live.state();
        for id in &state.canceled_activities {
            let key = AttemptKey { run: state.run.clone(), activity: *id };
            mark_unwanted(&*self.ports.store, &key).await?;
        }
        self.ports.alarms.set(&state.run, state.run_id(), None).await?;
        if state.closed.as_ref().is_some_and(|closed| closed.next().is_some()) {
            self.intake.roll_forward(&state.run).await?;
        }
        Ok(())
    }

    async fn set_alarm(&self, live: &LiveRun) -> Result<(), StoreError> {
        let state = live.state();
        self.ports.alarms.set(&state.run, state.run_id(), state.alarm(self.ports.now())).await
    }

    /// Activities whose schedule-to-start limit has passed and whose records say that nobody took them up.
    async fn never_taken(&self, live: &mut LiveRun) -> Result<(), StoreError> {
        let passed: Vec<_> = live.state().start_deadlines_passed(self.ports.now()).collect();
        for id in passed {
            let key = AttemptKey { run: live.state().run.clone(), activity: id };
            if close_untaken(&*self.ports.store, &key).await?
                && let Ok(inputs) = live.state().accept(&Arrival::NeverTaken { id }, self.ports.now())
            {
                live.take_in(inputs);
            }
        }
        Ok(())
    }

    // --- load ---

    /// The run, with these batches taken in; and whether it was freshly read.
    async fn load(
        &self,
        run: &RunKey,
        accepted: Vec<(u64, Bytes)>,
        fresh: bool,
    ) -> Result<Option<(LiveRun, bool)>, LoadError> {
        let warm = self.warm.borrow_mut().pop(run);
        if !fresh {
            let mut accepted = accepted.into_iter().peekable();
            let live = match (warm, accepted.peek()) {
                (Some(live), _) => Some(live),
                // A run that has just begun: its message carries all there is.
                (None, Some((0, first))) => {
                    let first = first.clone();
                    Some(self.in_turn(run, || LiveRun::replay(&self.app, run, &[first]))?)
                }
                (None, _) => None,
            };
            if let Some(mut live) = live
                && accepted.all(|(sequence, record)| live.extend(sequence, &record))
            {
                return Ok(Some((live, false)));
            }
        }
        let records = read_history(&*self.ports.store, run).await?;
        if records.is_empty() {
            return Ok(None);
        }
        Ok(Some((self.in_turn(run, || LiveRun::replay(&self.app, run, &records))?, true)))
    }

    async fn replay(&self, run: &RunKey) -> Result<LiveRun, LoadError> {
        let records = read_history(&*self.ports.store, run).await?;
        Ok(self.in_turn(run, || LiveRun::replay(&self.app, run, &records))?)
    }

    /// Runs workflow code, watched.
    fn in_turn<T>(&self, run: &RunKey, code: impl FnOnce() -> Result<T, TurnFailure>) -> Result<T, TurnFailure> {
        self.surroundings.turn_begins(run);
        let result = code();
        self.surroundings.turn_ends();
        result
    }

    // --- intents, parking, sweeping ---

    /// Does what an intent says unless it is done. The batch, when this created one for the run itself.
    async fn carry_out(&self, run: &RunKey, wish: Wish) -> Result<Option<(u64, Bytes)>, LoadError> {
        match wish {
            // The creation sends a message of its own.
            Wish::Start(request) => {
                self.intake.start(&run.workflow, &request, Some(run.ordinal)).await?;
                Ok(None)
            }
            Wish::Take { arrival, pinned } => match self.intake.follow(run, &arrival, pinned, false).await? {
                Taken::Recorded { run: there, sequence, record } if there == *run => Ok(Some((sequence, record))),
                Taken::Recorded { run, sequence, record } => {
                    self.ports.runs.send(RunMessage::Accepted { run, sequence, record }).await?;
                    Ok(None)
                }
                Taken::Duplicate(_) | Taken::Refused(_) | Taken::NoSuchRun => Ok(None),
            },
        }
    }

    /// Whether the run is parked and its time has not come: no commit since, and not yet due again. One in whose code
    /// a thread hangs waits for that thread, whatever comes.
    fn stands_still(&self, run: &RunKey, accepted: &[(u64, Bytes)]) -> bool {
        let early = || self.ports.parkings.get(run).is_some_and(|parked| self.ports.now() < parked.retry_at);
        self.ports.parkings.is_held(run) || (accepted.is_empty() && early())
    }

    /// Records arrivals of a run whose code cannot go on, without running it.
    async fn take_in_only(
        &self,
        run: &RunKey,
        arrivals: Vec<(dormouse_core::RunId, Arrival)>,
    ) -> Result<(), StoreError> {
        for (_, arrival) in arrivals {
            match self.intake.take(run, &arrival, None).await {
                Ok(taken) => tracing::debug!(%run, ?taken, "taken in while parked"),
                Err(LoadError::Store(error)) => return Err(error),
                Err(LoadError::Turn(failure)) => tracing::error!(%run, %failure, "not taken in: the history is damaged"),
            }
        }
        Ok(())
    }

    /// The history of a parked run has grown, and the row says that it is parked all the same. False when it is closed.
    async fn stays_parked(&self, run: &RunKey) -> Result<bool, StoreError> {
        let (Some(parked), Ok(Some(state))) = (self.ports.parkings.get(run), read_state(&*self.ports.store, run).await) else {
            return Ok(true);
        };
        if state.closed.is_some() {
            return Ok(false);
        }
        let parked = Parked { sequence: state.next_sequence, ..parked };
        self.ports.store.park(run, Some(parked.clone())).await?;
        self.ports.parkings.insert(run.clone(), parked);
        Ok(true)
    }

    async fn park(&self, run: &RunKey, failure: &TurnFailure) -> Result<(), StoreError> {
        park(&self.ports, run, failure).await
    }

    /// The sweep has looked: the run is due again later, said in one write with a batch of its own (rule F5).
    async fn raise_due(&self, run: &RunKey) -> Result<(), StoreError> {
        let Some(live) = self.warm.borrow_mut().pop(run) else { return Ok(()) };
        let now = self.ports.now();
        if live.state().due > now || live.must_commit() {
            self.warm.borrow_mut().put(run.clone(), live);
            return Ok(());
        }
        // A draft that waits for local results does not go along: read the run afresh and sweep that.
        let mut state = match read_state(&*self.ports.store, run).await {
            Ok(Some(state)) if state.closed.is_none() && state.due <= now => state,
            Ok(_) | Err(LoadError::Turn(_)) => return Ok(()),
            Err(LoadError::Store(error)) => return Err(error),
        };
        state.sweeps += 1;
        let time = state.recorded_time(now);
        let far = Duration::from_hours(24 * 365 * 100);
        let due = state.due_after(time, self.ports.choices.sweep_interval).unwrap_or(time + far);
        state.sweeps -= 1;
        let batch = Batch {
            commit_id: self.ports.commit_id(),
            previous: state.head,
            time,
            kind: BatchKind::Swept,
            events: Vec::new(),
            due: Some(due),
        };
        let record = batch.encode();
        let change = row_change(&batch, &state);
        // Lost: somebody is at work on the run, and the next sweep looks again.
        if commit(&*self.ports.store, run, state.next_sequence, &record, change).await? == Outcome::Won {
            self.ports.runs.send(RunMessage::Accepted { run: run.clone(), sequence: state.next_sequence, record }).await?;
        }
        Ok(())
    }

    /// Answers a query by the run's handler, on its present state.
    ///
    /// # Errors
    /// [`ApiError`] when there is no such run or handler, the code cannot go on, or the store does not answer.
    pub async fn query(&self, run: &RunKey, name: &str, input: &Payload) -> Result<Payload, ApiError> {
        let live = match self.replay(run).await {
            Ok(live) => live,
            Err(LoadError::Store(error)) => return Err(error.into()),
            Err(LoadError::Turn(failure)) => return Err(ApiError::Parked(failure.to_string())),
        };
        self.surroundings.turn_begins(run);
        let answer = live.query(name, input);
        self.surroundings.turn_ends();
        answer.map_err(|failure| match failure {
            QueryFailure::Unknown(known) => ApiError::NotFound(format!(
                "the workflow answers no query {name:?}; it answers: {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )),
            QueryFailure::Failed(failure) => ApiError::QueryFailed(Box::new(failure)),
        })
    }
}

/// Parks a run durably: why, since when, and when it is tried again.
///
/// # Errors
/// [`StoreError`] when the store does not answer.
pub async fn park(ports: &Ports, run: &RunKey, failure: &TurnFailure) -> Result<(), StoreError> {
    let attempts = ports.parkings.get(run).map_or(0, |parked| parked.attempts) + 1;
    let delay = Duration::from_secs(1) * 2u32.pow(attempts.min(10) - 1);
    let state = match read_state(&*ports.store, run).await {
        Ok(state) => state,
        Err(LoadError::Turn(_)) => None,
        Err(LoadError::Store(error)) => return Err(error),
    };
    let parked = Parked {
        reason: failure.to_string(),
        build: ports.choices.build.to_string(),
        sequence: state.as_ref().map_or(0, |state| state.next_sequence),
        attempts,
        retry_at: ports.now() + delay,
    };
    tracing::error!(%run, retry_at = %parked.retry_at, reason = %parked.reason, "the run is parked");
    ports.store.park(run, Some(parked.clone())).await?;
    if let Some(state) = state.filter(|state| state.closed.is_none()) {
        ports.alarms.set(run, state.run_id(), Some(parked.retry_at)).await?;
    }
    ports.parkings.insert(run.clone(), parked);
    Ok(())
}
