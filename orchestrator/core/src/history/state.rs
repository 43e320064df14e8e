//! What a history amounts to: everything that `accept`, `outstanding` and the engine ask about a run, folded batch by
//! batch. It never holds the workflow's future, so any process can have one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::event::{Command, CommandId, EarlierRequest, Event, Input, NextRun, Started, Turn};
use super::record::{Batch, BatchKind, Damage};
use crate::failure::Failure;
use crate::ids::{BatchHash, RunId, RunKey, derive};
use crate::options::RecordedOptions;
use crate::payload::Payload;
use crate::planted::{Bug, planted};
use crate::status::Status;
use crate::time::Timestamp;

/// How many earlier requests batch 0 of a run remembers, at most.
pub const EARLIER_REQUESTS: usize = 256;

/// How long a request id is remembered after its run closed: longer than any message lives.
pub const REQUEST_WINDOW: Duration = Duration::from_hours(24 * 14);

/// A run as its history tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    /// Where the history lives.
    pub run: RunKey,
    /// How it began.
    pub started: Started,
    /// Recorded time of batch 0.
    pub started_at: Timestamp,
    /// The sequence that the next batch will have.
    pub next_sequence: u64,
    /// The hash of the last batch.
    pub head: BatchHash,
    /// Recorded time of the last batch.
    pub time: Timestamp,
    /// Recorded time of the last turn: what `now()` was.
    pub decided_at: Timestamp,
    /// When something other than a sweep was last committed.
    pub changed_at: Timestamp,
    /// The due time that it set.
    pub changed_due: Timestamp,
    /// How often in a row the sweep has looked and found it waiting.
    pub sweeps: u32,
    /// The due time in the index row, as the history last set it.
    pub due: Timestamp,
    /// Events so far.
    pub events: u64,
    /// Stored bytes so far.
    pub bytes: u64,
    /// Whether cancellation was requested.
    pub cancel_requested: bool,
    /// How it ended, once it has.
    pub closed: Option<Closed>,
    /// Inputs taken in and not yet delivered, oldest first.
    pub inbox: VecDeque<Input>,
    /// Queued activities without an outcome.
    pub activities: BTreeMap<CommandId, PendingActivity>,
    /// Activities that the workflow gave up before they had an outcome.
    pub canceled_activities: BTreeSet<CommandId>,
    /// Local activities without an outcome, as far as they are recorded.
    pub locals: BTreeMap<CommandId, PendingLocal>,
    /// Timers that have not fired.
    pub timers: BTreeMap<CommandId, Timestamp>,
    /// Published query values.
    pub published: BTreeMap<String, Payload>,
    /// Activities whose present tasks the last decided batch called for, and those that came to it since, by a
    /// draft or by accepted inputs: if somebody died between a commit and its dispatch, these are what was lost.
    recent: (Vec<CommandId>, Vec<CommandId>),
    requests: BTreeMap<u64, usize>,
    answered: Vec<EarlierRequest>,
    /// How many of those are in the history; the others are a draft's.
    recorded: usize,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Closed {
    /// With a result.
    Completed(Payload),
    /// With a failure.
    Failed(Failure),
    /// Because it was asked to.
    Canceled(Failure),
    /// From outside, perhaps to make room for a next run.
    Terminated(Failure, Option<Box<NextRun>>),
    /// By handing over.
    ContinuedAsNew(Box<NextRun>),
}

impl Closed {
    /// The status that listings show.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Completed(_) => Status::Completed,
            Self::Failed(_) => Status::Failed,
            Self::Canceled(_) => Status::Canceled,
            Self::Terminated(..) => Status::Terminated,
            Self::ContinuedAsNew(_) => Status::ContinuedAsNew,
        }
    }

    /// The run that must follow, if any.
    #[must_use]
    pub fn next(&self) -> Option<&NextRun> {
        match self {
            Self::ContinuedAsNew(next) | Self::Terminated(_, Some(next)) => Some(next),
            _ => None,
        }
    }
}

