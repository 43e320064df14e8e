//! Queues and alarms in memory, on a clock of their own, with faults that the suites must find: this tests the tests.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dormouse_core::operations;
use dormouse_core::{ActivityTask, Arrival, Payload, RunId, RunKey, Timestamp};
use dormouse_engine::seams::{
    ActivityQueue, Alarms, Intent, Overdue, RunMessage, RunQueue, SeamFuture, Sweeping, Ticket, Wish,
};
use dormouse_testing::{Bench, Delivery, Pace, alarm_conformance, queue_conformance};
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, ready};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// One message in ten is lost.
    LoseMessages,
    /// The intent of a caller who fails is lost.
    LoseIntents,
    /// The younger of two messages comes first.
    Reorder,
    /// A message comes to a run of another id.
    MixIds,
    /// Payloads are read and written again.
    Rewrite,
    /// What is large is cut.
    Cut,
    /// Tasks are a little early.
    EarlyTasks,
    /// A task that was sent before is not taken again.
    SendOnce,
    /// Alarms are a little early.
    EarlyAlarms,
    /// An alarm stays where it was set first.
    KeepFirst,
    /// An alarm that was set once is never set again.
    RememberForEver,
    /// To take an alarm away is not noted where that is remembered.
    ForgetTakingAway,
    /// What is overdue is past.
    PastIsPast,
}

struct Kept {
    fault: Fault,
    messages: Vec<RunMessage>,
    sent: u64,
    tasks: Vec<ActivityTask>,
    seen: Vec<ActivityTask>,
    alarms: BTreeMap<RunKey, (RunId, Timestamp)>,
    set: BTreeMap<RunKey, Timestamp>,
}

#[derive(Clone)]
struct Memory {
    now: Arc<AtomicU64>,
    kept: Arc<Mutex<Kept>>,
}

impl Memory {
    fn bench(fault: Fault) -> Bench {
        let kept = Kept {
            fault,
            messages: Vec::new(),
            sent: 0,
            tasks: Vec::new(),
            seen: Vec::new(),
            alarms: BTreeMap::new(),
            set: BTreeMap::new(),
        };
        let now = Arc::new(AtomicU64::new(1_700_000_000_000));
        let memory = Arc::new(Self { now, kept: Arc::new(Mutex::new(kept)) });
        Bench {
            runs: memory.clone(),
            activities: memory.clone(),
            alarms: memory.clone(),
            delivery: memory,
            pace: Pace {
                near: Duration::from_secs(30),
                far: Duration::from_secs(300),
                patience: Duration::from_secs(600),
                step: Duration::from_secs(1),
            },
        }
    }
}

impl Kept {
    fn push(&mut self, mut message: RunMessage) {
        self.sent += 1;
        match self.fault {
            Fault::LoseMessages if self.sent.is_multiple_of(10) => return,
            Fault::Reorder if self.sent.is_multiple_of(10) => return self.messages.insert(0, message),
            Fault::MixIds => {
                if let RunMessage::Sweep { run } | RunMessage::Arrived { run, .. } = &mut message {
                    run.workflow.workflow_id = run.workflow.workflow_id.replace('/', "-").into();
                }
            }
            Fault::Rewrite => {
                if let RunMessage::Arrived { arrival: Arrival::Signal(operations::Signaled { payload, .. }), .. } =
                    &mut message
                {
                    *payload = Payload::encode(&payload.to_value()).unwrap();
                }
            }
            Fault::Cut => {
                if let RunMessage::Accepted { record, .. } = &mut message {
                    record.truncate(256 * 1024);
                }
            }
            _ => {}
        }
        self.messages.push(message);
    }
}

impl RunQueue for Memory {
    fn announce(&self, intent: Intent) -> SeamFuture<'_, Ticket> {
        let kept = Arc::clone(&self.kept);
        let ticket = Ticket::new(move |instead| {
            let mut kept = kept.lock().unwrap();
            match instead {
                Some(instead) => kept.push(instead),
                None if kept.fault == Fault::LoseIntents && matches!(intent.wish, Wish::Start(_)) => {}
                None => kept.push(RunMessage::Intent(intent)),
            }
        });
        ready(Ok(ticket)).boxed()
    }

    fn send(&self, message: RunMessage) -> SeamFuture<'_, ()> {
        self.kept.lock().unwrap().push(message);
        ready(Ok(())).boxed()
    }

    fn sweep(&self, overdue: Vec<Overdue>) -> SeamFuture<'_, Sweeping> {
        for Overdue { run, .. } in overdue {
            self.kept.lock().unwrap().push(RunMessage::Sweep { run });
        }
        ready(Ok(Sweeping::Sent)).boxed()
    }
}

