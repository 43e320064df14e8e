//! Every kind of message on its way through the proxy: lost, doubled, refused, its answer lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use dormouse_aws::blobs::Blobs;
use dormouse_aws::queues::{QueueSettings, Queues};
use dormouse_core::Call;
use dormouse_core::operations;
use dormouse_core::{
    ActivityTask, Arrival, Failure, IdConflictPolicy, IdReusePolicy, Payload, RecordedOptions, RecordedRetry,
    RetryPolicy, RetryState, RunId, StartRequest, TimeoutKind, Timestamp,
};
use dormouse_engine::host::{Machine, wall_clock};
use dormouse_engine::seams::{ActivityQueue, Alarms, Host, Intent, Overdue, RunMessage, RunQueue, Sweeping, Wish};
use dormouse_engine::store::StoreError;
use dormouse_tests::proxy::{Action, Refusal, Rule};
use object_store::RetryConfig;
use tokio::runtime::Handle;

use super::parts::{Setup, fresh, fresh_id, run, s3, sdk};

const RUN_ID: RunId = RunId::from_bytes([7; 16]);

/// Queues of one test, through the proxy, and a client that sees what truly is in them.
struct Post {
    setup: Setup,
    queues: Queues,
    truth: aws_sdk_sqs::Client,
    urls: BTreeMap<&'static str, String>,
}

/// Something that the engine sends.
#[derive(Debug, Clone)]
enum Sent {
    Announced(Wish),
    Message(RunMessage),
    Task(ActivityTask),
    Alarm(Timestamp),
}

impl Post {
    async fn new() -> Option<Self> {
        let setup = Setup::new().await?;
        let truth = aws_sdk_sqs::Client::new(&sdk(&setup.endpoint).await);
        let mut urls = BTreeMap::new();
        for (name, fifo) in [("run", true), ("alarm", false), ("default", false)] {
            let create = truth.create_queue().queue_name(fresh(name) + if fifo { ".fifo" } else { "" });
            let create = if fifo { create.attributes(QueueAttributeName::FifoQueue, "true") } else { create };
            urls.insert(name, create.send().await.unwrap().queue_url.unwrap());
        }
        let through = sdk(&setup.proxy.url()).await;
        let scheduler = aws_sdk_scheduler::Client::new(&through);
        let group = fresh("group");
        scheduler.create_schedule_group().name(&group).send().await.unwrap();
        let alarm_queue = urls["alarm"].rsplit('/').next().unwrap();
        let settings = QueueSettings {
            run_queue_url: urls["run"].clone(),
            alarm_queue_url: urls["alarm"].clone(),
            alarm_queue_arn: format!("arn:aws:sqs:us-east-1:000000000000:{alarm_queue}"),
            dead_letters_url: String::new(),
            task_queues: BTreeMap::from([("default".into(), urls["default"].clone())]),
            schedule_group: group,
            schedule_role_arn: "arn:aws:iam::000000000000:role/scheduler".into(),
            longest_delay: Duration::from_secs(900),
            schedule_lead: Duration::from_secs(120),
            longest_backlog: BACKLOG,
            host: Arc::new(Machine::here()),
        };
        let objects = Arc::new(s3(&setup.endpoint, &setup.bucket, RetryConfig::default()));
        let blobs = Blobs::new(objects, Handle::current());
        // After some hundreds of failures, clients that share a partition stop retrying.
        let alone = aws_sdk_sqs::config::Builder::from(&through);
        let alone = alone.retry_partition(aws_sdk_sqs::config::retry::RetryPartition::new(fresh("retries")));
        let sqs = aws_sdk_sqs::Client::from_conf(alone.build());
        let queues = Queues::new(sqs, scheduler, settings, blobs, Handle::current()).unwrap();
        Some(Self { setup, queues, truth, urls })
    }

    async fn send(&self, sent: Sent) -> Result<(), StoreError> {
        match sent {
            Sent::Announced(wish) => self.queues.announce(Intent { run: run("w"), wish }).await.map(drop),
            Sent::Message(message) => RunQueue::send(&self.queues, message).await,
            Sent::Task(task) => ActivityQueue::send(&self.queues, vec![task]).await,
            Sent::Alarm(at) => {
                // What was set before would not be sent again.
                self.queues.set(&run("w"), RUN_ID, None).await.unwrap();
                self.queues.set(&run("w"), RUN_ID, Some(at)).await
            }
        }
    }

