//! Batches: what fails comes again, with what stands behind it in its group; everything else is done.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lambda_events::event::sqs::SqsMessage;
use dormouse::{App, Failure, Signal, Workflow};
use dormouse_aws::wire::{Alarm, Message, Task, encode};
use dormouse_core::operations;
use dormouse_core::{Arrival, Payload, RunKey, TimeoutKind};
use dormouse_engine::seams::{Intent, RunMessage, Wish};
use dormouse_lambda::envelope::Letter;
use dormouse_testing::delivery::plain_task;
use dormouse_testing::{Fault, On, World};
use serde_json::json;

use crate::{DEAD, Function, PLENTY, WORKER, body, letter, letters};

const WORD: Signal<String> = Signal::new("word");

async fn words(cx: Workflow, words: usize) -> Result<Vec<String>, Failure> {
    let mut heard = Vec::new();
    while heard.len() < words {
        heard.push(cx.signal(WORD).await?);
    }
    Ok(heard)
}

fn world() -> World {
    World::new(App::new().workflow("words", words)).shared()
}

fn sweep(run: &RunKey) -> String {
    body(&RunMessage::Sweep { run: run.clone() })
}

/// Two runs, one behind the other in a group, and others beside them. The first put of one fails.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_comes_again_with_what_is_behind_it() {
    let world = world();
    let function = Function::begin(&world);
    let ids = ["a", "b", "c", "d"];
    let runs = ids.map(|id| function.process.start("words", id, id, &1));
    let messages = world.mail.drop_messages();
    for failing in 0..ids.len() {
        let world = self::world();
        let function = Function::begin(&world);
        for id in ids {
            function.process.start("words", id, id, &1);
            function.process.signal(id, &format!("first of {id}"), "word", &id);
        }
        // The run that fails is two batches ahead: its sequence names it.
        let ahead = ids[failing];
        for n in 0..2 {
            function.process.signal(ahead, &format!("ahead {n}"), "word", &"more");
        }
        world.mail.drop_messages();
        for _ in 0..5 {
            function.process.faults.plan(On::Create(Some(4)), Fault::FailBefore);
        }
        let batch: Vec<_> =
            (0..).zip(&runs).map(|(n, run)| letter(ids[n], ["g", "g", "g", "h"][n], sweep(run))).collect();
        let failed: BTreeSet<_> = function.invoke(batch, PLENTY).await.into_iter().collect();
        let expected: BTreeSet<_> = if failing == 3 {
            BTreeSet::from(["d".to_owned()])
        } else {
            ids[failing..3].iter().map(|id| (*id).into()).collect()
        };
        assert_eq!(failed, expected, "{ahead} fails");
        let again: BTreeSet<_> = function.clerk.0.lock().unwrap().again_soon.iter().cloned().collect();
        assert_eq!(again, expected, "and they come again soon");
        for (id, run) in ids.iter().zip(&runs) {
            assert_eq!(world.result(run).is_some(), !expected.contains(*id), "{id}, while {ahead} fails");
        }
    }
    drop(messages);
}

