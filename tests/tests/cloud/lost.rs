//! Every kind of message between functions is lost once. Nothing but the sweep finds out.

use std::time::{Duration, Instant};

use dormouse::{Payload, Status};
use dormouse_tests::cloud::Cloud;
use dormouse_tests::proxy::{Action, Rule, Struck};
use dormouse_tests::tell;
use serde_json::json;

/// The sweep comes once a minute, and an input or a task is due one minute after its commit: two sweeps later at most.
const HEALED: Duration = Duration::from_secs(60 + 2 * 60 + 20);

struct Loss {
    id: String,
    what: &'static str,
    struck: Struck,
}

pub async fn every_lost_message_heals(cloud: &Cloud) {
    let order = |id: &str, delay: u64| json!({ "order_id": id, "amount_cents": 1, "fulfilment_delay_ms": delay });
    let lose = |on: &str, id: &str| cloud.proxy.rule(Rule::once(on, Action::Swallow).about(id));
    let mut losses = Vec::new();
    // A schedule's name tells nobody whose it is: it is lost while no other is made.
    let id = "loses-schedule";
    let struck = cloud.proxy.rule(Rule::once("scheduler/CreateSchedule", Action::Swallow));
    cloud.start("orderWorkflow", id, order(id, 9_000)).await;
    while struck.times() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    losses.push(Loss { id: id.into(), what: "schedule", struck });
    let mut loss = |what: &'static str, on: &str| {
        let id = format!("loses-{what}");
        let struck = lose(on, &id);
        losses.push(Loss { id: id.clone(), what, struck });
        id
    };
    let began = Instant::now();
    let id = loss("start", "sqs/message/start*");
    cloud.start("orderWorkflow", &id, order(&id, 0)).await;
    let id = loss("task", "sqs/message/activity_task*");
    cloud.start("orderWorkflow", &id, order(&id, 0)).await;
    let id = loss("completion", "sqs/message/activity_completed*");
    cloud.start("orderWorkflow", &id, order(&id, 0)).await;
    let id = loss("alarm", "sqs/message/alarm@*");
    cloud.start("orderWorkflow", &id, order(&id, 2_000)).await;
    let id = loss("forwarded-alarm", "sqs/message/alarm_rang@*");
    cloud.start("orderWorkflow", &id, order(&id, 2_000)).await;
    let id = loss("signal", "sqs/message/take*");
    cloud.start("expenseApprovalWorkflow", &id, json!({ "expense_id": id, "amount_cents": 1 })).await;
    let handle = cloud.client().workflow(&id, None);
    handle.signal("approval", &Payload::encode(&true).unwrap(), None).await.unwrap();

    for Loss { id, what, struck } in &losses {
        let outcome = cloud.client().workflow(id.as_str(), None).outcome(Some(HEALED)).await.unwrap();
        assert_eq!(outcome.status, Status::Completed, "{id}: {:?}\n{}", outcome.failure, cloud.log());
        assert_eq!(struck.times(), 1, "{what}: a message that was not lost proves nothing");
        tell!("lost {what}: closed {:.0} s after the first start", began.elapsed().as_secs_f64());
    }
    cloud.proxy.clear();
}
