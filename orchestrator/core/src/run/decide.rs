//! `decide`: a run with its future, replayed from its history and driven on from there.
//!
//! A [`LiveRun`] is a history's state plus a draft: events that this process decided and has not committed. The engine
//! takes arrivals in ([`accept`](crate::history::RunState::accept)), lets the run [`decide`](LiveRun::decide),
//! [`seal`](LiveRun::seal)s the draft into a batch, and tells the run what became of it.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::limits::{EVENT_BYTES, Limits};
use super::state::{RunState, reckoned};
use crate::app::App;
use crate::failure::Failure;
use crate::history::{Batch, BatchKind, ChangedArguments, Damage, DecidedBy, Event, Flags, Turn};
use crate::ids::{CommandId, CommitId, RunKey};
use crate::operations::{Cancel, Command, Complete, ContinueAsNew, Fail, Input};
use crate::panics::catch;
use crate::payload::Payload;
use crate::planted::{Bug, planted};
use crate::program::{CONTINUE_AS_NEW, LocalCall, Machine, Mode, Program, Raw, TurnFailure, Turned};
use crate::time::{Moment, Timestamp};

/// A run in memory, its code poised after the last turn.
pub struct LiveRun {
    pub(super) state: RunState,
    pub(super) machine: Rc<RefCell<Machine>>,
    app: Arc<App>,
    terms: Terms,
    program: Option<Box<dyn Program>>,
    turns: u64,
    arrived: VecDeque<Input>,
    draft: Vec<Event>,
    /// The time that the draft's turn offsets count from.
    draft_base: Timestamp,
    /// The next turn takes all waiting inputs at once.
    take_all: bool,
}

