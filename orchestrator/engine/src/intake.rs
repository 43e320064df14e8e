//! Taking inputs in without deciding anything (rule F1): read or remember the run's state, hold the arrival against
//! it, put the intent on the queue, commit the input alone. No user code runs here, so anyone may do it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dormouse_core::history::{Batch, BatchKind, Event, Input, RunState};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{Arrival, Refusal, RunId, RunKey, StartRequest, StartVerdict, WorkflowKey};
use futures::lock::Mutex as AsyncMutex;
use lru::LruCache;

use crate::attempts::mark_unwanted;
use crate::commit::{LoadError, Outcome, commit, entry, opening, read_state};
use crate::ports::Ports;
use crate::seams::{Intent, RunMessage, Ticket, Wish};
use crate::store::{AttemptKey, Entry, Newest, StoreError};

/// How many runs' states are remembered between inputs.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// So often somebody who lost a write to others looks whether his input is there before he writes again.
const LOOKS: u32 = 8;

/// Takes inputs in. Remembers the states of runs that inputs came for lately; only a won commit makes a remembered
/// state true (rule C3).
pub struct Intake {
    ports: Ports,
    remembered: Mutex<LruCache<RunKey, Arc<AsyncMutex<Option<RunState>>>>>,
}

/// What became of an arrival.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken {
    /// It is in the history of this run, at this sequence.
    Recorded {
        /// The run.
        run: RunKey,
        /// The batch's place.
        sequence: u64,
        /// The batch.
        record: Bytes,
    },
    /// It was there already, in the run with this ordinal.
    Duplicate(u64),
    /// It is not taken in, by a state that was freshly read.
    Refused(Refusal),
    /// There is no such run.
    NoSuchRun,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// This run was created.
    Created(RunKey, RunId),
    /// This run is the answer: the request was answered before, or joins the open run.
    Existing(RunKey),
    /// The id has an open run: this one.
    AlreadyOpen(RunId),
    /// The id may not be used again; this was its last run.
    NotReusable(RunId),
}

