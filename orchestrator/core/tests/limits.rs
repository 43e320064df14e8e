//! Everything has a bound, and the bound has a name.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use common::{GO, MINUTE, World, app, cancel, completed, double, json, run_key, secs, signal, terminate};
use dormouse_core::history::{Batch, Damage, DecidedBy, Event, Flags};
use dormouse_core::{
    Activity, ActivityHost, ActivityInfo, App, CancelReason, Failure, FailureKind, Limits, LiveRun, MAX_FAILURE_BYTES,
    MAX_HEARTBEAT_BYTES, MAX_PAYLOAD_DEPTH, Payload, Refusal, RetryPolicy, RunId, Terms, TimeoutKind, Timestamp,
    TurnFailure, Workflow,
};
use futures::future::BoxFuture;

fn under(world: &World, limits: Limits) -> LiveRun {
    let terms = Terms { limits, ..Terms::default() };
    LiveRun::replay_under(&world.app, &run_key(0), &world.log, &terms).unwrap()
}

async fn fans_out(cx: Workflow, width: u32) -> Result<(), Failure> {
    let calls: Vec<_> = (0..width).map(|n| cx.activity(double, &n).options(MINUTE).start()).collect();
    cx.signal(GO).await?;
    drop(calls);
    Ok(())
}

fn begun(width: u32) -> World {
    World::idle(app(fans_out), "test", Payload::encode(&width).unwrap())
}

#[test]
fn ten_thousand_commands_of_one_turn_pass() {
    let mut world = begun(10_000);
    assert_eq!(world.settle().len(), 10_000);
}

#[test]
fn a_turn_beyond_its_limits_is_refused_by_name_before_anything_is_drafted() {
    let world = begun(10);
    let refused = |limits: Limits| {
        let mut live = under(&world, limits);
        let failure = live.decide(world.now()).map(|_| ()).unwrap_err();
        let TurnFailure::TooLarge { turn: 1, limit, at_most } = failure else { panic!("{failure:?}") };
        assert!(failure.to_string().contains(&format!("{limit} of {at_most}")), "{failure}");
        limit
    };
    assert_eq!(refused(Limits { turn_events: 10, ..Limits::DEFAULT }), "turn_events");
    assert_eq!(refused(Limits { turn_bytes: 300, ..Limits::DEFAULT }), "turn_bytes");
    // Ten commands and the start: exactly at the limit.
    let mut live = under(&world, Limits { turn_events: 11, ..Limits::DEFAULT });
    assert!(live.decide(world.now()).is_ok());
}

/// What ends a run counts as well: its result, or what the next run is given. And what is recorded on the way.
#[test]
fn what_ends_a_run_counts_for_its_turn() {
    async fn ends(cx: Workflow, how: String) -> Result<String, Failure> {
        let large = "x".repeat(1_000);
        match how.as_str() {
            "again" => cx.continue_as_new(ends, &large),
            "aside" => Ok(cx.side_effect("large", || large).len().to_string()),
            _ => Ok(large),
        }
    }
    for how in ["well", "again", "aside"] {
        let world = World::idle(app(ends), "test", Payload::encode(how).unwrap());
        let decided = |turn_bytes| under(&world, Limits { turn_bytes, ..Limits::DEFAULT }).decide(world.now()).is_ok();
        assert_eq!([1_000, 2_000].map(decided), [false, true], "{how}");
    }
}

#[test]
fn a_history_beyond_its_limits_takes_no_further_turn_but_an_operators_word() {
    let mut world = begun(3);
    world.settle();
    for (limits, name) in [
        (Limits { history_events: world.state().events, ..Limits::DEFAULT }, "history_events"),
        (Limits { history_bytes: world.state().bytes, ..Limits::DEFAULT }, "history_bytes"),
    ] {
        let full = world.state().accept_within(&signal("s", "go", "true"), world.now(), &limits);
        assert_eq!(full, Err(Refusal::Full { limit: name }));
        let mut live = under(&world, limits);
        live.take_in(world.state().accept(&completed(1, "2"), world.now()).unwrap());
        let failure = live.decide(world.now()).map(|_| ()).unwrap_err();
        assert!(matches!(failure, TurnFailure::TooLarge { limit, .. } if limit == name), "{failure:?}");
        for word in [cancel("c"), terminate("t"), completed(1, "2")] {
            assert!(world.state().accept_within(&word, world.now(), &limits).is_ok(), "{word:?}");
        }
    }
}