    /// Takes everything out of the queues: how many messages there were.
    async fn arrived(&self) -> usize {
        let mut arrived = 0;
        for url in self.urls.values() {
            loop {
                let receive = self.truth.receive_message().queue_url(url).max_number_of_messages(10);
                let messages = receive.send().await.unwrap().messages.unwrap_or_default();
                if messages.is_empty() {
                    break;
                }
                arrived += messages.len();
                for message in messages {
                    self.queues.receive(message.body().unwrap()).await.expect("a message that can be read");
                    let handle = message.receipt_handle().unwrap();
                    self.truth.delete_message().queue_url(url).receipt_handle(handle).send().await.unwrap();
                }
            }
        }
        arrived
    }
}

/// One of every kind, as the proxy calls them.
fn every_kind() -> Vec<(&'static str, Sent)> {
    let payload = || Payload::encode(&1).unwrap();
    let failure = || Failure::application("no");
    let request_id = || String::from("r");
    let arrived = |arrival| Sent::Message(RunMessage::Arrived { run: run("w"), run_id: RUN_ID, arrival });
    let taken = |arrival| Sent::Announced(Wish::Take { arrival, pinned: true });
    let start = StartRequest {
        call: Call::new("t", payload()),
        request_id: request_id(),
        reuse: IdReusePolicy::default(),
        conflict: IdConflictPolicy::default(),
    };
    let host = Machine::here();
    let task = ActivityTask {
        run: run("w"),
        run_id: RUN_ID,
        id: 3,
        activity_type: "charge".into(),
        input: payload(),
        options: options(),
        scheduled_at: host.now(),
        lost: 0,
        not_before: host.now(),
    };
    vec![
        ("start", Sent::Announced(Wish::Start(start))),
        (
            "take.signal",
            taken(Arrival::Signal(operations::Signaled {
                request_id: request_id(),
                name: "n".into(),
                payload: payload(),
            })),
        ),
        (
            "take.cancel",
            taken(Arrival::Cancel(operations::CancelRequested { request_id: request_id(), reason: String::new() })),
        ),
        (
            "take.terminate",
            taken(Arrival::Terminate(operations::Terminated {
                request_id: request_id(),
                reason: String::new(),
                next: None,
            })),
        ),
        ("accepted", Sent::Message(RunMessage::Accepted { run: run("w"), sequence: 1, record: "batch".into() })),
        ("sweep", Sent::Message(RunMessage::Sweep { run: run("w") })),
        (
            "activity_completed",
            arrived(Arrival::ActivityCompleted(operations::ActivityCompleted { id: 3, attempt: 1, result: payload() })),
        ),
        (
            "activity_failed",
            arrived(Arrival::ActivityFailed(operations::ActivityFailed {
                id: 3,
                attempt: 1,
                failure: failure(),
                retry_state: RetryState::NonRetryableFailure,
            })),
        ),
        (
            "attempt_lost",
            arrived(Arrival::AttemptLost(operations::WorkerGone {
                id: 3,
                attempt: 1,
                timeout: TimeoutKind::StartToClose,
                last_heartbeat: None,
            })),
        ),
        ("never_taken", arrived(Arrival::NeverTaken(operations::NeverTaken { id: 3 }))),
        ("alarm_rang", arrived(Arrival::Alarm)),
        ("activity_task", Sent::Task(task)),
        ("alarm", Sent::Alarm(host.now() - Duration::from_secs(1))),
    ]
}

fn options() -> RecordedOptions {
    RecordedOptions {
        start_to_close_ms: Some(60_000),
        schedule_to_close_ms: None,
        schedule_to_start_ms: None,
        heartbeat_ms: None,
        retry: RecordedRetry::from(&RetryPolicy::max_attempts(3)),
        task_queue: None,
    }
}

#[tokio::test]
async fn every_kind_of_message_can_be_lost_doubled_and_refused() {
    // Most of the time is waiting.
    let kinds = every_kind().into_iter().map(async |(kind, sent)| {
        let Some(post) = Post::new().await else { return };
        post.survives(kind, sent).await;
    });
    futures::future::join_all(kinds).await;
}

