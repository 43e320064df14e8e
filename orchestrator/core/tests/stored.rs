//! The stored form: what comes back is what went in, and damage is told from everything else.

mod common;

use bytes::Bytes;
use common::{MINUTE, World, completed, double, failed, secs, signal};
use dormouse_core::RunState;
use dormouse_core::history::{
    Batch, BatchKind, CarriedSignal, ChangedArguments, Command, Damage, DecidedBy, EarlierRequest, Event, Flags, Input,
    NextRun, Started, Turn, VERSION,
};
use dormouse_core::operations;
use dormouse_core::{
    BatchHash, Call, CommitId, Failure, LiveRun, Payload, Query, RecordedOptions, RecordedRetry, RetryState, RunId,
    Timestamp, TurnFailure, Workflow,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// A history with something of everything.
fn sample() -> World {
    let mut world = World::run(
        |cx: Workflow, n: u32| async move {
            let status = cx.publish(Query::<u32>::new("status"), n);
            let n = cx.activity(double, &n).options(MINUTE).await.unwrap_or(3);
            status.set(n);
            cx.sleep(secs(5)).await?;
            cx.local_activity(double, &n).await
        },
        &1,
    );
    world.arrive(signal("s", "go", "true"));
    world.arrive(failed(1, 2, Failure::application("no").caused_by(Failure::application("why")), RetryState::Timeout));
    world.alarm_at(9_000);
    world.arrive(common::local(3, "4"));
    world
}

fn damage(world: &World, log: &[Bytes]) -> Damage {
    match LiveRun::replay(&world.app, &world.state().run, log).map(|_| ()) {
        Err(TurnFailure::Damaged(damage)) => damage,
        other => panic!("the damage went unseen: {other:?}"),
    }
}

#[test]
fn damage_is_named() {
    let world = sample();
    let log = world.log.clone();
    let changed = |change: &dyn Fn(&mut Vec<Bytes>)| {
        let mut log = log.clone();
        change(&mut log);
        damage(&world, &log)
    };
    // The first byte of a record is its version.
    let newer = changed(&|log| log[2] = [&[VERSION + 1], &log[2][1..]].concat().into());
    assert_eq!(newer, Damage::UnknownVersion { sequence: 2, version: VERSION + 1 });
    assert!(newer.to_string().contains("deploy a newer build"), "{newer}");
    let trailing = changed(&|log| log[1] = [&log[1][..], b"x"].concat().into());
    assert_eq!(trailing, Damage::Undecodable { sequence: 1, problem: "1 bytes follow its end".into() });
    let cut = changed(&|log| log[1] = log[1].slice(..log[1].len() - 1));
    assert!(matches!(cut, Damage::Undecodable { sequence: 1, .. }), "{cut:?}");
    assert!(matches!(changed(&|log| log[1] = Bytes::new()), Damage::Undecodable { sequence: 1, .. }));
    assert_eq!(changed(&|log| drop(log.remove(2))), Damage::BrokenChain { sequence: 2 });
    assert_eq!(changed(&|log| log.swap(1, 2)), Damage::BrokenChain { sequence: 1 });
    assert_eq!(
        changed(&|log| drop(log.remove(0))),
        Damage::Contradiction { sequence: 0, problem: "it does not begin with the start of the workflow".into() }
    );
    assert_eq!(changed(&|log| log.insert(1, log[1].clone())), Damage::BrokenChain { sequence: 2 });
    assert_eq!(
        changed(&|log| log.clear()),
        Damage::Contradiction { sequence: 0, problem: "there is no batch 0".into() }
    );
    // Another run's history.
    let elsewhere = RunState::begin(common::run_key(7), &log[0]).map(|_| ());
    assert_eq!(elsewhere, Err(Damage::BrokenChain { sequence: 0 }));
}

#[test]
fn any_altered_byte_but_the_newest_batch_s_is_seen() {
    let world = sample();
    for sequence in 0..world.log.len() - 1 {
        for at in 0..world.log[sequence].len() {
            let mut log = world.log.clone();
            let mut bytes = log[sequence].to_vec();
            bytes[at] ^= 1;
            log[sequence] = bytes.into();
            assert!(LiveRun::replay(&world.app, &world.state().run, &log).is_err(), "batch {sequence}, byte {at}");
        }
    }
}

#[test]
fn events_that_contradict_the_history_are_seen() {
    let mut world = World::run(|cx: Workflow, n: u32| async move { cx.activity(double, &n).options(MINUTE).await }, &1);
    let fits = Batch {
        commit_id: CommitId::from_bytes([8; 16]),
        previous: world.state().head,
        time: world.now(),
        kind: BatchKind::Accepted,
        events: Vec::new(),
        due: None,
    };
    let input = |id| Input::ActivityCompleted(operations::ActivityCompleted { id, attempt: 1, result: Payload::NULL });
    let turn = |taken| Event::Turn(Turn { at_offset_ms: 0, taken, input: None, behind_ms: None, read: None });
    let table = [
        (Batch { events: vec![Event::Input(input(2))], ..fits.clone() }, "activity 2 is not pending"),
        (
            Batch { events: vec![Event::Input(input(1)), Event::Input(input(1))], ..fits.clone() },
            "activity 1 is not pending",
        ),
        (
            Batch { events: vec![Event::Input(Input::TimerFired(operations::TimerFired { id: 1 }))], ..fits.clone() },
            "timer 1 is not pending",
        ),
        (Batch { events: vec![turn(0)], ..fits.clone() }, "a Accepted batch holds an event of another kind"),
        (
            Batch { kind: BatchKind::Swept, events: vec![turn(0)], ..fits.clone() },
            "a Swept batch holds an event of another kind",
        ),
        (
            Batch { kind: BatchKind::Decided, events: vec![turn(1)], ..fits.clone() },
            "a turn takes 1 inputs, 0 are waiting",
        ),
        (Batch { time: Timestamp::from_millis(1), ..fits.clone() }, "its time 1970-01-01T00:00:00.001Z is before"),
    ];
    for (batch, expected) in table {
        let log: Vec<_> = world.log.iter().cloned().chain([batch.encode()]).collect();
        let Damage::Contradiction { sequence: 2, problem } = damage(&world, &log) else { panic!("{batch:?}") };
        assert!(problem.contains(expected), "{problem}");
    }
    world.arrive(completed(1, "2"));
    let late = Batch { previous: world.state().head, ..fits };
    let log: Vec<_> = world.log.iter().cloned().chain([late.encode()]).collect();
    assert!(damage(&world, &log).to_string().contains("the run was closed before it"));
}

/// A failure nested this deeply, as bytes of an accepted batch.
fn nested(depth: usize) -> Bytes {
    let mut failure = Failure::application("x");
    for _ in 0..depth {
        failure = Failure { cause: Some(Box::new(failure)), ..Failure::terminated("y") };
    }
    let input = Input::ActivityFailed(operations::ActivityFailed {
        id: 1,
        attempt: 1,
        failure,
        retry_state: RetryState::Timeout,
    });
    let batch = Batch {
        commit_id: CommitId::from_bytes([8; 16]),
        previous: BatchHash::from_bytes([0; 16]),
        time: Timestamp::from_millis(1),
        kind: BatchKind::Accepted,
        events: vec![Event::Input(input)],
        due: None,
    };
    batch.encode()
}

#[test]
fn bytes_that_nest_without_end_do_not_exhaust_the_stack() {
    assert!(Batch::decode(0, &nested(100)).is_ok());
    // Grown by hand: encoding recurses just as decoding would.
    let [one, three] = [nested(1), nested(3)];
    let level = (three.len() - one.len()) / 2;
    let grown = |at: usize, times: usize| {
        let unit = &one[at..at + level];
        [&one[..at], &unit.repeat(times), &one[at + level..]].concat()
    };
    let at = (0..one.len() - level).find(|&at| grown(at, 3) == three).expect("each level is the same bytes");
    let deep = grown(at, 200_000);
    let Err(Damage::Undecodable { problem, .. }) = Batch::decode(0, &deep) else { panic!("it is far too deep") };
    assert!(problem.contains("too many causes"), "{problem}");
}

#[test]
fn what_is_recorded_can_be_read_back_however_long_its_chain() {
    let workflow = |_: Workflow, depth: u32| async move {
        let mut failure = Failure::application("root");
        for _ in 0..depth {
            failure = Failure { cause: Some(Box::new(failure)), ..Failure::application("x") };
        }
        Err::<(), _>(failure)
    };
    for depth in [0, 20, 60, 70, 200, 1_000] {
        let world = World::run(workflow, &depth);
        assert!(world.last_commands()[0].ends_with("root"), "{depth}");
    }
}

#[test]
fn lengths_that_nothing_backs_allocate_nothing() {
    // An array of 2^60 events, of which none follows.
    let mut bytes = nested(0)[..1].to_vec();
    bytes.extend([0x86, 0x50]);
    bytes.extend([0; 16]);
    bytes.push(0x50);
    bytes.extend([0; 16]);
    bytes.extend([0x01, 0x00, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(Batch::decode(0, &bytes), Err(Damage::Undecodable { .. })));
}

/// Histories of before task queues read on, and what names none is written as it was then.
#[test]
fn options_of_before_task_queues_are_the_same_bytes() {
    #[derive(minicbor::Encode)]
    struct Before {
        #[n(0)]
        start_to_close_ms: Option<u64>,
        #[n(1)]
        schedule_to_close_ms: Option<u64>,
        #[n(2)]
        schedule_to_start_ms: Option<u64>,
        #[n(3)]
        heartbeat_ms: Option<u64>,
        #[n(4)]
        retry: RecordedRetry,
    }
    let retry = RecordedRetry {
        initial_interval_ms: 1_000,
        backoff_coefficient: 2.0,
        maximum_interval_ms: 100_000,
        maximum_attempts: 5,
        non_retryable_types: vec!["CardDeclined".into()],
    };
    let before = Before {
        start_to_close_ms: Some(60_000),
        schedule_to_close_ms: None,
        schedule_to_start_ms: None,
        heartbeat_ms: Some(5_000),
        retry: retry.clone(),
    };
    let mut now = RecordedOptions {
        start_to_close_ms: Some(60_000),
        schedule_to_close_ms: None,
        schedule_to_start_ms: None,
        heartbeat_ms: Some(5_000),
        retry,
        task_queue: None,
    };
    let stored = minicbor::to_vec(before).unwrap();
    assert_eq!(minicbor::decode::<RecordedOptions>(&stored).unwrap(), now);
    assert_eq!(minicbor::to_vec(&now).unwrap(), stored);
    now.task_queue = Some("python".into());
    assert_eq!(minicbor::decode::<RecordedOptions>(&minicbor::to_vec(&now).unwrap()).unwrap(), now);
}

fn payload() -> impl Strategy<Value = Payload> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| Payload::from_json(bytes.into()))
}