impl Intake {
    /// An intake over these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports, remembered: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    fn entry(&self, run: &RunKey) -> Arc<AsyncMutex<Option<RunState>>> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(remembered.get_or_insert(run.clone(), Arc::default))
    }

    /// Takes an arrival into this very run. With `announce`, its intent is put on the queue before the commit (rule
    /// F2), and the queue is told of the commit; without, the caller is the queue's consumer and decides itself.
    ///
    /// # Errors
    /// [`LoadError`] when the store does not answer or the history is damaged. The input may have been recorded.
    pub async fn take(&self, run: &RunKey, arrival: &Arrival, announce: Option<bool>) -> Result<Taken, LoadError> {
        let entry = self.entry(run);
        let mut remembered = entry.lock().await;
        let mut ticket = None;
        let mut fresh = false;
        let mut behind = self.ports.choices.shared;
        let mut looks = 0;
        loop {
            if std::mem::take(&mut behind) && remembered.is_some() {
                fresh = self.catch_up(run, &mut remembered).await?;
            }
            let Some(state) = remembered.as_mut() else {
                match read_state(&*self.ports.store, run).await? {
                    Some(state) => *remembered = Some(state),
                    None => return Ok(Taken::NoSuchRun),
                }
                fresh = true;
                continue;
            };
            let now = self.ports.now();
            let inputs = match state.accept(arrival, now) {
                Ok(inputs) => inputs,
                // What the cache refuses, the store may not (rule C3).
                Err(_) if !fresh && !planted(Bug::C3TrustCache) => {
                    *remembered = None;
                    continue;
                }
                Err(Refusal::Duplicate(ordinal)) => return Ok(Taken::Duplicate(ordinal)),
                Err(refusal) => return Ok(Taken::Refused(refusal)),
            };
            if looks > 0 {
                // The queue's copy is mostly taken in meanwhile, together with others.
                looks -= 1;
                self.ports.host.give_way().await;
                behind = true;
                continue;
            }
            if let (Some(pinned), None) = (announce, &ticket)
                && !planted(Bug::F2CommitFirst)
            {
                ticket = Some(self.announce(run, Wish::Take { arrival: arrival.clone(), pinned }).await?);
            }
            let (batch, entry) = self.seal_inputs(state, inputs);
            let record = batch.encode();
            let sequence = state.next_sequence;
            match commit(&*self.ports.store, None, run, &record, &entry).await {
                Ok(Outcome::Won) => {
                    if state.append(&record).is_err() {
                        *remembered = None;
                    }
                    if planted(Bug::F2CommitFirst)
                        && let Some(pinned) = announce
                    {
                        ticket = Some(self.announce(run, Wish::Take { arrival: arrival.clone(), pinned }).await?);
                    }
                    if let Some(ticket) = ticket {
                        ticket.settle(RunMessage::Accepted { run: run.clone(), sequence, record: record.clone() });
                    }
                    return Ok(Taken::Recorded { run: run.clone(), sequence, record });
                }
                // Lost: what stands there is the next batch, if it fits; otherwise read again.
                Ok(Outcome::Lost(found)) => {
                    fresh = false;
                    if state.append(&found).is_err() {
                        *remembered = None;
                    }
                    behind = self.ports.choices.shared;
                    if behind && ticket.is_some() {
                        looks = LOOKS;
                    }
                }
                Err(error) => {
                    *remembered = None;
                    return Err(error.into());
                }
            }
        }
    }

    /// Reads what stands behind the last batch that is remembered. `true`: the state is as fresh as the store; `false`:
    /// it does not fit, and is forgotten.
    async fn catch_up(&self, run: &RunKey, remembered: &mut Option<RunState>) -> Result<bool, StoreError> {
        while let Some(state) = remembered.as_mut() {
            let stretch = self.ports.store.read(run, state.next_sequence).await?;
            let fits = stretch.records.iter().all(|record| state.append(record).is_ok());
            if !fits || stretch.gap {
                *remembered = None;
            } else if !stretch.more || stretch.records.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn seal_inputs(&self, state: &RunState, inputs: Vec<Input>) -> (Batch, Entry) {
        let time = state.recorded_time(self.ports.now());
        let sweep = self.ports.choices.sweep_interval;
        let ends = inputs.iter().any(|input| matches!(input, Input::Terminated { .. }));
        let events: Vec<_> = inputs.into_iter().map(Event::Input).collect();
        let mut batch = Batch {
            commit_id: self.ports.commit_id(),
            previous: state.head,
            time,
            kind: BatchKind::Accepted,
            events,
            // An input waits to be decided: due in one interval, unless the run is due sooner anyway.
            due: Some(time + sweep).filter(|due| *due < state.due),
        };
        if !ends {
            let entry = entry(&batch, state);
            return (batch, entry);
        }
        let mut after = state.clone();
        for event in &batch.events {
            // Accepted inputs fit the state that accepted them; were it otherwise, `append` would say so.
            let _ = after.apply(event, time);
        }
        batch.due = after.due_after(time, sweep);
        let entry = entry(&batch, &after);
        (batch, entry)
    }

    async fn announce(&self, run: &RunKey, wish: Wish) -> Result<Ticket, StoreError> {
        self.ports.runs.announce(Intent { run: run.clone(), wish }).await
    }

    /// Takes an arrival into this run, or into the one that it continues as (rule F4).
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub async fn follow(
        &self,
        run: &RunKey,
        arrival: &Arrival,
        pinned: bool,
        announce: bool,
    ) -> Result<Taken, LoadError> {
        let mut run = run.clone();
        loop {
            match self.take(&run, arrival, announce.then_some(pinned)).await? {
                Taken::Refused(Refusal::MovedOn) if !pinned && !planted(Bug::F4StopAtFirstRun) => {
                    self.roll_forward(&run).await?;
                    run.ordinal += 1;
                }
                taken => return Ok(taken),
            }
        }
    }

    /// Begins a run: of the next free ordinal, or, when `only` is given, of that ordinal or not at all (rule F3).
    ///
    /// # Errors
    /// [`LoadError`] when the store does not answer or a history is damaged. The run may have begun.
    pub async fn start(
        &self,
        workflow: &WorkflowKey,
        request: &StartRequest,
        only: Option<u64>,
    ) -> Result<Option<Begun>, LoadError> {
        let mut replaced = None;
        loop {
            let (latest, verdict) = match self.ports.store.newest(workflow).await? {
                Newest::Nothing => (None, request.against(None)),
                // The id is free again, but for its ordinals (rule C5).
                Newest::Retired(ordinal) => (None, StartVerdict::Create(ordinal + 1)),
                Newest::Run(row) => match read_state(&*self.ports.store, &row.run).await? {
                    Some(state) => {
                        let verdict = request.against(Some(&state));
                        (Some(state), verdict)
                    }
                    // Never taken for an id without runs: ordinals would begin again.
                    None => {
                        let why = format!("the history of {} is being deleted, or is lost; ask again", row.run);
                        return Err(StoreError::unknown(why).into());
                    }
                },
            };
            let run_id = latest.as_ref().map(RunState::run_id);
            let strict = only.filter(|_| !planted(Bug::F3AnyRun));
            match (verdict, run_id) {
                (StartVerdict::Create(ordinal), _) if strict.is_none_or(|only| only == ordinal) => {
                    let run = workflow.run(ordinal);
                    let ticket = match only {
                        None => Some(self.announce(&run, Wish::Start(request.clone())).await?),
                        Some(_) => None,
                    };
                    if let Some(begun) = self.create(&run, request, latest.as_ref(), ticket).await? {
                        return Ok(Some(begun));
                    }
                }
                (StartVerdict::Existing(ordinal), Some(run_id)) if replaced == Some(ordinal) => {
                    return Ok(Some(Begun::Created(workflow.run(ordinal), run_id)));
                }
                (StartVerdict::Existing(ordinal), _) if strict.is_none_or(|only| only == ordinal) => {
                    return Ok(Some(Begun::Existing(workflow.run(ordinal))));
                }
                // A late copy of an intent acts on its own run or not at all.
                _ if strict.is_some() => return Ok(None),
                (StartVerdict::AlreadyOpen, Some(run_id)) => return Ok(Some(Begun::AlreadyOpen(run_id))),
                (StartVerdict::NotReusable, Some(run_id)) => return Ok(Some(Begun::NotReusable(run_id))),
                (StartVerdict::Replace(terminate), Some(_)) => {
                    if let Some(latest) = &latest {
                        if let Taken::Recorded { run, .. } = self.take(&latest.run, &terminate, Some(true)).await? {
                            replaced = Some(run.ordinal + 1);
                        }
                        self.ports.closings.closed(&latest.run);
                        self.roll_forward(&latest.run).await?;
                    }
                }
                (StartVerdict::RollForward, Some(_)) => {
                    if let Some(latest) = &latest {
                        self.roll_forward(&latest.run).await?;
                    }
                }
                (StartVerdict::Create(_) | StartVerdict::Existing(_), _) | (_, None) => return Ok(None),
            }
        }
    }

    async fn create(
        &self,
        run: &RunKey,
        request: &StartRequest,
        latest: Option<&RunState>,
        ticket: Option<Ticket>,
    ) -> Result<Option<Begun>, LoadError> {
        let run_id = RunId::from_bytes(self.ports.host.fresh_id());
        let sweep = self.ports.choices.sweep_interval;
        let batch = request.first_batch(run, run_id, self.ports.commit_id(), self.ports.now(), latest, sweep);
        match self.commit_first(run, &batch).await? {
            Outcome::Lost(_) => Ok(None),
            Outcome::Won => {
                let message = RunMessage::Accepted { run: run.clone(), sequence: 0, record: batch.encode() };
                match ticket {
                    Some(ticket) => ticket.settle(message),
                    None => self.ports.runs.send(message).await?,
                }
                Ok(Some(Begun::Created(run.clone(), run_id)))
            }
        }
    }

    async fn commit_first(&self, run: &RunKey, batch: &Batch) -> Result<Outcome, LoadError> {
        let record = batch.encode();
        let Some(Event::Input(Input::Started(started))) = batch.events.first() else {
            return Ok(Outcome::Lost(record));
        };
        let entry = Entry::Open(opening(started, batch));
        Ok(commit(&*self.ports.store, None, run, &record, &entry).await?)
    }

    /// Does what a closed run owes: closes the attempt records of activities that nobody wants any more (rule A1), and
    /// creates the run that it calls for, if it is missing, and lets its decider know (rule C6). Anyone may do it, any
    /// number of times: the bytes are derived from the history, so all write the same.
    ///
    /// # Errors
    /// [`LoadError`] when the store does not answer or the history is damaged.
    pub async fn roll_forward(&self, run: &RunKey) -> Result<(), LoadError> {
        let Some(state) = read_state(&*self.ports.store, run).await? else { return Ok(()) };
        if !state.owes() {
            return Ok(());
        }
        for id in &state.canceled_activities {
            let key = AttemptKey { run: run.clone(), activity: *id };
            mark_unwanted(&*self.ports.store, &key).await?;
        }
        let Some(mut batch) = state.next_run() else {
            return Ok(self.ports.store.settle(run).await?);
        };
        if planted(Bug::C6InventNextRun)
            && let Some(Event::Input(Input::Started(started))) = batch.events.first_mut()
        {
            started.run_id = RunId::from_bytes(self.ports.host.fresh_id());
        }
        let next = run.workflow.run(run.ordinal + 1);
        let won = self.commit_first(&next, &batch).await? == Outcome::Won;
        self.ports.store.settle(run).await?;
        if won {
            let message = RunMessage::Accepted { run: next, sequence: 0, record: batch.encode() };
            self.ports.runs.send(message).await?;
        }
        Ok(())
    }
}
