//! The client, which survives all this.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse::api::StartBody;
use dormouse::{ClientError, IdConflictPolicy, IdReusePolicy, Payload, RawClient, RunId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What a 2xx answer acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Ack {
    Start { workflow_id: String, run_id: RunId },
    Signal { workflow_id: String, request_id: String },
}

/// The client's own log: a line is on the disk before the client goes on.
#[derive(Clone)]
pub struct AckLog(Arc<Mutex<File>>);

impl AckLog {
    pub fn create(path: &Path) -> Self {
        Self(Arc::new(Mutex::new(File::options().create_new(true).append(true).open(path).unwrap())))
    }

    pub fn write(&self, ack: &Ack) {
        let mut line = serde_json::to_vec(ack).unwrap();
        line.push(b'\n');
        let mut file = self.0.lock().unwrap();
        file.write_all(&line).unwrap();
        file.sync_data().unwrap();
    }

    pub fn read(path: &Path) -> Vec<Ack> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A caller that repeats a request, with the same key, until somebody answers it.
#[derive(Clone)]
pub struct Caller {
    /// The server, while there is one: a dead server's port may be another's soon.
    pub server: watch::Receiver<Option<RawClient>>,
    pub log: AckLog,
}

impl Caller {
    pub async fn ask<T, F>(&mut self, ask: impl Fn(RawClient) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        loop {
            let client = self.server.wait_for(Option::is_some).await.expect("the soak goes on").clone();
            match ask(client.unwrap()).await {
                Err(ClientError::Transport { .. }) => {}
                // From a server that is going, or from what stands before one that has gone.
                Err(ClientError::Problem(problem)) if problem.status >= 500 => {}
                answer => return answer,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn start(&mut self, workflow_type: &str, workflow_id: &str, input: Value) {
        let body = StartBody {
            workflow_type: workflow_type.into(),
            workflow_id: Some(workflow_id.into()),
            input: input.into(),
            id_reuse_policy: IdReusePolicy::default(),
            id_conflict_policy: IdConflictPolicy::default(),
        };
        let request_id = format!("start-{workflow_id}");
        let start = |client: RawClient| {
            let (body, request_id) = (body.clone(), request_id.clone());
            async move { client.start(&body, Some(&request_id)).await }
        };
        let started = self.ask(start).await.unwrap();
        self.log.write(&Ack::Start { workflow_id: workflow_id.into(), run_id: started.run_id });
    }

    pub async fn signal(&mut self, workflow_id: &str, name: &str, argument: &Payload) {
        let request_id = format!("{name}-{workflow_id}");
        let signal = |client: RawClient| {
            let handle = client.workflow(workflow_id, None);
            let (name, argument, request_id) = (name.to_owned(), argument.clone(), request_id.clone());
            async move { handle.signal(&name, &argument, Some(&request_id)).await }
        };
        self.ask(signal).await.unwrap();
        self.log.write(&Ack::Signal { workflow_id: workflow_id.into(), request_id });
    }

    pub async fn order(mut self, n: usize, delay_ms: u64) {
        let id = format!("order-{n}");
        let input = json!({ "order_id": id, "amount_cents": n, "fulfilment_delay_ms": delay_ms, "flaky": 0.3 });
        self.start("orderWorkflow", &id, input).await;
    }

    pub async fn expense(mut self, n: usize, pauses: [Duration; 2]) {
        let id = format!("expense-{n}");
        self.start("expenseApprovalWorkflow", &id, json!({ "expense_id": id, "amount_cents": n })).await;
        tokio::time::sleep(pauses[0]).await;
        self.signal(&id, "note", &Payload::NULL).await;
        tokio::time::sleep(pauses[1]).await;
        self.signal(&id, "approval", &Payload::encode(&!n.is_multiple_of(3)).unwrap()).await;
    }
}