fn failure() -> impl Strategy<Value = Failure> {
    (vec(any::<String>(), 1..5), option::of(payload()), any::<bool>(), option::of(any::<u64>())).prop_map(
        |(messages, details, last, delay)| {
            let mut messages = messages.into_iter();
            let mut failure = Failure::application(messages.next().unwrap());
            if let dormouse_core::FailureKind::Application { details: d, non_retryable, next_retry_delay_ms, r#type } =
                &mut failure.kind
            {
                (*d, *non_retryable, *next_retry_delay_ms) = (details, last, delay);
                *r#type = last.then(|| "T".into());
            }
            messages.fold(failure, |cause, message| Failure::activity(&message, 1, 2, RetryState::Timeout, cause))
        },
    )
}

fn next_run() -> impl Strategy<Value = Box<NextRun>> {
    (any::<String>(), payload(), option::of(any::<String>()), vec((any::<String>(), payload()), 0..3)).prop_map(
        |(workflow_type, input, request_id, carried)| {
            let carried = carried.into_iter().map(|(name, payload)| CarriedSignal { name, payload }).collect();
            Box::new(NextRun { call: Call::new(workflow_type, input), request_id, carried })
        },
    )
}

fn input() -> impl Strategy<Value = Input> {
    let (text, id, attempt) = (any::<String>, any::<u64>, any::<u32>);
    let at = || any::<u64>().prop_map(Timestamp::from_millis);
    prop_oneof![
        (any::<[u8; 16]>(), text(), payload(), vec((any::<u64>(), any::<u64>(), at()), 0..3)).prop_map(
            |(run_id, workflow_type, input, earlier)| Input::Started(Box::new(Started {
                run_id: RunId::from_bytes(run_id),
                call: Call::new(workflow_type, input),
                request_id: "r".into(),
                continued_from: Some(RunId::from_bytes(run_id)),
                carried: Vec::new(),
                earlier: earlier.into_iter().map(|(hash, ordinal, at)| EarlierRequest { hash, ordinal, at }).collect(),
            }))
        ),
        (text(), text(), payload()).prop_map(|(request_id, name, payload)| Input::Signaled(operations::Signaled {
            request_id,
            name,
            payload
        })),
        (text(), text()).prop_map(|(request_id, reason)| Input::CancelRequested(operations::CancelRequested {
            request_id,
            reason
        })),
        (text(), text(), option::of(next_run())).prop_map(|(request_id, reason, next)| Input::Terminated(
            operations::Terminated { request_id, reason, next }
        )),
        (id(), attempt(), payload()).prop_map(|(id, attempt, result)| Input::ActivityCompleted(
            operations::ActivityCompleted { id, attempt, result }
        )),
        (id(), attempt(), failure()).prop_map(|(id, attempt, failure)| {
            Input::ActivityFailed(operations::ActivityFailed {
                id,
                attempt,
                failure,
                retry_state: RetryState::MaximumAttemptsReached,
            })
        }),
        (id(), attempt(), at()).prop_map(|(id, attempt, retry_at)| Input::AttemptLost(operations::AttemptLost {
            id,
            attempt,
            retry_at
        })),
        id().prop_map(|id| Input::TimerFired(operations::TimerFired { id })),
        (id(), attempt(), payload()).prop_map(|(id, attempt, result)| Input::LocalCompleted(
            operations::LocalCompleted { id, attempt, result }
        )),
        (id(), attempt(), failure(), at()).prop_map(|(id, attempt, failure, retry_at)| {
            Input::LocalBackoff(operations::LocalBackoff { id, attempt, failure, retry_at })
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let (text, id) = (any::<String>, any::<u64>);
    let ms = || option::of(any::<u64>());
    let queue = option::of(any::<String>());
    let options = (ms(), ms(), ms(), ms(), any::<(u64, u64, u32)>(), vec(any::<String>(), 0..3), 1.0..9.0, queue)
        .prop_map(
            |(
                start_to_close_ms,
                schedule_to_close_ms,
                schedule_to_start_ms,
                heartbeat_ms,
                retry,
                non_retryable_types,
                growth,
                task_queue,
            )| {
                RecordedOptions {
                    start_to_close_ms,
                    schedule_to_close_ms,
                    schedule_to_start_ms,
                    heartbeat_ms,
                    retry: RecordedRetry {
                        initial_interval_ms: retry.0,
                        backoff_coefficient: growth,
                        maximum_interval_ms: retry.1,
                        maximum_attempts: retry.2,
                        non_retryable_types,
                    },
                    task_queue,
                }
            },
        );
    prop_oneof![
        (id(), text(), payload(), options, text()).prop_map(|(id, activity_type, input, options, place)| {
            Command::ScheduleActivity(operations::ScheduleActivity { id, activity_type, input, options, place })
        }),
        id().prop_map(|id| Command::CancelActivity(operations::CancelActivity { id })),
        (id(), text(), any::<u64>(), text()).prop_map(|(id, activity_type, fingerprint, place)| {
            Command::ScheduleLocal(operations::ScheduleLocal { id, activity_type, fingerprint, place })
        }),
        (id(), any::<u64>(), text()).prop_map(|(id, at, place)| {
            Command::StartTimer(operations::StartTimer { id, fire_at: Timestamp::from_millis(at), place })
        }),
        id().prop_map(|id| Command::CancelTimer(operations::CancelTimer { id })),
        (text(), payload(), text()).prop_map(|(name, value, place)| Command::Publish(operations::Publish {
            name,
            value,
            place
        })),
        payload().prop_map(|result| Command::Complete(operations::Complete { result })),
        failure().prop_map(|failure| Command::Fail(operations::Fail { failure })),
        failure().prop_map(|failure| Command::Cancel(operations::Cancel { failure })),
        next_run().prop_map(|next| Command::ContinueAsNew(operations::ContinueAsNew { next })),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    let read = option::of(btree_map(any::<String>(), any::<u32>(), 0..3));
    (any::<i64>(), any::<u32>(), option::of(input()), option::of(any::<u64>()), read)
        .prop_map(|(at_offset_ms, taken, input, behind_ms, read)| Turn { at_offset_ms, taken, input, behind_ms, read })
}

fn batch() -> impl Strategy<Value = Batch> {
    let event = prop_oneof![
        input().prop_map(Event::Input),
        (any::<String>(), any::<u64>(), option::of((any::<u64>(), any::<String>()))).prop_map(
            |(build, flags, changed)| {
                let changed = changed.map(|(commands, first)| ChangedArguments { commands, first });
                Event::DecidedBy(DecidedBy { build, flags: Flags::from_bits(flags), changed })
            }
        ),
        turn().prop_map(Event::Turn),
        command().prop_map(Event::Command),
    ];
    let kind = prop_oneof![Just(BatchKind::Accepted), Just(BatchKind::Decided), Just(BatchKind::Swept)];
    (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u64>(), kind, vec(event, 0..6), option::of(any::<u64>())).prop_map(
        |(commit_id, previous, time, kind, events, due)| Batch {
            commit_id: CommitId::from_bytes(commit_id),
            previous: BatchHash::from_bytes(previous),
            time: Timestamp::from_millis(time),
            kind,
            events,
            due: due.map(Timestamp::from_millis),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_back_is_what_went_in(batch in batch()) {
        let record = batch.encode();
        prop_assert_eq!(&Batch::decode(3, &record).unwrap(), &batch);
        prop_assert_eq!(batch.encode(), record);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Batch::decode(0, &bytes);
        let _ = Batch::decode(0, &[&[VERSION], &bytes[..]].concat());
        let _ = RunState::begin(common::run_key(0), &[&[VERSION], &bytes[..]].concat());
    }

    #[test]
    fn mutated_batches_never_panic(
        batch in batch(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let mut bytes = batch.encode().to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        if let Ok(decoded) = Batch::decode(0, &bytes) {
            // Whatever decodes can be stored again.
            prop_assert_eq!(Batch::decode(0, &decoded.encode()).unwrap(), decoded);
        }
    }

    /// A replica that reads a mutated last batch fails in an orderly way, whatever decoded.
    #[test]
    fn replaying_mutations_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        thread_local!(static WORLD: World = sample());
        WORLD.with(|world| {
            for sequence in 0..world.log.len() {
                let mut bytes = world.log[sequence].to_vec();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                let log: Vec<_> = world.log[..sequence].iter().cloned().chain([bytes.into()]).collect();
                let _ = LiveRun::replay(&world.app, &world.state().run, &log);
            }
        });
    }
}