#[test]
fn an_inbox_beyond_its_limits_takes_no_further_signal() {
    let mut world = begun(1);
    world.merged([signal("s1", "number", "1"), signal("s2", "number", "2")]);
    // The start and two signals.
    let events = |inbox_events| Limits { inbox_events, ..Limits::DEFAULT };
    let bytes = |inbox_bytes| Limits { inbox_bytes, ..Limits::DEFAULT };
    let more = signal("s3", "number", "3");
    let accept = |limits| world.state().accept_within(&more, world.now(), &limits).map(|inputs| inputs.len());
    assert_eq!(accept(events(4)), Ok(1));
    assert_eq!(accept(events(3)), Err(Refusal::Full { limit: "inbox_events" }));
    assert_eq!(accept(bytes(1_000)), Ok(1));
    assert_eq!(accept(bytes(100)), Err(Refusal::Full { limit: "inbox_bytes" }));
    // Taken out, they count no more.
    world.settle();
    let accept = |limits| world.state().accept_within(&more, world.now(), &limits).map(|inputs| inputs.len());
    assert_eq!(accept(bytes(100)), Ok(1));
}

/// What waits in the inbox is what the run was given, and what it is told to hand on.
#[test]
fn a_start_and_a_termination_count_for_the_inbox() {
    let large = json(&format!("\"{}\"", "x".repeat(1_000)));
    let world = World::idle(app(idles), "test", large.clone());
    let accept = |inbox_bytes| {
        let limits = Limits { inbox_bytes, ..Limits::DEFAULT };
        world.state().accept_within(&signal("s", "go", "true"), world.now(), &limits).map(|inputs| inputs.len())
    };
    assert_eq!(
        [accept(1_000), accept(2_000)],
        [Err(Refusal::Full { limit: "inbox_bytes" }), Ok(1)],
        "the start's input"
    );
}

async fn idles(cx: Workflow, _: String) -> Result<(), Failure> {
    cx.signal(GO).await?;
    Ok(())
}

/// What remembers states does so in a bounded room, and believes what they say of their size.
#[test]
fn a_state_weighs_about_what_it_holds() {
    async fn holds(cx: Workflow, (activities, timers): (u32, u32)) -> Result<(), Failure> {
        let calls: Vec<_> = (0..activities).map(|n| cx.activity(double, &n).options(MINUTE).start()).collect();
        let sleeps = (0..timers).map(|n| cx.sleep(secs(60 + u64::from(n))));
        futures::future::join_all(sleeps).await;
        cx.signal(GO).await?;
        drop(calls);
        Ok(())
    }
    let weight = |activities: u32, timers: u32| World::run(holds, &(activities, timers)).state().weight();
    let per = |full: usize| (full - weight(0, 0)) / 100;
    assert!((256..400).contains(&per(weight(100, 0))), "{} bytes an activity", per(weight(100, 0)));
    assert!((64..200).contains(&per(weight(0, 100))), "{} bytes a timer", per(weight(0, 100)));
}

#[test]
fn a_closed_run_holds_no_timers() {
    async fn leaves(cx: Workflow, _: ()) -> Result<(), Failure> {
        cx.timeout(secs(60), cx.signal(GO)).await?;
        Ok(())
    }
    let mut world = World::run(leaves, &());
    assert_eq!(world.state().pending.timers.open.len(), 1);
    world.arrive(terminate("t"));
    assert_eq!(world.state().pending.timers.open.len(), 0);
}

/// Hears heartbeats.
#[derive(Default)]
struct Host(Mutex<Vec<usize>>);

