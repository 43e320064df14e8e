//! What a history amounts to: everything that `accept`, `debts` and the engine ask about a run, folded batch by batch.
//! It never holds the workflow's code, so any process can have one.

use std::collections::{BTreeSet, VecDeque};

use minicbor::{Decode, Encode};

use super::limits::EVENT_BYTES;
use super::requests::Requests;
use crate::history::{Batch, BatchKind, Damage, DecidedBy, Event};
use crate::ids::{BatchHash, CommandId, CommitId, RunId, RunKey, derive};
use crate::operations::kind::Chore;
use crate::operations::{Closed, Command, EarlierRequest, Input, Pending, Started};
use crate::planted::{Bug, planted};
use crate::status::Status;
use crate::time::{Moment, Timestamp};

/// A run as its history tells it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct RunState {
    /// Where the history lives.
    #[n(0)]
    pub run: RunKey,
    /// How it began.
    #[n(1)]
    pub started: Started,
    /// Recorded time of batch 0.
    #[n(2)]
    pub started_at: Timestamp,
    /// The sequence that the next batch will have.
    #[n(3)]
    pub next_sequence: u64,
    /// The hash of the last batch.
    #[n(4)]
    pub head: BatchHash,
    /// Recorded time of the last batch.
    #[n(5)]
    pub time: Timestamp,
    /// Recorded time of the last turn: what `now()` was.
    #[n(6)]
    pub decided_at: Timestamp,
    /// Who decided it last, and by which behaviours.
    #[n(7)]
    pub decided_by: DecidedBy,
    /// When something other than a sweep was last committed.
    #[n(8)]
    pub changed_at: Timestamp,
    /// The due time that it set.
    #[n(9)]
    changed_due: Option<Timestamp>,
    /// How often in a row the sweep has looked and found it waiting.
    #[n(10)]
    pub sweeps: u32,
    /// The due time in the index row, as the history last set it; none when a closed run owes nothing.
    #[n(11)]
    pub due: Option<Timestamp>,
    /// Events so far, as people count them.
    #[n(12)]
    pub events: u64,
    /// Stored bytes so far.
    #[n(13)]
    pub bytes: u64,
    /// How it ended, once it has.
    #[n(14)]
    pub closed: Option<Closed>,
    /// Inputs taken in and not yet delivered, oldest first.
    #[n(15)]
    pub inbox: VecDeque<Input>,
    /// About how many bytes those take.
    #[n(16)]
    pub(super) inbox_bytes: u64,
    /// What is pending of each kind of operation.
    #[n(17)]
    pub pending: Pending,
    /// The alarm as the last decided batch left it, and as the one before had left it.
    #[n(18)]
    pub(super) alarm: Option<Timestamp>,
    #[n(19)]
    pub(super) alarm_before: Option<Timestamp>,
    #[n(20)]
    pub(super) requests: Requests,
    /// Events that are folded in and not in the history: a draft's.
    #[n(21)]
    pub(super) drafted: u64,
    /// Commands whose present tasks the last decided batch called for.
    #[n(22)]
    recent: BTreeSet<CommandId>,
    /// Those that came to it since, by a draft or by accepted inputs.
    #[n(23)]
    since: BTreeSet<CommandId>,
    /// Events of recorded batches.
    #[n(24)]
    recorded: u64,
    /// Where in the history events stand: after so many of them comes this batch; one such place for every few hundred.
    #[n(25)]
    places: Vec<Place>,
    /// What the decider's clock showed at the last turn: no later than `decided_at`.
    #[n(26)]
    pub(super) clock: Timestamp,
}

/// A place in a history: after so many events, as people count them, comes the batch at this sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// Events before it.
    #[n(0)]
    pub events: u64,
    /// The batch's sequence.
    #[n(1)]
    pub sequence: u64,
}

