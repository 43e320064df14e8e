//! One activity and its worker, in time that moves by itself: the runtime's, and the world's clock with it.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dormouse::{Activity, ActivityOptions, App, Failure, Payload, RetryPolicy, Timestamp, Workflow};
use dormouse_core::{ActivityTask, Arrival, RunKey, operations};
use dormouse_engine::seams::{Delivery, Host, RunMessage};
use dormouse_engine::worker::handle_task;
use dormouse_testing::world::Process;
use dormouse_testing::{Clock, World};
use serde::{Deserialize, Serialize};

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs a future in the world's time, which passes when nothing else is left to do.
pub fn in_time<T>(world: &World, future: impl Future<Output = T>) -> T {
    world.in_time(future)
}

/// Waits in the world's time.
pub async fn sleep(world: &World, time: Duration) {
    let host: &dyn Host = &world.clock;
    host.sleep(time).await;
}

/// What a future comes to within so much of the world's time.
pub async fn timeout<T>(world: &World, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let host: &dyn Host = &world.clock;
    host.timeout(limit, work).await
}

/// Time limits, in seconds, and how many attempts there are; 0 for any number.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    pub start_to_close: Option<u64>,
    pub schedule_to_close: Option<u64>,
    pub schedule_to_start: Option<u64>,
    pub heartbeat: Option<u64>,
    pub attempts: u32,
}

impl Limits {
    fn options(&self) -> ActivityOptions {
        let mut options = match (self.start_to_close.map(secs), self.schedule_to_close.map(secs)) {
            (Some(attempt), Some(all)) => ActivityOptions::start_to_close(attempt).within(all),
            (Some(attempt), None) => ActivityOptions::start_to_close(attempt),
            (None, all) => ActivityOptions::schedule_to_close(all.expect("one of the two")),
        };
        if let Some(limit) = self.schedule_to_start {
            options = options.schedule_to_start(secs(limit));
        }
        if let Some(limit) = self.heartbeat {
            options = options.heartbeat(secs(limit));
        }
        options.retry(RetryPolicy::max_attempts(self.attempts))
    }
}

/// What an attempt does, step by step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Milliseconds.
    Sleep(u64),
    Beat(u64),
    /// A heartbeat each second, so many of them: their details count them, from 0.
    Beats(u64),
    /// A heartbeat each second, until the activity is told to stop.
    BeatUntilCanceled,
    Fail,
    Hang,
    /// Ends with a result of so many bytes.
    Return(usize),
}

/// An attempt, and the heartbeat that it knew of.
type Began = (u32, Option<u64>);

/// Which attempts began, and what each knew of those before it.
#[derive(Clone, Default)]
pub struct Seen {
    attempts: Arc<Mutex<Vec<Began>>>,
    clock: Arc<OnceLock<Clock>>,
}

impl Seen {
    /// Time for the activities of this world.
    pub fn lives_in(&self, world: &World) {
        self.clock.get_or_init(|| world.clock.clone());
    }

    async fn sleep(&self, time: Duration) {
        let host: &dyn Host = self.clock.get().expect("a world");
        host.sleep(time).await;
    }

    pub fn attempts(&self) -> Vec<Began> {
        self.attempts.lock().unwrap().clone()
    }
}

/// The script of attempt n is the nth, or the last.
async fn act(cx: Activity, scripts: Vec<Vec<Step>>) -> Result<String, Failure> {
    let seen = cx.get::<Seen>().clone();
    seen.attempts.lock().unwrap().push((cx.attempt(), cx.last_heartbeat()?));
    let script = scripts.get(cx.attempt() as usize - 1).or(scripts.last()).expect("a script");
    for step in script {
        match step {
            Step::Sleep(ms) => seen.sleep(Duration::from_millis(*ms)).await,
            Step::Beat(details) => cx.heartbeat(details)?,
            Step::Beats(beats) => {
                for beat in 0..*beats {
                    cx.heartbeat(&beat)?;
                    seen.sleep(secs(1)).await;
                }
            }
            Step::BeatUntilCanceled => {
                while !cx.is_canceled() {
                    cx.heartbeat(&0)?;
                    seen.sleep(secs(1)).await;
                }
            }
            Step::Fail => return Err(Failure::application("as planned")),
            Step::Hang => std::future::pending().await,
            Step::Return(bytes) => return Ok("x".repeat(bytes - 2)),
        }
    }
    Ok("done".into())
}

async fn limited(cx: Workflow, (limits, scripts): (Limits, Vec<Vec<Step>>)) -> Result<String, Failure> {
    cx.activity(act, &scripts).options(limits.options()).await
}