impl ActivityHost for Host {
    fn heartbeat(&self, details: Payload) {
        self.0.lock().unwrap().push(details.len());
    }
    fn cancel_reason(&self) -> Option<CancelReason> {
        None
    }
    fn canceled(&self) -> BoxFuture<'_, CancelReason> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn a_heartbeat_is_bounded() {
    let host = Arc::new(Host::default());
    let info = ActivityInfo {
        run: run_key(0),
        run_id: RunId::from_bytes([1; 16]),
        activity_type: "a".into(),
        activity_id: 1,
        attempt: 3,
        scheduled_at: Timestamp::from_millis(1),
        last_heartbeat: None,
    };
    let cx = Activity::new(info, App::new().tools().clone(), host.clone());
    assert_eq!(cx.attempt(), 3);
    // The text and its two quotes.
    cx.heartbeat(&"x".repeat(MAX_HEARTBEAT_BYTES - 2)).unwrap();
    let refused = cx.heartbeat(&"x".repeat(MAX_HEARTBEAT_BYTES - 1)).unwrap_err();
    assert_eq!(refused.type_name(), Some("HeartbeatTooLarge"));
    assert_eq!(*host.0.lock().unwrap(), [MAX_HEARTBEAT_BYTES]);
}

#[test]
fn a_stored_failure_is_bounded() {
    let stored = |failure: Failure| {
        let stored = failure.storable();
        let lengths = [minicbor::to_vec(&stored).unwrap().len(), serde_json::to_vec(&stored).unwrap().len()];
        assert!(lengths.iter().all(|length| *length <= MAX_FAILURE_BYTES + 4_096), "{lengths:?} bytes");
        stored
    };
    let long = |n: usize| "x".repeat(n);
    let small = Failure::application("no").with_type("T").with_details(&[1, 2]).caused_by(Failure::application("why"));
    assert_eq!(stored(small.clone()), small, "what is small stays as it is");
    let message = stored(Failure::application(format!("begin {} end", long(1 << 20))));
    assert!(message.message.starts_with("begin") && message.message.ends_with("end"));
    assert!(message.message.contains("bytes were cut"), "{}", message.message);
    // What a terminal is told takes six times its length in an attempt record.
    stored(Failure::application("\u{1b}".repeat(MAX_FAILURE_BYTES - 1_000)));
    let details = stored(Failure::application("no").with_type("T").with_details(&long(1 << 20)));
    assert!(matches!(&details.kind, FailureKind::Application { details: None, .. }));
    assert_eq!(details.message, "no (1048578 bytes of details were left out)");
    assert_eq!(details.type_name(), Some("T"));
    let heartbeat = Failure::timeout(TimeoutKind::Heartbeat, Some(json(&format!("\"{}\"", long(1 << 20)))));
    assert!(matches!(stored(heartbeat).kind, FailureKind::Timeout { last_heartbeat: None, .. }));
    let typed = stored(Failure::application("no").with_type(long(1 << 20)));
    assert!(typed.type_name().unwrap().len() < MAX_FAILURE_BYTES / 8);
    let mut chain = Failure::application(long(30_000));
    for _ in 0..12 {
        chain = Failure::application(long(30_000)).caused_by(chain);
    }
    assert!(stored(chain).chain().count() > 1, "as many causes as there is room for");
    let deep = json(&format!("{}{}", "[".repeat(MAX_PAYLOAD_DEPTH + 1), "]".repeat(MAX_PAYLOAD_DEPTH + 1)));
    let heartbeat = stored(Failure::timeout(TimeoutKind::Heartbeat, Some(deep)));
    assert!(matches!(heartbeat.kind, FailureKind::Timeout { last_heartbeat: None, .. }));
    assert!(heartbeat.message.contains("nested too deeply"), "{}", heartbeat.message);
    // The same whoever cuts it, and once.
    let once = Failure::application(long(1 << 20)).storable();
    assert_eq!(once.clone().storable(), once);
}

#[test]
fn policies_that_make_no_sense_are_refused_and_never_loop() {
    let wrong = |policy: fn() -> RetryPolicy| std::panic::catch_unwind(policy).is_err();
    assert!(wrong(|| RetryPolicy::DEFAULT.initial_interval(secs(0))));
    assert!(wrong(|| RetryPolicy::DEFAULT.maximum_interval(std::time::Duration::from_millis(10))));
    assert!(wrong(|| RetryPolicy::DEFAULT.maximum_interval(secs(5)).initial_interval(secs(6))));
    assert!(wrong(|| RetryPolicy::DEFAULT.backoff_coefficient(f64::NAN)));
    assert!(wrong(|| RetryPolicy::DEFAULT.backoff_coefficient(0.5)));
    let sound = dormouse_core::RecordedRetry::from(&RetryPolicy::DEFAULT);
    assert!(sound.check().is_ok());
    let table = [
        dormouse_core::RecordedRetry { initial_interval_ms: 0, ..sound.clone() },
        dormouse_core::RecordedRetry { backoff_coefficient: f64::NAN, ..sound.clone() },
        dormouse_core::RecordedRetry { backoff_coefficient: 0.1, ..sound.clone() },
        dormouse_core::RecordedRetry { backoff_coefficient: f64::INFINITY, ..sound.clone() },
        dormouse_core::RecordedRetry { maximum_interval_ms: 0, ..sound },
    ];
    for policy in table {
        assert_eq!(policy.check().unwrap_err().type_name(), Some("InvalidOptions"), "{policy:?}");
        for attempt in [1, 2, 50, u32::MAX] {
            assert!(policy.delay_ms(attempt) >= 1_000, "{policy:?}, attempt {attempt}");
        }
    }
}

