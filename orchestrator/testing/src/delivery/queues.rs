//! Run queue and activity queue.

use dormouse_core::Call;
use dormouse_core::operations;
use dormouse_core::{Failure, IdConflictPolicy, IdReusePolicy, Payload, RetryState, StartRequest, TimeoutKind};
use dormouse_engine::seams::{Intent, Overdue, Sweeping, Wish};

use super::*;

async fn send(bench: &Bench, messages: &[RunMessage]) {
    for message in messages {
        bench.runs.send(message.clone()).await.expect("the run queue takes a message");
    }
}

async fn send_tasks(bench: &Bench, tasks: &[ActivityTask]) {
    bench.activities.send(tasks.to_vec()).await.expect("the activity queue takes tasks");
}

fn start(run: &RunKey, request_id: &str, input: Payload) -> Intent {
    let request = StartRequest {
        call: Call::new("test", input),
        request_id: request_id.into(),
        reuse: IdReusePolicy::RejectDuplicate,
        conflict: IdConflictPolicy::UseExisting,
    };
    Intent { run: run.clone(), wish: Wish::Start(request) }
}

pub(super) async fn every_kind_of_message_arrives(bench: Bench) {
    let run = run("kinds");
    let arrival = Arrival::Cancel(operations::CancelRequested { request_id: "r".into(), reason: "enough".into() });
    let failure = Failure::application("no").with_type("Declined").caused_by(Failure::terminated("because"));
    let lost = Arrival::AttemptLost(operations::WorkerGone {
        id: 4,
        attempt: 2,
        timeout: TimeoutKind::Heartbeat,
        last_heartbeat: Some(json("7")),
    });
    let sent = [
        RunMessage::Intent(start(&run, "r1", json("1"))),
        RunMessage::Intent(Intent { run: run.clone(), wish: Wish::Take { arrival, pinned: true } }),
        RunMessage::Accepted { run: run.clone(), sequence: 5, record: vec![0, 255, 13, 10].into() },
        signal(&run, "r2", json("{}")),
        arrived(
            &run,
            Arrival::ActivityCompleted(operations::ActivityCompleted { id: 3, attempt: 1, result: Payload::NULL }),
        ),
        arrived(
            &run,
            Arrival::ActivityFailed(operations::ActivityFailed {
                id: 3,
                attempt: 1,
                failure,
                retry_state: RetryState::Timeout,
            }),
        ),
        arrived(&run, lost),
        arrived(&run, Arrival::NeverTaken(operations::NeverTaken { id: 9 })),
        arrived(&run, Arrival::Alarm),
        RunMessage::Sweep { run: run.clone() },
    ];
    send(&bench, &sent).await;
    Inbox::of(&bench).expect(&sent).await;
}

/// He commits and says so, or fails, or is gone: it is delivered, or what tells more.
pub(super) async fn an_intent_arrives_whatever_becomes_of_its_caller(bench: Bench) {
    let intent = |id: &str| start(&run(id), "r", json("1"));
    let instead = RunMessage::Accepted { run: run("committed"), sequence: 0, record: "batch 0".into() };
    let committed = bench.runs.announce(intent("committed")).await.expect("an intent is announced");
    let failed = bench.runs.announce(intent("failed")).await.expect("an intent is announced");
    committed.settle(instead.clone());
    drop(failed);
    let mut inbox = Inbox::of(&bench);
    let has = |inbox: &Inbox, message: &RunMessage| inbox.messages.iter().any(|(_, found)| found == message);
    let now = bench.delivery.now();
    let (failed, committed) = (RunMessage::Intent(intent("failed")), RunMessage::Intent(intent("committed")));
    inbox.until(now, "the intent of one who failed", |inbox| has(inbox, &failed)).await;
    inbox.until(now, "that of one who committed", |inbox| has(inbox, &committed) || has(inbox, &instead)).await;
}

pub(super) async fn a_workflow_s_messages_keep_their_order(bench: Bench) {
    let names = ["one", "two", "three"];
    let mut sent = Vec::new();
    for round in 0..12 {
        for name in names {
            // Runs of a workflow follow one another: they share its order.
            sent.push(signal(&workflow(name).run(round / 6), &format!("r{round}"), json(round.to_string())));
        }
    }
    send(&bench, &sent).await;
    let mut inbox = Inbox::of(&bench);
    inbox.expect(&sent).await;
    for name in names {
        let of = |message: &&RunMessage| message.run().workflow == workflow(name);
        let mut firsts: Vec<&RunMessage> = Vec::new();
        for (_, message) in &inbox.messages {
            if of(&message) && !firsts.contains(&message) {
                firsts.push(message);
            }
        }
        assert_eq!(firsts, sent.iter().filter(of).collect::<Vec<_>>(), "the order of {name}");
    }
}

/// More than goes into one request of any queue. Told again with the same due time it may come again or not; with
/// another, or when a run that is parked is to be tried again, it comes.
pub(super) async fn what_is_overdue_is_told(bench: Bench) {
    let now = bench.delivery.now();
    let runs: Vec<_> = (0..25).map(|number| run(&format!("overdue {number}"))).collect();
    let sent: Vec<_> = runs.iter().map(|run| RunMessage::Sweep { run: run.clone() }).collect();
    let later = now + Duration::from_secs(1);
    for (due, retry_at) in [(now, None), (later, None), (later, Some(now)), (later, Some(later))] {
        let overdue: Vec<_> = runs.iter().map(|run| Overdue { run: run.clone(), due, retry_at }).collect();
        for _ in 0..2 {
            assert_eq!(bench.runs.sweep(overdue.clone()).await, Ok(Sweeping::Sent));
        }
        Inbox::of(&bench).expect(&sent).await;
    }
}

