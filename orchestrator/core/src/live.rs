//! `decide`: a run with its future, replayed from its history and driven on from there.
//!
//! A [`LiveRun`] is a history's state plus a draft: events that this process decided and has not committed. The engine
//! takes arrivals in ([`accept`](crate::history::RunState::accept)), lets the run [`decide`](LiveRun::decide),
//! [`seal`](LiveRun::seal)s the draft into a batch, and tells the run what became of it.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::app::{App, WorkflowFuture};
use crate::divergence::TurnFailure;
use crate::failure::Failure;
use crate::history::{Batch, BatchKind, Command, CommandId, Damage, Event, Input, RunState, Turn, turn_time};
use crate::ids::{CommitId, RunKey};
use crate::payload::Payload;
use crate::planted::{Bug, planted};
use crate::time::Timestamp;
use crate::workflow::{CONTINUE_AS_NEW, LocalCall, Machine, Mode, Workflow};

/// A run in memory, its future poised after the last turn.
pub struct LiveRun {
    state: RunState,
    machine: Rc<RefCell<Machine>>,
    future: Option<WorkflowFuture>,
    turns: u64,
    arrived: VecDeque<Input>,
    draft: Vec<Event>,
    /// The time that the draft's turn offsets count from.
    draft_base: Timestamp,
    /// The next turn takes all waiting inputs at once.
    take_all: bool,
    bell: Arc<Bell>,
}

/// Rings when something within the workflow's future wants to be polled again in the same turn.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// How often a turn polls the future while it keeps waking itself.
const MAX_POLLS: u32 = 10_000;

/// What a decision comes to.
#[derive(Debug)]
pub enum Decision {
    /// The draft holds what was decided.
    Decided,
    /// The code wants to close the run although inputs wait that it has not seen. Replay the run from its history,
    /// [`resume`](LiveRun::resume) with this, and decide again: the inputs are then delivered before the close.
    Retake(Retake),
}

/// What is kept of a draft whose last turn is taken anew.
#[derive(Debug)]
pub struct Retake {
    /// Turns in the history that the draft continued.
    turns: u64,
    kept: Vec<Event>,
    base: Timestamp,
    arrived: VecDeque<Input>,
}

/// What became of a batch that somebody else put first.
#[derive(Debug)]
pub enum Merge {
    /// It holds only inputs, they are taken in, and the draft still stands: seal and commit again.
    Merged,
    /// It holds only inputs, but the draft closes the run: take that decision anew.
    Retake(Retake),
    /// It holds decisions, or contradicts the draft: drop this run and read the history again.
    Reload,
}

impl LiveRun {
    /// Replays a history, given whole and in order.
    ///
    /// # Errors
    /// [`TurnFailure`] when the history is damaged or the code does not follow it.
    pub fn replay(app: &Arc<App>, run: &RunKey, records: &[Bytes]) -> Result<Self, TurnFailure> {
        let Some((first, rest)) = records.split_first() else {
            let problem = "there is no batch 0".to_owned();
            return Err(Damage::Contradiction { sequence: 0, problem }.into());
        };
        let (state, _) = RunState::begin(run.clone(), first)?;
        let started = &state.started;
        let machine =
            Machine::new(run.clone(), started.run_id, &started.workflow_type, state.started_at, Arc::clone(app));
        let machine = Rc::new(RefCell::new(machine));
        let mut live = Self {
            draft_base: state.time,
            state,
            machine,
            future: None,
            turns: 0,
            arrived: VecDeque::new(),
            draft: Vec::new(),
            take_all: false,
            bell: Arc::default(),
        };
        let followed = without_logs(|| rest.iter().try_for_each(|record| live.follow(record)));
        live.warn_of_changes();
        followed.map(|()| live)
    }

    /// Follows one more recorded batch.
    fn follow(&mut self, record: &Bytes) -> Result<(), TurnFailure> {
        let waiting = self.state.inbox.clone();
        let batch = self.state.append(record)?;
        if batch.kind == BatchKind::Decided {
            self.retrace(batch.events, batch.time, waiting)?;
        }
        Ok(())
    }

