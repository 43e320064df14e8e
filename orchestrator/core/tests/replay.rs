//! Replay as a table: a history, an arrival, what is decided. No store, no clock, no threads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::history::{Command, Event};
use dormouse_core::{
    Activity, ActivityOptions, App, Arrival, CommitId, Decision, Failure, LiveRun, Payload, RetryPolicy, RunId, Signal,
    StartRequest, Timestamp, Workflow, WorkflowKey,
};

const SWEEP: Duration = Duration::from_secs(60);
const MINUTE: ActivityOptions =
    ActivityOptions::start_to_close(Duration::from_mins(1)).retry(RetryPolicy::max_attempts(5));
const GO: Signal<bool> = Signal::new("go");

async fn double(_: Activity, n: u32) -> Result<u32, Failure> {
    Ok(n * 2)
}

async fn two_steps(cx: Workflow, n: u32) -> Result<u32, Failure> {
    let n = cx.activity(double, &n).options(MINUTE).await?;
    cx.sleep(Duration::from_secs(10)).await?;
    Ok(cx.activity(double, &n).options(MINUTE).await?)
}

async fn waits_for_go(cx: Workflow, _: ()) -> Result<Option<bool>, Failure> {
    Ok(cx.timeout(Duration::from_secs(10), cx.signal(GO)).await?)
}

fn app() -> Arc<App> {
    let app = App::new().workflow("twoSteps", two_steps).workflow("waitsForGo", waits_for_go).activity("double", double);
    app.check().unwrap();
    Arc::new(app)
}

/// A history under construction: what a store would hold.
struct World {
    app: Arc<App>,
    log: Vec<Bytes>,
    live: LiveRun,
    clock: u64,
}

impl World {
    fn start(workflow_type: &str, input: &str) -> Self {
        let app = app();
        let run = WorkflowKey::new("default", "w").unwrap().run(0);
        let request = StartRequest {
            workflow_type: workflow_type.into(),
            input: Payload::from_json(Bytes::copy_from_slice(input.as_bytes())),
            request_id: "r".into(),
            reuse: Default::default(),
            conflict: Default::default(),
        };
        let clock = Timestamp::from_millis(1_000);
        let first = request.first_batch(&run, RunId::from_bytes([1; 16]), CommitId::from_bytes([0; 16]), clock, None, SWEEP);
        let log = vec![first.encode()];
        let live = LiveRun::replay(&app, &run, &log).unwrap();
        let mut world = World { app, log, live, clock: 1_000 };
        world.decide();
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock)
    }

    fn decide(&mut self) {
        assert!(matches!(self.live.decide(self.now()).unwrap(), Decision::Decided));
        if self.live.must_commit() {
            let commit_id = CommitId::from_bytes([self.log.len() as u8; 16]);
            let batch = self.live.seal(commit_id, self.now(), SWEEP);
            let record = batch.encode();
            self.live.committed(&batch, &record);
            self.log.push(record);
        }
        // Every history replays to the same state, at every point.
        let again = LiveRun::replay(&self.app, &self.live.state().run, &self.log).unwrap();
        assert_eq!(again.state(), self.live.state());
    }

    fn arrive(&mut self, arrival: Arrival) -> Vec<Command> {
        let inputs = self.live.state().accept(&arrival, self.now()).unwrap();
        self.live.take_in(inputs);
        self.decide();
        self.last_commands()
    }

    fn last_commands(&self) -> Vec<Command> {
        let batch =
            dormouse_core::history::Batch::decode(self.log.len() as u64 - 1, self.log.last().unwrap()).unwrap();
        let commands = batch.events.into_iter().filter_map(|event| match event {
            Event::Command(command) => Some(command),
            _ => None,
        });
        commands.collect()
    }
}

fn completed(id: u64, json: &'static str) -> Arrival {
    Arrival::ActivityCompleted { id, attempt: 1, result: Payload::from_json(Bytes::from_static(json.as_bytes())) }
}

#[test]
fn two_steps_and_a_timer() {
    let mut world = World::start("twoSteps", "3");
    assert!(matches!(&world.last_commands()[..], [Command::ScheduleActivity { id: 1, .. }]));
    assert!(matches!(&world.arrive(completed(1, "6"))[..], [Command::StartTimer { id: 2, .. }]));
    world.clock = 20_000;
    assert!(matches!(&world.arrive(Arrival::Alarm)[..], [Command::ScheduleActivity { id: 3, .. }]));
    let commands = world.arrive(completed(3, "12"));
    assert!(matches!(&commands[..], [Command::Complete { result }] if result.as_bytes() == b"12"));
    assert_eq!(world.log.len(), 5);
}

#[test]
fn a_signal_beats_its_timer_and_cancels_it() {
    let mut world = World::start("waitsForGo", "null");
    let signal = Arrival::Signal { request_id: "s".into(), name: "go".into(), payload: Payload::from_json("true".into()) };
    let commands = world.arrive(signal);
    assert!(matches!(&commands[..], [Command::CancelTimer { id: 1 }, Command::Complete { .. }]), "{commands:?}");
}