impl Post {
    async fn survives(&self, kind: &str, sent: Sent) {
        let proxy = &self.setup.proxy;
        let on = format!("sqs/message/{kind}@*");
        let fifo = !["activity_task", "alarm"].contains(&kind);
        let throttled = || Action::Refuse(Refusal::Throttled);
        // The fault, and how many requests and messages come of it. A retry of the SDK carries the same deduplication
        // id, so on a FIFO queue it is the same message; a doubled one is another.
        for (rule, requests, arrivals) in [
            (None, 1, 1),
            (Some(Rule::once(&on, Action::Swallow)), 1, 0),
            (Some(Rule::once(&on, Action::Double)), 1, 2),
            (Some(Rule::once(&on, throttled())), 2, 1),
            (Some(Rule::once("sqs/SendMessage*", Action::DropAnswer)), 2, if fifo { 1 } else { 2 }),
            (Some(Rule::once("sqs/SendMessage*", Action::Close)), 2, 1),
        ] {
            drop(proxy.reset());
            if let Some(rule) = rule.clone() {
                proxy.rule(rule);
            }
            assert_eq!(self.send(sent.clone()).await, Ok(()), "{kind}, {rule:?}");
            assert_eq!(proxy.outstanding(), [], "{kind}: {:?}", proxy.counts());
            proxy.clear();
            assert_eq!(proxy.counts().came("sqs"), requests, "{kind}, {rule:?}: {:?}", proxy.counts());
            assert_eq!(proxy.counts().sent(&on), requests, "{kind}, {rule:?}: {:?}", proxy.counts());
            assert_eq!(self.arrived().await, arrivals, "{kind}, {rule:?}");
        }
        // For good: the caller is told.
        proxy.rule(Rule::every(&on, throttled()));
        let unknown = self.send(sent.clone()).await;
        assert!(matches!(unknown, Err(StoreError::Unknown(_))), "{kind}: {unknown:?}");
        proxy.clear();
        drop(proxy.reset());
        // Rights may come back before the message is gone.
        proxy.rule(Rule::every(&on, Action::Refuse(Refusal::Code(403, "AccessDenied".into()))));
        let unknown = self.send(sent.clone()).await;
        assert!(matches!(unknown, Err(StoreError::Unknown(_))), "{kind}: {unknown:?}");
        proxy.clear();
        drop(proxy.reset());
        proxy.rule(Rule::every(&on, Action::Refuse(Refusal::Code(400, "InvalidMessageContents".into()))));
        let refused = self.send(sent).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{kind}: {refused:?}");
        assert_eq!(proxy.counts().came("sqs"), 1, "{kind}: nobody asks twice");
        proxy.clear();
        assert_eq!(self.arrived().await, 0, "{kind}");
    }
}

/// What is due beyond the longest delay of SQS.
#[tokio::test]
async fn schedules_can_be_lost_and_refused() {
    let Some(post) = Post::new().await else { return };
    let proxy = &post.setup.proxy;
    let far = wall_clock() + Duration::from_hours(1);
    let (_, Sent::Task(task)) = every_kind().swap_remove(11) else { panic!("the task") };
    let deferred = Sent::Task(ActivityTask { not_before: far, ..task });
    for (kind, sent) in [("alarm", Sent::Alarm(far)), ("deferred.activity_task", deferred)] {
        let on = format!("scheduler/CreateSchedule/{kind}");
        for (rule, requests, made) in [
            (Some(Rule::once(&on, Action::Swallow)), 1, 0),
            (Some(Rule::once(&on, Action::Refuse(Refusal::Throttled))), 2, 1),
            // Its name tells that it is the same: a conflict is success.
            (Some(Rule::once(&on, Action::DropAnswer)), 2, 2),
            (Some(Rule::once(&on, Action::Twice)), 1, 2),
            (None, 1, 1),
        ] {
            drop(proxy.reset());
            if let Some(rule) = rule.clone() {
                proxy.rule(rule);
            }
            assert_eq!(post.send(sent.clone()).await, Ok(()), "{kind}, {rule:?}");
            assert_eq!(proxy.outstanding(), [], "{kind}: {:?}", proxy.counts());
            proxy.clear();
            let tally = proxy.counts().of(&on);
            assert_eq!((tally.came, tally.forwarded), (requests, made), "{kind}, {rule:?}: {:?}", proxy.counts());
            assert_eq!(proxy.counts().came("sqs"), 0, "{kind}, {rule:?}");
        }
    }
    assert_eq!(post.arrived().await, 0);
}

