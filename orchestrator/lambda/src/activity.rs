//! The role `activity`: each letter is a task, and is at most one attempt.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsEvent;
use dormouse_aws::queues::ReceiveError;
use dormouse_aws::wire::{Message, Task};
use dormouse_engine::seams::Instant;
use dormouse_engine::store::StoreError;
use dormouse_engine::worker::handle_message;
use futures::future::join_all;
use lambda_runtime::{Error, LambdaEvent, service_fn};

use crate::cloud::{Cloud, until};
use crate::envelope::{Answer, Letter};

pub(crate) async fn serve(cloud: Cloud) -> Result<(), Error> {
    let cloud = Arc::new(cloud);
    lambda_runtime::run(service_fn(|event: LambdaEvent<SqsEvent>| {
        let cloud = Arc::clone(&cloud);
        async move { Ok::<_, Error>(handle(&cloud, event).await) }
    }))
    .await
}

async fn handle(cloud: &Cloud, event: LambdaEvent<SqsEvent>) -> Answer {
    let until = until(&*cloud.ports.host, &event.context);
    let letters = event.payload.records.into_iter().map(Letter::new);
    let failed = join_all(letters.map(async |letter| {
        let handled = run(cloud, &letter, until).await;
        if let Err(error) = handled {
            tracing::warn!(message = letter.id, deliveries = letter.deliveries, %error, "the task is delivered again");
            cloud.again_soon(std::slice::from_ref(&letter)).await;
            return Some(letter.id);
        }
        None
    }))
    .await;
    Answer::failed(failed.into_iter().flatten().collect::<BTreeSet<_>>())
}

/// No attempt is begun with less time than this: it would count, and hardly run.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// Runs one attempt of a task, if there is one to run.
async fn run(cloud: &Cloud, letter: &Letter, until: Instant) -> Result<(), StoreError> {
    let Task { task, not_after } = match cloud.queues.receive(&letter.body).await {
        Ok(Message::Task(task)) => task,
        Ok(_) => return give_up(cloud, letter, "a message that is no task, on a task queue").await,
        Err(ReceiveError::Wire(error)) => return give_up(cloud, letter, &error.to_string()).await,
        Err(ReceiveError::Store(error)) => return Err(error),
    };
    let left = until.since(cloud.ports.host.instant());
    if left < LEAST_TIME {
        return Err(StoreError::Unknown("there is no time left in this invocation".into()));
    }
    let deadline = cloud.ports.now() + left;
    handle_message(&cloud.app, &cloud.ports, task, letter.delivery(), not_after, deadline).await
}

/// No delivery makes a task of it: into quarantine with it at once, by the way that workers may take.
async fn give_up(cloud: &Cloud, letter: &Letter, reason: &str) -> Result<(), StoreError> {
    tracing::error!(message = letter.id, queue = letter.queue_arn, reason, "no task; it goes into quarantine");
    cloud.queues.give_up(&letter.body, reason).await
}
