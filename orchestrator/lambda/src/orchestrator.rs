//! The role `orchestrator`: the consumer of the run queue, and what else needs the engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use dormouse_core::RunKey;
use dormouse_engine::aws::dead_letters::examine;
use dormouse_engine::aws::queues::ReceiveError;
use dormouse_engine::aws::wire::Message;
use dormouse_engine::seams::RunMessage;
use dormouse_engine::store::StoreError;
use dormouse_engine::sweep::sweep_once;
use futures::StreamExt;
use futures::future::join_all;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use crate::cloud::{Cloud, until};
use crate::envelope::{Answer, Letter, by_group};
use crate::query::{Question, Reply};
use crate::thread::WorkflowThread;

/// So many deliveries of one letter have ended without an answer: one of its batch ends the process.
const SUSPICIOUS_DELIVERIES: u32 = 4;

/// No run is begun with less time than this: a commit must not be cut off.
const LEAST_TIME: Duration = Duration::from_secs(3);

/// How much longer than the invocation its letters are hidden from others.
const RESERVE: Duration = Duration::from_secs(3);

struct Orchestrator {
    cloud: Cloud,
    thread: WorkflowThread,
}

pub(crate) async fn serve(cloud: Cloud) -> Result<(), Error> {
    let thread = WorkflowThread::begin(Arc::clone(&cloud.app), cloud.ports.clone())?;
    let orchestrator = Arc::new(Orchestrator { cloud, thread });
    lambda_runtime::run(service_fn(|event: LambdaEvent<Box<RawValue>>| {
        let orchestrator = Arc::clone(&orchestrator);
        async move { orchestrator.invoked(event).await }
    }))
    .await
}

/// What an event of ours says it is; SQS's say nothing.
#[derive(Deserialize)]
struct Kind {
    dormouse: Option<String>,
}

impl Orchestrator {
    async fn invoked(&self, event: LambdaEvent<Box<RawValue>>) -> Result<Box<RawValue>, Error> {
        let until = until(&event.context);
        let text = event.payload.get();
        match serde_json::from_str::<Kind>(text)?.dormouse.as_deref() {
            None => {
                let SqsEvent { records, .. } = serde_json::from_str(text)?;
                let letters = records.into_iter().map(Letter::new).collect();
                Ok(to_raw_value(&self.letters(letters, until).await)?)
            }
            Some("query") => Ok(to_raw_value(&self.query(serde_json::from_str(text)?).await)?),
            Some("sweep") => {
                self.sweep(until).await?;
                Ok(to_raw_value(&())?)
            }
            Some(other) => Err(format!("{other:?} is no event of this program").into()),
        }
    }

    async fn query(&self, question: Question) -> Reply {
        match question.run() {
            Ok(run) => self.thread.query(run, question.name, question.input).await.into(),
            Err(error) => Err(error).into(),
        }
    }

    /// Rule F6, and what retention is over for.
    async fn sweep(&self, until: Instant) -> Result<(), StoreError> {
        let in_time = || Instant::now() < until;
        let overdue = sweep_once(&self.cloud.ports, in_time).await?;
        let retired = 0;
        tracing::info!(overdue, retired, "swept");
        Ok(())
    }

    async fn letters(&self, letters: Vec<Letter>, until: Instant) -> Answer {
        // Set first: should the process be killed, a group waits for as long as this invocation could have lasted, not
        // for the queue's visibility time-out.
        let ordered: Vec<_> = letters.iter().filter(|letter| letter.group.is_some()).cloned().collect();
        let left = until.saturating_duration_since(Instant::now()) + RESERVE;
        let hiding = self.cloud.hide(&ordered, u32::try_from(left.as_secs()).unwrap_or(u32::MAX));
        let suspicious = letters.iter().any(|letter| letter.deliveries >= SUSPICIOUS_DELIVERIES);
        let groups = by_group(letters).into_iter().map(|group| self.group(group, until));
        let failed: Vec<_> = if suspicious {
            // One of them ends the process: not while others are at work.
            futures::join!(hiding, futures::stream::iter(groups).then(|group| group).collect()).1
        } else {
            futures::join!(hiding, join_all(groups)).1
        };
        Answer::failed(failed.into_iter().flatten().collect())
    }

    /// Handles the letters of one group in order. The ids of those that failed, and of all behind them.
    async fn group(&self, letters: Vec<Letter>, until: Instant) -> BTreeSet<String> {
        let mut rest = letters.into_iter().peekable();
        while let Some(letter) = rest.next() {
            let mut batch = vec![letter];
            let handled = match self.open(&batch[0]).await {
                Ok(Some(message)) => {
                    let run = message.run().clone();
                    let mut messages = vec![message];
                    // Those of one run share a pass, and so a write.
                    loop {
                        let Some(next) = rest.peek() else { break };
                        match self.cloud.queues.receive(&next.body).await {
                            Ok(Message::Run(message)) if *message.run() == run => messages.push(message),
                            _ => break,
                        }
                        batch.extend(rest.next());
                    }
                    self.handle(run, messages, &batch, until).await
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = handled {
                let failed: Vec<_> = batch.into_iter().chain(rest).collect();
                tracing::warn!(message = failed[0].id, deliveries = failed[0].deliveries, %error, "delivered again");
                self.cloud.again_soon(&failed).await;
                return failed.into_iter().map(|letter| letter.id).collect();
            }
        }
        BTreeSet::new()
    }

    /// Handles messages of one run.
    async fn handle(
        &self,
        run: RunKey,
        mut messages: Vec<RunMessage>,
        letters: &[Letter],
        until: Instant,
    ) -> Result<(), StoreError> {
        if Instant::now() + LEAST_TIME > until {
            return Err(StoreError::Unknown("there is no time left in this invocation".into()));
        }
        let ports = &self.cloud.ports;
        let deliveries = letters.iter().map(|letter| letter.deliveries).max().unwrap_or(1);
        if deliveries > 1 {
            // Whoever had it before may have died anywhere: everything is looked at.
            messages.push(RunMessage::Sweep { run: run.clone() });
        }
        if deliveries >= SUSPICIOUS_DELIVERIES {
            ports.parkings.suspect(ports, &run, deliveries).await?;
        }
        self.thread.handle(run.clone(), messages, until).await?;
        ports.parkings.acquit(ports, &run).await
    }

    /// Reads a letter. What is not for a run's decider is seen to here.
    async fn open(&self, letter: &Letter) -> Result<Option<RunMessage>, StoreError> {
        let received = self.cloud.queues.receive(&letter.body).await;
        if self.cloud.settings.dead_letter_arns.contains(&letter.queue_arn) {
            let dead = examine(&self.cloud.ports, &received).await?;
            self.cloud.set_aside(letter, dead.run.as_ref(), &dead.reason).await?;
            return Ok(None);
        }
        match received {
            Ok(Message::Run(message)) => return Ok(Some(message)),
            Ok(message @ (Message::Alarm(_) | Message::Deferred(_))) => self.cloud.queues.pass_on(message).await?,
            Ok(_) => self.cloud.set_aside(letter, None, "a message that no run and no alarm is sent").await?,
            Err(ReceiveError::Wire(error)) => self.cloud.set_aside(letter, None, &error.to_string()).await?,
            Err(ReceiveError::Store(error)) => return Err(error),
        }
        Ok(None)
    }
}
