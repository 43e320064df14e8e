//! Taking inputs in without deciding anything (rule F1): read or remember the run's state, hold the arrival against
//! it, put the intent on the queue, commit the input alone. No user code runs here, so anyone may do it.

use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::RunState;
use dormouse_core::history::{Batch, BatchKind, Event, Input};
use dormouse_core::operations;
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{Arrival, Refusal, RunId, RunKey, StartRequest, StartVerdict, WorkflowKey};

use crate::commit::{LoadError, Outcome, entry};
use crate::dispatch::{close_up, close_up_if_due, commit_first};
use crate::ports::Ports;
use crate::seams::{Intent, RunMessage, Ticket, Wish};
use crate::states::Commit;
use crate::store::{Entry, Newest, StoreError};

/// So often somebody who lost a write to others looks whether his input is there before he writes again.
const LOOKS: u32 = 8;

/// Takes inputs in.
pub struct Intake {
    ports: Ports,
}

/// Whether an intent is put on the run queue before the commit (rule F2), and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// No: the caller is the queue's consumer, and decides itself.
    No,
    /// For this very run.
    Pinned,
    /// For this run, or the one that it continues as (rule F4).
    Following,
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
    /// The copy of it that this call put on the queue was taken in first.
    Carried,
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
    /// The request was answered before, by this run.
    Existing(RunKey),
    /// This run was open, and is the answer from now on.
    Joined(RunKey),
    /// The id has an open run: this one.
    AlreadyOpen(RunId),
    /// The id may not be used again; this was its last run.
    NotReusable(RunId),
}