pub(super) async fn tasks_arrive_whole(bench: Bench) {
    let now = bench.delivery.now();
    let tasks: Vec<_> = (0..10).map(|id| task(&run("tasks"), id, now)).collect();
    send_tasks(&bench, &tasks).await;
    Inbox::of(&bench).expect_tasks(&tasks).await;
}

/// More than goes into one request of any queue, by number and by size, and to be done at different times.
pub(super) async fn many_tasks_at_once_all_arrive(bench: Bench) {
    let (run, now) = (run("many"), bench.delivery.now());
    let make = |id: u64| {
        let wait = if id.is_multiple_of(5) { bench.pace.near } else { Duration::ZERO };
        let text = if id.is_multiple_of(3) { "0123456789abcdef".repeat(5_000) } else { id.to_string() };
        ActivityTask { input: json(format!("\"{text}\"")), ..task(&run, id, now + wait) }
    };
    let tasks: Vec<_> = (0..47).map(make).collect();
    send_tasks(&bench, &tasks).await;
    Inbox::of(&bench).expect_tasks(&tasks).await;
}

pub(super) async fn payloads_keep_their_bytes(bench: Bench) {
    let (run, now) = (run("payloads"), bench.delivery.now());
    let mut inbox = Inbox::of(&bench);
    let (mut messages, mut tasks) = (Vec::new(), Vec::new());
    for (id, payload) in (0..).zip(odd_payloads()) {
        messages.push(signal(&run, &id.to_string(), payload.clone()));
        messages.push(RunMessage::Intent(start(&run, &id.to_string(), payload.clone())));
        messages.push(arrived(
            &run,
            Arrival::ActivityCompleted(operations::ActivityCompleted { id, attempt: 1, result: payload.clone() }),
        ));
        // At once, soon, and late: each way must keep them.
        for (way, wait) in (0..).zip([Duration::ZERO, bench.pace.near, bench.pace.far]) {
            tasks.push(ActivityTask { input: payload.clone(), ..task(&run, id * 3 + way, now + wait) });
        }
    }
    send_tasks(&bench, &tasks).await;
    send(&bench, &messages).await;
    inbox.expect(&messages).await;
    inbox.expect_tasks(&tasks).await;
}

pub(super) async fn large_bodies_arrive_whole(bench: Bench) {
    let (run, now) = (run("large"), bench.delivery.now());
    let mut inbox = Inbox::of(&bench);
    let text = |length: usize| json(format!("\"{}\"", "0123456789abcdef".repeat(length / 16)));
    let (mut messages, mut tasks) = (Vec::new(), Vec::new());
    for (id, length) in (0..).zip([180_000, 300_000, 2_000_000]) {
        messages.push(signal(&run, &id.to_string(), text(length)));
        let record = vec![id as u8; length].into();
        messages.push(RunMessage::Accepted { run: run.clone(), sequence: id, record });
        for (way, wait) in (0..).zip([Duration::ZERO, bench.pace.far]) {
            tasks.push(ActivityTask { input: text(length), ..task(&run, id * 2 + way, now + wait) });
        }
    }
    send_tasks(&bench, &tasks).await;
    send(&bench, &messages).await;
    inbox.expect(&messages).await;
    inbox.expect_tasks(&tasks).await;
}

pub(super) async fn hostile_ids_are_ids(bench: Bench) {
    let now = bench.delivery.now();
    let mut inbox = Inbox::of(&bench);
    let (mut messages, mut tasks) = (Vec::new(), Vec::new());
    for run in hostile_runs() {
        let id = run.workflow.workflow_id.to_string();
        messages.push(arrived(
            &run,
            Arrival::Signal(operations::Signaled { request_id: id.clone(), name: id.clone(), payload: json("1") }),
        ));
        messages.push(RunMessage::Intent(start(&run, &id, json("1"))));
        tasks.push(ActivityTask { activity_type: id.clone(), ..task(&run, u64::MAX, now) });
        tasks.push(ActivityTask { activity_type: id, ..task(&run, 1, now + bench.pace.far) });
    }
    send_tasks(&bench, &tasks).await;
    send(&bench, &messages).await;
    inbox.expect(&messages).await;
    inbox.expect_tasks(&tasks).await;
}

pub(super) async fn no_task_is_early(bench: Bench) {
    let (run, now) = (run("early"), bench.delivery.now());
    let waits = [Duration::ZERO, bench.pace.near / 3, bench.pace.near, bench.pace.near * 2, bench.pace.far];
    let tasks: Vec<_> = (0..).zip(waits).map(|(id, wait)| task(&run, id, now + wait)).collect();
    send_tasks(&bench, &tasks).await;
    let mut inbox = Inbox::of(&bench);
    inbox.expect_tasks(&tasks).await;
    for (at, task) in &inbox.tasks {
        assert!(*at >= task.not_before, "task {} has come {:?} early", task.id, task.not_before.since(*at));
    }
}

/// The sweep does so: it may come once or twice, but it comes.
pub(super) async fn a_task_sent_twice_arrives(bench: Bench) {
    let (run, now) = (run("twice"), bench.delivery.now());
    let tasks = [task(&run, 1, now), task(&run, 2, now + bench.pace.near), task(&run, 3, now + bench.pace.far)];
    let mut inbox = Inbox::of(&bench);
    for _ in 0..2 {
        send_tasks(&bench, &tasks).await;
    }
    inbox.expect_tasks(&tasks).await;
    // Handled and wanted again, as after an attempt that was lost.
    let again = ActivityTask { not_before: bench.delivery.now(), ..tasks[0].clone() };
    send_tasks(&bench, std::slice::from_ref(&again)).await;
    Inbox::of(&bench).expect_tasks(&[again]).await;
}
