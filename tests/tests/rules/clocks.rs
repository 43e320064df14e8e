//! C8: clocks that are set back, jump, or are not those of others. What a run waits for is measured by the clock of whoever
//! decided it, and is late or early by no more than clocks differ.

use std::time::Duration;

use dormouse::{Activity, ActivityOptions, App, Failure, RetryPolicy, Status, Timestamp, Workflow};
use dormouse_core::history::{Command, Event, Input, Turn};
use dormouse_core::{ActivityTask, RunKey};
use dormouse_testing::World;
use dormouse_testing::world::Process;

use super::attempts::work;
use super::walk::Dice;
use super::workflows::{Ran, app_that_counts};

const HOUR: Duration = Duration::from_hours(1);
/// So much time passes at once.
const STEP: Duration = Duration::from_secs(5);
const TEN: Duration = Duration::from_secs(10);

/// A run of this workflow that began when the clock was an hour ahead; it is right again. With the process that began it,
/// or one that has just begun.
fn ahead(world: &World, workflow_type: &str, input: &impl serde::Serialize, restarted: bool) -> (Process, RunKey) {
    let noon = world.now();
    world.clock.set(noon + HOUR);
    let process = world.process();
    let run = process.start(workflow_type, "w", "r1", input);
    process.deliver();
    world.clock.set(noon);
    let process = if restarted { world.process() } else { process };
    process.signal("w", "a", "word", &"go");
    process.deliver();
    (process, run)
}

#[test]
fn c8_a_timer_takes_its_time_after_the_clock_was_set_back() {
    for restarted in [false, true] {
        let world = World::new(app_that_counts(Ran::default()));
        let (process, run) = ahead(&world, "word, then nap", &10, restarted);
        assert_eq!(world.mail.alarm(&run), Some(world.now() + TEN));
        assert_eq!(world.due(&run), Some(world.now() + TEN), "the sweep, too, goes by the clock");
        world.pass(TEN - Duration::from_millis(1));
        world.ring();
        process.deliver();
        assert_eq!(world.state(&run).status(), Status::Running, "not early");
        world.pass(Duration::from_millis(1));
        world.ring();
        process.deliver();
        assert_eq!(world.state(&run).status(), Status::Completed);
    }
}

#[test]
fn c8_an_activity_begins_at_once_after_the_clock_was_set_back() {
    for restarted in [false, true] {
        let ran = Ran::default();
        let world = World::new(app_that_counts(ran.clone()));
        let (process, run) = ahead(&world, "word, then activity", &1, restarted);
        let mut tasks = world.mail.take_tasks();
        // It may be lost: the sweep, too, goes by the clock.
        if restarted {
            world.pass_sweeps(1);
            assert_eq!(world.sweep(), std::slice::from_ref(&run));
            process.deliver();
            tasks = world.mail.take_tasks();
        }
        work(&world, &process, tasks.remove(0));
        assert_eq!(ran.times(), 1);
        process.deliver();
        assert_eq!(world.state(&run).status(), Status::Completed);
    }
}

/// One that was asked for and not begun when the clock was set back waits for nothing either.
#[test]
fn c8_a_first_attempt_waits_for_no_clock() {
    let ran = Ran::default();
    let world = World::new(app_that_counts(ran.clone()));
    let process = world.process();
    process.start("queued", "w", "r1", &1);
    process.deliver();
    let task = world.mail.take_tasks().remove(0);
    world.clock.set(world.now() - HOUR);
    work(&world, &process, task);
    assert_eq!(ran.times(), 1);
}

/// Naps of so many seconds, each followed by an activity that fails once. Its own time goes on by what it slept.
async fn naps(cx: Workflow, naps: Vec<u64>) -> Result<(), Failure> {
    for nap in naps {
        let before = cx.now();
        cx.sleep(Duration::from_secs(nap)).await?;
        assert!(cx.now() >= before + Duration::from_secs(nap), "it has slept for less than it asked for");
        cx.activity(shaky, &()).options(PATIENT).await?;
    }
    Ok(())
}

