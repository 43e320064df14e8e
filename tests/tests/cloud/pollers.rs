//! The emulator hands the run queue to one process at a time; Lambda hands it to many. This does what Lambda does: several
//! pollers, each of which receives, invokes, and deletes what the answer does not name.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use dormouse_tests::cloud::Cloud;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Pollers in the place of the emulator's own.
pub struct Pollers {
    polling: JoinSet<()>,
    stop: Arc<AtomicBool>,
    mapping: String,
}

impl Pollers {
    /// So many of them from now on.
    pub async fn begin(cloud: &Cloud, pollers: usize) -> Self {
        let lambda = cloud.lambda();
        let mappings = lambda.list_event_source_mappings().send().await.unwrap().event_source_mappings.unwrap();
        let of_runs = |arn: &str| arn.contains("RunQueue");
        let mapping = mappings.into_iter().find(|mapping| mapping.event_source_arn().is_some_and(of_runs)).unwrap();
        let (function, arn) = (mapping.function_arn.unwrap(), mapping.event_source_arn.unwrap());
        let mapping = mapping.uuid.unwrap();
        lambda.update_event_source_mapping().uuid(&mapping).enabled(false).send().await.unwrap();
        let name = arn.rsplit(':').next().unwrap();
        let url = cloud.sqs().get_queue_url().queue_name(name).send().await.unwrap().queue_url.unwrap();
        let stop = Arc::<AtomicBool>::default();
        let mut polling = JoinSet::new();
        for _ in 0..pollers {
            let (lambda, sqs, stop) = (lambda.clone(), cloud.sqs(), Arc::clone(&stop));
            let (function, arn, url) = (function.clone(), arn.clone(), url.clone());
            polling.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let receive = sqs.receive_message().queue_url(&url).max_number_of_messages(10).wait_time_seconds(1);
                    let received = receive.message_system_attribute_names(MessageSystemAttributeName::All).send().await;
                    let messages = received.unwrap().messages.unwrap_or_default();
                    if messages.is_empty() {
                        continue;
                    }
                    let records: Vec<_> = messages.iter().map(|message| record(message, &arn)).collect();
                    let event = Blob::new(json!({ "Records": records }).to_string());
                    let answer = lambda.invoke().function_name(&function).payload(event).send().await.unwrap();
                    let answer: Value = serde_json::from_slice(answer.payload.unwrap().as_ref()).unwrap();
                    let failures = answer["batchItemFailures"].as_array().unwrap().iter();
                    let failed: BTreeSet<_> =
                        failures.map(|failure| failure["itemIdentifier"].as_str().unwrap()).collect();
                    for message in messages.iter().filter(|message| !failed.contains(message.message_id().unwrap())) {
                        let receipt = message.receipt_handle().unwrap();
                        let deleted = sqs.delete_message().queue_url(&url).receipt_handle(receipt).send().await;
                        if let Err(error) = deleted {
                            // Others have received it meanwhile: it is handled twice, as on AWS.
                            eprintln!("not deleted: {}", aws_sdk_sqs::error::DisplayErrorContext(&error));
                        }
                    }
                }
            });
        }
        Self { polling, stop, mapping }
    }

    /// Leaves the queue to the emulator again.
    pub async fn end(mut self, cloud: &Cloud) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.polling.join_next().await {
            ended.unwrap();
        }
        cloud.lambda().update_event_source_mapping().uuid(&self.mapping).enabled(true).send().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn record(message: &Message, arn: &str) -> Value {
    let attributes = message.attributes().into_iter().flatten();
    let attributes: serde_json::Map<_, _> =
        attributes.map(|(name, value)| (name.as_str().to_owned(), json!(value))).collect();
    json!({
        "messageId": message.message_id(),
        "receiptHandle": message.receipt_handle(),
        "body": message.body(),
        "attributes": attributes,
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": "us-east-1",
    })
}
