//! The raw context of a workflow: owned names, payloads, ids of commands. The typed [`Workflow`](crate::Workflow)
//! stands on it, and so may programs of other kinds.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use super::machine::{Answer, Ended, LocalCall, Machine, Marker, Opening, Waiter};
use crate::failure::{Canceled, Failure};
use crate::ids::{CommandId, RunId, RunKey};
use crate::misfit::{Misfit, StoredKind, StoredMisfit};
use crate::operations::{
    Call, CancelActivity, CancelLocal, CancelTimer, NextRun, Publish, RecordMarker, ScheduleActivity, ScheduleLocal,
    StartTimer,
};
use crate::options::{RecordedOptions, RecordedRetry};
use crate::payload::Payload;
use crate::place::Place;
use crate::time::Timestamp;

/// Who a workflow is.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkflowInfo {
    /// The run.
    pub run: RunKey,
    /// The run's identity.
    pub run_id: RunId,
    /// The workflow's wire name.
    pub workflow_type: String,
    /// When the run began.
    pub started_at: Timestamp,
    /// The run that this one continues, when it began by [`continue_as_new`](crate::Workflow::continue_as_new). What that
    /// run published was its own: publish anew what the input says of it.
    pub continued_from: Option<RunId>,
}

/// What the history knows of a side effect.
#[derive(Clone, Debug, PartialEq)]
pub enum SideEffect {
    /// Nothing: compute the value, and give it to [`Raw::record_side_effect`] before anything else is asked for.
    New,
    /// It was computed before, and this is the value.
    Recorded(Payload),
    /// The program no longer follows its history: end the turn.
    Diverged,
}

/// So many values that do not fit are told of one run.
const MOST_MISFITS: usize = 20;

/// The type of the failure that carries a continue-as-new out of the workflow.
pub(crate) const CONTINUE_AS_NEW: &str = "ContinueAsNew";

/// A workflow's raw context. It stays on its thread. Cloning is cheap.
///
/// What is asked for is issued at once and numbered; [`outcome`](Self::outcome) tells what became of it. Where an
/// outcome cannot be there yet, the program ends its turn with [`Turned::Waits`](super::Turned::Waits).
#[derive(Clone)]
pub struct Raw {
    machine: Rc<RefCell<Machine>>,
    shielded: bool,
}

impl Raw {
    pub(crate) fn new(machine: Rc<RefCell<Machine>>) -> Self {
        Self { machine, shielded: false }
    }

    pub(crate) fn machine(&self) -> &Rc<RefCell<Machine>> {
        &self.machine
    }

    /// Begins an activity on a worker.
    ///
    /// # Errors
    /// Canceled, when the workflow was asked to stop; the type `InvalidOptions`, when the options make no sense.
    pub fn activity(
        &self,
        activity_type: &str,
        input: Payload,
        options: RecordedOptions,
        place: Place,
    ) -> Result<CommandId, Failure> {
        options.check().map_err(|failure| failure.at(Some(&place)))?;
        let opening = Opening {
            name: Some(activity_type.into()),
            cancel: |id| CancelActivity { id }.into(),
            shielded: self.shielded,
            place: place.clone(),
        };
        let activity_type = activity_type.to_owned();
        let opened = self.machine.borrow_mut().open(opening, |_, id| {
            ScheduleActivity { id, activity_type, input, options, place: place.to_string() }.into()
        });
        opened.map_err(|canceled| Failure::from(canceled).at(Some(&place)))
    }

    /// Begins an activity where the workflow is decided.
    ///
    /// # Errors
    /// Canceled, when the workflow was asked to stop; the type `InvalidOptions`, when the policy makes no sense.
    pub fn local_activity(
        &self,
        activity_type: &str,
        input: Payload,
        start_to_close: Duration,
        retry: RecordedRetry,
        place: Place,
    ) -> Result<CommandId, Failure> {
        retry.check().map_err(|failure| failure.at(Some(&place)))?;
        let opening = Opening {
            name: Some(activity_type.into()),
            cancel: |id| CancelLocal { id }.into(),
            shielded: self.shielded,
            place: place.clone(),
        };
        let mut machine = self.machine.borrow_mut();
        let fingerprint = input.fingerprint();
        let opened = machine.open(opening, |_, id| {
            let activity_type = activity_type.to_owned();
            ScheduleLocal { id, activity_type, fingerprint, place: place.to_string() }.into()
        });
        let id = opened.map_err(|canceled| Failure::from(canceled).at(Some(&place)))?;
        let scheduled_at = machine.at.clock;
        let call = LocalCall { activity_type: activity_type.into(), input, start_to_close, retry, scheduled_at };
        machine.local_calls.insert(id, call);
        Ok(id)
    }

    /// Starts a timer.
    ///
    /// # Errors
    /// [`Canceled`] when the workflow was asked to stop.
    pub fn timer(&self, duration: Duration, place: Place) -> Result<CommandId, Canceled> {
        let opening = Opening {
            name: None,
            cancel: |id| CancelTimer { id }.into(),
            shielded: self.shielded,
            place: place.clone(),
        };
        self.machine.borrow_mut().open(opening, |machine, id| {
            StartTimer { id, fire_at: machine.at.clock + duration, place: place.to_string() }.into()
        })
    }

    /// What became of a command, once it has ended: it is told once.
    #[must_use]
    pub fn outcome(&self, id: CommandId) -> Option<Ended> {
        self.machine.borrow_mut().outcome(id, None)
    }

    pub(crate) fn outcome_or_wake(&self, id: CommandId, waker: &Waker) -> Option<Ended> {
        self.machine.borrow_mut().outcome(id, Some(waker))
    }