impl ActivityQueue for Memory {
    fn send(&self, tasks: Vec<ActivityTask>) -> SeamFuture<'_, ()> {
        let mut kept = self.kept.lock().unwrap();
        for task in tasks {
            let known = |seen: &ActivityTask| (&seen.run, seen.id) == (&task.run, task.id);
            if kept.fault != Fault::SendOnce || !kept.seen.iter().any(known) {
                kept.seen.push(task.clone());
                kept.tasks.push(task);
            }
        }
        ready(Ok(())).boxed()
    }

    fn no_such_queue(&self, _: Option<&str>) -> Option<String> {
        None
    }
}

impl Alarms for Memory {
    fn set(&self, run: &RunKey, run_id: RunId, at: Option<Timestamp>) -> SeamFuture<'_, ()> {
        let now = self.now();
        let mut kept = self.kept.lock().unwrap();
        let fault = kept.fault;
        match at {
            None => {
                kept.alarms.remove(run);
                if fault != Fault::ForgetTakingAway {
                    kept.set.remove(run);
                }
            }
            Some(at) => {
                let remembered = kept.set.insert(run.clone(), at) == Some(at);
                let skipped = match fault {
                    Fault::KeepFirst => kept.alarms.contains_key(run),
                    Fault::RememberForEver => remembered,
                    Fault::ForgetTakingAway => remembered && at > now,
                    Fault::PastIsPast => at < now,
                    _ => false,
                };
                if !skipped {
                    kept.alarms.insert(run.clone(), (run_id, at));
                }
            }
        }
        ready(Ok(())).boxed()
    }
}

impl Delivery for Memory {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.now.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
        ready(()).boxed()
    }

    fn messages(&self) -> BoxFuture<'_, Vec<RunMessage>> {
        let now = self.now();
        let mut kept = self.kept.lock().unwrap();
        let head_start = Duration::from_secs(if kept.fault == Fault::EarlyAlarms { 2 } else { 0 });
        let due: Vec<_> =
            kept.alarms.iter().filter(|(_, (_, at))| *at <= now + head_start).map(|(run, _)| run.clone()).collect();
        for run in due {
            if let Some((run_id, _)) = kept.alarms.remove(&run) {
                kept.push(RunMessage::Arrived { run, run_id, arrival: Arrival::Alarm });
            }
        }
        ready(std::mem::take(&mut kept.messages)).boxed()
    }

    fn tasks(&self) -> BoxFuture<'_, Vec<ActivityTask>> {
        let now = self.now();
        let mut kept = self.kept.lock().unwrap();
        let head_start = Duration::from_secs(if kept.fault == Fault::EarlyTasks { 2 } else { 0 });
        let (due, later) = kept.tasks.drain(..).partition(|task| task.not_before <= now + head_start);
        kept.tasks = later;
        ready(due).boxed()
    }
}

#[test]
fn queues_in_memory_conform() {
    let report = block_on(queue_conformance(async || Memory::bench(Fault::Nothing)));
    dormouse_tests::tell!("in memory: {report}");
    let report = block_on(alarm_conformance(async || Memory::bench(Fault::Nothing)));
    dormouse_tests::tell!("in memory: {report}");
}

/// Which case finds a fault.
fn found(fault: Fault) -> String {
    let suites = AssertUnwindSafe(async {
        queue_conformance(async || Memory::bench(fault)).await;
        alarm_conformance(async || Memory::bench(fault)).await;
    });
    let panic = block_on(suites.catch_unwind()).expect_err("the suites find the fault");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn the_suites_find_what_is_wrong() {
    let faults = [
        (Fault::LoseMessages, "a_workflow_s_messages_keep_their_order"),
        (Fault::LoseIntents, "an_intent_arrives_whatever_becomes_of_its_caller"),
        (Fault::Reorder, "a_workflow_s_messages_keep_their_order"),
        (Fault::MixIds, "hostile_ids_are_ids"),
        (Fault::Rewrite, "payloads_keep_their_bytes"),
        (Fault::Cut, "large_bodies_arrive_whole"),
        (Fault::EarlyTasks, "no_task_is_early"),
        (Fault::SendOnce, "a_task_sent_twice_arrives"),
        (Fault::EarlyAlarms, "ring_when_they_are_due_and_not_before"),
        (Fault::KeepFirst, "set_earlier_ring_earlier"),
        (Fault::RememberForEver, "that_have_rung_may_be_set_again"),
        (Fault::ForgetTakingAway, "taken_away_and_set_again_ring"),
        (Fault::PastIsPast, "ring_when_they_are_overdue"),
    ];
    for (fault, case) in faults {
        let found = found(fault);
        assert!(found.contains(case), "{fault:?} was to be found by {case}, but: {found}");
    }
}
