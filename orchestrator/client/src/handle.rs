//! A workflow from afar, with its types.

use std::marker::PhantomData;
use std::ops::ControlFlow;

use dormouse_core::api::{DescribeBody, HistoryEvent, ResultBody};
use dormouse_core::{Payload, Query, RunId, Signal, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ClientError;
use crate::raw_handle::RawHandle;

/// A workflow whose result is an `O`.
///
/// A handle that a start gave out waits for the result of the run that it began; signals, queries and the rest go to
/// the workflow's latest run, so that a workflow which continues as new stays within reach. A handle to a named run
/// means that run throughout.
pub struct WorkflowHandle<O> {
    raw: RawHandle,
    result_of: Option<RunId>,
    existing: bool,
    output: PhantomData<fn() -> O>,
}

/// *Wait*: [`result`](WorkflowHandle::result), [`result_unless_parked`](WorkflowHandle::result_unless_parked). *Influence*: [`signal`](WorkflowHandle::signal),
/// [`cancel`](WorkflowHandle::cancel), [`terminate`](WorkflowHandle::terminate). *Look*:
/// [`query`](WorkflowHandle::query), [`query_with`](WorkflowHandle::query_with),
/// [`describe`](WorkflowHandle::describe), [`history`](WorkflowHandle::history).
impl<O> WorkflowHandle<O> {
    pub(crate) fn new(raw: RawHandle, result_of: Option<RunId>) -> Self {
        Self { raw, result_of, existing: false, output: PhantomData }
    }

    /// The same, of a run that a start found.
    pub(crate) fn found(self, existing: bool) -> Self {
        Self { existing, ..self }
    }

    /// Whether the start that gave this handle found the run open and began nothing
    /// ([`UseExisting`](dormouse_core::IdConflictPolicy::UseExisting)).
    #[must_use]
    pub fn is_existing(&self) -> bool {
        self.existing
    }

    /// The workflow's id.
    #[must_use]
    pub fn workflow_id(&self) -> &str {
        self.raw.workflow_id()
    }

    /// The run that was started or named.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.result_of
    }

    /// The handle beneath, which knows names and JSON only.
    #[must_use]
    pub fn raw(&self) -> &RawHandle {
        &self.raw
    }

    /// Waits until the workflow has ended, however long that takes, and gives its result. Dropping the future and
    /// asking again, also from another process, loses nothing. That its run is parked is logged, and waited out:
    /// [`result_unless_parked`](Self::result_unless_parked) gives up.
    ///
    /// # Errors
    /// [`ClientError::WorkflowFailed`] when it ended without a result; [`ClientError::Transport`] when the server was
    /// not there to begin with, or away for five minutes: ask again.
    pub async fn result(&self) -> Result<O, ClientError>
    where
        O: DeserializeOwned,
    {
        self.read(self.raw.of_run(self.result_of).outcome(None).await?)
    }

    /// As [`result`](Self::result), but gives up on a run whose code cannot go on. [`describe`](Self::describe) tells the
    /// cause as data.
    ///
    /// # Errors
    /// [`ClientError::Parked`] with the reason, as soon as the run is parked; else as [`result`](Self::result).
    pub async fn result_unless_parked(&self) -> Result<O, ClientError>
    where
        O: DeserializeOwned,
    {
        self.read(self.raw.of_run(self.result_of).outcome_with(None, |_| ControlFlow::Break(())).await?)
    }

    fn read(&self, outcome: ResultBody) -> Result<O, ClientError>
    where
        O: DeserializeOwned,
    {
        match outcome.status {
            Status::Completed => outcome.result.unwrap_or_default().read().map_err(|misfit| {
                ClientError::Decode(format!(
                    "the result of workflow {:?} has another type: {misfit}",
                    self.workflow_id()
                ))
            }),
            status => Err(ClientError::WorkflowFailed {
                workflow_id: self.workflow_id().to_owned(),
                run_id: outcome.run_id,
                status,
                failure: outcome.failure.map(Box::new),
            }),
        }
    }

    /// Sends a signal; when this returns, it is in the history. What the server warns of is in the log.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the workflow has ended.
    pub async fn signal<T: Serialize>(&self, signal: Signal<T>, argument: &T) -> Result<(), ClientError> {
        let sent = self.raw.signal(signal.name(), &encode(argument)?, None).await?;
        if let Some(warning) = sent.warning {
            tracing::warn!(workflow = self.workflow_id(), signal = signal.name(), warning, "a signal may go unheard");
        }
        Ok(())
    }

    /// Asks a query.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the workflow answers no such query.
    pub async fn query<T: DeserializeOwned>(&self, query: Query<T>) -> Result<T, ClientError> {
        self.query_with(query, &()).await
    }

    /// Asks a query that takes an argument.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the workflow answers no such query.
    pub async fn query_with<T: DeserializeOwned, A: Serialize>(
        &self,
        query: Query<T, A>,
        argument: &A,
    ) -> Result<T, ClientError> {
        let answer = self.raw.query(query.name(), &encode(argument)?).await?;
        answer.decode().map_err(|failure| {
            ClientError::Decode(format!("the answer to query {:?} has another type: {}", query.name(), failure.message))
        })
    }

    /// Asks the workflow to stop; it may clean up first.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when it has ended.
    pub async fn cancel(&self, reason: &str) -> Result<(), ClientError> {
        self.raw.cancel(reason, None).await
    }

    /// Ends the workflow at once, without asking its code.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when it has ended.
    pub async fn terminate(&self, reason: &str) -> Result<(), ClientError> {
        self.raw.terminate(reason, None).await
    }

    /// Everything about the run but its history.
    ///
    /// # Errors
    /// What the server says.
    pub async fn describe(&self) -> Result<DescribeBody, ClientError> {
        self.raw.describe().await
    }

    /// The whole history.
    ///
    /// # Errors
    /// What the server says.
    pub async fn history(&self) -> Result<Vec<HistoryEvent>, ClientError> {
        self.raw.history().await
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Payload, ClientError> {
    Payload::encode(value).map_err(|failure| ClientError::Invalid(failure.message))
}

impl<O> Clone for WorkflowHandle<O> {
    fn clone(&self) -> Self {
        Self::new(self.raw.clone(), self.result_of).found(self.existing)
    }
}

impl<O> std::fmt::Debug for WorkflowHandle<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkflowHandle")
            .field("workflow_id", &self.workflow_id())
            .field("run_id", &self.result_of)
            .finish_non_exhaustive()
    }
}