const PATIENT: ActivityOptions = ActivityOptions::start_to_close(TEN).retry(RetryPolicy::DEFAULT);

async fn shaky(cx: Activity, _: ()) -> Result<(), Failure> {
    if cx.attempt() == 1 { Err(Failure::application("not yet")) } else { Ok(()) }
}

/// When what a run asked for was recorded, and when its outcome was, by the right time.
#[derive(Default)]
struct Waits {
    seen: usize,
    begun: std::collections::BTreeMap<u64, (Timestamp, Duration)>,
    longest_error: Duration,
}

impl Waits {
    /// `naps`: of each timer, in their order.
    fn look(&mut self, world: &World, run: &RunKey, naps: &mut impl Iterator<Item = u64>) {
        let batches = world.batches(run);
        for event in batches.iter().skip(self.seen).flat_map(|batch| &batch.events) {
            match event {
                Event::Command(Command::StartTimer(timer)) => {
                    let nap = Duration::from_secs(naps.next().expect("a nap for each timer"));
                    self.begun.insert(timer.id, (world.now(), nap));
                }
                // A pause between two attempts.
                Event::Command(Command::ScheduleActivity(activity)) => {
                    self.begun.insert(activity.id, (world.now(), Duration::from_secs(1)));
                }
                Event::Turn(Turn { input: Some(input), .. }) | Event::Input(input) => {
                    let id = match input {
                        Input::TimerFired(fired) => fired.id,
                        Input::ActivityCompleted(completed) => completed.id,
                        _ => continue,
                    };
                    let (begun, wait) = self.begun.remove(&id).expect("what it asked for");
                    let (took, right) = (world.now().since(begun), wait);
                    self.longest_error = self.longest_error.max(took.abs_diff(right));
                }
                _ => {}
            }
        }
        self.seen = batches.len();
    }
}

/// Two hosts whose clocks jump by up to half an hour either way, so that they differ by up to an hour from what they were and
/// from each other; a queue and a sweep whose clock is right.
#[test]
fn c8_no_wait_is_wrong_by_more_than_clocks_differ() {
    for seed in 0..8 {
        let mut dice = Dice::new(seed);
        let world = World::new(App::new().workflow("naps", naps).activity("shaky", shaky)).shared();
        let clocks = [world.clock.another(), world.clock.another()];
        let mut processes: Vec<_> = clocks.iter().map(|clock| world.process_by(clock)).collect();
        let wanted: Vec<u64> = (0..8).map(|_| [1, 30, 600, 3_600][dice.below(4)]).collect();
        let mut left = wanted.clone().into_iter();
        let run = processes[0].start("naps", "w", "r1", &wanted);
        let (mut waits, mut tasks) = (Waits::default(), Vec::<ActivityTask>::new());
        for step in 0.. {
            assert!(step < 50_000, "seed {seed}: it never ends");
            let which = dice.below(2);
            if dice.below(50) == 0 {
                clocks[which].be_wrong_by(dice.below(3_600_000) as i64 - 1_800_000);
            }
            if dice.below(100) == 0 {
                processes[which] = world.process_by(&clocks[which]);
            }
            world.pass(STEP);
            world.ring();
            if step % 12 == 0 {
                world.sweep();
            }
            // Queues bring a task when it is due by their clock.
            if let Some(due) = tasks.iter().position(|task| task.not_before <= world.now()) {
                work(&world, &processes[which], tasks.remove(due));
            }
            if !world.mail.messages().is_empty() {
                processes[which].deliver();
                waits.look(&world, &run, &mut left);
                if world.state(&run).status() != Status::Running {
                    break;
                }
            }
            tasks.extend(world.mail.take_tasks());
        }
        // Steps of this test, and the sweep's interval.
        let slack = STEP * 4 + Duration::from_mins(1);
        assert!(waits.longest_error <= HOUR + slack, "seed {seed}: {:?}", waits.longest_error);
    }
}
