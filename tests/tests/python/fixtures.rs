//! Situations, and what the engine's own worker makes of each: `functions/python/fixtures.json`.

use bytes::Bytes;
use dormouse::{Activity, App, Failure};
use dormouse_aws::store::attempt_address;
use dormouse_aws::wire::{Message, Task, decode, encode};
use dormouse_core::{ActivityTask, CommitId, Payload, RunId, Timestamp, WorkflowKey};
use dormouse_engine::attempts::{AttemptRecord, AttemptState};
use dormouse_engine::seams::Delivery;
use dormouse_engine::store::{AttemptKey, Swap};
use dormouse_engine::worker::handle_message;
use dormouse_testing::World;
use dormouse_testing::delivery::plain_task;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::folder;

const NOW: u64 = 1_763_820_000_000;

/// What the activity does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Give(Value),
    Raise { r#type: String, message: String, r#final: bool },
}

async fn work(_: Activity, answer: Answer) -> Result<Value, Failure> {
    match answer {
        Answer::Give(value) => Ok(value),
        Answer::Raise { r#type, message, r#final } => {
            let failure = Failure::application(message).with_type(&r#type);
            Err(if r#final { failure.non_retryable() } else { failure })
        }
    }
}

/// A task, and what is there when it comes.
struct Case {
    name: &'static str,
    task: ActivityTask,
    not_after: Timestamp,
    /// How often its message was received, this time included.
    deliveries: u32,
    found: Option<AttemptRecord>,
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn case(name: &'static str, answer: &Answer, change: impl FnOnce(&mut Case)) -> Case {
    let run = WorkflowKey::new("default", "order-1").unwrap().run(0);
    let mut task = plain_task(&run, RunId::from_bytes([7; 16]), 3, at(NOW - 5_000));
    (task.input, task.scheduled_at, task.lost) = (Payload::encode(answer).unwrap(), at(NOW - 10_000), 0);
    task.options.task_queue = Some("python".into());
    let mut case = Case { name, task, not_after: at(NOW), deliveries: 1, found: None };
    change(&mut case);
    case
}

fn record(attempt: u32, state: AttemptState) -> Option<AttemptRecord> {
    Some(AttemptRecord { attempt, state, last_failure: None, heartbeat: None, cancel_requested: false })
}

fn claimed(attempt: u32, lease_until_ms: u64) -> Option<AttemptRecord> {
    record(attempt, AttemptState::Claimed { claim: CommitId::from_bytes([9; 16]), epoch: 0, lease_until_ms })
}

fn waiting(attempt: u32, retry_at_ms: u64) -> Option<AttemptRecord> {
    record(attempt, AttemptState::Waiting { retry_at_ms, epoch: 0 })
}

fn cases() -> Vec<Case> {
    let give = Answer::Give(json!({"name": "a.png", "width": 1.5, "é": [null, "\u{1F42D}"]}));
    let raise = |name: &str, last| Answer::Raise { r#type: name.into(), message: format!("{name}!"), r#final: last };
    let fail = raise("Busy", false);
    vec![
        case("the first attempt succeeds", &give, |_| {}),
        case("a result of null", &Answer::Give(Value::Null), |_| {}),
        case("ids that need care", &give, |case| {
            case.task.run = WorkflowKey::new("n~.", "../a b/é~%2F#\u{1F42D}+*'()_-").unwrap().run(u64::MAX);
            case.task.id = u64::MAX;
        }),
        case("the first attempt fails", &fail, |_| {}),
        case("the fourth attempt fails", &fail, |case| {
            case.found = waiting(3, NOW - 1);
            case.found.as_mut().unwrap().heartbeat = Some(Payload::encode(&json!({"done": 7})).unwrap());
        }),
        case("the pause is capped", &fail, |case| {
            case.task.options.retry.maximum_attempts = 0;
            case.found = waiting(u32::MAX - 1, NOW);
        }),
        case("the last attempt fails", &fail, |case| case.found = waiting(6, NOW)),
        case("a failure that policy calls final", &raise("Fatal", false), |_| {}),
        case("a failure that calls itself final", &raise("Broken", true), |_| {}),
        case("no time for another attempt", &fail, |case| {
            case.task.options.schedule_to_close_ms = Some(10_500);
        }),
        case("time for another attempt", &fail, |case| case.task.options.schedule_to_close_ms = Some(11_500)),
        case("the next attempt is not due", &give, |case| case.found = waiting(1, NOW + 1_500)),
        case("the next attempt is not due for long", &give, |case| case.found = waiting(1, NOW + 2_000_000)),
        case("the pause of an attempt that history has ended", &give, |case| {
            (case.task.lost, case.found) = (2, waiting(2, NOW + 1_500));
        }),
        case("another worker is at it, and has a message of its own", &give, |case| case.found = claimed(1, NOW)),
        case("the message of another worker, who may still be at it", &give, |case| {
            (case.deliveries, case.found) = (2, claimed(1, NOW));
        }),
        case("its worker is gone", &give, |case| case.found = claimed(1, NOW - 1)),
        case("its worker went silent", &give, |case| {
            case.task.options.heartbeat_ms = Some(1_000);
            case.found = claimed(2, NOW - 1);
            case.found.as_mut().unwrap().heartbeat = Some(Payload::encode(&"half").unwrap());
        }),
        case("history has ended its lease", &give, |case| {
            (case.task.lost, case.found) = (3, claimed(2, NOW + 60_000));
        }),
        case("history knows more attempts than the record", &give, |case| case.task.lost = 4),
        case("a lease of heartbeats", &fail, |case| case.task.options.heartbeat_ms = Some(2_000)),
        case("the activity is over", &give, |case| case.found = record(1, AttemptState::Closed)),
        case("nobody wants it any more", &give, |case| {
            case.found = waiting(1, NOW - 1);
            case.found.as_mut().unwrap().cancel_requested = true;
        }),
        case("the message is too old", &give, |case| case.not_after = at(NOW - 1)),
    ]
}

/// Plays a case with our own worker, and writes down what came of it.
async fn played(case: Case) -> Value {
    let world = World::new(App::new().activity("work", work));
    world.clock.set(at(NOW));
    let process = world.process();
    let Case { name, task, not_after, deliveries, found } = case;
    let body = encode(&Message::Task(Task { task: task.clone(), not_after })).unwrap();
    assert!(matches!(decode(&body), Ok(Message::Task(read)) if read.task == task));
    let key = AttemptKey { run: task.run.clone(), activity: task.id };
    let before = found.map(|record| serde_json::to_value(record).unwrap());
    if let Some(record) = &before {
        let record = Bytes::from(serde_json::to_vec(record).unwrap());
        assert!(matches!(process.ports.store.swap(&key, None, record).await, Ok(Swap::Done(_))));
    }
    let deadline = process.ports.now() + std::time::Duration::from_hours(24);
    let delivery = if deliveries > 1 { Delivery::Again } else { Delivery::First };
    let handled = handle_message(world.app(), &process.ports, task, delivery, not_after, deadline);
    world.clock.drive(handled).expect("an end").unwrap();

    let after = process.ports.store.attempt(&key).await.unwrap();
    let after = after.map(|found| serde_json::from_slice::<Value>(&found.record).unwrap());
    let told: Vec<Value> = world
        .mail
        .messages()
        .into_iter()
        .map(|message| serde_json::from_str(&encode(&Message::Run(message)).unwrap()).unwrap())
        .collect();
    let again: Vec<u64> = world.mail.take_tasks().iter().map(|task| task.not_before.as_millis()).collect();
    let (partition, sort) = attempt_address(&key);
    let mut fixture = json!({
        "name": name, "now_ms": NOW, "body": body, "deliveries": deliveries, "p": partition, "s": sort, "found": before,
        "after": after, "told": told, "again_at_ms": again,
    });
    normalize(&mut fixture, before.as_ref());
    fixture
}

/// Claims are drawn at random, and places in the source are ours alone.
fn normalize(value: &mut Value, found: Option<&Value>) {
    if let Value::Object(fields) = value {
        fields.remove("place");
        if let Some(claim) =
            fields.get_mut("claim").filter(|claim| Some(&**claim) != found.and_then(|f| f.get("claim")))
        {
            *claim = json!("CLAIM");
        }
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| normalize(value, found)),
        Value::Array(values) => values.iter_mut().for_each(|value| normalize(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn fixtures_are_what_our_worker_does() {
    let mut fixtures = Vec::new();
    for case in cases() {
        fixtures.push(played(case).await);
    }
    let text = serde_json::to_string_pretty(&fixtures).unwrap() + "\n";
    let path = folder().join("fixtures.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == text,
        "our worker no longer does what {} says. If that is meant, run UPDATE_GOLDEN=1 and the Python tests; workers in \
         other languages will have to live with it",
        path.display()
    );
}
