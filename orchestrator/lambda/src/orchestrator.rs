//! The role `orchestrator`: the consumer of the run queue, and what else needs the engine.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use dormouse_aws::dead_letters::examine;
use dormouse_aws::queues::ReceiveError;
use dormouse_aws::wire::{Message, is_of_workers};
use dormouse_core::planted::{Bug, planted};
use dormouse_core::{App, Payload, RunKey};
use dormouse_engine::ApiError;
use dormouse_engine::parking::{acquit, standing_still, suspect};
use dormouse_engine::ports::Ports;
use dormouse_engine::seams::{Delivery, Instant, RunMessage, SeamFuture};
use dormouse_engine::store::StoreError;
use dormouse_engine::sweep::sweep_once;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::cloud::{Cloud, until};
use crate::envelope::{Answer, Letter, by_group};
use crate::metrics::parked_runs;
use crate::query::{Question, Reply};
use crate::thread::Invoked;

/// So many deliveries of one letter have ended without an answer: one of its batch ends the process.
const SUSPICIOUS_DELIVERIES: u32 = 4;

/// So many runs are let go of at a time.
const RETIRED: usize = 100;

/// No run is begun with less time than this: a commit must not be cut off.
const LEAST_TIME: Duration = Duration::from_secs(3);

/// Letters of the run queue are hidden from others for so long, and again so much later.
const HIDDEN_SECONDS: u32 = 10;
const HIDE_AGAIN: Duration = Duration::from_secs(5);

/// What is done with letters, besides handling what they say.
pub trait Counter: Send + Sync {
    /// Reads a letter's body, from the bucket when only a pointer travelled.
    fn read(&self, body: &str) -> BoxFuture<'static, Result<Message, ReceiveError>>;
    /// Whether letters of this queue are dead letters.
    fn is_dead(&self, queue_arn: &str) -> bool;
    /// Whether whoever sent this letter may tell runs anything. Of others, only what workers tell is taken.
    fn is_trusted(&self, letter: &Letter) -> bool;
    /// Forwards what came on the alarm queue.
    fn pass_on(&self, message: Message) -> SeamFuture<'static, ()>;
    /// Puts a letter into quarantine, where people see it.
    fn set_aside<'a>(
        &'a self,
        letter: &'a Letter,
        run: Option<&'a RunKey>,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Hides letters from other consumers for so many seconds from now. A help, not a promise.
    fn hide<'a>(&'a self, letters: &'a [Letter], seconds: u32) -> BoxFuture<'a, ()>;
    /// Lets letters that failed come again, sooner than the queue's visibility time-out would.
    fn again_soon<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, ()>;
}

impl Counter for Cloud {
    fn read(&self, body: &str) -> BoxFuture<'static, Result<Message, ReceiveError>> {
        self.queues.receive(body)
    }

    fn is_dead(&self, queue_arn: &str) -> bool {
        self.settings.dead_letter_arns.iter().any(|arn| arn == queue_arn)
    }

    fn is_trusted(&self, letter: &Letter) -> bool {
        self.settings.trusts(&letter.sender)
    }

    fn pass_on(&self, message: Message) -> SeamFuture<'static, ()> {
        self.queues.pass_on(message)
    }

    fn set_aside<'a>(
        &'a self,
        letter: &'a Letter,
        run: Option<&'a RunKey>,
        reason: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Cloud::set_aside(self, letter, run, reason).boxed()
    }

    fn hide<'a>(&'a self, letters: &'a [Letter], seconds: u32) -> BoxFuture<'a, ()> {
        Cloud::hide(self, letters, seconds).boxed()
    }

    fn again_soon<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, ()> {
        Cloud::again_soon(self, letters).boxed()
    }
}

/// Handles batches of letters: the consumer of the run queue.
pub struct Consumer<C> {
    counter: C,
    ports: Ports,
    thread: Invoked,
}

struct Orchestrator {
    cloud: Cloud,
    consumer: Consumer<Cloud>,
}

pub(crate) async fn serve(cloud: Cloud) -> Result<(), Error> {
    let consumer = Consumer::begin(Arc::clone(&cloud.app), cloud.ports.clone(), cloud.clone())?;
    let orchestrator = Arc::new(Orchestrator { cloud, consumer });
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
        let until = until(&*self.cloud.ports.host, &event.context);
        let text = event.payload.get();
        match serde_json::from_str::<Kind>(text)?.dormouse.as_deref() {
            None => {
                let SqsEvent { records, .. } = serde_json::from_str(text)?;
                let letters = records.into_iter().map(Letter::new).collect();
                Ok(to_raw_value(&self.consumer.letters(letters, until).await)?)
            }
            Some("query") => Ok(to_raw_value(&self.query(serde_json::from_str(text)?).await)?),
            Some("sweep") => {
                self.sweep(until, &event.context.env_config.function_name).await?;
                Ok(to_raw_value(&())?)
            }
            Some(other) => Err(format!("{other:?} is no event of this program").into()),
        }
    }

    async fn query(&self, question: Question) -> Reply {
        match question.run() {
            Ok(run) => self.consumer.query(run, question.name, question.input).await.into(),
            Err(error) => Err(error).into(),
        }
    }

    /// Rule F6, and what retention is over for.
    async fn sweep(&self, until: Instant, function: &str) -> Result<(), StoreError> {
        let in_time = || self.cloud.ports.host.instant() < until;
        let overdue = sweep_once(&self.cloud.ports, in_time).await?;
        let mut retired = 0;
        while in_time() {
            let done =
                self.cloud.ports.store.retire(self.cloud.ports.now(), self.cloud.settings.retention, RETIRED).await?;
            retired += done.retired;
            if !done.more {
                break;
            }
        }
        tracing::info!(overdue, retired, "swept");
        self.tell_what_stands_still(function).await;
        Ok(())
    }

    /// For people: the next sweep tells it again, so nothing fails because of it.
    async fn tell_what_stands_still(&self, function: &str) {
        match standing_still(&self.cloud.ports).await {
            Ok(parked) => {
                if let Some(line) = parked_runs(function, &parked, self.cloud.ports.now()) {
                    println!("{line}");
                }
            }
            Err(error) => tracing::warn!(%error, "parked runs are not counted this time"),
        }
    }
}

