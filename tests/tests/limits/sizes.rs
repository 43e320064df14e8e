//! What is exactly as large as it may be, and a byte larger.

use dormouse::api::StartBody;
use dormouse::{FailureKind, Payload, RetryState};
use dormouse_core::Arrival;
use dormouse_core::operations;
use dormouse_engine::ApiError;
use dormouse_engine::worker::run_local;
use dormouse_testing::World;
use dormouse_testing::world::{Process, drive, latest, start_body};

use super::clockwork::{Came, Limits, Seen, Step, app, bench, in_time};

/// The world's limit.
const LIMIT: usize = 64 * 1024;

/// JSON text of so many bytes.
fn text(bytes: usize) -> String {
    "x".repeat(bytes - 2)
}

fn is_too_large(failure: &dormouse::Failure) -> bool {
    let FailureKind::Application { non_retryable: true, .. } = failure.kind else { return false };
    failure.type_name() == Some("PayloadTooLarge") && failure.message.contains("65537")
}

#[test]
fn results_of_activities() {
    for (bytes, fits) in [(LIMIT, true), (LIMIT + 1, false)] {
        let bench = bench(Limits { start_to_close: Some(10), ..Limits::default() }, &[&[Step::Return(bytes)]]);
        match bench.work(&bench.task) {
            Came::Told(Arrival::ActivityCompleted(operations::ActivityCompleted { result, .. })) => {
                assert!(fits && result.len() == LIMIT)
            }
            Came::Told(Arrival::ActivityFailed(operations::ActivityFailed { failure, retry_state, .. })) => {
                assert!(!fits && is_too_large(&failure), "{failure}");
                assert_eq!(retry_state, RetryState::NonRetryableFailure, "it would be too large the next time");
            }
            other => panic!("{bytes}: {other:?}"),
        }
    }
}

#[test]
fn results_of_local_activities() {
    for (bytes, fits) in [(LIMIT, true), (LIMIT + 1, false)] {
        let world = World::new(app(Seen::default()));
        let process = world.process();
        process.start("local", "w", "r", &[[Step::Return(bytes)]]);
        process.deliver();
        let task = world.mail.take_locals().remove(0);
        match in_time(&world, run_local(world.app(), &process.ports, task, None)) {
            Arrival::LocalCompleted(operations::LocalCompleted { result, .. }) => {
                assert!(fits && result.len() == LIMIT)
            }
            Arrival::LocalFailed(operations::LocalFailed { failure, retry_state, .. }) => {
                assert!(!fits && is_too_large(&failure), "{failure}");
                assert_eq!(retry_state, RetryState::NonRetryableFailure);
            }
            other => panic!("{bytes}: {other:?}"),
        }
    }
}

/// Whatever a caller brings: at the limit it is taken in, beyond it nothing is written.
#[test]
fn what_callers_bring() {
    let world = World::new(app(Seen::default()));
    let process = world.process();
    let limits = Limits { start_to_close: Some(10), ..Limits::default() };
    process.start("limited", "w", "r", &(limits, [[Step::Hang]]));
    process.deliver();
    let payload = |bytes| Payload::encode(&text(bytes)).unwrap();
    let start = |bytes, id: &str| -> Result<(), ApiError> {
        let body = StartBody {
            input: Payload::encode(&text(bytes)).unwrap(),
            ..start_body("hears", id, &(), Default::default())
        };
        drive(process.front.start(Some(id), body)).expect("an answer").map(drop)
    };
    let signal = |process: &Process, bytes| {
        drive(process.front.signal(&latest("w"), None, "s", payload(bytes))).expect("an answer").map(drop)
    };
    let query = |bytes| drive(process.front.query(&latest("w"), "q", payload(bytes))).expect("an answer");

    assert_eq!(payload(LIMIT).len(), LIMIT);
    process.count_anew();
    for refused in [start(LIMIT + 1, "u"), signal(&process, LIMIT + 1), query(LIMIT + 1).map(drop)] {
        let Err(ApiError::TooLarge(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("65537") && why.contains("max_payload_bytes"), "{why}");
    }
    assert_eq!(process.counts().all_writes(), 0);
    assert_eq!(start(LIMIT, "v"), Ok(()));
    assert_eq!(signal(&process, LIMIT), Ok(()));
    process.deliver();
    assert!(matches!(query(LIMIT), Err(ApiError::NotFound(_))), "it was asked, and there is no such query");
}
