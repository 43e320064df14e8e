//! Pauses between attempts: kept, recorded when they are long, and waited for without asking again and again.

use std::sync::Arc;
use std::time::Duration;

use dormouse::{Activity, Failure, Workflow};
use dormouse::{ActivityOptions, App, Embedded, FailureKind, RetryPolicy, Settings, TimeoutKind, Timestamp};
use dormouse_core::Arrival;
use dormouse_core::Payload;
use dormouse_core::operations;
use dormouse_engine::stores::object::ObjectStore;
use dormouse_engine::worker::{LocalTask, run_local};
use dormouse_testing::world::{latest, start_body};
use dormouse_testing::{CountingStore, World};
use object_store::memory::InMemory;

use super::clockwork::{Came, Limits, Seen, Step, app, bench, in_time, secs};

const MS: Duration = Duration::from_millis(1);
const PATIENT: Limits =
    Limits { start_to_close: Some(10), schedule_to_close: None, schedule_to_start: None, heartbeat: None, attempts: 0 };

/// A queue may deliver too early. No attempt begins then, and the task is put off to the right time, once.
#[test]
fn no_attempt_begins_before_its_time() {
    let bench = bench(PATIENT, &[&[Step::Fail]]);
    let mut task = bench.task.clone();
    for (attempt, pause) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let failed = bench.world.now();
        let Came::Again(next) = bench.work(&task) else { panic!("attempt {}", attempt + 1) };
        assert_eq!(next.not_before, failed + secs(pause), "after attempt {attempt}");
        for early in [failed, next.not_before - MS] {
            bench.world.clock.set(early);
            let Came::Again(put_off) = bench.work(&next) else { panic!("at {early}") };
            assert_eq!(put_off.not_before, next.not_before, "at {early}");
            assert_eq!(bench.seen.attempts().len(), attempt, "at {early}, {pause} s being the pause");
        }
        bench.world.clock.set(next.not_before);
        task = next;
    }
}

/// The attempt after one that was lost waits as long as after one that failed.
#[test]
fn a_lost_attempt_is_followed_after_a_pause() {
    let bench = bench(PATIENT, &[&[Step::Hang]]);
    let mut task = bench.task.clone();
    for pause in [1, 2, 4] {
        bench.work_and_die(&task, MS);
        bench.world.pass(secs(60));
        let found = bench.world.now();
        task = bench.lose(&task);
        assert_eq!(task.not_before, found + secs(pause));
        bench.world.clock.set(task.not_before);
    }
    // Handed out once more, it is not for sooner.
    bench.world.mail.put(dormouse_engine::seams::RunMessage::Sweep { run: bench.run.clone() });
    bench.process.deliver();
    let again: Vec<_> = bench.world.mail.take_tasks().into_iter().map(|task| task.not_before).collect();
    assert_eq!(again, [task.not_before]);
}

struct Local {
    world: World,
    seen: Seen,
    begun: Timestamp,
    task: LocalTask,
}

fn local(scripts: &[&[Step]]) -> Local {
    let seen = Seen::default();
    let world = World::new(app(seen.clone()));
    seen.lives_in(&world);
    let process = world.process();
    process.start("local", "w", "r", &scripts);
    process.deliver();
    let task = world.mail.take_locals().remove(0);
    Local { begun: world.now(), world, seen, task }
}

impl Local {
    /// What comes of it where the process lives for so long, and when.
    fn run(&self, lives: Option<Duration>) -> (Arrival, Duration) {
        let process = self.world.process();
        let until = lives.map(|lives| self.begun + lives);
        let arrival = in_time(&self.world, run_local(self.world.app(), &process.ports, self.task.clone(), until));
        (arrival, self.world.now().since(self.begun))
    }
}

/// A second is waited out where the activity runs. A longer pause is recorded, and so is one after which the next
/// attempt might not end in time.
#[test]
fn long_pauses_of_local_activities_are_recorded() {
    // How long the process lives; after which attempt the pause is recorded, when, and until when it lasts.
    for (script, lives, attempt, ends, retry) in [
        (&[Step::Fail][..], None, 2, 1, 3),
        (&[Step::Fail], Some(11), 2, 1, 3),
        (&[Step::Fail], Some(10), 1, 0, 1),
        (&[Step::Hang], None, 2, 21, 23),
        (&[Step::Hang], Some(20), 1, 10, 11),
    ] {
        let local = local(&[script]);
        let (arrival, passed) = local.run(lives.map(secs));
        let Arrival::LocalBackoff(operations::LocalBackoff { attempt: failed, retry_at, failure, .. }) = arrival else {
            panic!("{arrival:?}")
        };
        let found = (failed, passed, retry_at.since(local.begun));
        assert_eq!(found, (attempt, secs(ends), secs(retry)), "{script:?}, alive for {lives:?} s");
        assert_eq!(local.seen.attempts().len(), attempt as usize);
        let slow = matches!(failure.kind, FailureKind::Timeout { timeout: TimeoutKind::StartToClose, .. });
        assert_eq!(slow, matches!(script[0], Step::Hang), "{failure}");
    }
    let local = local(&[&[Step::Fail], &[Step::Sleep(9_900)]]);
    let (arrival, passed) = local.run(None);
    assert!(matches!(arrival, Arrival::LocalCompleted(operations::LocalCompleted { attempt: 2, .. })), "{arrival:?}");
    assert_eq!(passed, Duration::from_millis(10_900));
}

// --- in a process ---

async fn wait_and_see(cx: Workflow, _: ()) -> Result<u32, Failure> {
    let policy = RetryPolicy::DEFAULT.initial_interval(Duration::from_millis(150)).backoff_coefficient(2.0);
    cx.activity(third_time, &()).options(ActivityOptions::start_to_close(secs(60)).retry(policy)).await
}

async fn third_time(cx: Activity, _: ()) -> Result<u32, Failure> {
    if cx.attempt() < 3 {
        return Err(Failure::application("not yet"));
    }
    Ok(cx.attempt())
}

/// While an attempt waits for its time, nobody asks whether it has come.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_costs_nothing() {
    let store = Arc::new(CountingStore::new(Arc::new(ObjectStore::new(Arc::new(InMemory::new()), "p"))));
    let app = App::new().workflow("wait", wait_and_see).activity("thirdTime", third_time);
    let engine = Embedded::open(Arc::new(app), Arc::clone(&store) as _, Settings::default()).await.unwrap();
    let front = engine.front();
    front.start(None, start_body("wait", "w", &(), Default::default())).await.unwrap();
    let result = front.result(&latest("w"), secs(60)).await.unwrap();
    assert_eq!(result.result, Some(Payload::encode(&3).unwrap()), "{result:?}");
    drop(front);
    engine.shutdown(secs(5)).await;
    let counts = store.counts();
    assert_eq!((counts.swapped, counts.attempts), (5, 0), "three claims, two failures");
    // A claim after the first finds what is there; should a clock be a little fast, once more.
    assert!((2..=6).contains(&counts.stale), "it asked {} times", counts.stale);
}
