//! The machine under a workflow's context: what was asked for, what has come back, who waits.
//!
//! Two rules make replay exact. Inputs are delivered one turn at a time, in the order of the history. And a command is
//! issued when the workflow's code asks for it, numbered in that order, whether or not anybody awaits it yet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::app::App;
use crate::divergence::TurnFailure;
use crate::failure::{Canceled, Failure, here};
use crate::history::{CarriedSignal, Command, CommandId, Input, NextRun};
use crate::ids::{RunId, RunKey, derive};
use crate::options::{LocalActivityOptions, RecordedRetry};
use crate::payload::Payload;
use crate::script::{Ask, Script};
use crate::time::Timestamp;

/// What came back for a command.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Value(Payload),
    Failed(Failure),
    Fired,
    Canceled,
}

#[derive(Debug)]
struct Slot {
    name: Option<Rc<str>>,
    /// Where the workflow asked for it.
    place: &'static Location<'static>,
    shielded: bool,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    /// Nobody will ask for the outcome; the slot stays, so that cancellation reaches the activity.
    abandoned: bool,
}

/// What a future of ours waits for, and whom to wake.
pub(crate) enum Waiter {
    /// The outcome of a command; its slot knows whom to wake.
    Command,
    /// A signal of this name.
    Signal(&'static str, Waker),
    /// Anything that may change a condition.
    Condition(Waker),
}

/// A local activity to run: its arguments live here, since the history does not keep them.
#[derive(Clone, Debug)]
pub struct LocalCall {
    /// Its wire name.
    pub activity_type: String,
    /// Its argument.
    pub input: Payload,
    /// Its limits and retry policy.
    pub options: LocalActivityOptions,
    /// When the workflow asked for it.
    pub scheduled_at: Timestamp,
}

impl LocalCall {
    /// How long each attempt may take.
    #[must_use]
    pub fn start_to_close(&self) -> Duration {
        self.options.start_to_close
    }

    /// The retry policy.
    #[must_use]
    pub fn retry(&self) -> RecordedRetry {
        RecordedRetry::from(&self.options.retry)
    }
}

pub(crate) type Answer = Rc<dyn Fn(&Payload) -> Result<Payload, Failure>>;

/// What the history knows of a side effect.
pub(crate) enum Marker {
    /// Nothing: its closure runs, and what it gives is recorded.
    New,
    /// The closure ran before and gave this.
    Recorded(Payload),
    /// The code no longer follows its history: there is no value to go on with.
    Diverged,
}

/// What the code may do just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The future is being polled.
    Turn,
    /// A query handler runs: nothing may change.
    Query,
    /// A side effect's closure runs: it gives a value, and nothing else.
    SideEffect,
    /// The run is leaving memory: what is dropped now means nothing.
    Unloading,
}

impl Mode {
    /// Nothing may change now, and something was about to.
    fn refuse(self, what: &str) -> ! {
        match self {
            Self::SideEffect => panic!(
                "a side effect's closure tried to act ({what}): it does not run on replay, so it may only give a value"
            ),
            _ => panic!("a query handler tried to act ({what}): queries are read-only"),
        }
    }
}

pub(crate) struct Machine {
    pub(crate) run: RunKey,
    pub(crate) run_id: RunId,
    pub(crate) workflow_type: Rc<str>,
    pub(crate) started_at: Timestamp,
    pub(crate) app: Arc<App>,
    pub(crate) now: Timestamp,
    pub(crate) mode: Mode,
    /// What the code asked for in this turn and no history holds yet.
    pub(crate) issued: VecDeque<Command>,
    pub(crate) script: Script,
    pub(crate) local_calls: BTreeMap<CommandId, LocalCall>,
    pub(crate) answers: BTreeMap<&'static str, Answer>,
    pub(crate) next_run: Option<NextRun>,
    /// Whether a future of ours has ended since this was last asked.
    pub(crate) progress: bool,
    canceled: bool,
    last_id: CommandId,
    slots: BTreeMap<CommandId, Slot>,
    signals: BTreeMap<String, VecDeque<Payload>>,
    /// Futures of ours that are waiting, in the order in which they began to: when there is none, the code waits for
    /// something that is not ours.
    waiters: BTreeMap<u64, (Waiter, &'static Location<'static>)>,
    last_waiter: u64,
    streams: HashMap<String, ChaCha8Rng>,
}

impl Machine {
    pub(crate) fn new(run: RunKey, run_id: RunId, workflow_type: &str, started_at: Timestamp, app: Arc<App>) -> Self {
        Self {
            run,
            run_id,
            workflow_type: workflow_type.into(),
            started_at,
            app,
            now: started_at,
            mode: Mode::Turn,
            issued: VecDeque::new(),
            script: Script::default(),
            local_calls: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_run: None,
            progress: false,
            canceled: false,
            last_id: 0,
            slots: BTreeMap::new(),
            signals: BTreeMap::new(),
            waiters: BTreeMap::new(),
            last_waiter: 0,
            streams: HashMap::new(),
        }
    }