impl<C: Counter> Consumer<C> {
    /// Begins, with a workflow thread. Call inside a tokio runtime.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn begin(app: Arc<App>, ports: Ports, counter: C) -> std::io::Result<Self> {
        let thread = Invoked::begin(app, ports.clone())?;
        Ok(Self { counter, ports, thread })
    }

    /// Asks a run's query handler.
    ///
    /// # Errors
    /// [`ApiError`] when there is no such run or handler, the code cannot go on, or the store does not answer.
    pub async fn query(&self, run: RunKey, name: String, input: Payload) -> Result<Payload, ApiError> {
        self.thread.query(run, name, input).await
    }

    /// Handles a batch of one queue, by `until`, a moment of the ports' host: which of its letters are to be delivered again.
    pub async fn letters(&self, letters: Vec<Letter>, until: Instant) -> Answer {
        // Set first, for a short time, and again while it lasts: should the process be killed, its groups wait for
        // seconds, not for the queue's visibility time-out.
        let ordered: Vec<_> = letters.iter().filter(|letter| letter.group.is_some()).cloned().collect();
        let hiding = async {
            while !ordered.is_empty() {
                self.counter.hide(&ordered, HIDDEN_SECONDS).await;
                self.ports.host.sleep(HIDE_AGAIN).await;
            }
            std::future::pending::<Infallible>().await
        };
        let suspicious = letters.iter().any(|letter| letter.deliveries >= SUSPICIOUS_DELIVERIES);
        let groups = by_group(letters).into_iter().map(|group| self.group(group, until));
        let work = async {
            if suspicious {
                // One of them ends the process: not while others are at work.
                futures::stream::iter(groups).then(|group| group).collect::<Vec<_>>().await
            } else {
                join_all(groups).await
            }
        };
        let failed = tokio::select! {
            biased;
            never = hiding => match never {},
            failed = work => failed,
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
                    while let Some(next) = rest.peek() {
                        match self.counter.read(&next.body).await {
                            Ok(Message::Run(message)) if *message.run() == run && self.may_send(next, &message) => {
                                messages.push(message);
                            }
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
                let behind = rest.filter(|_| !planted(Bug::F1AcknowledgeTheRest));
                let failed: Vec<_> = batch.into_iter().chain(behind).collect();
                tracing::warn!(message = failed[0].id, deliveries = failed[0].deliveries, %error, "delivered again");
                self.counter.again_soon(&failed).await;
                return failed.into_iter().map(|letter| letter.id).collect();
            }
        }
        BTreeSet::new()
    }

    /// Handles messages of one run.
    async fn handle(
        &self,
        run: RunKey,
        messages: Vec<RunMessage>,
        letters: &[Letter],
        until: Instant,
    ) -> Result<(), StoreError> {
        if self.ports.host.instant() + LEAST_TIME > until {
            return Err(StoreError::Unknown("there is no time left in this invocation".into()));
        }
        let ports = &self.ports;
        let deliveries = letters.iter().map(|letter| letter.deliveries).max().unwrap_or(1);
        if deliveries >= SUSPICIOUS_DELIVERIES && !planted(Bug::F1TrustEveryCode) {
            suspect(ports, &run, deliveries - 1).await?;
        }
        let again = letters.iter().any(|letter| letter.delivery() == Delivery::Again);
        let delivery = if again { Delivery::Again } else { Delivery::First };
        let handled = self.thread.handle(run.clone(), messages, delivery, until).await;
        // Whatever came of it, this process lives.
        let acquitted = acquit(ports, &run).await;
        handled.and(acquitted)
    }

    /// Code of activities is of many hands, and may send to the run queue: it is no way to start, signal or end a
    /// workflow, or to write into its history.
    fn may_send(&self, letter: &Letter, message: &RunMessage) -> bool {
        is_of_workers(message) || self.counter.is_trusted(letter)
    }

    /// Reads a letter. What is not for a run's decider is seen to here.
    async fn open(&self, letter: &Letter) -> Result<Option<RunMessage>, StoreError> {
        let received = self.counter.read(&letter.body).await;
        if self.counter.is_dead(&letter.queue_arn) {
            let dead = examine(&self.ports, &received).await?;
            let reason = letter.reason.as_deref().unwrap_or(&dead.reason);
            self.counter.set_aside(letter, dead.run.as_ref(), reason).await?;
            return Ok(None);
        }
        match received {
            Ok(Message::Run(message)) if self.may_send(letter, &message) => return Ok(Some(message)),
            Ok(Message::Run(message)) => {
                let reason = format!("{:?} may tell runs outcomes of activities, and nothing else", letter.sender);
                self.counter.set_aside(letter, Some(message.run()), &reason).await?;
            }
            Ok(message @ (Message::Alarm(_) | Message::Deferred(_))) => self.counter.pass_on(message).await?,
            Ok(_) => self.counter.set_aside(letter, None, "a message that no run and no alarm is sent").await?,
            Err(ReceiveError::Wire(error)) => self.counter.set_aside(letter, None, &error.to_string()).await?,
            Err(ReceiveError::Store(error)) => return Err(error),
        }
        Ok(None)
    }
}
