//! The front door: what callers may ask, wherever the call comes from. It accepts and reads; it never decides (rule
//! F1): signals and starts go through the [intake](crate::intake), computed queries to the build that owns the run.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::Call;
use dormouse_core::operations;

use dormouse_core::RunState;
use dormouse_core::api::{
    DescribeBody, DiscardedLetterBody, HistoryBody, LetterBody, LetterShownBody, ListBody, ParkedBody, RecordsBody,
    RedrivenLetterBody, ResultBody, SignaledBody, StartBody, StartedBody, StoredRecord,
};
use dormouse_core::history::{Batch, readable};
use dormouse_core::run::Place;
use dormouse_core::{
    Arrival, MAX_ID_BYTES, Misfit, Payload, Refusal, RunId, RunKey, StartRequest, WorkflowKey, check_id, derive,
};

use crate::commit::LoadError;
use crate::describe::{describe, ending, holds, summary};
use crate::error::ApiError;
use crate::intake::{Announce, Begun, Intake, Taken};
use crate::ports::Ports;
use crate::repeats;
use crate::seams::{Letters, QueryRunner, Redrive};
use crate::store::{ListCursor, Newest, RunFilter, RunRow};

/// A page of stored batches ends with the one that reaches this: gateways let no answer of 6 MB through.
const RECORDS_BYTES: usize = 1 << 20;

/// When somebody who waits for a run looks at its row by himself, should no notice come; then after twice the time
/// again, up to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// How long a query waits for the run's code to see what was accepted before it.
const DECISION_PATIENCE: Duration = Duration::from_secs(2);
/// When it looks again first; then after twice the time, up to the longest.
const FIRST_DECISION_LOOK: Duration = Duration::from_millis(5);
const LONGEST_DECISION_LOOK: Duration = Duration::from_millis(200);

/// Which run a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The workflow.
    pub workflow_id: String,
    /// The run; the latest when missing.
    pub run_id: Option<RunId>,
}

/// Accepts requests, commits them, and reads what is stored.
pub struct FrontDoor {
    ports: Ports,
    intake: Arc<Intake>,
    queries: Arc<dyn QueryRunner>,
    redrive: Option<Arc<dyn Redrive>>,
}

impl FrontDoor {
    /// A front door over these ports.
    #[must_use]
    pub fn new(ports: Ports, intake: Arc<Intake>, queries: Arc<dyn QueryRunner>) -> Self {
        Self { ports, intake, queries, redrive: None }
    }

    /// The same, with a quarantine.
    #[must_use]
    pub fn with_quarantine(self, redrive: Arc<dyn Redrive>) -> Self {
        Self { redrive: Some(redrive), ..self }
    }