    // --- what the workflow's code asks for ---

    /// Issues a command that something will come back for. In a canceled scope nothing is issued.
    pub(crate) fn open(
        &mut self,
        shielded: bool,
        name: Option<&str>,
        place: &'static Location<'static>,
        command: impl FnOnce(&Self, CommandId) -> Command,
    ) -> Result<CommandId, Canceled> {
        if self.canceled && !shielded {
            return Err(Canceled);
        }
        let id = self.last_id + 1;
        let command = command(self, id);
        self.issue(command, Some(place));
        self.last_id = id;
        let slot = Slot { name: name.map(Into::into), place, shielded, outcome: None, waker: None, abandoned: false };
        self.slots.insert(id, slot);
        Ok(id)
    }

    /// Issues a command that nothing comes back for. In a recorded turn it is held against the history at once.
    ///
    /// # Panics
    /// Inside a query handler: a query changes nothing.
    pub(crate) fn issue(&mut self, command: Command, place: Option<&'static Location<'static>>) {
        match self.mode {
            Mode::Turn => match self.script.ask(command, place) {
                Ask::New(command) => self.issued.push_back(command),
                Ask::Recorded(_) | Ask::Diverged => {}
            },
            mode @ (Mode::Query | Mode::SideEffect) => mode.refuse(command.kind()),
            Mode::Unloading => {}
        }
    }

    /// Looks for the recorded value of a side effect before its closure would run.
    ///
    /// # Panics
    /// Inside a query handler: a query changes nothing.
    pub(crate) fn marker(&mut self, name: &str, place: &'static Location<'static>) -> Marker {
        self.act("a side effect");
        let attempted = Command::RecordMarker { name: name.into(), value: Payload::NULL, place: here(place) };
        match self.script.ask(attempted, Some(place)) {
            Ask::New(_) => Marker::New,
            Ask::Recorded(Command::RecordMarker { value, .. }) => Marker::Recorded(value),
            Ask::Recorded(_) | Ask::Diverged => Marker::Diverged,
        }
    }

    /// The turn is over: what a history holds beyond what the code asked for is divergence.
    pub(crate) fn end_script(&mut self, turn: u64) -> Result<(), TurnFailure> {
        let Self { script, waiters, .. } = self;
        script.end(turn, || waits_at(waiters))
    }

    /// Something is about to change that replays must change alike.
    ///
    /// # Panics
    /// Inside a query handler or a side effect's closure: neither changes anything.
    pub(crate) fn act(&self, what: &str) {
        if matches!(self.mode, Mode::Query | Mode::SideEffect) {
            self.mode.refuse(what);
        }
    }

    pub(crate) fn outcome(&mut self, id: CommandId, waker: &Waker) -> Option<Outcome> {
        self.act("await");
        let slot = self.slots.get_mut(&id)?;
        if slot.outcome.is_none() {
            slot.waker = Some(waker.clone());
            return None;
        }
        self.slots.remove(&id).and_then(|slot| slot.outcome)
    }

    pub(crate) fn name(&self, id: CommandId) -> Option<Rc<str>> {
        self.slots.get(&id).and_then(|slot| slot.name.clone())
    }

    /// The future of this timer is gone, and the timer with it.
    pub(crate) fn drop_timer(&mut self, id: CommandId) {
        if let Some(slot) = self.slots.remove(&id)
            && slot.outcome.is_none()
        {
            self.issue(Command::CancelTimer { id }, Some(slot.place));
        }
    }

    /// The future of this activity is gone: its outcome may go where it came from.
    pub(crate) fn abandon(&mut self, id: CommandId) {
        match self.slots.get_mut(&id) {
            Some(slot) if slot.outcome.is_none() => slot.abandoned = true,
            _ => drop(self.slots.remove(&id)),
        }
    }

    pub(crate) fn take_signal(&mut self, name: &str) -> Option<Payload> {
        self.act("take a signal");
        self.signals.get_mut(name)?.pop_front()
    }

    /// Enters a future among those that wait, or tells what it waits for now. What it said before comes back, to be
    /// dropped when the machine is no longer borrowed.
    pub(crate) fn wait(
        &mut self,
        id: &mut Option<u64>,
        waiter: Waiter,
        place: &'static Location<'static>,
    ) -> Option<Waiter> {
        let id = *id.get_or_insert_with(|| {
            self.last_waiter += 1;
            self.last_waiter
        });
        self.waiters.insert(id, (waiter, place)).map(|(waiter, _)| waiter)
    }