/// Too many schedules, or too fast: the row's due time covers what they are for, and the message that asked for them is
/// handled all the same.
#[tokio::test]
async fn what_the_scheduler_has_no_room_for_is_left_to_the_sweep() {
    let Some(post) = Post::new().await else { return };
    let proxy = &post.setup.proxy;
    let far = wall_clock() + Duration::from_hours(1);
    let (_, Sent::Task(task)) = every_kind().swap_remove(11) else { panic!("the task") };
    let deferred = ActivityTask { not_before: far, ..task };
    let quota = Refusal::Code(402, "ServiceQuotaExceededException".into());
    for refusal in [Refusal::Throttled, quota] {
        proxy.rule(Rule::every("scheduler/CreateSchedule", Action::Refuse(refusal.clone())));
        assert_eq!(post.queues.set(&run("w"), RUN_ID, Some(far)).await, Ok(()), "{refusal:?}");
        assert_eq!(ActivityQueue::send(&post.queues, vec![deferred.clone()]).await, Ok(()), "{refusal:?}");
        proxy.clear();
        // It is not taken for set.
        drop(proxy.reset());
        assert_eq!(post.queues.set(&run("w"), RUN_ID, Some(far)).await, Ok(()));
        assert_eq!(proxy.counts().came("scheduler/CreateSchedule/alarm"), 1, "{refusal:?}");
        post.queues.set(&run("w"), RUN_ID, None).await.unwrap();
    }
}

fn overdue(name: &str, due: Timestamp) -> Vec<Overdue> {
    (0..25).map(|number| Overdue { run: run(&format!("{name}-{number}")), due, retry_at: None }).collect()
}

/// As when deciders are behind: the sweep finds the same rows each minute.
#[tokio::test]
async fn what_is_overdue_is_told_once_for_each_due_time() {
    let Some(post) = Post::new().await else { return };
    let now = wall_clock();
    for _ in 0..5 {
        assert_eq!(post.queues.sweep(overdue("w", now)).await, Ok(Sweeping::Sent));
    }
    assert_eq!(post.setup.proxy.counts().came("sqs/Send*"), 5 * 3, "ten in a request");
    assert_eq!(post.arrived().await, 25, "the repeats are swallowed");
    // Looked at, and due again.
    assert_eq!(post.queues.sweep(overdue("w", now + Duration::from_secs(1))).await, Ok(Sweeping::Sent));
    assert_eq!(post.arrived().await, 25);
    // Parked, and to be tried at another time than before.
    for minutes in [1, 1, 2] {
        let retry_at = Some(now + Duration::from_mins(minutes));
        let parked = overdue("w", now).into_iter().map(|overdue| Overdue { retry_at, ..overdue }).collect();
        assert_eq!(post.queues.sweep(parked).await, Ok(Sweeping::Sent));
    }
    assert_eq!(post.arrived().await, 50);
}

/// More messages than these on the run queue are many.
const BACKLOG: u64 = 300;

#[tokio::test]
async fn the_sweep_adds_nothing_to_a_long_queue() {
    let Some(post) = Post::new().await else { return };
    let mut sent = 0;
    loop {
        let found: Vec<_> = (0..4).flat_map(|part| overdue(&format!("{sent}-{part}"), wall_clock())).collect();
        let page = found.len() as u64;
        drop(post.setup.proxy.reset());
        match post.queues.sweep(found).await.unwrap() {
            Sweeping::Sent => sent += page,
            Sweeping::Behind => break,
        }
        assert!(sent <= BACKLOG + page, "{sent} messages");
    }
    assert!(sent > BACKLOG, "{sent} messages");
    assert_eq!(post.setup.proxy.counts().came("sqs/Send*"), 0, "nothing is sent");
}

/// Ids are drawn, not counted: two processes must never draw the same.
#[test]
fn ids_are_fresh() {
    let ids: BTreeSet<_> = (0..1_000).map(|_| fresh_id()).collect();
    assert_eq!(ids.len(), 1_000);
}
