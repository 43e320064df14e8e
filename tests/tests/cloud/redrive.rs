//! A task lies in the dead-letter queue, as one that the activity function was throttled on too often. Only redrive
//! helps: whatever the sweep sends is lost.

use std::time::Instant;

use dormouse::api::Redriven;
use dormouse_aws::wire::{LONGEST_LIFE, Message, Task, encode};
use dormouse_core::WorkflowKey;
use dormouse_engine::commit::read_state;
use dormouse_tests::cloud::Cloud;
use dormouse_tests::proxy::{Action, Rule};
use dormouse_tests::tell;
use serde_json::json;

use crate::PATIENCE;

pub async fn a_throttled_task_completes(cloud: &Cloud) {
    let (id, client, began) = ("throttled", cloud.client(), Instant::now());
    let task = cloud.proxy.rule(Rule::once("sqs/message/activity_task*", Action::Swallow).about(id));
    cloud.proxy.rule(Rule::every("sqs/message/sweep*", Action::Swallow).about(id));
    let order = json!({ "order_id": id, "amount_cents": 1, "fulfilment_delay_ms": 0 });
    cloud.start("orderWorkflow", id, order).await;
    patiently(async || (task.times() == 1).then_some(()), "its task is sent", cloud).await;

    let run = WorkflowKey::new("default", id).unwrap().run(0);
    let waits = async || read_state(&cloud.store(), &run).await.unwrap()?.activities.keys().next().copied();
    let activity = patiently(waits, "its activity is in the history", cloud).await;
    let state = read_state(&cloud.store(), &run).await.unwrap().unwrap();
    let task = state.task(activity).unwrap();
    let not_after = task.scheduled_at + LONGEST_LIFE;
    let body = encode(&Message::Task(Task { task, not_after })).unwrap();
    let queues = cloud.sqs().list_queues().send().await.unwrap().queue_urls.unwrap();
    let dead = queues.iter().find(|url| url.contains("DeadLetters") && !url.ends_with(".fifo")).unwrap();
    cloud.sqs().send_message().queue_url(dead).message_body(body).send().await.unwrap();

    let named =
        async || client.quarantine(100).await.unwrap().into_iter().find(|it| it.workflow_id.as_deref() == Some(id));
    let letter = patiently(named, "its task is in quarantine", cloud).await;
    assert!(letter.reason.contains("throttled") && letter.queue.contains("DeadLetters"), "{letter:?}");
    let redriven = client.redrive(std::slice::from_ref(&letter.id)).await.unwrap();
    assert_eq!(redriven[0].outcome, Redriven::Sent, "{redriven:?}");
    cloud.result(id, PATIENCE).await;
    assert!(client.quarantine(100).await.unwrap().iter().all(|other| other.id != letter.id));
    cloud.proxy.clear();
    tell!("a task that was given up: redriven and completed after {:.0} s", began.elapsed().as_secs_f64());
}

async fn patiently<T>(look: impl AsyncFn() -> Option<T>, what: &str, cloud: &Cloud) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it does not come to this: {what}\n{}", cloud.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