    /// Runs recorded turns again: each is given the commands that the history holds for it, and must ask for them.
    fn retrace(
        &mut self,
        events: Vec<Event>,
        time: Timestamp,
        mut waiting: VecDeque<Input>,
    ) -> Result<(), TurnFailure> {
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            // Inputs that are not delivered stand between turns; commands always follow theirs.
            let Event::Turn(turn) = event else { continue };
            let mut expected = VecDeque::new();
            while let Some(Event::Command(command)) = events.next_if(|event| matches!(event, Event::Command(_))) {
                expected.push_back(command);
            }
            let inputs: Vec<_> = waiting.drain(..turn.taken as usize).chain(turn.input).collect();
            self.machine.borrow_mut().script.begin(expected);
            self.run_turn(turn_time(time, turn.at_offset_ms), &inputs)?;
        }
        Ok(())
    }

    /// Says what recorded turns did otherwise than before, without going astray. Not while logs are off.
    fn warn_of_changes(&self) {
        let Some(changed) = self.machine.borrow_mut().script.take_changed() else { return };
        let differences: Vec<_> = changed.differences.iter().map(ToString::to_string).collect();
        tracing::warn!(
            run = %self.state.run, command = %changed.command, differences = differences.join("; "),
            "a recorded command is repeated with other arguments; the recorded ones stand (told once)"
        );
    }

    /// One turn: deliver, then poll until nothing stirs. What the code asks for is in the machine afterwards.
    fn run_turn(&mut self, at: Timestamp, inputs: &[Input]) -> Result<(), TurnFailure> {
        self.turns += 1;
        let turn = self.turns;
        {
            let mut machine = self.machine.borrow_mut();
            machine.now = at;
            machine.mode = Mode::Turn;
            inputs.iter().for_each(|input| machine.deliver(input));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| self.poll_until_still()));
        if let Ok(Ok(Poll::Ready(result))) = polled {
            let close = self.closing_command(result);
            let mut machine = self.machine.borrow_mut();
            machine.issue(close, None);
            return machine.end_script(turn);
        }
        // What diverged first is the failure, whatever the code did from then on.
        if self.machine.borrow().script.has_diverged() {
            return self.machine.borrow_mut().end_script(turn);
        }
        match polled {
            Err(panic) => Err(TurnFailure::panicked(turn, &*panic)),
            Ok(Err(failure)) => Err(failure),
            Ok(Ok(_)) if self.machine.borrow().waiting() == 0 => Err(TurnFailure::ForeignFuture { turn }),
            Ok(Ok(_)) => self.machine.borrow_mut().end_script(turn),
        }
    }

    /// Polls the future until it is ready or nothing within it stirs. Events wake nobody by themselves (every turn
    /// polls), but parts of the future may wake each other, and what one part did may make a condition true that
    /// another looked at before.
    fn poll_until_still(&mut self) -> Result<Poll<Result<Payload, Failure>>, TurnFailure> {
        let mut still = false;
        for _ in 0..MAX_POLLS {
            self.bell.0.store(false, Relaxed);
            if let Poll::Ready(result) = self.poll_future()? {
                return Ok(Poll::Ready(result));
            }
            let woken = self.bell.0.load(Relaxed);
            let mut machine = self.machine.borrow_mut();
            if machine.script.has_diverged() {
                return Ok(Poll::Pending);
            }
            let stirred = std::mem::take(&mut machine.progress) || woken;
            // Once more after the last stir, for what a condition did not see.
            let look = stirred || !still;
            still = !stirred;
            if !(woken || (look && machine.wake_conditions())) {
                return Ok(Poll::Pending);
            }
        }
        Err(TurnFailure::ForeignFuture { turn: self.turns })
    }

    fn poll_future(&mut self) -> Result<Poll<Result<Payload, Failure>>, TurnFailure> {
        if self.future.is_none() {
            let started = &self.state.started;
            let cx = Workflow::new(Rc::clone(&self.machine));
            let app = Arc::clone(&self.machine.borrow().app);
            match app.begin_workflow(&started.workflow_type, cx, &started.input) {
                Some(Ok(future)) => self.future = Some(future),
                Some(Err(failure)) => return Ok(Poll::Ready(Err(failure))),
                None => return Err(TurnFailure::UnknownWorkflow { workflow_type: started.workflow_type.clone() }),
            }
        }
        let Some(future) = &mut self.future else { unreachable!("it was just put there") };
        let waker = Waker::from(Arc::clone(&self.bell));
        Ok(future.as_mut().poll(&mut Context::from_waker(&waker)))
    }

    fn closing_command(&self, result: Result<Payload, Failure>) -> Command {
        let mut machine = self.machine.borrow_mut();
        let continues = matches!(&result, Err(failure) if failure.type_name() == Some(CONTINUE_AS_NEW));
        // Asked for and then not returned: the workflow thought better of it.
        let next = machine.next_run.take().filter(|_| continues);
        if let Some(mut next) = next {
            next.carried = machine.unconsumed();
            return Command::ContinueAsNew { next: Box::new(next) };
        }
        match result {
            Ok(result) => Command::Complete { result },
            Err(failure) if failure.is_canceled() && machine.is_canceled() => {
                Command::Cancel { failure: failure.storable() }
            }
            Err(failure) => Command::Fail { failure: failure.storable() },
        }
    }

    /// The history's state, the draft folded in.
    #[must_use]
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Takes in what `accept` made of an arrival; the next decision delivers it.
    pub fn take_in(&mut self, inputs: impl IntoIterator<Item = Input>) {
        self.arrived.extend(inputs);
    }

    /// Delivers every input that waits, one a turn, and drafts what the code asks for. `clock` is the host's time.
    ///
    /// # Errors
    /// [`TurnFailure`]: drop this run, nothing of the draft may be committed.
    pub fn decide(&mut self, clock: Timestamp) -> Result<Decision, TurnFailure> {
        while self.state.closed.is_none() {
            let now = self.state.recorded_time(clock);
            if self.draft.is_empty() {
                self.draft_base = now;
            }
            let inputs: Vec<Input>;
            let turn = if !self.state.inbox.is_empty() {
                let taken = if self.take_all { self.state.inbox.len() } else { 1 };
                inputs = self.state.inbox.iter().take(taken).cloned().collect();
                Turn { at_offset_ms: offset(self.draft_base, now), taken: taken as u32, input: None }
            } else if let Some(input) = self.arrived.pop_front() {
                if !self.state.still_fits(&input) {
                    continue;
                }
                if !input.is_delivered() {
                    self.draft_event(Event::Input(input))?;
                    continue;
                }
                inputs = vec![input.clone()];
                Turn { at_offset_ms: offset(self.draft_base, now), taken: 0, input: Some(input) }
            } else {
                break;
            };
            self.take_all = false;
            // Inputs that wait behind a closing turn would never be seen: `apply` of the close drops them.
            let unseen = self.state.inbox.len() > turn.taken as usize;
            self.draft_event(Event::Turn(turn))?;
            self.run_turn(now, &inputs)?;
            loop {
                let Some(command) = self.machine.borrow_mut().issued.pop_front() else { break };
                let closes = command.closes();
                self.draft_event(Event::Command(command))?;
                if closes && unseen && !planted(Bug::C2CloseDeaf) {
                    return Ok(Decision::Retake(self.retake()));
                }
            }
        }
        Ok(Decision::Decided)
    }

    fn draft_event(&mut self, event: Event) -> Result<(), TurnFailure> {
        let sequence = self.state.next_sequence;
        self.state
            .apply(&event, self.draft_base)
            .map_err(|problem| TurnFailure::Damaged(Damage::Contradiction { sequence, problem }))?;
        self.draft.push(event);
        Ok(())
    }

    /// Gives up what closed the run: its last turn, or a termination. What that was told on the spot is told again.
    fn retake(&mut self) -> Retake {
        let mut kept = std::mem::take(&mut self.draft);
        let drafted = kept.iter().filter(|event| matches!(event, Event::Turn(_))).count() as u64;
        let closing = match kept.last() {
            Some(Event::Command(_)) => kept.iter().rposition(|event| matches!(event, Event::Turn(_))).unwrap_or(0),
            _ => kept.len().saturating_sub(1),
        };
        let mut arrived: VecDeque<_> = kept.drain(closing..).filter_map(told_on_the_spot).collect();
        arrived.append(&mut self.arrived);
        Retake { turns: self.turns - drafted, kept, base: self.draft_base, arrived }
    }

    /// Puts back what was kept of a draft, on a run that was just replayed. `false`: somebody has decided meanwhile, or
    /// ended the run, and its turns fit no more; what it was told on the spot is told again, as far as that still fits.
    ///
    /// # Errors
    /// [`TurnFailure`] as in [`decide`](Self::decide).
    pub fn resume(&mut self, retake: Retake) -> Result<bool, TurnFailure> {
        let Retake { turns, kept, base, arrived } = retake;
        self.take_all = true;
        if self.turns != turns || self.state.closed.is_some() || !self.continues_with(&kept, base) {
            // What came in between says the same or the opposite: all that was told on the spot is held against it.
            self.arrived = kept.into_iter().filter_map(told_on_the_spot).chain(arrived).collect();
            return Ok(false);
        }
        let waiting = self.state.inbox.clone();
        self.draft_base = base;
        for event in &kept {
            self.draft_event(event.clone())?;
        }
        // What these turns logged, they logged when they were decided.
        without_logs(|| self.retrace(kept, base, waiting))?;
        self.arrived = arrived;
        Ok(true)
    }

    /// Whether these events, decided on an earlier state, still follow from the present one.
    fn continues_with(&self, events: &[Event], base: Timestamp) -> bool {
        let mut state = self.state.clone();
        events.iter().all(|event| {
            let told = match event {
                Event::Input(input) => Some(input),
                Event::Turn(turn) => turn.input.as_ref(),
                Event::Command(_) => None,
            };
            told.is_none_or(|input| state.still_fits(input)) && state.apply(event, base).is_ok()
        })
    }

    /// Whether there is something to commit now. Turns that only asked for local activities wait for their results:
    /// that is what makes a local step one write.
    #[must_use]
    pub fn must_commit(&self) -> bool {
        let may_wait = |event: &Event| {
            matches!(event, Event::Turn(Turn { input: None, .. }) | Event::Command(Command::ScheduleLocal { .. }))
        };
        // One that backs off has its result later than a write should wait.
        let runs = self.state.locals.values().any(|local| local.retry_at <= self.state.decided_at);
        !self.draft.iter().all(may_wait) || (!self.draft.is_empty() && !runs)
    }

    /// The draft as a batch, at the host's time `clock`. The draft stays until [`committed`](Self::committed).
    #[must_use]
    pub fn seal(&self, commit_id: CommitId, clock: Timestamp, sweep: Duration) -> Batch {
        let time = self.state.recorded_time(clock);
        let later = offset(self.draft_base, time);
        let mut events = self.draft.clone();
        for event in &mut events {
            if let Event::Turn(turn) = event {
                turn.at_offset_ms -= later;
            }
        }
        let due = self.state.due_after(time, sweep);
        let due = if self.state.closed.is_some() { due } else { due.filter(|due| *due < self.state.due) };
        Batch { commit_id, previous: self.state.head, time, kind: BatchKind::Decided, events, due }
    }

    /// The sealed draft is in the history.
    pub fn committed(&mut self, batch: &Batch, record: &[u8]) {
        self.state.committed(batch, record);
        self.draft.clear();
    }

    /// Somebody else's batch stands where ours should have gone (rule C2).
    #[must_use]
    pub fn merge(&mut self, record: &Bytes) -> Merge {
        let Ok(batch) = Batch::decode(self.state.next_sequence, record) else {
            return Merge::Reload;
        };
        let ends = |event: &Event| matches!(event, Event::Input(Input::Terminated { .. }));
        if batch.kind == BatchKind::Decided || batch.events.iter().any(ends) {
            return Merge::Reload;
        }
        // The sweep's batches bring nothing that the close has not seen.
        if batch.kind == BatchKind::Accepted && self.state.closed.is_some() {
            return Merge::Retake(self.retake());
        }
        // The draft holds the same message: it must not count twice.
        let known = |event: &Event| {
            let Event::Input(input) = event else { return false };
            input.request_id().is_some_and(|id| self.state.answered_in(id).is_some())
        };
        // The draft will stand behind this batch: both must not be about the same activity or timer, or what follows
        // from one order would not follow from the other.
        let settled: BTreeSet<_> = self.draft.iter().filter_map(about).collect();
        let contradicts = |event: &Event| about(event).is_some_and(|id| settled.contains(&id));
        if batch.events.iter().any(|event| known(event) || contradicts(event)) {
            return Merge::Reload;
        }
        match self.state.append(record) {
            Ok(_) => Merge::Merged,
            Err(_) => Merge::Reload,
        }
    }

    /// Takes in a batch of inputs that somebody else committed behind the last one known here, if it fits exactly.
    #[must_use]
    pub fn extend(&mut self, sequence: u64, record: &Bytes) -> bool {
        sequence < self.state.next_sequence
            || (sequence == self.state.next_sequence && matches!(self.merge(record), Merge::Merged))
    }

    /// Follows what others have committed behind the last batch known here, as the store has it. `false`: it does not
    /// fit, or the draft does not stand behind it; read the whole history again.
    #[must_use]
    pub fn catch_up(&mut self, records: &[Bytes]) -> bool {
        records.iter().all(|record| {
            if self.draft.is_empty() && self.arrived.is_empty() {
                let followed = without_logs(|| self.follow(record)).is_ok();
                self.warn_of_changes();
                return followed;
            }
            matches!(self.merge(record), Merge::Merged)
        })
    }

    /// Local activities that wait to be run, with what the code gave them: those whose next attempt is not put off
    /// beyond `now`.
    pub fn local_calls(&self, now: Timestamp) -> Vec<(CommandId, u32, LocalCall)> {
        let machine = self.machine.borrow();
        self.state
            .locals
            .iter()
            .filter(|(_, local)| local.retry_at <= now)
            .filter_map(|(id, local)| Some((*id, local.attempts + 1, machine.local_calls.get(id)?.clone())))
            .collect()
    }

    /// Asks the run's query handler. Reads, and changes nothing.
    ///
    /// # Errors
    /// [`QueryFailure`] when there is no such handler, or it failed.
    pub fn query(&self, name: &str, input: &Payload) -> Result<Payload, QueryFailure> {
        let answer = {
            let mut machine = self.machine.borrow_mut();
            let Some(answer) = machine.answers.get(name).cloned() else {
                if let Some(value) = self.state.published.get(name) {
                    return Ok(value.clone());
                }
                let known = machine.answers.keys().map(|name| (*name).to_owned());
                return Err(QueryFailure::Unknown(known.chain(self.state.published.keys().cloned()).collect()));
            };
            machine.mode = Mode::Query;
            answer
        };
        let result = catch_unwind(AssertUnwindSafe(|| answer(input)));
        self.machine.borrow_mut().mode = Mode::Turn;
        match result {
            Ok(answer) => answer.map_err(QueryFailure::Failed),
            Err(panic) => {
                Err(QueryFailure::Failed(Failure::application(crate::panic_message(&*panic)).with_type("Panic")))
            }
        }
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        // Leaving memory is neither canceling a timer nor abandoning an activity.
        self.machine.borrow_mut().mode = Mode::Unloading;
        let future = self.future.take();
        // Taken out first: what handlers hold may need the machine when it is dropped. They may also hold the machine,
        // which would keep both alive for ever.
        let answers = std::mem::take(&mut self.machine.borrow_mut().answers);
        if catch_unwind(AssertUnwindSafe(|| drop((future, answers)))).is_err() {
            tracing::warn!(run = %self.state.run, "the workflow's code panicked while it left memory");
        }
    }
}

