//! What queues and alarms are: the cases that each backend must pass. One call per backend and seam.
//!
//! A backend comes as a [`Bench`]: the seams that the engine sends by, and a [`Delivery`], which takes what has arrived
//! and lets time pass. Everything may arrive twice or late, so the cases ask for no more than the engine relies on:
//! that it arrives, whole, in the order of its workflow, and not before its time.

mod alarms;
mod queues;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::operations;
use dormouse_core::{
    ActivityTask, Arrival, MAX_PAYLOAD_DEPTH, Payload, RecordedOptions, RecordedRetry, RetryPolicy, RunId, RunKey,
    Timestamp, WorkflowKey,
};
use dormouse_engine::seams::{ActivityQueue, Alarms, RunMessage, RunQueue};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use crate::conformance::{Report, message};

/// The receiving end of a backend.
pub trait Delivery: Send + Sync {
    /// The clock that the sending end goes by.
    fn now(&self) -> Timestamp;

    /// Lets time pass: really, or on the backend's own clock.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;

    /// Takes what has arrived for deciders, in the order in which it came, and acknowledges it. Does not wait.
    fn messages(&self) -> BoxFuture<'_, Vec<RunMessage>>;

    /// Takes what has arrived for workers, and acknowledges it. Does not wait.
    fn tasks(&self) -> BoxFuture<'_, Vec<ActivityTask>>;
}

/// How far away things are set, so that every way is gone that a backend has.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Soon: within the shortest way of waiting.
    pub near: Duration,
    /// Late: on the longest way of waiting. More than twice `near`.
    pub far: Duration,
    /// What has not come so long after its time is lost.
    pub patience: Duration,
    /// How often to look.
    pub step: Duration,
}

/// A backend's seams with nothing on their way, and where what is sent arrives.
#[derive(Clone)]
pub struct Bench {
    /// To deciders.
    pub runs: Arc<dyn RunQueue>,
    /// To workers.
    pub activities: Arc<dyn ActivityQueue>,
    /// Alarms; they ring as messages to deciders.
    pub alarms: Arc<dyn Alarms>,
    /// The receiving end of all three.
    pub delivery: Arc<dyn Delivery>,
    /// Distances.
    pub pace: Pace,
}

/// One case: its name, and what it does to a fresh backend.
pub type Case = (&'static str, fn(Bench) -> BoxFuture<'static, ()>);

macro_rules! cases {
    ($($room:ident: $($case:ident),+;)+) => {
        &[$($((concat!(stringify!($room), "::", stringify!($case)), |bench| Box::pin($room::$case(bench)))),+),+]
    };
}

/// The cases of run queue and activity queue.
pub const QUEUE_CASES: &[Case] = cases! {
    queues:
        every_kind_of_message_arrives,
        an_intent_arrives_whatever_becomes_of_its_caller,
        a_workflow_s_messages_keep_their_order,
        what_is_overdue_is_told,
        tasks_arrive_whole,
        many_tasks_at_once_all_arrive,
        payloads_keep_their_bytes,
        large_bodies_arrive_whole,
        hostile_ids_are_ids,
        no_task_is_early,
        a_task_sent_twice_arrives;
};

/// The cases of alarms.
pub const ALARM_CASES: &[Case] = cases! {
    alarms:
        ring_when_they_are_due_and_not_before,
        ring_when_they_are_overdue,
        set_again_the_same_ring,
        set_earlier_ring_earlier,
        set_later_ring_later_too,
        taken_away_and_set_again_ring,
        that_have_rung_may_be_set_again,
        of_many_runs_all_ring,
        of_hostile_ids_ring;
};

/// Runs every case of run queue and activity queue, each against a fresh backend of its own, all at once.
///
/// # Panics
/// When a case fails; the message names it.
pub async fn queue_conformance(make: impl AsyncFn() -> Bench) -> Report {
    conformance("queue", QUEUE_CASES, make).await
}