    /// Gives a command up: a timer is canceled, an activity is told to stop. Nothing when it has ended.
    pub fn give_up(&self, id: CommandId) {
        self.machine.borrow_mut().give_up(id);
    }

    /// Asks no more for the outcome of an activity, and lets it run.
    pub fn abandon(&self, id: CommandId) {
        self.machine.borrow_mut().abandon(id);
    }

    /// The next signal of this name, if it has arrived.
    #[must_use]
    #[track_caller]
    pub fn take_signal(&self, name: &str) -> Option<Payload> {
        self.machine.borrow_mut().take_signal(name, None)
    }

    pub(crate) fn take_signal_at(&self, name: &str, place: &Place) -> Option<Payload> {
        self.machine.borrow_mut().take_signal(name, Some(place))
    }

    /// Publishes a query's value.
    pub fn publish(&self, name: &str, value: Payload, place: &Place) {
        let command = Publish { name: name.into(), value, place: place.to_string() };
        self.machine.borrow_mut().issue(command.into(), Some(place));
    }

    /// Answers a query by running this on the program's present state. It may read, and nothing else.
    #[track_caller]
    pub fn answer(&self, name: &str, handler: impl Fn(&Payload) -> Result<Payload, Failure> + 'static) {
        let answer: Answer = Rc::new(handler);
        self.machine.borrow().act("answer", None);
        // Bound to a name: what the former handler holds may need the machine when it is dropped.
        let _former = self.machine.borrow_mut().answers.insert(name.into(), answer);
    }

    /// A value that is computed once for the history and given back on replay: what the history knows of it.
    #[must_use]
    pub fn side_effect(&self, name: &str, place: &Place) -> SideEffect {
        match self.machine.borrow_mut().marker(name, place) {
            Marker::New => SideEffect::New,
            Marker::Recorded(value) => SideEffect::Recorded(value),
            Marker::Diverged => SideEffect::Diverged,
        }
    }

    /// Records the value of a side effect that the history did not know.
    pub fn record_side_effect(&self, name: &str, value: Payload, place: &Place) {
        let command = RecordMarker { name: name.into(), value, place: place.to_string() };
        self.machine.borrow_mut().issue(command.into(), Some(place));
    }

    /// Whether the run goes the way of this patch: the rules of [`Workflow::patched`](crate::Workflow::patched).
    #[must_use]
    pub fn patched(&self, id: &str, place: &Place) -> bool {
        self.machine.borrow_mut().patched(id, place)
    }

    /// The program knows the way of this patch alone: the rules of
    /// [`Workflow::deprecate_patch`](crate::Workflow::deprecate_patch).
    pub fn deprecate_patch(&self, id: &str, place: &Place) {
        self.machine.borrow_mut().deprecate_patch(id, place);
    }

    /// Ends this run and begins the next with a fresh history: end the program with the failure that this gives.
    #[must_use]
    #[track_caller]
    pub fn continue_as_new(&self, call: Call) -> Failure {
        let mut machine = self.machine.borrow_mut();
        machine.act("continue as new", None);
        machine.next_run = Some(NextRun { call, request_id: None, carried: Vec::new() });
        Failure::unplaced("the workflow continues as new").with_type(CONTINUE_AS_NEW).non_retryable()
    }

    /// Whether the workflow was asked to stop, and this context is within cancellation's reach.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        !self.shielded && self.machine.borrow().is_canceled()
    }

    /// The same context, out of cancellation's reach.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { machine: Rc::clone(&self.machine), shielded: true }
    }

    /// The recorded time of this turn.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.machine.borrow().at.now
    }

    /// Whether a recorded turn is being run again.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        self.machine.borrow().script.is_recorded()
    }

    /// Draws from a named stream of random numbers, the same on every replay.
    #[track_caller]
    pub fn draw<T>(&self, stream: &str, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(self.machine.borrow_mut().stream(stream))
    }

    /// Who this workflow is.
    #[must_use]
    pub fn info(&self) -> WorkflowInfo {
        let machine = self.machine.borrow();
        WorkflowInfo {
            run: machine.run.clone(),
            run_id: machine.run_id,
            workflow_type: machine.workflow_type.to_string(),
            started_at: machine.started_at,
            continued_from: machine.continued_from,
        }
    }

    /// A recorded value does not fit the type that the code reads it as; `misfit` says where, and is asked only where
    /// somebody wants to know.
    pub(crate) fn misfit(&self, kind: StoredKind, name: &str, place: &Place, misfit: impl FnOnce() -> Option<Misfit>) {
        // Its code may be a user's: nothing is borrowed meanwhile.
        if self.machine.borrow().misfits.is_none() {
            return;
        }
        let Some(misfit) = misfit() else { return };
        let place = Some(place.to_string());
        let found = StoredMisfit { kind, name: name.to_owned(), misfit, place, declared: false };
        if let Some(misfits) = &mut self.machine.borrow_mut().misfits
            && misfits.len() < MOST_MISFITS
            && !misfits.contains(&found)
        {
            misfits.push(found);
        }
    }

    /// Enters a future among those that wait. What it said before comes back, to be dropped by the caller.
    pub(crate) fn wait(&self, id: &mut Option<u64>, waiter: Waiter, place: &Place) -> Option<Waiter> {
        self.machine.borrow_mut().wait(id, waiter, place)
    }

    pub(crate) fn wait_no_more(&self, id: Option<u64>) -> Option<Waiter> {
        self.machine.borrow_mut().wait_no_more(id)
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("info", &self.info()).finish_non_exhaustive()
    }
}