    /// Begins a run. The bool is true when this request created it just now; false when it was answered before, or joins an
    /// open run, which the answer then says (`existing`).
    ///
    /// # Errors
    /// [`ApiError`]; after `Unavailable`, the run may have begun: repeat with the same request id.
    pub async fn start(&self, request_id: Option<&str>, body: StartBody) -> Result<(StartedBody, bool), ApiError> {
        let given_id = request_id;
        let request_id = self.request_id(given_id)?;
        check("the workflow type", &body.workflow_type)?;
        let declared = &self.ports.choices.declared;
        if !declared.has_workflow(&body.workflow_type) {
            let known: Vec<_> = declared.workflow_types().collect();
            return Err(ApiError::Invalid(format!(
                "there is no workflow type {:?}; this application has: {}",
                body.workflow_type,
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        }
        // A repeat must find the same workflow, so a missing id is derived from the request.
        let workflow_id = body.workflow_id.clone().unwrap_or_else(|| derived_id(&request_id));
        let workflow = self.workflow(&workflow_id)?;
        let input = body.input;
        self.check_size("input", &input)?;
        let what = || format!("the input of workflow type {:?}", body.workflow_type);
        self.check_fit(&workflow, given_id, what, declared.input(&body.workflow_type, &input)).await?;
        let request = StartRequest {
            call: Call::new(body.workflow_type, input),
            request_id,
            reuse: body.id_reuse_policy,
            conflict: body.id_conflict_policy,
        };
        let answer = |run_id, existing| StartedBody { workflow_id: workflow_id.clone(), run_id, existing };
        match self.intake.start(&workflow, &request, None).await? {
            Some(Begun::Created(_, run_id)) => Ok((answer(run_id, false), true)),
            Some(Begun::Joined(run)) => Ok((answer(self.row(&run).await?.run_id, true), false)),
            Some(Begun::Existing(run)) => {
                let row = self.row(&run).await?;
                let state = self.state(&row).await?;
                let began = repeats::began(&*self.ports.store, &state, &request.request_id, &request.call).await?;
                Ok((answer(row.run_id, !began), false))
            }
            Some(Begun::AlreadyOpen(run_id)) => Err(ApiError::AlreadyStarted {
                run_id,
                detail: format!(
                    "workflow {workflow_id:?} has an open run, {run_id}; use another id, or an id_conflict_policy of \
                     UseExisting or TerminateExisting"
                ),
            }),
            Some(Begun::NotReusable(run_id)) => Err(ApiError::AlreadyStarted {
                run_id,
                detail: format!(
                    "workflow {workflow_id:?} has run before ({run_id}), and the request's id_reuse_policy does not \
                     allow it to run again"
                ),
            }),
            None => Err(ApiError::Unavailable("the run changed while it was looked at".into())),
        }
    }

    /// Sends a signal; when this returns, it is in the history. A name that the application does not declare, while it
    /// declares others, is warned of.
    ///
    /// # Errors
    /// [`ApiError`]; after `Unavailable`, it may be in the history: repeat with the same request id.
    pub async fn signal(
        &self,
        target: &Target,
        request_id: Option<&str>,
        name: &str,
        payload: Payload,
    ) -> Result<SignaledBody, ApiError> {
        check("the signal's name", name)?;
        self.check_size("signal", &payload)?;
        let declared = &self.ports.choices.declared;
        let (fits, warning) = (declared.signal(name, &payload), declared.unknown_signal(name));
        let workflow = self.workflow(&target.workflow_id)?;
        self.check_fit(&workflow, request_id, || format!("the argument of signal {name:?}"), fits).await?;
        let request_id = self.request_id(request_id)?;
        self.take(target, Arrival::Signal(operations::Signaled { request_id, name: name.into(), payload })).await?;
        Ok(SignaledBody { warning })
    }

    /// Asks a workflow to stop. Its code may clean up first, or refuse.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn cancel(&self, target: &Target, request_id: Option<&str>, reason: &str) -> Result<(), ApiError> {
        let request_id = self.request_id(request_id)?;
        self.take(target, Arrival::Cancel(operations::CancelRequested { request_id, reason: reason.into() })).await
    }

    /// Ends a run at once. Runs no code.
    ///
    /// # Errors
    /// As [`signal`](Self::signal).
    pub async fn terminate(&self, target: &Target, request_id: Option<&str>, reason: &str) -> Result<(), ApiError> {
        let request_id = self.request_id(request_id)?;
        self.take(target, Arrival::Terminate(operations::Terminated { request_id, reason: reason.into(), next: None }))
            .await
    }

    async fn take(&self, target: &Target, arrival: Arrival) -> Result<(), ApiError> {
        let row = self.resolve(target).await?;
        let announce = if target.run_id.is_some() { Announce::Pinned } else { Announce::Following };
        match self.intake.follow(&row.run, &arrival, announce).await? {
            Taken::Recorded { .. } | Taken::Carried => Ok(()),
            Taken::Duplicate(ordinal) => {
                let state = self.state(&self.row(&row.run.workflow.run(ordinal)).await?).await?;
                repeats::arrived(&*self.ports.store, &state, &arrival).await
            }
            Taken::Refused(Refusal::Closed(status)) => Err(ApiError::Closed(format!(
                "run {} of workflow {:?} is closed ({status})",
                row.run_id, target.workflow_id
            ))),
            Taken::Refused(Refusal::MovedOn) => Err(ApiError::Closed(format!(
                "run {} of workflow {:?} continued as new; leave run_id out to reach the run that continues it",
                row.run_id, target.workflow_id
            ))),
            Taken::Refused(Refusal::Full { limit }) => Err(ApiError::TooLarge(format!(
                "run {} of workflow {:?} takes nothing more in: its limit {limit} is reached",
                row.run_id, target.workflow_id
            ))),
            Taken::Refused(refusal) => Err(ApiError::Invalid(format!("the run cannot take this in: {refusal:?}"))),
            Taken::NoSuchRun => Err(no_such(target)),
        }
    }

    /// Everything about a run but its history.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn describe(&self, target: &Target) -> Result<DescribeBody, ApiError> {
        let row = self.resolve(target).await?;
        let state = self.state(&row).await?;
        Ok(describe(&*self.ports.store, row, &state).await?)
    }

    /// Events after the one with this id (0: from the beginning), at most `limit`.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn history(&self, target: &Target, after: u64, limit: usize) -> Result<HistoryBody, ApiError> {
        let row = self.resolve(target).await?;
        let state = self.state(&row).await?;
        if after >= state.events {
            return Ok(HistoryBody { events: Vec::new(), next_page_token: None });
        }
        // However long the history is, what lies before this place is not read.
        let Place { events: before, mut sequence } = state.place_of(after);
        let mut next_id = before + 1;
        let mut events = Vec::new();
        while sequence < state.next_sequence && events.len() <= limit {
            let stretch = self.ports.store.read(&row.run, sequence).await?;
            if stretch.records.is_empty() {
                break;
            }
            for record in &stretch.records {
                let batch = Batch::decode(sequence, record)
                    .map_err(|damage| ApiError::Parked(format!("the history cannot be read: {damage}")))?;
                let readable = readable(&batch, next_id);
                next_id += readable.len() as u64;
                events.extend(readable.into_iter().filter(|event| event.event_id > after));
                sequence += 1;
            }
        }
        let more = events.len() > limit;
        events.truncate(limit);
        let next_page_token = events.last().filter(|_| more).map(|event| event.event_id.to_string());
        Ok(HistoryBody { events, next_page_token })
    }

