//! [`Replay`]: whether today's code follows a history, to its present end. Nothing is decided, and nothing is written:
//! inputs that no turn has taken are left alone, and only held against today's types.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::decide::{LiveRun, Terms, without_logs};
use crate::app::App;
use crate::history::{ChangedArguments, Damage};
use crate::ids::{RunId, RunKey};
use crate::misfit::{Misfit, StoredKind, StoredMisfit};
use crate::operations::Input;
use crate::operations::kind::{Delivery, Outcome};
use crate::payload::Payload;
use crate::program::TurnFailure;
use crate::status::Status;

/// A history that is being replayed, a stretch at a time: no more of it is in memory than what its run amounts to.
pub struct Replay {
    app: Arc<App>,
    run: RunKey,
    terms: Terms,
    live: Option<LiveRun>,
    failure: Option<TurnFailure>,
    misfits: Vec<StoredMisfit>,
    /// Something was found behind which nothing can be said.
    over: bool,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// Which run.
    pub run: RunKey,
    /// Its identity; none where its first batch cannot be read, as with the next two.
    pub run_id: Option<RunId>,
    /// The workflow's wire name.
    pub workflow_type: Option<String>,
    /// How it stands at the end of what was replayed.
    pub status: Option<Status>,
    /// Events that were replayed, as people count them.
    pub events: u64,
    /// Why the code cannot follow, if it cannot.
    pub failure: Option<TurnFailure>,
    /// Stored values that today's code cannot read: the first few.
    pub misfits: Vec<StoredMisfit>,
    /// Recorded commands that the code asks for with other arguments. Where that is strict ([`App::strict`]), they are a
    /// failure instead.
    pub changed: Option<ChangedArguments>,
    /// Whether values that the application does not declare must be read too.
    pub strict: bool,
}

/// What is to be said of a history and today's code, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The code follows it.
    Fits,
    /// A stored value does not fit the type that the code has for it.
    DoesNotFit,
    /// The code asks for something else than the history holds.
    Diverges,
    /// The code panics.
    Panics,
    /// The code waits for what its context did not give.
    ForeignFuture,
    /// A turn does not come to an end.
    Endless,
    /// The application has no such workflow.
    UnknownWorkflow,
    /// The history cannot be read.
    Damaged,
    /// Something else that parks a run.
    Fails,
}

impl Verdict {
    /// As scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::DoesNotFit => "does_not_fit",
            Self::Diverges => "diverges",
            Self::Panics => "panics",
            Self::ForeignFuture => "foreign_future",
            Self::Endless => "endless",
            Self::UnknownWorkflow => "unknown_workflow",
            Self::Damaged => "damaged",
            Self::Fails => "fails",
        }
    }
}

impl Replay {
    /// The replay of this run on this application's code. Of `terms`, what is told before each turn counts.
    #[must_use]
    pub fn new(app: &Arc<App>, run: &RunKey, terms: &Terms) -> Self {
        Self {
            app: Arc::clone(app),
            run: run.clone(),
            terms: terms.clone(),
            live: None,
            failure: None,
            misfits: Vec::new(),
            over: false,
        }
    }

    /// Replays a history that is at hand whole.
    #[must_use]
    pub fn whole(app: &Arc<App>, run: &RunKey, records: &[Bytes]) -> Replayed {
        let mut replay = Self::new(app, run, &Terms::default());
        replay.follow(records);
        replay.end()
    }

    /// Follows the next batches. `false`: what comes behind need not be read, the verdict stands.
    pub fn follow(&mut self, records: &[Bytes]) -> bool {
        // What recorded turns log was logged when they were new.
        without_logs(|| records.iter().all(|record| self.follow_one(record)))
    }

    fn follow_one(&mut self, record: &Bytes) -> bool {
        if self.over {
            return false;
        }
        let followed = match &mut self.live {
            Some(live) => live.follow(record),
            None => self.begin(record),
        };
        if let Err(failure) = followed {
            self.failure = Some(failure);
            self.over = true;
        }
        !self.over
    }

    fn begin(&mut self, first: &Bytes) -> Result<(), TurnFailure> {
        let live = LiveRun::begin(&self.app, &self.run, first, &self.terms)?;
        live.machine.borrow_mut().misfits = Some(Vec::new());
        let call = live.state.started.call.clone();
        self.live = Some(live);
        let declared = self.app.declared();
        if !declared.has_workflow(&call.workflow_type) {
            return Err(TurnFailure::UnknownWorkflow { workflow_type: call.workflow_type });
        }
        if let Err(misfit) = declared.input(&call.workflow_type, &call.input) {
            // The code would only fail with it, and diverge by that.
            self.misfits.push(unread(StoredKind::Input, &call.workflow_type, misfit));
            self.over = true;
        }
        Ok(())
    }

    /// The next batch is lost: what stands behind it does not continue what was followed.
    pub fn lost(&mut self) {
        let next = self.live.as_ref().map_or(0, |live| live.state.next_sequence);
        self.failure.get_or_insert(Damage::BrokenChain { sequence: next + 1 }.into());
        self.over = true;
    }