impl std::fmt::Debug for LiveRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveRun")
            .field("run", &self.state.run)
            .field("turns", &self.turns)
            .field("waiting", &self.machine.borrow().waiting())
            .finish_non_exhaustive()
    }
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryFailure {
    /// No handler and no published value of that name; these exist.
    Unknown(Vec<String>),
    /// The argument did not fit, or the handler failed.
    Failed(Failure),
}

/// Runs this with `tracing` switched off for the thread: what recorded turns log was logged when they were new.
fn without_logs<T>(replay: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(&tracing::Dispatch::none(), replay)
}

fn offset(base: Timestamp, at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX) - i64::try_from(base.as_millis()).unwrap_or(i64::MAX)
}

/// The activity or timer that an event settles, or says something about.
fn about(event: &Event) -> Option<CommandId> {
    match event {
        Event::Input(input) | Event::Turn(Turn { input: Some(input), .. }) => input.about(),
        Event::Command(Command::CancelActivity { id } | Command::CancelTimer { id }) => Some(*id),
        Event::Turn(_) | Event::Command(_) => None,
    }
}

/// What an event brought that no earlier batch holds.
fn told_on_the_spot(event: Event) -> Option<Input> {
    match event {
        Event::Input(input) => Some(input),
        Event::Turn(turn) => turn.input,
        Event::Command(_) => None,
    }
}
