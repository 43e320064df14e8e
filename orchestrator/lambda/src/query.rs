//! Queries that only workflow code can answer: the API asks the orchestrator, synchronously and read-only.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::DisplayErrorContext;
use aws_sdk_lambda::primitives::Blob;
use dormouse_core::{Failure, Payload, RunKey, WorkflowKey};
use dormouse_engine::ApiError;
use dormouse_engine::seams::QueryRunner;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// The question, as the orchestrator is invoked with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    namespace: String,
    workflow_id: String,
    ordinal: u64,
    pub(crate) name: String,
    pub(crate) input: Payload,
}

impl Question {
    fn new(run: &RunKey, name: String, input: Payload) -> Self {
        let WorkflowKey { namespace, workflow_id } = &run.workflow;
        Self {
            namespace: namespace.to_string(),
            workflow_id: workflow_id.to_string(),
            ordinal: run.ordinal,
            name,
            input,
        }
    }

    pub(crate) fn run(&self) -> Result<RunKey, ApiError> {
        let workflow = WorkflowKey::new(&self.namespace, &self.workflow_id);
        Ok(workflow.map_err(|problem| ApiError::Invalid(problem.to_string()))?.run(self.ordinal))
    }
}

/// What the orchestrator says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Answer(Payload),
    NotFound(String),
    NoSuchQuery(String),
    Parked(String),
    QueryFailed(Box<Failure>),
    Unavailable(String),
}

impl From<Result<Payload, ApiError>> for Reply {
    fn from(answer: Result<Payload, ApiError>) -> Self {
        match answer {
            Ok(value) => Self::Answer(value),
            Err(ApiError::NotFound(detail)) => Self::NotFound(detail),
            Err(ApiError::NoSuchQuery(detail)) => Self::NoSuchQuery(detail),
            Err(ApiError::Parked(detail)) => Self::Parked(detail),
            Err(ApiError::QueryFailed(failure)) => Self::QueryFailed(failure),
            Err(error) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<Reply> for Result<Payload, ApiError> {
    fn from(reply: Reply) -> Self {
        Err(match reply {
            Reply::Answer(value) => return Ok(value),
            Reply::NotFound(detail) => ApiError::NotFound(detail),
            Reply::NoSuchQuery(detail) => ApiError::NoSuchQuery(detail),
            Reply::Parked(detail) => ApiError::Parked(detail),
            Reply::QueryFailed(failure) => ApiError::QueryFailed(failure),
            Reply::Unavailable(detail) => ApiError::Unavailable(detail),
        })
    }
}

/// Asks the orchestrator function.
pub(crate) struct Orchestrator {
    pub(crate) lambda: Client,
    pub(crate) function: String,
}

impl Orchestrator {
    async fn ask(&self, question: Question) -> Result<Reply, String> {
        #[derive(Serialize)]
        struct Asked {
            dormouse: &'static str,
            #[serde(flatten)]
            question: Question,
        }
        let payload = serde_json::to_vec(&Asked { dormouse: "query", question }).map_err(|error| error.to_string())?;
        let invoked = self.lambda.invoke().function_name(&self.function).payload(Blob::new(payload)).send().await;
        let output = invoked.map_err(|error| DisplayErrorContext(error).to_string())?;
        let said = output.payload.map(Blob::into_inner).unwrap_or_default();
        if let Some(error) = output.function_error {
            return Err(format!("{error}: {}", String::from_utf8_lossy(&said)));
        }
        serde_json::from_slice(&said).map_err(|error| error.to_string())
    }
}

impl QueryRunner for Orchestrator {
    fn query(&self, run: RunKey, name: String, input: Payload) -> BoxFuture<'_, Result<Payload, ApiError>> {
        async move {
            match self.ask(Question::new(&run, name, input)).await {
                Ok(reply) => reply.into(),
                Err(error) => Err(ApiError::Unavailable(format!("the orchestrator did not answer: {error}"))),
            }
        }
        .boxed()
    }
}