/// A queued activity without an outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingActivity {
    /// Its wire name.
    pub activity_type: String,
    /// Its argument.
    pub input: Payload,
    /// Its limits and retry policy.
    pub options: RecordedOptions,
    /// When the workflow asked for it.
    pub scheduled_at: Timestamp,
    /// The last attempt whose lease the history has ended; 0 when none.
    pub lost: u32,
    /// The attempt after a lost one begins no earlier than this.
    pub retry_at: Timestamp,
}

impl PendingActivity {
    /// When all attempts together run out of time.
    #[must_use]
    pub fn close_deadline(&self) -> Option<Timestamp> {
        self.options.schedule_to_close_ms.map(|ms| self.scheduled_at + Duration::from_millis(ms))
    }

    /// By when a worker must have taken it up.
    #[must_use]
    pub fn start_deadline(&self) -> Option<Timestamp> {
        self.options.schedule_to_start_ms.map(|ms| self.scheduled_at + Duration::from_millis(ms))
    }
}

/// A recorded local activity without an outcome.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct PendingLocal {
    /// Its wire name.
    pub activity_type: String,
    /// Failed attempts that the history knows of.
    pub attempts: u32,
    /// The next attempt begins no earlier than this.
    pub retry_at: Timestamp,
    /// Why the last attempt failed.
    pub last_failure: Option<Failure>,
}