/// At least so many events lie between two places that are remembered.
const PLACE_EVENTS: u64 = 256;

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
            decided_by: DecidedBy::default(),
            changed_at: batch.time,
            changed_due: batch.due,
            sweeps: 0,
            due: Some(batch.due.ok_or_else(|| contradiction("it sets no due time"))?),
            events: 0,
            bytes: 0,
            closed: None,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            pending: Pending::default(),
            alarm: None,
            alarm_before: None,
            requests: Requests::earlier(&started.earlier),
            drafted: 0,
            recent: BTreeSet::new(),
            since: BTreeSet::new(),
            recorded: 0,
            places: Vec::new(),
            clock: batch.time,
            run,
        };
        state.link(&batch)?;
        state.fold(&batch)?;
        state.chain(&batch, record);
        Ok((state, batch))
    }

    /// Reads the next batch: verifies its link, then folds it in.
    ///
    /// # Errors
    /// [`Damage`] when the bytes do not decode, do not continue this history or contradict it. The state is then of
    /// no further use.
    pub fn append(&mut self, record: &[u8]) -> Result<Batch, Damage> {
        self.append_taking(record).map(|(batch, _)| batch)
    }

    /// As [`append`](Self::append); with the waiting inputs that the batch's turns took, in order.
    pub(super) fn append_taking(&mut self, record: &[u8]) -> Result<(Batch, VecDeque<Input>), Damage> {
        let batch = Batch::decode(self.next_sequence, record)?;
        self.link(&batch)?;
        let taken = self.fold(&batch)?;
        self.chain(&batch, record);
        Ok((batch, taken))
    }

    /// The batch was committed and its events are folded in already: only the chain moves on.
    pub fn committed(&mut self, batch: &Batch, record: &[u8]) {
        // A draft knows its requests before it knows its time, and its decider when it is sealed.
        self.requests.committed(batch.time);
        self.drafted = 0;
        if let Some(event @ Event::DecidedBy(by)) = batch.events.first() {
            self.events += event.shown();
            self.decided_by = by.clone();
        }
        self.chain(batch, record);
    }

    fn chain(&mut self, batch: &Batch, record: &[u8]) {
        self.head = BatchHash::of(record);
        self.next_sequence += 1;
        self.bytes += record.len() as u64;
        self.time = batch.time;
        // A closed run is due as long as it owes something, and no longer.
        if batch.due.is_some() || (self.closed.is_some() && batch.kind != BatchKind::Swept) {
            self.due = batch.due;
        }
        if batch.kind == BatchKind::Swept {
            self.sweeps += 1;
        } else {
            self.sweeps = 0;
            self.changed_at = batch.time;
            self.changed_due = self.due;
        }
        if batch.kind == BatchKind::Decided {
            self.recent = std::mem::take(&mut self.since);
            self.alarm_before = self.alarm;
            self.alarm = self.alarm(batch.time - self.decided_at.since(self.clock));
        }
        self.recorded += batch.events.iter().map(Event::shown).sum::<u64>();
        if self.recorded >= self.places.last().map_or(0, |place| place.events) + PLACE_EVENTS {
            self.places.push(Place { events: self.recorded, sequence: self.next_sequence });
        }
    }

    /// Where to begin to read for the event that comes after so many.
    #[must_use]
    pub fn place_of(&self, after: u64) -> Place {
        let behind = self.places.partition_point(|place| place.events <= after);
        behind.checked_sub(1).map_or(Place { events: 0, sequence: 0 }, |at| self.places[at])
    }

    fn link(&self, batch: &Batch) -> Result<(), Damage> {
        if batch.previous != self.head && !planted(Bug::C7SkipChain) {
            return Err(Damage::BrokenChain { sequence: self.next_sequence });
        }
        Ok(())
    }

    fn fold(&mut self, batch: &Batch) -> Result<VecDeque<Input>, Damage> {
        let sequence = self.next_sequence;
        let contradiction = |problem: String| Damage::Contradiction { sequence, problem };
        if batch.time < self.time {
            return Err(contradiction(format!("its time {} is before {}", batch.time, self.time)));
        }
        if self.closed.is_some() && batch.kind != BatchKind::Swept {
            return Err(contradiction("the run was closed before it".into()));
        }
        let mut taken = VecDeque::new();
        for (index, event) in batch.events.iter().enumerate() {
            match (batch.kind, event) {
                (BatchKind::Accepted, Event::Input(_)) | (BatchKind::Decided, Event::Turn(_) | Event::Command(_)) => {}
                (BatchKind::Decided, Event::Input(input)) if !input.is_delivered() => {}
                (BatchKind::Decided, Event::DecidedBy(by)) if index == 0 => {
                    if let Some(behaviour) = by.flags.unknown() {
                        return Err(Damage::UnknownBehaviour { sequence, behaviour });
                    }
                }
                (kind, _) => return Err(contradiction(format!("a {kind:?} batch holds an event of another kind"))),
            }
            taken.extend(self.fold_event(event, batch.time, Some(batch.time)).map_err(contradiction)?);
        }
        Ok(taken)
    }

    /// Folds one event of a draft in; `time` is what its turns' offsets count from. Gives the waiting inputs that a
    /// turn takes, oldest first.
    ///
    /// # Errors
    /// What contradicts the history so far.
    pub fn apply(&mut self, event: &Event, time: Timestamp) -> Result<VecDeque<Input>, String> {
        self.drafted += 1;
        self.fold_event(event, time, None)
    }

    fn fold_event(
        &mut self,
        event: &Event,
        time: Timestamp,
        recorded_at: Option<Timestamp>,
    ) -> Result<VecDeque<Input>, String> {
        // As people read them (`readable`): a turn shows as the input that it brought.
        self.events += event.shown();
        match event {
            Event::Input(input) => {
                self.note(input, recorded_at)?;
                if input.is_delivered() {
                    self.inbox_bytes += reckoned(input);
                    self.inbox.push_back(input.clone());
                }
            }
            Event::Turn(turn) => {
                let drained = self.take(turn.taken as usize)?;
                Moment { now: self.decided_at, clock: self.clock } = turn.moment(time);
                if let Some(input) = &turn.input {
                    self.note(input, recorded_at)?;
                }
                self.pending.signals.deliver(drained.iter().chain(&turn.input));
                if let Some(read) = &turn.read {
                    self.pending.signals.take(read);
                }
                return Ok(drained);
            }
            Event::Command(command) => self.issue(command)?,
            Event::DecidedBy(by) => self.decided_by = by.clone(),
        }
        Ok(VecDeque::new())
    }

    /// Takes so many waiting inputs out of the inbox.
    fn take(&mut self, count: usize) -> Result<VecDeque<Input>, String> {
        if count > self.inbox.len() {
            return Err(format!("a turn takes {count} inputs, {} are waiting", self.inbox.len()));
        }
        // One is moved, not the rest of them.
        let drained: VecDeque<_> = self.inbox.drain(..count).collect();
        self.inbox_bytes -= drained.iter().map(reckoned).sum::<u64>();
        Ok(drained)
    }

    fn note(&mut self, input: &Input, recorded_at: Option<Timestamp>) -> Result<(), String> {
        if let Some(request_id) = input.request_id() {
            self.requests.answer(request_id, self.run.ordinal, recorded_at);
        }
        input.note(&mut self.pending)?;
        self.called_for(input.chore());
        if let Some(closed) = input.closes() {
            self.close(closed);
        }
        Ok(())
    }

    fn issue(&mut self, command: &Command) -> Result<(), String> {
        command.fold(&mut self.pending, Moment { now: self.decided_at, clock: self.clock })?;
        self.called_for(command.chore());
        if let Some(closed) = command.closes() {
            self.close(closed);
        }
        Ok(())
    }

    fn called_for(&mut self, chore: Option<Chore>) {
        match chore {
            Some(Chore::Task(id)) => drop(self.since.insert(id)),
            Some(Chore::Unwanted(_)) | None => {}
        }
    }

    /// Commands whose tasks the last decided batch called for, or what was recorded after it: if somebody died between
    /// a commit and its dispatch, these are what may be lost.
    pub(super) fn recent(&self) -> impl Iterator<Item = CommandId> + '_ {
        self.recent.union(&self.since).copied()
    }

    /// About how much memory this takes, in bytes: what caches count.
    #[must_use]
    pub fn weight(&self) -> usize {
        let inbox = self.inbox.len() * 256 + self.inbox_bytes as usize;
        2_048
            + 16 * self.places.len()
            + self.started.call.input.len()
            + inbox
            + self.pending.weight()
            + self.requests.weight()
    }

    fn close(&mut self, closed: Closed) {
        self.closed = Some(closed);
        self.pending.close();
        self.inbox.clear();
        self.inbox_bytes = 0;
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
        self.requests.answered_in(request_id)
    }

    /// Recorded time of what is committed now, with the host's clock at `clock` (rule C8). What is waited for is measured
    /// by the clock.
    #[must_use]
    pub fn recorded_time(&self, clock: Timestamp) -> Timestamp {
        if planted(Bug::C8TrustClock) {
            return clock;
        }
        clock.max(self.time).max(self.decided_at).max(self.pending.timers.slept_until())
    }

    /// The requests that the next run must remember: bounded in number and in age, oldest first.
    #[must_use]
    pub fn requests_to_remember(&self, now: Timestamp) -> Vec<EarlierRequest> {
        self.requests.to_remember(now)
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
            run_id: RunId::of_run(next_id, self.run.ordinal + 1),
            call: next.call.clone(),
            // A start that replaced this run is remembered under its own id; a continuation needs an id of its own.
            request_id: next.request_id.clone().unwrap_or_else(|| format!("continued:{run_id}")),
            continued_from: continues.then_some(run_id),
            carried: next.carried.clone(),
            earlier: self.requests_to_remember(closed_at),
        };
        Some(Batch {
            commit_id: CommitId::from_bytes(commit_id),
            previous: BatchHash::origin(&self.run.workflow.run(self.run.ordinal + 1)),
            time: closed_at,
            kind: BatchKind::Accepted,
            events: vec![Event::Input(Input::Started(Box::new(started)))],
            // When this run is due for owing the next, so is the next for being owed its first turn.
            due: Some(self.changed_due.unwrap_or(closed_at)),
        })
    }
}

/// About how many bytes an input takes.
pub(super) fn reckoned(input: &Input) -> u64 {
    (EVENT_BYTES + input.bytes()) as u64
}
