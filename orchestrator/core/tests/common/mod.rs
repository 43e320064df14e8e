//! Replay as a table: a history, an arrival, what is decided. No store, no clock, no threads.
//!
//! After every commit the whole history is replayed from its bytes and must give the very state that the live run has.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dormouse_core::RunState;
use dormouse_core::history::{Batch, BatchKind, Command, Event, Input};
use dormouse_core::operations;
use dormouse_core::{
    Activity, ActivityOptions, App, Arrival, Call, CommitId, Decision, Failure, LiveRun, Merge, Payload, Refusal,
    RetryPolicy, RetryState, RunId, RunKey, Signal, StartRequest, Status, Timestamp, TurnFailure, WorkflowFunction,
    WorkflowKey,
};

pub const SWEEP: Duration = Duration::from_secs(60);
pub const MINUTE: ActivityOptions =
    ActivityOptions::start_to_close(Duration::from_mins(1)).retry(RetryPolicy::max_attempts(5));
pub const GO: Signal<bool> = Signal::new("go");
pub const NUMBER: Signal<u32> = Signal::new("number");

pub async fn double(_: Activity, n: u32) -> Result<u32, Failure> {
    Ok(n * 2)
}

pub async fn halve(_: Activity, n: u32) -> Result<u32, Failure> {
    Ok(n / 2)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The application of a test: its workflow under the name `test`, and two activities.
pub fn app<A, F: WorkflowFunction<A>>(workflow: F) -> App {
    App::new().workflow("test", workflow).activity("double", double).activity("halve", halve)
}

/// A history under construction: what a store would hold, and one process that decides on it.
pub struct World {
    pub app: Arc<App>,
    pub log: Vec<Bytes>,
    pub live: LiveRun,
    pub clock: u64,
    arrivals: u64,
}

impl World {
    /// Begins a run of this workflow and takes the first turn.
    pub fn run<A, F: WorkflowFunction<A>>(workflow: F, input: &F::Input) -> Self {
        let mut world = Self::idle(app(workflow), "test", Payload::encode(input).unwrap());
        world.settle();
        world
    }

    /// A run that nobody has decided on yet.
    pub fn idle(app: App, workflow_type: &str, input: Payload) -> Self {
        app.check().unwrap();
        let request = start_request(workflow_type, input);
        let clock = Timestamp::from_millis(1_000);
        let run = run_key(0);
        let first =
            request.first_batch(&run, RunId::from_bytes([1; 16]), CommitId::from_bytes([0; 16]), clock, None, SWEEP);
        Self::of(Arc::new(app), run, vec![first.encode()])
    }

    /// A run whose history stands already.
    pub fn of(app: Arc<App>, run: RunKey, log: Vec<Bytes>) -> Self {
        let live = LiveRun::replay(&app, &run, &log).unwrap();
        let clock = live.state().time.as_millis();
        World { app, log, live, clock, arrivals: 0 }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock)
    }

    pub fn state(&self) -> &RunState {
        self.live.state()
    }

    /// Another process's view of the same history.
    pub fn replay(&self) -> Result<LiveRun, TurnFailure> {
        LiveRun::replay(&self.app, &self.state().run, &self.log)
    }

    /// Drops what is in memory and reads the history again.
    pub fn reload(&mut self) {
        self.live = self.replay().unwrap();
    }

    /// As [`Self::settle`], for turns that may fail.
    pub fn try_settle(&mut self) -> Result<Vec<String>, TurnFailure> {
        let mut decision = self.live.decide(self.now())?;
        while let Decision::Retake(retake) = decision {
            self.live = self.replay()?;
            self.live.resume(retake)?;
            decision = self.live.decide(self.now())?;
        }
        if self.live.must_commit() { Ok(self.commit()) } else { Ok(Vec::new()) }
    }

    /// Decides, commits if it must, and gives the commands that were committed.
    pub fn settle(&mut self) -> Vec<String> {
        self.try_settle().unwrap()
    }

    /// The draft as the next record.
    pub fn seal(&self) -> (Batch, Bytes) {
        let mut commit_id = [0; 16];
        commit_id[..8].copy_from_slice(&(self.log.len() as u64).to_le_bytes());
        let batch = self.live.seal(CommitId::from_bytes(commit_id), self.now(), SWEEP);
        let record = batch.encode();
        (batch, record)
    }

    /// Commits the draft.
    pub fn commit(&mut self) -> Vec<String> {
        let (batch, record) = self.seal();
        self.live.committed(&batch, &record);
        self.log.push(record);
        self.check();
        self.last_commands()
    }

    /// Every history replays to the same state, at every point.
    pub fn check(&self) {
        let again = self.replay().unwrap();
        assert_eq!(again.state(), self.live.state());
    }

    /// Something arrives, and is decided on.
    pub fn arrive(&mut self, arrival: Arrival) -> Vec<String> {
        let inputs = self.state().accept(&arrival, self.now()).unwrap();
        self.live.take_in(inputs);
        self.settle()
    }

    pub fn refused(&self, arrival: Arrival) -> Refusal {
        self.state().accept(&arrival, self.now()).unwrap_err()
    }

    /// Time passes, and the alarm rings.
    pub fn alarm_at(&mut self, clock: u64) -> Vec<String> {
        self.clock = clock;
        self.arrive(Arrival::Alarm)
    }

    /// Somebody else takes these in (an API function, say) and puts them where our next batch would have gone.
    pub fn elsewhere(&mut self, arrivals: impl IntoIterator<Item = Arrival>) -> Bytes {
        let mut state = RunState::begin(self.state().run.clone(), &self.log[0]).unwrap().0;
        self.log[1..].iter().for_each(|record| drop(state.append(record).unwrap()));
        let now = self.now();
        let inputs = arrivals.into_iter().flat_map(|arrival| state.accept(&arrival, now).unwrap());
        self.arrivals += 1;
        let mut commit_id = [9; 16];
        commit_id[..8].copy_from_slice(&self.arrivals.to_le_bytes());
        let batch = Batch {
            commit_id: CommitId::from_bytes(commit_id),
            previous: state.head,
            time: state.recorded_time(self.now()),
            kind: BatchKind::Accepted,
            events: inputs.map(Event::Input).collect(),
            due: None,
        };
        self.log.push(batch.encode());
        self.log.last().unwrap().clone()
    }

    /// As [`Self::elsewhere`], and the run here takes it in.
    pub fn merged(&mut self, arrivals: impl IntoIterator<Item = Arrival>) {
        let record = self.elsewhere(arrivals);
        assert!(matches!(self.live.merge(&record), Merge::Merged));
    }

    pub fn batch(&self, sequence: usize) -> Batch {
        Batch::decode(sequence as u64, &self.log[sequence]).unwrap()
    }

    pub fn last_commands(&self) -> Vec<String> {
        commands(&self.batch(self.log.len() - 1)).iter().map(show).collect()
    }

    /// How many turns the last batch holds.
    pub fn last_turns(&self) -> usize {
        let batch = self.batch(self.log.len() - 1);
        batch.events.iter().filter(|event| matches!(event, Event::Turn(_))).count()
    }

    pub fn status(&self) -> Status {
        self.state().status()
    }
}

