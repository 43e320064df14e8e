//! The machine under a workflow's context: what was asked for, what has come back, who waits.
//!
//! Two rules make replay exact. Inputs are delivered one turn at a time, in the order of the history. And a command is
//! issued when the workflow's code asks for it, numbered in that order, whether or not anybody awaits it yet.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::divergence::TurnFailure;
use super::script::{Asking, Script};
use crate::failure::{Canceled, Failure};
use crate::ids::{CommandId, RunId, RunKey, derive};
use crate::misfit::StoredMisfit;
use crate::operations::kind::{Delivery, Outcome};
use crate::operations::{CarriedSignal, Command, Input, NextRun, RecordMarker, RecordPatch, Started};
use crate::options::RecordedRetry;
use crate::panics::blame;
use crate::payload::Payload;
use crate::place::Place;
use crate::time::{Moment, Timestamp};

/// How a command ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// An activity gave this.
    Value(Payload),
    /// An activity failed for good.
    Failed(Failure),
    /// A timer's time has come.
    Fired,
    /// The workflow was asked to stop before it ended.
    Canceled,
}

#[derive(Debug)]
struct Slot {
    name: Option<Rc<str>>,
    /// Where the workflow asked for it.
    place: Place,
    /// What is issued when cancellation reaches it.
    cancel: fn(CommandId) -> Command,
    shielded: bool,
    ended: Option<Ended>,
    waker: Option<Waker>,
    /// Nobody will ask for the outcome; the slot stays, so that cancellation reaches the activity.
    abandoned: bool,
}

/// What a command needs that something comes back for.
pub(crate) struct Opening {
    /// Its wire name, if it has one.
    pub(crate) name: Option<Rc<str>>,
    /// Where the workflow asks for it.
    pub(crate) place: Place,
    /// What is issued when cancellation reaches it.
    pub(crate) cancel: fn(CommandId) -> Command,
    /// Whether cancellation cannot reach it.
    pub(crate) shielded: bool,
}

/// What a future of ours waits for, and whom to wake.
pub(crate) enum Waiter {
    /// The outcome of a command; its slot knows whom to wake.
    Command,
    /// A signal of this name.
    Signal(Cow<'static, str>, Waker),
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
    /// How long each attempt may take.
    pub start_to_close: Duration,
    /// The retry policy.
    pub retry: RecordedRetry,
    /// When the workflow asked for it.
    pub scheduled_at: Timestamp,
}

impl LocalCall {
    /// How long each attempt may take.
    #[must_use]
    pub fn start_to_close(&self) -> Duration {
        self.start_to_close
    }

    /// The retry policy.
    #[must_use]
    pub fn retry(&self) -> RecordedRetry {
        self.retry.clone()
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
    /// The code runs.
    Turn,
    /// A query handler runs: nothing may change.
    Query,
    /// A side effect's closure runs: it gives a value, and nothing else.
    SideEffect,
    /// The run is leaving memory: what is dropped now means nothing.
    Unloading,
}

impl Mode {
    /// Says why nothing may change now, when it may not: to the code at this place, or to the caller.
    #[track_caller]
    fn allow(self, what: &str, place: Option<&Place>) {
        let problem = match self {
            Self::Turn | Self::Unloading => return,
            Self::Query => format!("a query handler tried to act ({what}): queries are read-only"),
            Self::SideEffect => format!(
                "a side effect's closure tried to act ({what}): it does not run on replay, so it may only give a value"
            ),
        };
        match place {
            Some(place) => blame(place, &problem),
            None => panic!("{problem}"),
        }
    }
}

pub(crate) struct Machine {
    pub(crate) run: RunKey,
    pub(crate) run_id: RunId,
    pub(crate) workflow_type: Rc<str>,
    pub(crate) started_at: Timestamp,
    pub(crate) continued_from: Option<RunId>,
    pub(crate) at: Moment,
    pub(crate) mode: Mode,
    /// What the code asked for in this turn and no history holds yet.
    pub(crate) issued: VecDeque<Command>,
    pub(crate) script: Script,
    pub(crate) local_calls: BTreeMap<CommandId, LocalCall>,
    pub(crate) answers: BTreeMap<Rc<str>, Answer>,
    pub(crate) next_run: Option<NextRun>,
    /// Whether a future of ours has ended since this was last asked.
    pub(crate) progress: bool,
    /// Recorded values that the code could not read: the first few, where somebody asks for them.
    pub(crate) misfits: Option<Vec<StoredMisfit>>,
    canceled: bool,
    last_id: CommandId,
    slots: BTreeMap<CommandId, Slot>,
    signals: BTreeMap<String, VecDeque<Payload>>,
    /// How many of them the code took in this turn.
    pub(crate) read: BTreeMap<String, u32>,
    /// Futures of ours that are waiting, in the order in which they began to: when there is none, the code waits for
    /// something that is not ours.
    waiters: BTreeMap<u64, (Waiter, Place)>,
    last_waiter: u64,
    streams: HashMap<String, ChaCha8Rng>,
    /// Which way the run goes, by patch: the first answer is the answer.
    patches: BTreeMap<Rc<str>, bool>,
}

impl Machine {
    /// For the run that began so, at this recorded time.
    pub(crate) fn new(run: RunKey, started: &Started, started_at: Timestamp, strict: bool) -> Self {
        Self {
            run,
            run_id: started.run_id,
            workflow_type: started.call.workflow_type.as_str().into(),
            started_at,
            continued_from: started.continued_from,
            at: Moment { now: started_at, clock: started_at },
            mode: Mode::Turn,
            issued: VecDeque::new(),
            script: Script::new(strict),
            local_calls: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_run: None,
            progress: false,
            misfits: None,
            canceled: false,
            last_id: 0,
            slots: BTreeMap::new(),
            signals: BTreeMap::new(),
            read: BTreeMap::new(),
            waiters: BTreeMap::new(),
            last_waiter: 0,
            streams: HashMap::new(),
            patches: BTreeMap::new(),
        }
    }