    /// A future waits no longer.
    pub(crate) fn wait_no_more(&mut self, id: Option<u64>) -> Option<Waiter> {
        self.progress = true;
        self.waiters.remove(&id?).map(|(waiter, _)| waiter)
    }

    /// How many futures wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Has every condition looked at again. False when there is none.
    pub(crate) fn wake_conditions(&self) -> bool {
        let conditions = self.waiters.values().filter_map(|(waiter, _)| match waiter {
            Waiter::Condition(waker) => Some(waker),
            _ => None,
        });
        conditions.inspect(|waker| waker.wake_by_ref()).count() > 0
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.canceled
    }

    pub(crate) fn stream(&mut self, name: &str) -> &mut ChaCha8Rng {
        self.act("draw a random number");
        let run_id = self.run_id;
        self.streams.entry(name.to_owned()).or_insert_with(|| {
            let mut seed = [0; 32];
            seed[..16].copy_from_slice(&derive(
                "dormouse 2026 random stream, first half",
                &[run_id.as_bytes(), name.as_bytes()],
            ));
            seed[16..].copy_from_slice(&derive(
                "dormouse 2026 random stream, second half",
                &[run_id.as_bytes(), name.as_bytes()],
            ));
            ChaCha8Rng::from_seed(seed)
        })
    }

    // --- what the history brings ---

    pub(crate) fn deliver(&mut self, input: &Input) {
        match input {
            Input::Started(started) => {
                for signal in &started.carried {
                    self.buffer(&signal.name, signal.payload.clone());
                }
            }
            Input::Signaled { name, payload, .. } => self.buffer(name, payload.clone()),
            Input::CancelRequested { .. } => self.cancel(),
            Input::ActivityCompleted { id, result, .. } | Input::LocalCompleted { id, result, .. } => {
                self.resolve(*id, Outcome::Value(result.clone()));
            }
            Input::ActivityFailed { id, attempt, failure, retry_state }
            | Input::LocalFailed { id, attempt, failure, retry_state } => {
                let name = self.name(*id).unwrap_or_else(|| "".into());
                let failure = Failure::activity(&name, *id, *attempt, *retry_state, failure.clone());
                self.resolve(*id, Outcome::Failed(failure));
            }
            Input::TimerFired { id } => self.resolve(*id, Outcome::Fired),
            Input::Terminated { .. } | Input::AttemptLost { .. } | Input::LocalBackoff { .. } => {}
        }
        self.wake_conditions();
    }

    fn buffer(&mut self, name: &str, payload: Payload) {
        self.signals.entry(name.to_owned()).or_default().push_back(payload);
        self.wake_for_signals(|wanted| wanted == name);
    }

    fn wake_for_signals(&self, wakes: impl Fn(&str) -> bool) {
        for (waiter, _) in self.waiters.values() {
            if let Waiter::Signal(name, waker) = waiter
                && wakes(name)
            {
                waker.wake_by_ref();
            }
        }
    }

    fn resolve(&mut self, id: CommandId, outcome: Outcome) {
        self.local_calls.remove(&id);
        // No slot: the workflow dropped the future, or was canceled.
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.outcome.is_none()
        {
            if slot.abandoned {
                self.slots.remove(&id);
                return;
            }
            slot.outcome = Some(outcome);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    /// Everything awaited outside `detached()` ends with Canceled, in the order in which it was asked for.
    fn cancel(&mut self) {
        self.canceled = true;
        let open: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.outcome.is_none() && !slot.shielded)
            .map(|(id, slot)| (*id, slot.name.is_some(), slot.place))
            .collect();
        for (id, is_activity, place) in open {
            let command = if is_activity { Command::CancelActivity { id } } else { Command::CancelTimer { id } };
            self.issue(command, Some(place));
            self.resolve(id, Outcome::Canceled);
        }
        self.wake_for_signals(|_| true);
    }

    /// Signals that nobody consumed, by name and arrival.
    pub(crate) fn unconsumed(&self) -> Vec<CarriedSignal> {
        self.signals
            .iter()
            .flat_map(|(name, buffer)| {
                buffer.iter().map(|payload| CarriedSignal { name: name.clone(), payload: payload.clone() })
            })
            .collect()
    }
}

/// Where in the source the code waits, in the order in which it began to; a few are enough.
fn waits_at(waiters: &BTreeMap<u64, (Waiter, &'static Location<'static>)>) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut places: Vec<_> = waiters.values().map(|(_, place)| here(place)).collect();
    places.dedup();
    if places.len() > SHOWN {
        let more = places.len() - SHOWN;
        places.truncate(SHOWN);
        places.push(format!("{more} more places"));
    }
    places
}