/// What nobody can read is put aside, and does not hold up what is behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_put_aside() {
    let world = world();
    let function = Function::begin(&world);
    let run = function.process.start("words", "w", "r1", &1);
    world.mail.drop_messages();
    function.process.signal("w", "s", "word", &"a");
    world.mail.drop_messages();
    let task = Task { task: plain_task(&run, world.state(&run).run_id(), 1, world.now()), not_after: world.now() };
    let alarm = Message::Alarm(Alarm { run: run.clone(), run_id: world.state(&run).run_id(), due: world.now() });
    let nothing: SqsMessage = serde_json::from_str(
        r#"{"messageId": null, "receiptHandle": null, "body": null, "attributes": null, "messageAttributes": null}"#,
    )
    .unwrap();
    let batch = vec![
        letter("garbage", "g", "\u{0}{".into()),
        letter("null", "g", "null".into()),
        letter("another version", "g", sweep(&run).replace("\"v\":1", "\"v\":2")),
        letter("unknown", "g", r#"{"v":1,"kind":"dance","run":{}}"#.into()),
        letter("half", "g", r#"{"v":1,"kind":"sweep","run":{"namespace":"default"}}"#.into()),
        letter("task", "g", encode(&Message::Task(task)).unwrap()),
        letter("alarm", "g", encode(&alarm).unwrap()),
        Letter::new(nothing),
        letter("good", "g", sweep(&run)),
        Letter { queue_arn: DEAD.into(), ..letter("dead", "x", sweep(&run)) },
        Letter { queue_arn: DEAD.into(), ..letter("dead garbage", "x", "?".into()) },
        Letter { queue_arn: DEAD.into(), reason: Some("no task".into()), ..letter("given up", "x", "?".into()) },
    ];
    assert_eq!(function.invoke(batch, PLENTY).await, [""; 0]);
    assert_eq!(world.result(&run), Some(json!(["a"])), "the good one was handled");
    let done = function.clerk.0.lock().unwrap();
    let mut aside: Vec<_> = done.set_aside.iter().map(|(id, _)| id.as_str()).collect();
    aside.sort_unstable();
    let expected =
        ["", "another version", "dead", "dead garbage", "garbage", "given up", "half", "null", "task", "unknown"];
    assert_eq!(aside, expected);
    assert!(done.set_aside.iter().all(|(_, reason)| !reason.is_empty()));
    assert!(done.set_aside.contains(&("given up".into(), "no task".into())), "as whoever gave it up has said");
    assert_eq!(done.passed_on, [alarm]);
}

/// Code of activities may send to the run queue; what it says there is taken when it is an outcome. Nothing else, wherever
/// it stands in a batch.
#[tokio::test(flavor = "multi_thread")]
async fn of_workers_only_outcomes_are_taken() {
    let world = world();
    let function = Function::begin(&world);
    let run = function.process.start("words", "w", "r1", &2);
    function.work_off(&world).await;
    let run_id = world.state(&run).run_id();
    let arrived = |arrival| body(&RunMessage::Arrived { run: run.clone(), run_id, arrival });
    let signal = |id: &str| {
        let payload = Payload::encode(&id).unwrap();
        arrived(Arrival::Signal(operations::Signaled { request_id: id.into(), name: "word".into(), payload }))
    };
    let terminate =
        Arrival::Terminate(operations::Terminated { request_id: "t".into(), reason: "because".into(), next: None });
    let take =
        |arrival| body(&RunMessage::Intent(Intent { run: run.clone(), wish: Wish::Take { arrival, pinned: true } }));
    let record = world.records(&run).remove(0);
    let accepted = body(&RunMessage::Accepted { run: run.clone(), sequence: 9, record });
    let lost = Arrival::AttemptLost(operations::WorkerGone {
        id: 9,
        attempt: 1,
        timeout: TimeoutKind::Heartbeat,
        last_heartbeat: None,
    });
    let by_worker = |id: &str, body| Letter { sender: WORKER.into(), ..letter(id, "w", body) };
    let batch = vec![
        by_worker("first", arrived(terminate.clone())),
        letter("engine's", "w", signal("a")),
        by_worker("behind", arrived(terminate.clone())),
        by_worker("intent", take(terminate)),
        by_worker("signal", signal("forged")),
        by_worker("accepted", accepted),
        by_worker("alarm", arrived(Arrival::Alarm)),
        by_worker("sweep", sweep(&run)),
        by_worker(
            "outcome",
            arrived(Arrival::ActivityCompleted(operations::ActivityCompleted {
                id: 9,
                attempt: 1,
                result: Payload::NULL,
            })),
        ),
        by_worker("lost", arrived(lost)),
        letter("engine's again", "w", signal("b")),
    ];
    assert_eq!(function.invoke(batch, PLENTY).await, [""; 0]);
    assert_eq!(world.result(&run), Some(json!(["a", "b"])), "nothing but the engine's words");
    let done = function.clerk.0.lock().unwrap();
    let aside: Vec<_> = done.set_aside.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(aside, ["first", "behind", "intent", "signal", "accepted", "alarm", "sweep"]);
    assert!(done.set_aside.iter().all(|(_, reason)| reason.contains(WORKER) && reason.contains("outcomes")));
}

/// The bucket does not answer: that letter, and what is behind it, comes again; nothing is put aside.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_just_now_comes_again() {
    let world = world();
    let function = Function::begin(&world);
    let run = function.process.start("words", "w", "r1", &1);
    let batch = letters(&world.mail.drop_messages());
    function.clerk.0.lock().unwrap().failing_reads = 1;
    assert_eq!(function.invoke(batch.clone(), PLENTY).await, ["0"]);
    assert_eq!(function.clerk.0.lock().unwrap().set_aside, []);
    assert_eq!(function.invoke(batch, PLENTY).await, [""; 0]);
    assert!(world.state(&run).closed.is_none());
}

/// Messages of one run share a pass.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_run_share_a_put() {
    let world = world();
    let function = Function::begin(&world);
    let run = function.process.start("words", "w", "r1", &6);
    function.work_off(&world).await;
    for n in 0..5 {
        function.process.signal("w", &format!("s{n}"), "word", &"again");
    }
    let batch = letters(&world.mail.drop_messages());
    function.process.count_anew();
    assert_eq!(function.invoke(batch, PLENTY).await, [""; 0]);
    assert_eq!((function.process.counts().creates, function.process.counts().reads), (1, 1));
    assert!(world.state(&run).closed.is_none());
}

/// With too little time, nothing is begun.
#[tokio::test(flavor = "multi_thread")]
async fn without_time_nothing_is_begun() {
    let world = world();
    let function = Function::begin(&world);
    function.process.start("words", "a", "a", &1);
    function.process.start("words", "b", "b", &1);
    let batch = letters(&world.mail.drop_messages());
    function.process.count_anew();
    let failed: BTreeSet<_> = function.invoke(batch, Duration::from_secs(2)).await.into_iter().collect();
    assert_eq!(failed, BTreeSet::from(["0".to_owned(), "1".to_owned()]));
    let counts = function.process.counts();
    assert_eq!((counts.all_reads(), counts.all_writes()), (0, 0));
}

/// Letters that came often because the store did not answer are under suspicion; when it answers, nothing is left of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspicion_that_is_wrong_leaves_nothing() {
    for store_fails in [false, true] {
        let world = world();
        let function = Function::begin(&world);
        let run = function.process.start("words", "w", "r1", &1);
        function.process.signal("w", "s", "word", &"a");
        let mut batch = letters(&world.mail.drop_messages());
        batch.iter_mut().for_each(|letter| letter.deliveries = 4);
        if store_fails {
            for _ in 0..5 {
                function.process.faults.plan(On::Create(None), Fault::FailBefore);
            }
            assert_eq!(function.invoke(batch.clone(), PLENTY).await.len(), batch.len());
            assert_eq!(world.row(&run).unwrap().parked, None, "the process has outlived it");
        }
        let other = Function::begin(&world);
        assert_eq!(other.invoke(batch, PLENTY).await, [""; 0]);
        assert_eq!(world.result(&run), Some(json!(["a"])));
        assert_eq!(world.row(&run).unwrap().parked, None);
    }
}