/// Runs every case of alarms, each against a fresh backend of its own, all at once.
///
/// # Panics
/// When a case fails; the message names it.
pub async fn alarm_conformance(make: impl AsyncFn() -> Bench) -> Report {
    conformance("alarm", ALARM_CASES, make).await
}

async fn conformance(suite: &'static str, cases: &[Case], make: impl AsyncFn() -> Bench) -> Report {
    let run = async |(name, case): &Case| {
        let bench = make().await;
        let ended = AssertUnwindSafe(case(bench)).catch_unwind().await;
        ended.map(|()| *name).map_err(|panic| format!("case {name}: {}", message(&*panic)))
    };
    let ended = join_all(cases.iter().map(run)).await;
    let failures: Vec<_> = ended.iter().filter_map(|ended| ended.as_ref().err().cloned()).collect();
    assert!(failures.is_empty(), "{suite} conformance: {}", failures.join("\n"));
    Report { suite, passed: ended.into_iter().flatten().collect() }
}

/// All that has arrived, each with the time by which it had.
struct Inbox {
    bench: Bench,
    messages: Vec<(Timestamp, RunMessage)>,
    tasks: Vec<(Timestamp, ActivityTask)>,
}

impl Inbox {
    fn of(bench: &Bench) -> Self {
        Self { bench: bench.clone(), messages: Vec::new(), tasks: Vec::new() }
    }

    async fn look(&mut self) {
        let delivery = Arc::clone(&self.bench.delivery);
        let messages = delivery.messages().await;
        self.messages.extend(messages.into_iter().map(|message| (delivery.now(), message)));
        let tasks = delivery.tasks().await;
        self.tasks.extend(tasks.into_iter().map(|task| (delivery.now(), task)));
    }

    /// Looks until this is so, at most until so long after `due` that what is missing is lost.
    async fn until(&mut self, due: Timestamp, what: &str, enough: impl Fn(&Self) -> bool) {
        let (delivery, pace) = (Arc::clone(&self.bench.delivery), self.bench.pace);
        loop {
            self.look().await;
            if enough(self) {
                return;
            }
            let late = delivery.now().since(due);
            assert!(late < pace.patience, "{what}: lost, {late:?} after it was due; {}", self.told());
            delivery.pass(pace.step).await;
        }
    }

    /// Goes on looking, for what should not come.
    async fn linger(&mut self) {
        let until = self.bench.delivery.now() + self.bench.pace.near;
        while self.bench.delivery.now() < until {
            self.bench.delivery.pass(self.bench.pace.step).await;
            self.look().await;
        }
    }

    /// Waits for these, sent to deciders just now, and that nothing else comes.
    async fn expect(&mut self, sent: &[RunMessage]) {
        let now = self.bench.delivery.now();
        let has = |inbox: &Self, message: &RunMessage| inbox.messages.iter().any(|(_, found)| found == message);
        for message in sent {
            self.until(now, &brief(message), |inbox| has(inbox, message)).await;
        }
        self.linger().await;
        let foreign: Vec<_> = self.messages.iter().filter(|(_, found)| !sent.contains(found)).collect();
        assert!(foreign.is_empty(), "nobody has sent this: {}", brief(&foreign));
    }

    /// Waits for these, sent to workers just now, and that nothing else comes.
    async fn expect_tasks(&mut self, sent: &[ActivityTask]) {
        for task in sent {
            let due = task.not_before.max(self.bench.delivery.now());
            self.until(due, &brief(task), |inbox| inbox.tasks.iter().any(|(_, found)| found == task)).await;
        }
        self.linger().await;
        let foreign: Vec<_> = self.tasks.iter().filter(|(_, found)| !sent.contains(found)).collect();
        assert!(foreign.is_empty(), "nobody has sent this: {}", brief(&foreign));
    }

