//! The client with types: workflows are named by their functions.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use dormouse_core::api::StartBody;
use dormouse_core::{App, IdConflictPolicy, IdReusePolicy, Payload, RunId, WorkflowFunction};
use serde::Serialize;

use crate::auth::Auth;
use crate::error::ClientError;
use crate::handle::WorkflowHandle;
use crate::raw::RawClient;

/// Starts workflows and finds running ones, with the types of their functions. Cloning is cheap.
///
/// ```no_run
/// # use dormouse_client::{Client, ClientError};
/// # use dormouse_core::{App, Failure, Signal, Workflow};
/// # async fn order_workflow(_: Workflow, order: String) -> Result<u64, Failure> { Ok(order.len() as u64) }
/// # const APPROVAL: Signal<bool> = Signal::new("approval");
/// # fn app() -> App { App::new().workflow("orderWorkflow", order_workflow) }
/// # async fn example(order: String) -> Result<(), ClientError> {
/// let client = Client::connect("http://127.0.0.1:7780", &app())?;
/// let handle = client.start(order_workflow, "order-42", &order).await?;
/// handle.signal(APPROVAL, &true).await?;
/// let shipped: u64 = handle.result().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    raw: RawClient,
    app: Arc<App>,
}

impl Client {
    /// A client of the server at this address; the application knows the workflows' names. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] when the text is no server's address.
    pub fn connect(address: &str, app: &App) -> Result<Self, ClientError> {
        Ok(Self { raw: RawClient::new(address)?, app: Arc::new(app.clone()) })
    }

    /// How requests show who sends them; not at all unless told otherwise.
    ///
    /// ```no_run
    /// # use dormouse_client::{Auth, Client, ClientError};
    /// # fn example(app: dormouse_core::App, token: &str) -> Result<(), ClientError> {
    /// let client = Client::connect("https://dormouse.example.com", &app)?.auth(Auth::bearer(token)?);
    /// # Ok(()) }
    /// ```
    ///
    /// With the feature `aws`, `Auth::aws()` signs requests with the credentials of AWS's standard chain.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.raw = self.raw.auth(auth);
        self
    }

    /// The client beneath, which knows names and JSON only.
    #[must_use]
    pub fn raw(&self) -> &RawClient {
        &self.raw
    }

    /// Begins a run of this workflow under this id. Awaiting the call sends it; options come before.
    pub fn start<A, F: WorkflowFunction<A>>(
        &self,
        _workflow: F,
        workflow_id: impl Into<String>,
        input: &F::Input,
    ) -> StartCall<F::Output> {
        let body = self.name_of::<F>().and_then(|workflow_type| {
            Ok(StartBody {
                workflow_type: workflow_type.to_owned(),
                workflow_id: Some(workflow_id.into()),
                input: encode(input)?,
                id_reuse_policy: IdReusePolicy::default(),
                id_conflict_policy: IdConflictPolicy::default(),
            })
        });
        StartCall { raw: self.raw.clone(), body, request_id: None, output: PhantomData }
    }

    /// A workflow that runs already, or has run: its latest run, or the one that is named.
    ///
    /// The function gives the types only; whether the workflow under this id is one of its kind shows when a result
    /// is decoded.
    pub fn workflow<A, F: WorkflowFunction<A>>(
        &self,
        _workflow: F,
        workflow_id: impl Into<String>,
        run_id: Option<RunId>,
    ) -> WorkflowHandle<F::Output> {
        WorkflowHandle::new(self.raw.workflow(workflow_id, run_id), run_id)
    }

    fn name_of<F: 'static>(&self) -> Result<&'static str, ClientError> {
        self.app.name_of::<F>().ok_or_else(|| {
            ClientError::Invalid(format!(
                "{} is not registered in the application that this client was given; add it with App::workflow",
                std::any::type_name::<F>()
            ))
        })
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Payload, ClientError> {
    Payload::encode(value).map_err(|failure| ClientError::Invalid(failure.message))
}

/// A start that is sent when it is awaited.
#[derive(Debug)]
#[must_use = "a start is sent when it is awaited"]
pub struct StartCall<O> {
    raw: RawClient,
    body: Result<StartBody, ClientError>,
    request_id: Option<String>,
    output: PhantomData<fn() -> O>,
}

impl<O> StartCall<O> {
    /// Whether an id whose runs are all closed may be used again.
    pub fn id_reuse_policy(mut self, policy: IdReusePolicy) -> Self {
        if let Ok(body) = &mut self.body {
            body.id_reuse_policy = policy;
        }
        self
    }

    /// What happens when the id has an open run.
    pub fn id_conflict_policy(mut self, policy: IdConflictPolicy) -> Self {
        if let Ok(body) = &mut self.body {
            body.id_conflict_policy = policy;
        }
        self
    }

    /// Names the request, so that repeating it later, even from another process, begins nothing more.
    pub fn request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }
}

impl<O: 'static> IntoFuture for StartCall<O> {
    type Output = Result<WorkflowHandle<O>, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let started = self.raw.start(&self.body?, self.request_id.as_deref()).await?;
            let handle = WorkflowHandle::new(self.raw.workflow(started.workflow_id, None), Some(started.run_id));
            Ok(handle.found(started.existing))
        })
    }
}