pub fn run_key(ordinal: u64) -> RunKey {
    WorkflowKey::new("default", "w").unwrap().run(ordinal)
}

pub fn start_request(workflow_type: &str, input: Payload) -> StartRequest {
    StartRequest {
        call: Call::new(workflow_type, input),
        request_id: "r".into(),
        reuse: Default::default(),
        conflict: Default::default(),
    }
}

pub fn commands(batch: &Batch) -> Vec<Command> {
    let commands = batch.events.iter().filter_map(|event| match event {
        Event::Command(command) => Some(command.clone()),
        _ => None,
    });
    commands.collect()
}

pub fn inputs(batch: &Batch) -> Vec<Input> {
    let inputs = batch.events.iter().filter_map(|event| match event {
        Event::Input(input) => Some(input.clone()),
        Event::Turn(turn) => turn.input.clone(),
        Event::Command(_) | Event::DecidedBy(_) => None,
    });
    inputs.collect()
}

/// A command in one line, as the tables write it.
pub fn show(command: &Command) -> String {
    let text = |payload: &Payload| String::from_utf8_lossy(payload.as_bytes()).into_owned();
    match command {
        Command::ScheduleActivity(operations::ScheduleActivity { id, activity_type, input, .. }) => {
            format!("activity {id} {activity_type}({})", text(input))
        }
        Command::CancelActivity(operations::CancelActivity { id }) => format!("cancel activity {id}"),
        Command::CancelLocal(operations::CancelLocal { id }) => format!("cancel local {id}"),
        Command::ScheduleLocal(operations::ScheduleLocal { id, activity_type, .. }) => {
            format!("local {id} {activity_type}")
        }
        Command::StartTimer(operations::StartTimer { id, fire_at, .. }) => {
            format!("timer {id} at {}", fire_at.as_millis())
        }
        Command::CancelTimer(operations::CancelTimer { id }) => format!("cancel timer {id}"),
        Command::RecordMarker(operations::RecordMarker { name, value, .. }) => format!("marker {name}={}", text(value)),
        Command::RecordPatch(operations::RecordPatch { id, deprecated, .. }) => {
            format!("{}patch {id}", if *deprecated { "deprecated " } else { "" })
        }
        Command::Publish(operations::Publish { name, value, .. }) => format!("publish {name}={}", text(value)),
        Command::Complete(operations::Complete { result }) => format!("complete {}", text(result)),
        Command::Fail(operations::Fail { failure }) => format!("fail {failure}"),
        Command::Cancel(operations::Cancel { failure }) => format!("close {failure}"),
        Command::ContinueAsNew(operations::ContinueAsNew { next }) => format!(
            "continue {}({}) carrying {:?}",
            next.call.workflow_type,
            text(&next.call.input),
            next.carried.iter().map(|signal| format!("{}={}", signal.name, text(&signal.payload))).collect::<Vec<_>>()
        ),
    }
}

pub fn json(text: &str) -> Payload {
    Payload::from_json(Bytes::copy_from_slice(text.as_bytes()))
}

pub fn completed(id: u64, result: &str) -> Arrival {
    Arrival::ActivityCompleted(operations::ActivityCompleted { id, attempt: 1, result: json(result) })
}

pub fn failed(id: u64, attempt: u32, failure: Failure, retry_state: RetryState) -> Arrival {
    Arrival::ActivityFailed(operations::ActivityFailed { id, attempt, failure, retry_state })
}

pub fn local(id: u64, result: &str) -> Arrival {
    Arrival::LocalCompleted(operations::LocalCompleted { id, attempt: 1, result: json(result) })
}

pub fn signal(request_id: &str, name: &str, payload: &str) -> Arrival {
    Arrival::Signal(operations::Signaled { request_id: request_id.into(), name: name.into(), payload: json(payload) })
}

pub fn cancel(request_id: &str) -> Arrival {
    Arrival::Cancel(operations::CancelRequested { request_id: request_id.into(), reason: "enough".into() })
}

pub fn terminate(request_id: &str) -> Arrival {
    Arrival::Terminate(operations::Terminated {
        request_id: request_id.into(),
        reason: "away with it".into(),
        next: None,
    })
}