    /// A history as it is stored, from batch `from` on: as many batches as fit a page.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn records(&self, target: &Target, from: u64) -> Result<RecordsBody, ApiError> {
        let row = self.resolve(target).await?;
        let stretch = self.ports.store.read(&row.run, from).await?;
        if stretch.gap {
            let sequence = from + stretch.records.len() as u64;
            return Err(ApiError::Parked(format!("the history cannot be read: batch {sequence} is lost")));
        }
        let read = stretch.records.len();
        let mut bytes = 0;
        let fitting = |record: &Bytes| {
            let fits = bytes < RECORDS_BYTES;
            bytes += record.len();
            fits
        };
        let records: Vec<_> = stretch.records.into_iter().take_while(fitting).map(StoredRecord::from).collect();
        let more = records.len() < read || (stretch.more && read > 0);
        let next = more.then(|| from + records.len() as u64);
        Ok(RecordsBody {
            namespace: row.run.workflow.namespace.to_string(),
            workflow_id: target.workflow_id.clone(),
            run_id: row.run_id,
            ordinal: row.run.ordinal,
            workflow_type: row.workflow_type,
            status: row.status,
            records,
            next_page_token: next.map(|next| next.to_string()),
        })
    }

    /// Runs that pass the filter, latest start first, and where the listing goes on. `next_page_token` is left empty:
    /// whoever speaks to the caller makes it from the cursor.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list(
        &self,
        filter: &RunFilter,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<(ListBody, Option<ListCursor>), ApiError> {
        let mut rows = self.ports.store.list(&self.ports.choices.namespace, filter, after, limit + 1).await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let cursor = rows.last().filter(|_| more).map(|row| ListCursor {
            started_at: row.started_at,
            workflow_id: row.run.workflow.workflow_id.to_string(),
            ordinal: row.run.ordinal,
        });
        Ok((ListBody { workflows: rows.into_iter().map(summary).collect(), next_page_token: None }, cursor))
    }

    /// How a run stands; waits up to `wait` for it to close.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn result(&self, target: &Target, wait: Duration) -> Result<ResultBody, ApiError> {
        self.stands(target, wait, false).await
    }

    /// As [`result`](Self::result), but no longer than until the run is parked: nobody knows when one closes that is.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn result_or_parked(&self, target: &Target, wait: Duration) -> Result<ResultBody, ApiError> {
        self.stands(target, wait, true).await
    }

    async fn stands(&self, target: &Target, wait: Duration, or_parked: bool) -> Result<ResultBody, ApiError> {
        let deadline = self.ports.host.instant() + wait;
        let mut row = self.resolve(target).await?;
        let mut look = FIRST_LOOK;
        // Nobody waits for what has ended already: no notice would ever come for it.
        while !row.status.is_closed() {
            let notice = self.ports.closings.wait(&row.run);
            // It may have ended before the notice was asked for.
            row = self.row(&row.run).await?;
            if row.status.is_closed() {
                return self.outcome(&row).await;
            }
            let left = deadline.since(self.ports.host.instant());
            let ends = left.is_zero();
            if ends || or_parked {
                let parked = self.parked(&row).await?;
                if ends || parked.is_some() {
                    let RunRow { run_id, status, .. } = row;
                    return Ok(ResultBody { run_id, status, result: None, failure: None, parked });
                }
            }
            // Noticed or not, look again.
            let _ = self.ports.host.timeout(left.min(look), notice).await;
            look = (look * 2).min(LONGEST_LOOK);
        }
        self.outcome(&row).await
    }

    async fn outcome(&self, row: &RunRow) -> Result<ResultBody, ApiError> {
        let (result, failure) = ending(&*self.state(row).await?);
        Ok(ResultBody { run_id: row.run_id, status: row.status, result, failure, parked: None })
    }

    /// Why the run of this row stands still, by the row alone: any process can tell.
    async fn parked(&self, row: &RunRow) -> Result<Option<ParkedBody>, ApiError> {
        let Some(parked) = &row.parked else { return Ok(None) };
        let holds = match self.ports.states.fresh(&row.run).await {
            Ok(state) => state.is_some_and(|state| holds(parked, &state)),
            // That it cannot be read is why.
            Err(LoadError::Turn(_)) => true,
            Err(LoadError::Store(error)) => return Err(error.into()),
        };
        Ok(summary(row.clone()).parked.filter(|_| holds))
    }

    /// Asks a query: a published value is answered from storage, anything else by the workflow's handler.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn query(&self, target: &Target, name: &str, input: Payload) -> Result<Payload, ApiError> {
        check("the query's name", name)?;
        self.check_size("query argument", &input)?;
        let refused = |misfit| ApiError::DoesNotFit { what: format!("the argument of query {name:?}"), misfit };
        self.ports.choices.declared.query(name, &input).map_err(&refused)?;
        let row = self.resolve(target).await?;
        let state = self.decided(&row).await?;
        match state.pending.published.values.get(name) {
            Some(_) if input != Payload::NULL => Err(refused(Misfit::no_argument())),
            Some(value) => Ok(value.clone()),
            None => match self.queries.query(row.run.clone(), name.to_owned(), input).await {
                // Its code may not have come to the place where it would.
                Err(ApiError::NoSuchQuery(detail)) => Err(match self.parked(&row).await? {
                    Some(parked) => ApiError::Parked(format!("{detail}. Its run is parked: {}", parked.line())),
                    None => ApiError::NoSuchQuery(detail),
                }),
                answer => answer,
            },
        }
    }

    /// The run's state once its code has seen what was accepted before the question: a caller who has just started
    /// or signaled it expects that. Not for long: a run that stands still answers from where it stands.
    async fn decided(&self, row: &RunRow) -> Result<Arc<RunState>, ApiError> {
        let deadline = self.ports.host.instant() + DECISION_PATIENCE;
        let mut look = FIRST_DECISION_LOOK;
        loop {
            let state = self.state(row).await?;
            let parked = self.ports.parkings.get(&row.run).is_some() || row.parked.is_some();
            if !state.is_undecided() || parked || self.ports.host.instant() > deadline {
                return Ok(state);
            }
            self.ports.host.sleep(look).await;
            look = (look * 2).min(LONGEST_DECISION_LOOK);
        }
    }

    // --- shared steps ---

    fn workflow(&self, workflow_id: &str) -> Result<WorkflowKey, ApiError> {
        WorkflowKey::new(&self.ports.choices.namespace, workflow_id).map_err(|e| ApiError::Invalid(e.to_string()))
    }

    fn request_id(&self, given: Option<&str>) -> Result<String, ApiError> {
        match given {
            Some(id) => check("the request id (Idempotency-Key)", id).map(|()| id.to_owned()),
            None => Ok(RunId::from_bytes(self.ports.host.fresh_id()).to_string()),
        }
    }

    fn check_size(&self, what: &str, payload: &Payload) -> Result<(), ApiError> {
        let limit = self.ports.choices.max_payload_bytes;
        if payload.len() <= limit {
            return Ok(());
        }
        Err(ApiError::TooLarge(format!(
            "the {what} is {} bytes of JSON; the limit is {limit} (setting max_payload_bytes)",
            payload.len()
        )))
    }

    /// Refuses what does not fit, unless the same request was taken in already, by a build with other types: a caller
    /// who repeats it gets the first answer.
    async fn check_fit(
        &self,
        workflow: &WorkflowKey,
        request_id: Option<&str>,
        what: impl FnOnce() -> String,
        fits: Result<(), Misfit>,
    ) -> Result<(), ApiError> {
        let Err(misfit) = fits else { return Ok(()) };
        if let (Some(id), Newest::Run(row)) = (request_id, self.ports.store.newest(workflow).await?)
            && self.state(&row).await?.answered_in(id).is_some()
        {
            return Ok(());
        }
        Err(ApiError::DoesNotFit { what: what(), misfit })
    }

    async fn resolve(&self, target: &Target) -> Result<RunRow, ApiError> {
        let workflow = self.workflow(&target.workflow_id)?;
        let latest = self.ports.store.newest(&workflow).await?.row().ok_or_else(|| no_such(target))?;
        let Some(run_id) = target.run_id.filter(|run_id| *run_id != latest.run_id) else { return Ok(latest) };
        let ordinal = run_id.ordinal(latest.run.ordinal).ok_or_else(|| no_such(target))?;
        let row = self.ports.store.row(&workflow.run(ordinal)).await?;
        row.filter(|row| row.run_id == run_id).ok_or_else(|| no_such(target))
    }

    async fn row(&self, run: &RunKey) -> Result<RunRow, ApiError> {
        let row = self.ports.store.row(run).await?;
        row.ok_or_else(|| ApiError::NotFound(format!("there is no run {run}")))
    }

    async fn state(&self, row: &RunRow) -> Result<Arc<RunState>, ApiError> {
        let state = self.ports.states.fresh(&row.run).await?;
        state.ok_or_else(|| ApiError::NotFound(format!("there is no run {}", row.run)))
    }

    /// Messages that nobody could handle, the oldest first: up to `limit`, or fewer, behind this place.
    ///
    /// # Errors
    /// [`ApiError::NotHere`] where no message is ever given up.
    pub async fn quarantine(&self, after: Option<String>, limit: usize) -> Result<Letters<LetterBody>, ApiError> {
        Ok(self.letters()?.list(after, limit).await?)
    }

    /// Sends them again, as many as one request may take, from behind this place on.
    ///
    /// # Errors
    /// As [`quarantine`](Self::quarantine).
    pub async fn redrive(&self, after: Option<String>) -> Result<Letters<RedrivenLetterBody>, ApiError> {
        Ok(self.letters()?.redrive(after).await?)
    }

    /// Sends these again.
    ///
    /// # Errors
    /// As [`quarantine`](Self::quarantine).
    pub async fn redrive_these(&self, ids: Vec<String>) -> Result<Vec<RedrivenLetterBody>, ApiError> {
        Ok(self.letters()?.redrive_these(ids).await?)
    }

    /// One of them, with what it says.
    ///
    /// # Errors
    /// As [`quarantine`](Self::quarantine); [`ApiError::NotFound`] when there is no such letter.
    pub async fn quarantined(&self, id: String) -> Result<LetterShownBody, ApiError> {
        let shown = self.letters()?.show(id.clone()).await?;
        shown.ok_or_else(|| ApiError::NotFound(format!("there is no letter {id:?} in quarantine")))
    }

    /// Throws these away.
    ///
    /// # Errors
    /// As [`quarantine`](Self::quarantine).
    pub async fn discard(&self, ids: Vec<String>) -> Result<Vec<DiscardedLetterBody>, ApiError> {
        Ok(self.letters()?.discard(ids).await?)
    }

    fn letters(&self) -> Result<&dyn Redrive, ApiError> {
        self.redrive.as_deref().ok_or_else(|| {
            ApiError::NotHere(
                "there is no quarantine here: this server's queues are its own memory, and give no message up. Ask an \
                 API that is deployed to AWS"
                    .into(),
            )
        })
    }
}

/// The id of a workflow that the caller did not name: from the request id, which may be as long as an id itself.
fn derived_id(request_id: &str) -> String {
    let id = format!("request-{request_id}");
    if id.len() <= MAX_ID_BYTES {
        return id;
    }
    let hash = RunId::from_bytes(derive("dormouse 2026 workflow id", &[request_id.as_bytes()]));
    format!("request-{hash}")
}

fn check(what: &'static str, text: &str) -> Result<(), ApiError> {
    check_id(what, text).map_err(|problem| ApiError::Invalid(problem.to_string()))
}

fn no_such(target: &Target) -> ApiError {
    ApiError::NotFound(match target.run_id {
        Some(run_id) => format!("workflow {:?} has no run {run_id}", target.workflow_id),
        None => format!("there is no workflow {:?}", target.workflow_id),
    })
}