#[test]
fn each_turn_is_announced_before_it_runs_recorded_or_new() {
    let mut world = World::run(fans_out, &1);
    world.arrive(completed(1, "2"));
    let heard: Rc<RefCell<Vec<u64>>> = Rc::default();
    let ear = Rc::clone(&heard);
    let terms = Terms { before_turn: Some(Rc::new(move |turn| ear.borrow_mut().push(turn))), ..Terms::default() };
    let mut live = LiveRun::replay_under(&world.app, &run_key(0), &world.log, &terms).unwrap();
    assert_eq!(*heard.borrow(), [1, 2]);
    live.take_in(live.state().accept(&signal("s", "go", "true"), world.now()).unwrap());
    live.decide(world.now()).unwrap();
    assert_eq!(*heard.borrow(), [1, 2, 3]);
}

#[test]
fn the_build_that_decides_is_recorded_where_it_changes() {
    let mut world = begun(1);
    let by = |world: &mut World, build: &str| {
        let terms = Terms { build: build.into(), ..Terms::default() };
        world.live = LiveRun::replay_under(&world.app, &run_key(0), &world.log, &terms).unwrap();
    };
    let recorded = |world: &World| {
        let batch = world.batch(world.log.len() - 1);
        batch.events.iter().any(|event| matches!(event, Event::DecidedBy(_)))
    };
    by(&mut world, "one");
    world.settle();
    assert!(recorded(&world));
    assert_eq!(world.state().decided_by, DecidedBy { build: "one".into(), ..Default::default() });
    world.arrive(signal("s1", "number", "1"));
    assert!(!recorded(&world), "the common step costs nothing");
    by(&mut world, "two");
    world.arrive(signal("s2", "number", "2"));
    assert!(recorded(&world));
    assert_eq!(world.state().decided_by.build, "two");
    world.reload();
    assert_eq!(world.state().decided_by.build, "two");
    let people_count: usize =
        (0..world.log.len()).map(|at| dormouse_core::history::readable(&world.batch(at), 1).len()).sum();
    assert_eq!(world.state().events, people_count as u64);
}

#[test]
fn a_behaviour_that_this_build_does_not_know_parks_the_run() {
    let mut world = begun(1);
    world.settle();
    let last = world.log.len() - 1;
    let mut batch: Batch = world.batch(last);
    let flags = Flags::from_bits(0b1001);
    batch.events.insert(0, Event::DecidedBy(DecidedBy { build: "newer".into(), flags, changed: None }));
    world.log[last] = batch.encode();
    let failure = world.replay().map(|_| ()).unwrap_err();
    assert_eq!(failure, TurnFailure::Damaged(Damage::UnknownBehaviour { sequence: 1, behaviour: 4 }));
    assert!(failure.to_string().contains("deploy a newer build"), "{failure}");
}

#[test]
fn a_payload_of_another_encoding_is_kept_and_told() {
    let payload = Payload::encoded("zstd", b"\x28\xb5");
    let stored = minicbor::to_vec(&payload).unwrap();
    assert_eq!(minicbor::decode::<Payload>(&stored).unwrap(), payload);
    let unread = payload.decode::<u32>().unwrap_err();
    assert_eq!(unread.type_name(), Some("UnknownEncoding"));
    assert!(unread.message.contains("zstd"), "{unread}");
    assert_eq!(payload.to_value().to_string(), r#"{"bytes":2,"encoding":"zstd"}"#);
    assert_eq!(json("1").encoding(), None);
}