    // --- what the workflow's code asks for ---

    /// Issues a command that something will come back for. In a canceled scope nothing is issued.
    pub(crate) fn open(
        &mut self,
        opening: Opening,
        command: impl FnOnce(&Self, CommandId) -> Command,
    ) -> Result<CommandId, Canceled> {
        let Opening { name, place, cancel, shielded } = opening;
        if self.canceled && !shielded {
            return Err(Canceled);
        }
        let id = self.last_id + 1;
        let command = command(self, id);
        self.issue(command, Some(&place));
        self.last_id = id;
        let slot = Slot { name, place, cancel, shielded, ended: None, waker: None, abandoned: false };
        self.slots.insert(id, slot);
        Ok(id)
    }

    /// Issues a command that nothing comes back for. In a recorded turn it is held against the history at once.
    ///
    /// # Panics
    /// Inside a query handler or a side effect's closure: neither changes anything.
    pub(crate) fn issue(&mut self, command: Command, place: Option<&Place>) {
        self.act(command.kind(), place);
        if self.mode == Mode::Unloading {
            return;
        }
        match self.script.ask(command, place) {
            Asking::New(command) => self.issued.push_back(command),
            Asking::Recorded(_) | Asking::Diverged => {}
        }
    }

    /// Looks for the recorded value of a side effect before its closure would run.
    ///
    /// # Panics
    /// Inside a query handler or a side effect's closure: neither changes anything.
    pub(crate) fn marker(&mut self, name: &str, place: &Place) -> Marker {
        self.act("a side effect", Some(place));
        let attempted = RecordMarker { name: name.into(), value: Payload::NULL, place: place.to_string() };
        match self.script.ask(attempted.into(), Some(place)) {
            Asking::New(_) => Marker::New,
            Asking::Recorded(Command::RecordMarker(recorded)) => Marker::Recorded(recorded.value),
            Asking::Recorded(_) | Asking::Diverged => Marker::Diverged,
        }
    }

    /// Whether the run goes the way of this patch. The first answer is the answer, to the end of the run: in a new turn
    /// it does, and that is recorded; in a recorded one it does if the history holds the patch at this point.
    ///
    /// # Panics
    /// Inside a query handler or a side effect's closure: neither changes anything.
    pub(crate) fn patched(&mut self, id: &str, place: &Place) -> bool {
        self.act("patched", Some(place));
        if let Some(patched) = self.patches.get(id) {
            return *patched;
        }
        if self.mode == Mode::Unloading {
            return false;
        }
        let patched = match self.script.is_recorded() {
            true => self.script.take_patch(id),
            false => {
                self.issue_patch(id, false, place);
                true
            }
        };
        self.patches.insert(id.into(), patched);
        patched
    }

    /// The code knows the way of this patch alone, and does not mind whether the history holds the patch. A new turn
    /// records it for code that has forgotten it.
    ///
    /// # Panics
    /// As [`patched`](Self::patched).
    pub(crate) fn deprecate_patch(&mut self, id: &str, place: &Place) {
        self.act("deprecate_patch", Some(place));
        if self.mode == Mode::Unloading {
            return;
        }
        let is_held = self.script.deprecate(id);
        if self.patches.contains_key(id) || (self.script.is_recorded() && !is_held) {
            return;
        }
        if !is_held {
            self.issue_patch(id, true, place);
        }
        self.patches.insert(id.into(), true);
    }