    /// When this run was rung.
    fn rings(&self, run: &RunKey) -> Vec<Timestamp> {
        let rung = |message: &RunMessage| match message {
            RunMessage::Arrived { run: found, run_id, arrival: Arrival::Alarm } => {
                found == run && *run_id == run_id_of(run)
            }
            _ => false,
        };
        self.messages.iter().filter(|(_, message)| rung(message)).map(|(at, _)| *at).collect()
    }

    fn told(&self) -> String {
        format!("{} messages and {} tasks have arrived", self.messages.len(), self.tasks.len())
    }
}

/// What may be very long, for people.
fn brief(what: &impl std::fmt::Debug) -> String {
    format!("{what:?}").chars().take(300).collect()
}

fn workflow(id: &str) -> WorkflowKey {
    WorkflowKey::new("conformance", id).expect("a fine id")
}

fn run(id: &str) -> RunKey {
    workflow(id).run(0)
}

/// Every run of this suite has an identity that follows from its key.
fn run_id_of(run: &RunKey) -> RunId {
    RunId::from_bytes(dormouse_core::derive("conformance", &[run.to_string().as_bytes()]))
}

fn arrived(run: &RunKey, arrival: Arrival) -> RunMessage {
    RunMessage::Arrived { run: run.clone(), run_id: run_id_of(run), arrival }
}

fn signal(run: &RunKey, request_id: &str, payload: Payload) -> RunMessage {
    arrived(run, Arrival::Signal(operations::Signaled { request_id: request_id.into(), name: "news".into(), payload }))
}

fn json(text: impl Into<String>) -> Payload {
    Payload::from_json(text.into().into())
}

fn task(run: &RunKey, id: u64, not_before: Timestamp) -> ActivityTask {
    plain_task(run, run_id_of(run), id, not_before)
}

/// A task for the default queue.
#[must_use]
pub fn plain_task(run: &RunKey, run_id: RunId, id: u64, not_before: Timestamp) -> ActivityTask {
    ActivityTask {
        run: run.clone(),
        run_id,
        id,
        activity_type: "work".into(),
        input: json(id.to_string()),
        options: RecordedOptions {
            start_to_close_ms: Some(60_000),
            schedule_to_close_ms: None,
            schedule_to_start_ms: Some(3),
            heartbeat_ms: None,
            retry: RecordedRetry::from(&RetryPolicy::max_attempts(7).non_retryable(&["Fatal"])),
            task_queue: None,
        },
        scheduled_at: Timestamp::from_millis(1_700_000_000_123),
        lost: 2,
        not_before,
    }
}

/// Ids that something on the way may take for something else.
fn hostile_runs() -> Vec<RunKey> {
    let long = "\u{1F980}".repeat(63);
    let ids = [
        "../../etc/passwd",
        "a/b#0",
        "a\"b\\c{d}",
        "<aws.scheduler.execution-id>",
        "<&amp;>",
        "\u{fffe}\u{ffff}",
        "\u{202e}\u{200b}\u{7fff}",
        "%00%2F+ &=;'",
        " ",
        ".",
        &long,
    ];
    let key = |namespace: &str, id: &str| WorkflowKey::new(namespace, id).expect("odd, but an id").run(u64::MAX);
    ids.iter().flat_map(|id| [key("conformance", id), key(id, "id")]).collect()
}

/// JSON that is easily changed by reading and writing it again.
fn odd_payloads() -> Vec<Payload> {
    let nested = "[".repeat(MAX_PAYLOAD_DEPTH) + &"]".repeat(MAX_PAYLOAD_DEPTH);
    let texts = [
        "null",
        "{\"b\": 1,\n\t\"a\":1.0, \"b\":2}",
        "123456789012345678901234567890.10e-7",
        "-0.0",
        "\"\\u0041\\ud83e\\udd80 \\ud800 \u{7f}\u{1F980}\"",
        "\"\u{fffe}\u{ffff}\"",
        "\"<aws.scheduler.execution-id> <&>\"",
        &nested,
    ];
    texts.map(json).into()
}