async fn local(cx: Workflow, scripts: Vec<Vec<Step>>) -> Result<String, Failure> {
    cx.local_activity(act, &scripts).await
}

/// Hears a text.
async fn hears(_: Workflow, _: String) -> Result<(), Failure> {
    Ok(())
}

pub fn app(seen: Seen) -> App {
    App::new()
        .workflow("limited", limited)
        .workflow("hears", hears)
        .workflow("local", local)
        .activity("act", act)
        .provide(seen)
}

/// What came of one delivery of a task.
#[derive(Debug)]
pub enum Came {
    /// The run is told.
    Told(Arrival),
    /// The task is on the queue again.
    Again(ActivityTask),
    Nothing,
}

/// A run up to the task of its one activity.
pub struct Bench {
    pub world: World,
    pub process: Process,
    pub run: RunKey,
    pub task: ActivityTask,
    pub seen: Seen,
    pub begun: Timestamp,
}

pub fn bench(limits: Limits, scripts: &[&[Step]]) -> Bench {
    let seen = Seen::default();
    let world = World::new(app(seen.clone()));
    seen.lives_in(&world);
    let process = world.process();
    let begun = world.now();
    let run = process.start("limited", "w", "r", &(limits, scripts));
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    Bench { world, process, run, task, seen, begun }
}

impl Bench {
    /// How much time has passed since the start.
    pub fn passed(&self) -> Duration {
        self.world.now().since(self.begun)
    }

    /// Sets the clock, so long after the start.
    pub fn at(&self, passed: Duration) {
        self.world.clock.set(self.begun + passed);
    }

    /// A worker handles a delivery of this task, to the end.
    pub async fn deliver(&self, task: &ActivityTask) {
        handle_task(self.world.app(), &self.process.ports, task.clone(), Delivery::First, None).await.unwrap();
    }

    /// A worker handles the message of one that did not acknowledge it, and what came of it.
    pub fn work_again(&self, task: &ActivityTask) -> Came {
        let again = handle_task(self.world.app(), &self.process.ports, task.clone(), Delivery::Again, None);
        in_time(&self.world, again).unwrap();
        self.came()
    }

    /// What a worker has sent.
    pub fn came(&self) -> Came {
        let mut messages = self.world.mail.drop_messages();
        let mut tasks = self.world.mail.take_tasks();
        assert!(messages.len() + tasks.len() < 2, "{messages:?}, {tasks:?}");
        match (messages.pop(), tasks.pop()) {
            (Some(RunMessage::Arrived { run, arrival, .. }), None) if run == self.run => Came::Told(arrival),
            (None, Some(task)) => Came::Again(task),
            (None, None) => Came::Nothing,
            other => panic!("{other:?}"),
        }
    }

    /// As [`deliver`](Self::deliver), and what came of it.
    pub fn work(&self, task: &ActivityTask) -> Came {
        in_time(&self.world, self.deliver(task));
        self.came()
    }

    /// A worker takes this task up, and dies so much later.
    pub fn work_and_die(&self, task: &ActivityTask, later: Duration) {
        let survived = in_time(&self.world, timeout(&self.world, later, self.deliver(task)));
        assert!(survived.is_none(), "it ended before it could die: {:?}", self.came());
    }

    /// Somebody finds that the attempt is lost, tells the run, and the next task follows.
    pub fn lose(&self, task: &ActivityTask) -> ActivityTask {
        let Came::Told(arrival @ Arrival::AttemptLost(operations::WorkerGone { .. })) = self.work(task) else {
            panic!("it is not lost")
        };
        self.tell(arrival);
        self.world.mail.take_tasks().remove(0)
    }

    /// The run is told.
    pub fn tell(&self, arrival: Arrival) {
        self.world.mail.arrive(&self.run, self.task.run_id, arrival);
        self.process.deliver();
    }

    /// The next attempt that waits, when its time has come: what it knows of those before it.
    pub fn known_to_next(&self, task: &ActivityTask) -> Option<u64> {
        if self.world.now() < task.not_before {
            self.world.clock.set(task.not_before);
        }
        let before = self.seen.attempts().len();
        self.work_and_die(task, Duration::from_millis(1));
        let seen = self.seen.attempts();
        assert_eq!(seen.len(), before + 1, "one more attempt");
        seen.last().expect("an attempt").1
    }
}

/// The details of a heartbeat.
pub fn details(beat: u64) -> Option<Payload> {
    Some(Payload::encode(&beat).unwrap())
}