/// Eight bytes that stand for a request id.
#[must_use]
pub fn request_hash(request_id: &str) -> u64 {
    let bytes = derive("dormouse 2026 request id", &[request_id.as_bytes()]);
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

impl RunState {
    /// Reads batch 0.
    ///
    /// # Errors
    /// [`Damage`] when the bytes are no first batch of this run.
    pub fn begin(run: RunKey, record: &[u8]) -> Result<(Self, Batch), Damage> {
        let batch = Batch::decode(0, record)?;
        let contradiction = |problem: &str| Damage::Contradiction { sequence: 0, problem: problem.into() };
        let Some(Event::Input(Input::Started(started))) = batch.events.first() else {
            return Err(contradiction("it does not begin with the start of the workflow"));
        };
        let mut state = Self {
            head: BatchHash::origin(&run),
            started: (**started).clone(),
            started_at: batch.time,
            next_sequence: 0,
            time: batch.time,
            decided_at: batch.time,
            changed_at: batch.time,
            changed_due: batch.time,
            sweeps: 0,
            due: batch.due.ok_or_else(|| contradiction("it sets no due time"))?,
            events: 0,
            bytes: 0,
            cancel_requested: false,
            closed: None,
            inbox: VecDeque::new(),
            activities: BTreeMap::new(),
            canceled_activities: BTreeSet::new(),
            locals: BTreeMap::new(),
            timers: BTreeMap::new(),
            published: BTreeMap::new(),
            recent: Default::default(),
            requests: BTreeMap::new(),
            answered: started.earlier.clone(),
            recorded: started.earlier.len(),
            run,
        };
        for (index, earlier) in state.answered.iter().enumerate() {
            state.requests.insert(earlier.hash, index);
        }
        state.link(&batch)?;
        state.fold(&batch)?;
        state.committed(&batch, record);
        Ok((state, batch))
    }

    /// Reads the next batch: verifies its link, then folds it in.
    ///
    /// # Errors
    /// [`Damage`] when the bytes do not decode, do not continue this history or contradict it. The state is then of
    /// no further use.
    pub fn append(&mut self, record: &[u8]) -> Result<Batch, Damage> {
        let batch = Batch::decode(self.next_sequence, record)?;
        self.link(&batch)?;
        let known = self.answered.len();
        self.fold(&batch)?;
        // A draft's requests come after those of a batch that was put before it.
        let (drafted, new) = (known - self.recorded, self.answered.len() - known);
        if drafted > 0 && new > 0 {
            self.answered[self.recorded..].rotate_left(drafted);
            for (index, request) in self.answered.iter().enumerate().skip(self.recorded) {
                self.requests.insert(request.hash, index);
            }
        }
        self.recorded += new;
        self.chain(&batch, record);
        Ok(batch)
    }

    /// The batch was committed and its events are folded in already: only the chain moves on.
    pub fn committed(&mut self, batch: &Batch, record: &[u8]) {
        // A draft knows its requests before it knows its time.
        self.answered[self.recorded..].iter_mut().for_each(|request| request.at = batch.time);
        self.recorded = self.answered.len();
        self.chain(batch, record);
    }

    fn chain(&mut self, batch: &Batch, record: &[u8]) {
        self.head = BatchHash::of(record);
        self.next_sequence += 1;
        self.bytes += record.len() as u64;
        self.time = batch.time;
        if let Some(due) = batch.due {
            self.due = due;
        }
        if batch.kind == BatchKind::Decided {
            self.recent.0 = std::mem::take(&mut self.recent.1);
        }
        if batch.kind == BatchKind::Swept {
            self.events += 1;
            self.sweeps += 1;
        } else {
            self.sweeps = 0;
            self.changed_at = batch.time;
            self.changed_due = self.due;
        }
    }

    fn link(&self, batch: &Batch) -> Result<(), Damage> {
        if batch.previous != self.head && !planted(Bug::C7SkipChain) {
            return Err(Damage::BrokenChain { sequence: self.next_sequence });
        }
        Ok(())
    }

    fn fold(&mut self, batch: &Batch) -> Result<(), Damage> {
        let sequence = self.next_sequence;
        let contradiction = |problem: String| Damage::Contradiction { sequence, problem };
        if batch.time < self.time {
            return Err(contradiction(format!("its time {} is before {}", batch.time, self.time)));
        }
        if self.closed.is_some() && batch.kind != BatchKind::Swept {
            return Err(contradiction("the run was closed before it".into()));
        }
        for event in &batch.events {
            match (batch.kind, event) {
                (BatchKind::Accepted, Event::Input(_)) | (BatchKind::Decided, Event::Turn(_) | Event::Command(_)) => {}
                (BatchKind::Decided, Event::Input(input)) if !input.is_delivered() => {}
                (kind, _) => return Err(contradiction(format!("a {kind:?} batch holds an event of another kind"))),
            }
            self.apply(event, batch.time).map_err(contradiction)?;
        }
        Ok(())
    }

    /// Folds one event in. `time` is the batch's.
    ///
    /// # Errors
    /// What contradicts the history so far.
    pub fn apply(&mut self, event: &Event, time: Timestamp) -> Result<(), String> {
        // As people read them: a turn that brought an input of its own shows as two.
        self.events += 1 + u64::from(matches!(event, Event::Turn(Turn { input: Some(_), .. })));
        match event {
            Event::Input(input) => {
                self.note(input, time)?;
                if input.is_delivered() {
                    self.inbox.push_back(input.clone());
                }
            }
            Event::Turn(Turn { at_offset_ms, taken, input }) => {
                let taken = *taken as usize;
                if taken > self.inbox.len() {
                    return Err(format!("a turn takes {taken} inputs, {} are waiting", self.inbox.len()));
                }
                self.inbox.drain(..taken);
                self.decided_at = turn_time(time, *at_offset_ms);
                if let Some(input) = input {
                    self.note(input, time)?;
                }
            }
            Event::Command(command) => self.issue(command)?,
        }
        Ok(())
    }

    fn note(&mut self, input: &Input, time: Timestamp) -> Result<(), String> {
        if let Some(request_id) = input.request_id() {
            let hash = request_hash(request_id);
            self.requests.insert(hash, self.answered.len());
            self.answered.push(EarlierRequest { hash, ordinal: self.run.ordinal, at: time });
        }
        match input {
            Input::Started(_) | Input::Signaled { .. } => {}
            Input::CancelRequested { .. } => self.cancel_requested = true,
            Input::Terminated { reason, next, .. } => {
                self.closed = Some(Closed::Terminated(Failure::terminated(reason), next.clone()));
                self.drop_pending();
            }
            Input::ActivityCompleted { id, .. } | Input::ActivityFailed { id, .. } => {
                self.activities.remove(id).ok_or_else(|| format!("activity {id} is not pending"))?;
            }
            Input::AttemptLost { id, attempt, retry_at } => {
                let pending = self.activities.get_mut(id).ok_or_else(|| format!("activity {id} is not pending"))?;
                pending.lost = *attempt;
                pending.retry_at = *retry_at;
                self.recent.1.push(*id);
            }
            Input::TimerFired { id } => {
                self.timers.remove(id).ok_or_else(|| format!("timer {id} is not pending"))?;
            }
            Input::LocalCompleted { id, .. } | Input::LocalFailed { id, .. } => {
                self.locals.remove(id).ok_or_else(|| format!("local activity {id} is not pending"))?;
            }
            Input::LocalBackoff { id, attempt, failure, retry_at } => {
                let pending = self.locals.get_mut(id).ok_or_else(|| format!("local activity {id} is not pending"))?;
                pending.attempts = *attempt;
                pending.retry_at = *retry_at;
                pending.last_failure = Some(failure.clone());
            }
        }
        Ok(())
    }

    fn issue(&mut self, command: &Command) -> Result<(), String> {
        match command {
            Command::ScheduleActivity { id, activity_type, input, options, .. } => {
                let pending = PendingActivity {
                    activity_type: activity_type.clone(),
                    input: input.clone(),
                    options: options.clone(),
                    scheduled_at: self.decided_at,
                    lost: 0,
                    retry_at: self.decided_at,
                };
                if self.activities.insert(*id, pending).is_some() {
                    return Err(format!("activity {id} is scheduled twice"));
                }
                self.recent.1.push(*id);
            }
            // An outcome may have been taken in before the workflow gave it up.
            Command::CancelActivity { id } => {
                if self.activities.remove(id).is_some() {
                    self.canceled_activities.insert(*id);
                }
                // A local one has no worker to be told: it is no longer waited for, that is all.
                self.locals.remove(id);
            }
            Command::ScheduleLocal { id, activity_type, .. } => {
                let pending = PendingLocal { activity_type: activity_type.clone(), ..PendingLocal::default() };
                self.locals.insert(*id, pending);
            }
            Command::StartTimer { id, fire_at, .. } => {
                self.timers.insert(*id, *fire_at);
            }
            Command::CancelTimer { id } => {
                self.timers.remove(id);
            }
            Command::Publish { name, value, .. } => {
                self.published.insert(name.clone(), value.clone());
            }
            Command::Complete { result } => self.close(Closed::Completed(result.clone())),
            Command::Fail { failure } => self.close(Closed::Failed(failure.clone())),
            Command::Cancel { failure } => self.close(Closed::Canceled(failure.clone())),
            Command::ContinueAsNew { next } => self.close(Closed::ContinuedAsNew(next.clone())),
        }
        Ok(())
    }

    fn close(&mut self, closed: Closed) {
        self.closed = Some(closed);
        self.drop_pending();
    }

    fn drop_pending(&mut self) {
        self.canceled_activities.extend(self.activities.keys());
        self.activities.clear();
        self.locals.clear();
        self.timers.clear();
        self.inbox.clear();
    }

    /// Activities without an outcome whose tasks the last decided batch called for, or what was recorded after it.
    pub fn recent_tasks(&self) -> impl Iterator<Item = CommandId> + '_ {
        self.recent.0.iter().chain(&self.recent.1).copied().filter(|id| self.activities.contains_key(id))
    }

    /// About how much memory this takes, in bytes: what caches count.
    #[must_use]
    pub fn weight(&self) -> usize {
        let inputs = self.inbox.iter().map(Input::weight);
        let activities = self.activities.values().map(|pending| pending.input.len() + 256);
        let published = self.published.iter().map(|(name, value)| name.len() + value.len() + 64);
        let started = &self.started;
        let fixed =
            1024 + started.input.len() + 32 * (self.answered.len() + self.timers.len()) + 128 * self.locals.len();
        fixed + inputs.chain(activities).chain(published).sum::<usize>()
    }

    /// The run's identity.
    #[must_use]
    pub fn run_id(&self) -> RunId {
        self.started.run_id
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.closed.as_ref().map_or(Status::Running, Closed::status)
    }

    /// The ordinal of the run that answered this request: this one or an earlier one.
    #[must_use]
    pub fn answered_in(&self, request_id: &str) -> Option<u64> {
        self.requests.get(&request_hash(request_id)).map(|index| self.answered[*index].ordinal)
    }

    /// Recorded time of what is committed now, with the host's clock at `clock` (rule C8).
    #[must_use]
    pub fn recorded_time(&self, clock: Timestamp) -> Timestamp {
        if planted(Bug::C8TrustClock) {
            return clock;
        }
        clock.max(self.time).max(self.decided_at)
    }

    /// The requests that the next run must remember: bounded in number and in age, oldest first.
    #[must_use]
    pub fn requests_to_remember(&self, now: Timestamp) -> Vec<EarlierRequest> {
        let fresh: Vec<_> = self.answered.iter().filter(|r| now.since(r.at) <= REQUEST_WINDOW).cloned().collect();
        fresh[fresh.len().saturating_sub(EARLIER_REQUESTS)..].to_vec()
    }

    /// Batch 0 of the run that this closed one calls for. Everyone derives the same bytes, from the history alone
    /// (rule C6).
    #[must_use]
    pub fn next_run(&self) -> Option<Batch> {
        let next = self.closed.as_ref()?.next()?;
        let run_id = self.run_id();
        let seed: &[u8] = run_id.as_bytes();
        let next_id = derive("dormouse 2026 next run", &[seed, &self.run.ordinal.to_le_bytes()]);
        let commit_id = derive("dormouse 2026 next run commit", &[seed, &self.run.ordinal.to_le_bytes()]);
        let continues = next.request_id.is_none();
        // Not the time of the last batch: some have seen the sweep pass over the closed run, some have not.
        let closed_at = self.changed_at;
        let started = Started {
            run_id: RunId::from_bytes(next_id),
            workflow_type: next.workflow_type.clone(),
            input: next.input.clone(),
            // A start that replaced this run is remembered under its own id; a continuation needs an id of its own.
            request_id: next.request_id.clone().unwrap_or_else(|| format!("continued:{run_id}")),
            continued_from: continues.then_some(run_id),
            carried: next.carried.clone(),
            earlier: self.requests_to_remember(closed_at),
        };
        Some(Batch {
            commit_id: crate::ids::CommitId::from_bytes(commit_id),
            previous: BatchHash::origin(&self.run.workflow.run(self.run.ordinal + 1)),
            time: closed_at,
            kind: BatchKind::Accepted,
            events: vec![Event::Input(Input::Started(Box::new(started)))],
            // When this run is due for owing the next, so is the next for being owed its first turn.
            due: Some(self.changed_due),
        })
    }
}

/// Whether a history, given whole or by its last batches, ends with a closed run. Only the last batch that is not the
/// sweep's is looked at: after it nothing else can stand.
///
/// # Errors
/// [`Damage`] when a batch does not decode. `first` is the sequence of the first record.
pub fn is_closed(first: u64, records: &[Bytes]) -> Result<bool, Damage> {
    for (index, record) in records.iter().enumerate().rev() {
        let sequence = first + index as u64;
        let batch = Batch::decode(sequence, record)?;
        if batch.kind != BatchKind::Swept {
            return Ok(batch.events.iter().any(|event| match event {
                Event::Command(command) => command.closes(),
                Event::Input(input) => matches!(input, Input::Terminated { .. }),
                Event::Turn(_) => false,
            }));
        }
    }
    Ok(false)
}

/// What `now()` was in a turn of a batch with this time.
#[must_use]
pub fn turn_time(batch: Timestamp, offset_ms: i64) -> Timestamp {
    Timestamp::from_millis(batch.as_millis().saturating_add_signed(offset_ms))
}