    /// Nothing comes behind what was followed.
    #[must_use]
    pub fn end(mut self) -> Replayed {
        let Some(live) = self.live.take() else {
            let missing = Damage::Contradiction { sequence: 0, problem: "there is no batch 0".to_owned() }.into();
            return Replayed { failure: self.failure.or(Some(missing)), ..Replayed::nothing_of(self.run) };
        };
        self.misfits.extend(live.machine.borrow_mut().misfits.take().unwrap_or_default());
        self.look_at_what_waits(&live);
        let declared = self.app.declared();
        for found in &mut self.misfits {
            found.declared = declared.says(found.kind, &found.name);
        }
        let state = live.state();
        let workflow_type = &state.started.call.workflow_type;
        let changed = live.machine.borrow().script.changed().cloned();
        Replayed {
            run: self.run,
            run_id: Some(state.run_id()),
            status: Some(state.status()),
            events: state.events,
            failure: self.failure,
            misfits: self.misfits,
            changed,
            strict: self.app.is_strict(workflow_type),
            workflow_type: Some(workflow_type.clone()),
        }
    }

    /// Holds what is stored and the code has not come to read against the types that the application declares.
    fn look_at_what_waits(&mut self, live: &LiveRun) {
        let declared = self.app.declared();
        let (machine, state) = (live.machine.borrow(), &live.state);
        let mut found = Vec::new();
        let mut look = |kind, name: &str, fits: Result<(), Misfit>| {
            found.extend(fits.err().map(|misfit| unread(kind, name, misfit)));
        };
        let mut signal = |name: &str, payload: &Payload| look(StoredKind::Signal, name, declared.signal(name, payload));
        machine.unconsumed().iter().for_each(|unread| signal(&unread.name, &unread.payload));
        for input in &state.inbox {
            match input.deliver() {
                Delivery::Signal(name, payload) => signal(name, payload),
                // Before the first turn, what came along from the run before.
                Delivery::Signals(carried) => carried.iter().for_each(|one| signal(&one.name, &one.payload)),
                Delivery::Outcome(..) | Delivery::Cancel | Delivery::Nothing => {}
            }
        }
        let mut result = |name: &str, value: &Payload| look(StoredKind::Result, name, declared.result(name, value));
        machine.unread_results().for_each(|(name, value)| result(name, value));
        for (id, value) in state.inbox.iter().filter_map(outcome) {
            machine.activity(id).into_iter().for_each(|name| result(name, value));
        }
        for (name, value) in &state.pending.published.values {
            look(StoredKind::Published, name, declared.published(name, value));
        }
        found.dedup();
        self.misfits.extend(found.into_iter().take(MOST_WAITING));
    }
}

/// So many values that nobody has come to read are told of one run.
const MOST_WAITING: usize = 20;

fn unread(kind: StoredKind, name: &str, misfit: Misfit) -> StoredMisfit {
    StoredMisfit { kind, name: name.to_owned(), misfit, place: None, declared: true }
}

/// What an activity gave, if that is what the input tells.
fn outcome(input: &Input) -> Option<(u64, &Payload)> {
    match input.deliver() {
        Delivery::Outcome(id, Outcome::Value(value)) => Some((id, value)),
        _ => None,
    }
}

impl Replayed {
    /// Of a run of which nothing could be read.
    #[must_use]
    pub fn nothing_of(run: RunKey) -> Self {
        Self {
            run,
            run_id: None,
            workflow_type: None,
            status: None,
            events: 0,
            failure: None,
            misfits: Vec::new(),
            changed: None,
            strict: false,
        }
    }

    /// Whether today's code follows the history and reads what is stored. Other arguments than the recorded ones, and
    /// values of types that the application does not declare, count only where that is strict.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.verdict() == Verdict::Fits
    }

    /// What is to be said, in a word: where a value does not fit, that is the word, whatever came of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.misfits.iter().any(|found| found.declared || self.strict || self.failure.is_some()) {
            return Verdict::DoesNotFit;
        }
        match &self.failure {
            None => Verdict::Fits,
            Some(TurnFailure::Diverged { .. }) => Verdict::Diverges,
            Some(TurnFailure::Panicked { .. }) => Verdict::Panics,
            Some(TurnFailure::ForeignFuture { .. }) => Verdict::ForeignFuture,
            Some(TurnFailure::Endless { .. }) => Verdict::Endless,
            Some(TurnFailure::UnknownWorkflow { .. }) => Verdict::UnknownWorkflow,
            Some(TurnFailure::Damaged(_)) => Verdict::Damaged,
            Some(TurnFailure::TooLarge { .. } | TurnFailure::NotStored { .. }) => Verdict::Fails,
        }
    }

    /// For tests: the code follows.
    ///
    /// # Panics
    /// When it does not, with what is to be said about it.
    #[track_caller]
    pub fn assert_fits(&self) {
        assert!(self.fits(), "{self}");
    }
}

/// What was found, for people.
impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workflow_type = self.workflow_type.as_deref().unwrap_or("a workflow that cannot be read");
        write!(f, "{workflow_type} {:?}, run {}: ", &*self.run.workflow.workflow_id, self.run.ordinal)?;
        if self.fits() {
            write!(f, "today's code follows its {} events", self.events)?;
        } else {
            f.write_str(self.verdict().as_str())?;
        }
        self.misfits.iter().try_for_each(|found| write!(f, "\n{found}"))?;
        self.failure.iter().try_for_each(|failure| write!(f, "\n{failure}"))?;
        if let Some(ChangedArguments { commands, first }) = &self.changed {
            write!(f, "\n{commands} recorded commands are asked for with other arguments; the first: {first}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("run", &self.run).finish_non_exhaustive()
    }
}