    fn issue_patch(&mut self, id: &str, deprecated: bool, place: &Place) {
        let command = RecordPatch { id: id.into(), deprecated, place: place.to_string() };
        self.issue(command.into(), Some(place));
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
    #[track_caller]
    pub(crate) fn act(&self, what: &str, place: Option<&Place>) {
        self.mode.allow(what, place);
    }

    /// The outcome of a command, if it has one: once. Otherwise this is woken when it has.
    pub(crate) fn outcome(&mut self, id: CommandId, waker: Option<&Waker>) -> Option<Ended> {
        self.act("await", self.slots.get(&id).map(|slot| &slot.place));
        let slot = self.slots.get_mut(&id)?;
        if slot.ended.is_none() {
            slot.waker = waker.cloned();
            return None;
        }
        self.slots.remove(&id).and_then(|slot| slot.ended)
    }

    /// The future of this timer is gone, and the timer with it.
    pub(crate) fn give_up(&mut self, id: CommandId) {
        if let Some(slot) = self.slots.remove(&id)
            && slot.ended.is_none()
        {
            self.issue((slot.cancel)(id), Some(&slot.place));
        }
    }

    /// The future of this activity is gone: its outcome may go where it came from.
    pub(crate) fn abandon(&mut self, id: CommandId) {
        match self.slots.get_mut(&id) {
            Some(slot) if slot.ended.is_none() => slot.abandoned = true,
            _ => drop(self.slots.remove(&id)),
        }
    }

    #[track_caller]
    pub(crate) fn take_signal(&mut self, name: &str, place: Option<&Place>) -> Option<Payload> {
        self.act("take a signal", place);
        let payload = self.signals.get_mut(name)?.pop_front()?;
        match self.read.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.read.insert(name.to_owned(), 1)),
        }
        Some(payload)
    }

    /// Enters a future among those that wait, or tells what it waits for now. What it said before comes back, to be
    /// dropped when the machine is no longer borrowed.
    pub(crate) fn wait(&mut self, id: &mut Option<u64>, waiter: Waiter, place: &Place) -> Option<Waiter> {
        let id = *id.get_or_insert_with(|| {
            self.last_waiter += 1;
            self.last_waiter
        });
        self.waiters.insert(id, (waiter, place.clone())).map(|(waiter, _)| waiter)
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
            Waiter::Command | Waiter::Signal(..) => None,
        });
        conditions.inspect(|waker| waker.wake_by_ref()).count() > 0
    }

    pub(crate) fn is_canceled(&self) -> bool {
        self.canceled
    }

    #[track_caller]
    pub(crate) fn stream(&mut self, name: &str) -> &mut ChaCha8Rng {
        self.act("draw a random number", None);
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
        match input.deliver() {
            Delivery::Signals(signals) => {
                signals.iter().for_each(|signal| self.buffer(&signal.name, signal.payload.clone()));
            }
            Delivery::Signal(name, payload) => self.buffer(name, payload.clone()),
            Delivery::Cancel => self.cancel(),
            Delivery::Outcome(id, outcome) => {
                let ended = match outcome {
                    Outcome::Value(value) => Ended::Value(value.clone()),
                    Outcome::Fired => Ended::Fired,
                    Outcome::Failed(attempt, retry_state, failure) => {
                        let slot = self.slots.get(&id);
                        let name = slot.and_then(|slot| slot.name.as_deref()).unwrap_or_default();
                        let failure = Failure::activity(name, id, attempt, retry_state, failure.clone());
                        Ended::Failed(failure.at(slot.map(|slot| &slot.place)))
                    }
                };
                self.resolve(id, ended);
            }
            Delivery::Nothing => {}
        }
        self.wake_conditions();
    }

    fn buffer(&mut self, name: &str, payload: Payload) {
        match self.signals.get_mut(name) {
            Some(buffer) => buffer.push_back(payload),
            None => drop(self.signals.insert(name.to_owned(), VecDeque::from([payload]))),
        }
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

    fn resolve(&mut self, id: CommandId, ended: Ended) {
        self.local_calls.remove(&id);
        // No slot: the workflow dropped the future, or was canceled.
        if let Some(slot) = self.slots.get_mut(&id)
            && slot.ended.is_none()
        {
            if slot.abandoned {
                self.slots.remove(&id);
                return;
            }
            slot.ended = Some(ended);
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
            .filter(|(_, slot)| slot.ended.is_none() && !slot.shielded)
            .map(|(id, slot)| (*id, slot.cancel, slot.place.clone()))
            .collect();
        for (id, cancel, place) in open {
            self.issue(cancel(id), Some(&place));
            self.resolve(id, Ended::Canceled);
        }
        self.wake_for_signals(|_| true);
    }

    /// What activities gave and the code has not come to read, with the activities' names.
    pub(crate) fn unread_results(&self) -> impl Iterator<Item = (&str, &Payload)> {
        self.slots.values().filter_map(|slot| match &slot.ended {
            Some(Ended::Value(value)) => Some((slot.name.as_deref()?, value)),
            _ => None,
        })
    }

    /// The name of the activity that this command is, as far as its outcome may still be asked for.
    pub(crate) fn activity(&self, id: CommandId) -> Option<&str> {
        self.slots.get(&id)?.name.as_deref()
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
fn waits_at(waiters: &BTreeMap<u64, (Waiter, Place)>) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut places: Vec<_> = waiters.values().map(|(_, place)| place.to_string()).collect();
    places.dedup();
    if places.len() > SHOWN {
        let more = places.len() - SHOWN;
        places.truncate(SHOWN);
        places.push(format!("{more} more places"));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_places_are_enough() {
        let places = |count: u32| {
            let place = |line| Place::Named(format!("a.rs:{line}").into());
            waits_at(&(0..count).map(|line| (u64::from(line), (Waiter::Command, place(line)))).collect())
        };
        assert_eq!(places(3), ["a.rs:0", "a.rs:1", "a.rs:2"]);
        assert_eq!(places(5)[3], "2 more places");
    }
}