impl Intake {
    /// An intake over these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// Takes an arrival into this very run; with `expected`, only if that is its identity. With an announcement, its
    /// intent is put on the queue before the commit, and the queue is told of the commit.
    ///
    /// # Errors
    /// [`LoadError`] when the store does not answer or the history is damaged. The input may have been recorded.
    pub async fn take(
        &self,
        run: &RunKey,
        expected: Option<RunId>,
        arrival: &Arrival,
        announce: Announce,
    ) -> Result<Taken, LoadError> {
        let shared = self.ports.choices.shared;
        let mut held = self.ports.states.hold(run).await;
        let mut ticket = None;
        let mut looks = 0;
        // Where others write the same run, what is remembered is mostly behind.
        let mut behind = shared;
        loop {
            if std::mem::take(&mut behind) || held.state().is_none() {
                held.refresh().await?;
            }
            let Some(state) = held.state() else { return Ok(Taken::NoSuchRun) };
            if expected.is_some_and(|run_id| run_id != state.run_id()) && !planted(Bug::O1TakeForAnother) {
                return Ok(Taken::Refused(Refusal::OtherRun));
            }
            let inputs = match state.accept_within(arrival, self.ports.now(), &self.ports.choices.limits) {
                Ok(inputs) => inputs,
                // What is remembered refuses; the store may not (rule C3).
                Err(_) if !held.is_fresh() && !planted(Bug::C3TrustCache) => {
                    behind = true;
                    continue;
                }
                Err(Refusal::Duplicate(_)) if ticket.is_some() => return Ok(Taken::Carried),
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
            let (batch, entry) = self.seal_inputs(state, inputs);
            if ticket.is_none() && !planted(Bug::F2CommitFirst) {
                ticket = self.announce_arrival(run, arrival, announce).await?;
            }
            if let Commit::Won { sequence, record } = held.commit(&batch, &entry).await? {
                if planted(Bug::F2CommitFirst) {
                    ticket = self.announce_arrival(run, arrival, announce).await?;
                }
                if let Some(ticket) = ticket {
                    ticket.settle(RunMessage::Accepted { run: run.clone(), sequence, record: record.clone() });
                }
                return Ok(Taken::Recorded { run: run.clone(), sequence, record });
            }
            behind = shared;
            if shared && ticket.is_some() {
                looks = LOOKS;
            }
        }
    }

    async fn announce_arrival(
        &self,
        run: &RunKey,
        arrival: &Arrival,
        announce: Announce,
    ) -> Result<Option<Ticket>, StoreError> {
        let pinned = match announce {
            Announce::No => return Ok(None),
            Announce::Pinned => true,
            Announce::Following => false,
        };
        self.announce(run, Wish::Take { arrival: arrival.clone(), pinned }).await.map(Some)
    }

    fn seal_inputs(&self, state: &RunState, inputs: Vec<Input>) -> (Batch, Entry) {
        let clock = self.ports.now();
        let time = state.recorded_time(clock);
        let sweep = self.ports.choices.sweep_interval;
        let ends = inputs.iter().any(|input| matches!(input, Input::Terminated(operations::Terminated { .. })));
        let events: Vec<_> = inputs.into_iter().map(Event::Input).collect();
        let mut batch = Batch {
            commit_id: self.ports.commit_id(),
            previous: state.head,
            time,
            kind: BatchKind::Accepted,
            events,
            // An input waits to be decided: due in one interval, unless the run is due sooner anyway.
            due: Some(clock + sweep).filter(|due| state.due.is_none_or(|known| *due < known)),
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
        batch.due = after.due_after(clock, sweep);
        let entry = entry(&batch, &after);
        (batch, entry)
    }

    async fn announce(&self, run: &RunKey, wish: Wish) -> Result<Ticket, StoreError> {
        self.ports.runs.announce(Intent { run: run.clone(), wish }).await
    }

    /// Takes an arrival into this run, or, unless it is pinned, into the one that it continues as (rule F4).
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub async fn follow(&self, run: &RunKey, arrival: &Arrival, announce: Announce) -> Result<Taken, LoadError> {
        let mut run = run.clone();
        loop {
            match self.take(&run, None, arrival, announce).await? {
                Taken::Refused(Refusal::MovedOn) if announce != Announce::Pinned && !planted(Bug::F4StopAtFirstRun) => {
                    close_up_if_due(&self.ports, &run).await?;
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
            let (latest, verdict) = self.judged(workflow, request).await?;
            let run_id = latest.as_ref().map(|state| state.run_id());
            let strict = only.filter(|_| !planted(Bug::F3AnyRun));
            let is = |ordinal| latest.as_ref().is_some_and(|latest| latest.run.ordinal == ordinal);
            match (verdict, run_id) {
                (StartVerdict::Create(ordinal), _) if strict.is_none_or(|only| only == ordinal) => {
                    let run = workflow.run(ordinal);
                    let ticket = match only {
                        None => Some(self.announce(&run, Wish::Start(request.clone())).await?),
                        Some(_) => None,
                    };
                    if let Some(begun) = self.create(&run, request, latest.as_deref(), ticket).await? {
                        return Ok(Some(begun));
                    }
                }
                (StartVerdict::Existing(ordinal), Some(run_id)) if replaced == Some(ordinal) => {
                    return Ok(Some(Begun::Created(workflow.run(ordinal), run_id)));
                }
                (StartVerdict::Existing(ordinal), _) if strict.is_none_or(|only| only == ordinal) => {
                    return Ok(Some(Begun::Existing(workflow.run(ordinal))));
                }
                // Recorded with the open run, so that the same request is answered with it for ever.
                (StartVerdict::Join(join), Some(_)) if strict.is_none_or(is) => {
                    if let Some(latest) = &latest {
                        match self.take(&latest.run, None, &join, Announce::No).await? {
                            Taken::Recorded { run, .. } => return Ok(Some(Begun::Joined(run))),
                            // It closed meanwhile, or knows the request by now: look again.
                            Taken::Duplicate(_) | Taken::Carried | Taken::Refused(_) | Taken::NoSuchRun => {}
                        }
                    }
                }
                // A late copy of an intent acts on its own run or not at all.
                _ if strict.is_some() => return Ok(None),
                (StartVerdict::AlreadyOpen, Some(run_id)) => return Ok(Some(Begun::AlreadyOpen(run_id))),
                (StartVerdict::NotReusable, Some(run_id)) => return Ok(Some(Begun::NotReusable(run_id))),
                (StartVerdict::Replace(terminate), Some(_)) => {
                    if let Some(latest) = &latest {
                        let taken = self.take(&latest.run, None, &terminate, Announce::Pinned).await?;
                        if let Taken::Recorded { run, .. } = taken {
                            replaced = Some(run.ordinal + 1);
                        }
                        self.ports.closings.closed(&latest.run);
                        close_up_if_due(&self.ports, &latest.run).await?;
                    }
                }
                (StartVerdict::RollForward, Some(_)) => {
                    if let Some(latest) = &latest {
                        close_up(&self.ports, latest).await?;
                    }
                }
                (StartVerdict::Create(_) | StartVerdict::Existing(_) | StartVerdict::Join(_), _) | (_, None) => {
                    return Ok(None);
                }
            }
        }
    }

    /// The newest run, if there is one, and what it makes of a start.
    async fn judged(
        &self,
        workflow: &WorkflowKey,
        request: &StartRequest,
    ) -> Result<(Option<Arc<RunState>>, StartVerdict), LoadError> {
        let row = match self.ports.store.newest(workflow).await? {
            Newest::Nothing => return Ok((None, request.against(None))),
            // The id is free again, but for its ordinals (rule C5).
            Newest::Retired(ordinal) => return Ok((None, StartVerdict::Create(ordinal + 1))),
            Newest::Run(row) => row,
        };
        // Never taken for an id without runs: ordinals would begin again.
        let state = self.ports.states.fresh(&row.run).await?.ok_or_else(|| {
            StoreError::unknown(format!("the history of {} is being deleted, or is lost; ask again", row.run))
        })?;
        let verdict = request.against(Some(&state));
        Ok((Some(state), verdict))
    }

    async fn create(
        &self,
        run: &RunKey,
        request: &StartRequest,
        latest: Option<&RunState>,
        ticket: Option<Ticket>,
    ) -> Result<Option<Begun>, LoadError> {
        let run_id = RunId::of_run(self.ports.host.fresh_id(), run.ordinal);
        let sweep = self.ports.choices.sweep_interval;
        let batch = request.first_batch(run, run_id, self.ports.commit_id(), self.ports.now(), latest, sweep);
        match commit_first(&self.ports, run, &batch).await? {
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
}