/// Under which terms a run is decided in this process.
#[derive(Clone, Default)]
pub struct Terms {
    /// The build that decides, for the history; empty when it has no name.
    pub build: Arc<str>,
    /// What bounds the run.
    pub limits: Limits,
    /// Told before each turn that is run, recorded or new, and which it is, from 1: what watches for turns that never
    /// end counts a replay of many turns as many.
    pub before_turn: Option<Rc<dyn Fn(u64)>>,
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("build", &self.build).field("limits", &self.limits).finish_non_exhaustive()
    }
}

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
    /// Replays a history, given whole and in order, under the default terms.
    ///
    /// # Errors
    /// [`TurnFailure`] when the history is damaged or the code does not follow it.
    pub fn replay(app: &Arc<App>, run: &RunKey, records: &[Bytes]) -> Result<Self, TurnFailure> {
        Self::replay_under(app, run, records, &Terms::default())
    }

    /// Replays a history, given whole and in order, under these terms.
    ///
    /// # Errors
    /// [`TurnFailure`] when the history is damaged or the code does not follow it.
    pub fn replay_under(app: &Arc<App>, run: &RunKey, records: &[Bytes], terms: &Terms) -> Result<Self, TurnFailure> {
        let Some((first, rest)) = records.split_first() else {
            let problem = "there is no batch 0".to_owned();
            return Err(Damage::Contradiction { sequence: 0, problem }.into());
        };
        let mut live = Self::begin(app, run, first, terms)?;
        without_logs(|| rest.iter().try_for_each(|record| live.follow(record)))?;
        Ok(live)
    }

    /// A run whose history begins so. Nothing of its code has run.
    pub(super) fn begin(app: &Arc<App>, run: &RunKey, first: &Bytes, terms: &Terms) -> Result<Self, Damage> {
        let (state, _) = RunState::begin(run.clone(), first)?;
        let started = &state.started;
        let strict = app.is_strict(&started.call.workflow_type);
        let machine = Machine::new(run.clone(), started, state.started_at, strict);
        Ok(Self {
            draft_base: state.time,
            state,
            machine: Rc::new(RefCell::new(machine)),
            app: Arc::clone(app),
            terms: terms.clone(),
            program: None,
            turns: 0,
            arrived: VecDeque::new(),
            draft: Vec::new(),
            take_all: false,
        })
    }

    /// Follows one more recorded batch.
    pub(super) fn follow(&mut self, record: &Bytes) -> Result<(), TurnFailure> {
        let (batch, taken) = self.state.append_taking(record)?;
        if batch.kind == BatchKind::Decided {
            self.retrace(batch.events, batch.time, taken)?;
        }
        Ok(())
    }

    /// Runs recorded turns again: each is given the commands that the history holds for it, and must ask for them.
    /// `taken` are the waiting inputs that the turns took, in order.
    fn retrace(&mut self, events: Vec<Event>, time: Timestamp, mut taken: VecDeque<Input>) -> Result<(), TurnFailure> {
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            let turn = match event {
                Event::Turn(turn) => turn,
                // Not delivered, or of no concern to the code. Commands stand behind their turns.
                Event::Input(_) | Event::DecidedBy(_) | Event::Command(_) => continue,
            };
            let mut expected = VecDeque::new();
            while let Some(Event::Command(command)) = events.next_if(|event| matches!(event, Event::Command(_))) {
                expected.push_back(command);
            }
            self.machine.borrow_mut().script.begin(expected);
            let at = turn.moment(time);
            let inputs = taken.drain(..turn.taken as usize).chain(turn.input);
            self.run_turn(at, inputs)?;
        }
        Ok(())
    }

    /// One turn: deliver, then run the code until nothing stirs. What it asks for is in the machine afterwards.
    fn run_turn(&mut self, at: Moment, inputs: impl Iterator<Item = Input>) -> Result<(), TurnFailure> {
        self.turns += 1;
        let turn = self.turns;
        if let Some(before_turn) = &self.terms.before_turn {
            before_turn(turn);
        }
        {
            let mut machine = self.machine.borrow_mut();
            machine.at = at;
            machine.read.clear();
            machine.mode = Mode::Turn;
            inputs.for_each(|input| machine.deliver(&input));
        }
        let turned = catch(|| self.run_code());
        let closing = match turned {
            Ok(Ok(Turned::Ended(result))) => Some(self.closing_command(result)),
            // What diverged first is the failure, whatever the code did from then on.
            _ if self.machine.borrow().script.has_diverged() => None,
            Ok(Ok(Turned::Waits)) => None,
            Ok(Ok(Turned::Stuck)) => return Err(TurnFailure::ForeignFuture { turn }),
            Ok(Err(failure)) => return Err(failure),
            Err(panic) => return Err(TurnFailure::panicked(turn, panic)),
        };
        let mut machine = self.machine.borrow_mut();
        if let Some(closing) = closing {
            machine.issue(closing, None);
        }
        machine.end_script(turn)
    }

    fn run_code(&mut self) -> Result<Turned, TurnFailure> {
        if let Some(program) = &mut self.program {
            return Ok(program.turn());
        }
        let call = &self.state.started.call;
        let raw = Raw::new(Rc::clone(&self.machine));
        match self.app.begin_workflow(&call.workflow_type, raw, &call.input) {
            Some(Ok(program)) => Ok(self.program.insert(program).turn()),
            Some(Err(failure)) => Ok(Turned::Ended(Err(failure))),
            None => Err(TurnFailure::UnknownWorkflow { workflow_type: call.workflow_type.clone() }),
        }
    }

    fn closing_command(&self, result: Result<Payload, Failure>) -> Command {
        let mut machine = self.machine.borrow_mut();
        let continues = matches!(&result, Err(failure) if failure.type_name() == Some(CONTINUE_AS_NEW));
        // Asked for and then not returned: the workflow thought better of it.
        let next = machine.next_run.take().filter(|_| continues);
        if let Some(mut next) = next {
            next.carried = machine.unconsumed();
            return ContinueAsNew { next: Box::new(next) }.into();
        }
        match result {
            Ok(result) => Complete { result }.into(),
            Err(failure) if failure.is_canceled() && machine.is_canceled() => {
                Cancel { failure: failure.storable() }.into()
            }
            Err(failure) => Fail { failure: failure.storable() }.into(),
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
            if self.draft.is_empty() {
                self.draft_base = self.state.recorded_time(clock);
            }
            let (taken, input) = if !self.state.inbox.is_empty() {
                (if self.take_all { self.state.inbox.len() } else { 1 }, None)
            } else if let Some(input) = self.arrived.pop_front() {
                if !self.state.still_fits(&input) {
                    continue;
                }
                if !input.is_delivered() {
                    self.draft_event(Event::Input(input))?;
                    continue;
                }
                (0, Some(input))
            } else {
                break;
            };
            let promised = input.as_ref().and_then(|input| input.now_at_least(&self.state.pending));
            let now = self.state.recorded_time(clock).max(promised.unwrap_or_default());
            let at = Moment { now, clock: if planted(Bug::C8WaitFromRecorded) { now } else { clock.min(now) } };
            let at_offset_ms = offset(self.draft_base, now);
            let turn = Turn { at_offset_ms, taken: taken as u32, input, behind_ms: at.behind_ms(), read: None };
            self.take_all = false;
            // Inputs that wait behind a closing turn would never be seen: the fold of the close drops them.
            let unseen = self.state.inbox.len() > turn.taken as usize;
            if self.take_turn(turn, at)? && unseen && !planted(Bug::C2CloseDeaf) {
                return Ok(Decision::Retake(self.retake()));
            }
        }
        Ok(Decision::Decided)
    }

    /// Takes one turn and drafts it, within the limits. Whether it closes the run.
    fn take_turn(&mut self, turn: Turn, at: Moment) -> Result<bool, TurnFailure> {
        let number = self.turns + 1;
        let too_large = |(limit, at_most)| Err(TurnFailure::TooLarge { turn: number, limit, at_most });
        if let Some(reached) = self.terms.limits.reached_by_history(self.state.events, self.state.bytes) {
            return too_large(reached);
        }
        let own = turn.input.clone();
        let taken = self.draft_event(Event::Turn(turn))?;
        let mut events = taken.len() as u64 + u64::from(own.is_some());
        let mut bytes: u64 = taken.iter().chain(&own).map(reckoned).sum();
        let place = self.draft.len() - 1;
        self.run_turn(at, taken.into_iter().chain(own))?;
        let read = std::mem::take(&mut self.machine.borrow_mut().read);
        if let Event::Turn(turn) = &mut self.draft[place]
            && !read.is_empty()
        {
            self.state.pending.signals.take(&read);
            turn.read = Some(read);
        }
        let issued = std::mem::take(&mut self.machine.borrow_mut().issued);
        events += issued.len() as u64;
        bytes += issued.iter().map(|command| (EVENT_BYTES + command.bytes()) as u64).sum::<u64>();
        if let Some(exceeded) = self.terms.limits.exceeded_by_turn(events, bytes) {
            return too_large(exceeded);
        }
        for command in issued {
            self.draft_event(Event::Command(command))?;
        }
        Ok(self.state.closed.is_some())
    }

    /// Folds an event in and keeps it for the next batch. Gives the waiting inputs that a turn takes.
    fn draft_event(&mut self, event: Event) -> Result<VecDeque<Input>, TurnFailure> {
        let sequence = self.state.next_sequence;
        let taken = self
            .state
            .apply(&event, self.draft_base)
            .map_err(|problem| TurnFailure::Damaged(Damage::Contradiction { sequence, problem }))?;
        self.draft.push(event);
        Ok(taken)
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
        self.draft_base = base;
        let mut taken = VecDeque::new();
        for event in &kept {
            taken.append(&mut self.draft_event(event.clone())?);
        }
        // What these turns logged, they logged when they were decided.
        without_logs(|| self.retrace(kept, base, taken))?;
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
                Event::Command(_) | Event::DecidedBy(_) => None,
            };
            told.is_none_or(|input| state.still_fits(input)) && state.apply(event, base).is_ok()
        })
    }

    /// Whether there is something to commit now. Turns that only asked for local activities wait for their results:
    /// that is what makes a local step one write.
    #[must_use]
    pub fn must_commit(&self) -> bool {
        let may_wait = |event: &Event| match event {
            Event::Turn(turn) => turn.input.is_none(),
            Event::Command(command) => command.may_wait(),
            Event::Input(_) | Event::DecidedBy(_) => false,
        };
        // One that backs off has its result later than a write should wait.
        let runs = self.state.pending.locals.open.values().any(|local| local.retry_at <= self.state.clock);
        !self.draft.iter().all(may_wait) || (!self.draft.is_empty() && !runs)
    }

    /// The draft as a batch, at the host's time `clock`. The draft stays until [`committed`](Self::committed).
    #[must_use]
    pub fn seal(&self, commit_id: CommitId, clock: Timestamp, sweep: Duration) -> Batch {
        let time = self.state.recorded_time(clock);
        let later = offset(self.draft_base, time);
        let takes_over = self.takes_over().map(Event::DecidedBy);
        let events = takes_over.into_iter().chain(self.draft.iter().cloned().map(|event| match event {
            Event::Turn(turn) => Event::Turn(Turn { at_offset_ms: turn.at_offset_ms - later, ..turn }),
            other => other,
        }));
        let events = events.collect();
        let due = self.state.due_after(clock, sweep);
        let due = if self.state.closed.is_some() {
            due
        } else {
            due.filter(|due| self.state.due.is_none_or(|known| *due < known))
        };
        Batch { commit_id, previous: self.state.head, time, kind: BatchKind::Decided, events, due }
    }

    /// Who decides from here on, where that is another build than before, one that knows more behaviours, or one that is
    /// seen to ask for other arguments than the recorded ones more often than before.
    fn takes_over(&self) -> Option<DecidedBy> {
        let before = &self.state.decided_by;
        let flags = before.flags.and(Flags::KNOWN);
        let build = &*self.terms.build;
        let machine = self.machine.borrow();
        let changed = machine.script.changed();
        let commands = |changed: Option<&ChangedArguments>| changed.map_or(0, |changed| changed.commands);
        let more = commands(changed) > commands(before.changed.as_ref());
        (*before.build != *build || before.flags != flags || more).then(|| DecidedBy {
            build: build.to_owned(),
            flags,
            changed: changed.cloned(),
        })
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
        let ends = |event: &Event| matches!(event, Event::Input(input) if input.closes().is_some());
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
                return without_logs(|| self.follow(record)).is_ok();
            }
            matches!(self.merge(record), Merge::Merged)
        })
    }

    /// Local activities that wait to be run, with what the code gave them: those whose next attempt is not put off
    /// beyond `now`.
    pub fn local_calls(&self, now: Timestamp) -> Vec<(CommandId, u32, LocalCall)> {
        let machine = self.machine.borrow();
        let open = self.state.pending.locals.open.iter();
        open.filter(|(_, local)| local.retry_at <= now)
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
                if let Some(value) = self.state.pending.published.values.get(name) {
                    return Ok(value.clone());
                }
                let known = machine.answers.keys().map(|name| name.to_string());
                return Err(QueryFailure::Unknown(
                    known.chain(self.state.pending.published.values.keys().cloned()).collect(),
                ));
            };
            machine.mode = Mode::Query;
            answer
        };
        let result = catch(|| answer(input));
        self.machine.borrow_mut().mode = Mode::Turn;
        match result {
            Ok(answer) => answer.map_err(QueryFailure::Failed),
            Err(panic) => {
                tracing::warn!(run = %self.state.run, query = name, %panic, "a query's handler panicked");
                Err(QueryFailure::Failed(panic.into()))
            }
        }
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        // Leaving memory is neither canceling a timer nor abandoning an activity.
        self.machine.borrow_mut().mode = Mode::Unloading;
        let program = self.program.take();
        // Taken out first: what handlers hold may need the machine when it is dropped. They may also hold the machine,
        // which would keep both alive for ever.
        let answers = std::mem::take(&mut self.machine.borrow_mut().answers);
        if let Err(panic) = catch(|| drop((program, answers))) {
            tracing::warn!(run = %self.state.run, %panic, "the workflow's code panicked while it left memory");
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
pub(super) fn without_logs<T>(replay: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(&tracing::Dispatch::none(), replay)
}

fn offset(base: Timestamp, at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX) - i64::try_from(base.as_millis()).unwrap_or(i64::MAX)
}

/// The activity or timer that an event settles, or says something about.
fn about(event: &Event) -> Option<CommandId> {
    match event {
        Event::Input(input) | Event::Turn(Turn { input: Some(input), .. }) => input.about(),
        // What it asks for anew, nobody else can have spoken of.
        Event::Command(command) => command.id(),
        Event::Turn(_) | Event::DecidedBy(_) => None,
    }
}

/// What an event brought that no earlier batch holds.
fn told_on_the_spot(event: Event) -> Option<Input> {
    match event {
        Event::Input(input) => Some(input),
        Event::Turn(turn) => turn.input,
        Event::Command(_) | Event::DecidedBy(_) => None,
    }
}
