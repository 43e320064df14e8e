//! Everything at once: random walks through what may happen, by all rules. A walk is its seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dormouse_core::operations;

use dormouse_core::history::{Event, Input, Turn};
use dormouse_core::{ActivityTask, Arrival};
use dormouse_core::{Failure, IdConflictPolicy, Payload, RunKey, TimeoutKind};
use dormouse_engine::attempts::{Claiming, claim};
use dormouse_engine::seams::RunMessage;
use dormouse_testing::world::{Process, drive, latest, run, start_body};
use dormouse_testing::{Fault, On, World};

use super::workflows::app;

/// Enough of a random number generator.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }
}

const IDS: [(&str, &str, u32); 7] = [
    ("a", "words", 3),
    ("b", "local beside words", 2),
    ("c", "chain", 2),
    ("d", "queued", 2),
    ("e", "in time", 0),
    ("f", "local, then words", 2),
    ("g", "word, then activity", 2),
];

struct Walk {
    world: World,
    dice: Dice,
    processes: Vec<Process>,
    tasks: Vec<ActivityTask>,
    /// Messages that some process did not come to an end with.
    unended: Vec<RunMessage>,
    acknowledged: BTreeSet<(&'static str, String)>,
    claimed: BTreeMap<(RunKey, u64, u32), u32>,
    sent: u32,
    calm: bool,
}

impl Walk {
    fn new(seed: u64, shared: bool) -> Self {
        let world = World::new(app());
        let world = if shared { world.shared() } else { world };
        let processes = vec![world.process(), world.process()];
        let (tasks, unended, acknowledged, claimed) = Default::default();
        Self { world, dice: Dice(seed), processes, tasks, unended, acknowledged, claimed, sent: 0, calm: false }
    }

    fn any_process(&mut self) -> usize {
        self.dice.below(self.processes.len())
    }

    /// A process dies, and another takes its place.
    fn replace(&mut self, process: usize) {
        self.nothing_is_parked(process);
        self.processes[process] = self.world.process();
    }

    /// All code here is right, and so are all histories.
    fn nothing_is_parked(&self, process: usize) {
        let parked = || self.runs().iter().filter_map(|run| self.world.row(run)?.parked).collect::<Vec<_>>();
        assert_eq!(self.processes[process].counts().parks, 0, "{:#?}", parked());
    }

    fn start(&mut self) {
        let (id, workflow_type, input) = IDS[self.dice.below(IDS.len())];
        let policies = [IdConflictPolicy::Fail, IdConflictPolicy::Fail, IdConflictPolicy::TerminateExisting];
        let policy = policies[self.dice.below(policies.len())];
        let body = match workflow_type {
            "in time" => start_body(workflow_type, id, &(), policy),
            _ => start_body(workflow_type, id, &input, policy),
        };
        self.sent += 1;
        let (at, request) = (self.any_process(), format!("r{}", self.sent));
        if drive(self.processes[at].front.start(Some(&request), body)).is_none() {
            self.replace(at);
        }
    }

    fn signal(&mut self) {
        let (id, ..) = IDS[self.dice.below(IDS.len())];
        // Now and then, the same again.
        self.sent += u32::from(!self.dice.one_in(4));
        let (at, request) = (self.any_process(), format!("s{}", self.sent));
        let (target, word) = (latest(id), Payload::encode(&request).unwrap());
        match drive(self.processes[at].front.signal(&target, Some(&request), "word", word)) {
            None => self.replace(at),
            Some(Ok(_)) => drop(self.acknowledged.insert((id, request))),
            Some(Err(_)) => {}
        }
    }

    fn message(&mut self) {
        let waiting = self.world.mail.messages().len();
        if waiting == 0 {
            return;
        }
        let (place, at) = (self.dice.below(waiting), self.any_process());
        let message = self.world.mail.take_message(place);
        let local = matches!(
            &message,
            RunMessage::Arrived { arrival: Arrival::LocalCompleted(operations::LocalCompleted { .. }), .. }
        );
        if !self.calm && !local && self.dice.one_in(10) {
            return;
        }
        if !self.calm && self.dice.one_in(10) {
            self.world.mail.put(message.clone());
        }
        let again = self.unended.iter().position(|unended| *unended == message);
        let handled = match again.map(|at| self.unended.swap_remove(at)) {
            Some(_) => self.processes[at].handle_again(message.clone()),
            None => self.processes[at].handle(message.clone()),
        };
        if let Some(Ok(())) = handled {
            return self.nothing_is_parked(at);
        }
        self.unended.push(message.clone());
        self.world.mail.put(message);
        if handled.is_none() {
            self.replace(at);
        }
    }

    /// What a worker does with a task.
    fn task(&mut self) {
        self.tasks.append(&mut self.world.mail.take_tasks());
        if self.tasks.is_empty() {
            return;
        }
        let (place, at) = (self.dice.below(self.tasks.len()), self.any_process());
        let task = self.tasks.swap_remove(place);
        if !self.calm && self.dice.one_in(10) {
            return;
        }
        if task.not_before > self.world.now() || !self.calm && self.dice.one_in(10) {
            self.tasks.push(task.clone());
        }
        if task.not_before > self.world.now() {
            return;
        }
        let arrival = match drive(claim(&self.processes[at].ports, &task, None)) {
            None => return self.replace(at),
            Some(Err(_)) => return self.tasks.push(task),
            Some(Ok(Claiming::Nothing | Claiming::Held(_))) => return,
            Some(Ok(Claiming::NotYet(not_before))) => return self.tasks.push(ActivityTask { not_before, ..task }),
            Some(Ok(Claiming::Lost { attempt, last_heartbeat })) => Arrival::AttemptLost(operations::WorkerGone {
                id: task.id,
                attempt,
                timeout: TimeoutKind::StartToClose,
                last_heartbeat,
            }),
            Some(Ok(Claiming::Claimed(claim))) => {
                let times = self.claimed.entry((task.run.clone(), task.id, claim.attempt)).or_default();
                *times += 1;
                assert_eq!(*times, 1, "attempt {} of {:?} is claimed twice", claim.attempt, task);
                if !self.calm && self.dice.one_in(4) {
                    return;
                }
                let (id, attempt) = (task.id, claim.attempt);
                if self.dice.one_in(8) {
                    let (failure, retry_state) =
                        (Failure::application("no"), dormouse::RetryState::NonRetryableFailure);
                    Arrival::ActivityFailed(operations::ActivityFailed { id, attempt, failure, retry_state })
                } else {
                    let nothing = task.activity_type == "late";
                    let result = if nothing { Payload::NULL } else { Payload::encode(&1).unwrap() };
                    Arrival::ActivityCompleted(operations::ActivityCompleted { id, attempt, result })
                }
            }
        };
        self.world.mail.arrive(&task.run, task.run_id, arrival);
    }

    fn locals(&mut self) {
        for task in self.world.mail.take_locals() {
            let result = Payload::encode(&1).unwrap();
            let arrival =
                Arrival::LocalCompleted(operations::LocalCompleted { id: task.id, attempt: task.attempt, result });
            self.world.mail.arrive(&task.run, task.run_id, arrival);
        }
    }

    fn fault(&mut self) {
        let on = [On::Create(None), On::Create(None), On::Swap(None), On::Read(None)][self.dice.below(4)];
        let faults = [Fault::FailBefore, Fault::FailAfter, Fault::RetriedHidden, Fault::CrashBefore, Fault::CrashAfter];
        let at = self.any_process();
        self.processes[at].faults.plan(on, faults[self.dice.below(5)]);
    }

    fn step(&mut self) {
        match self.dice.below(40) {
            0..=1 => self.start(),
            2..=7 => self.signal(),
            8..=22 => self.message(),
            23..=28 => self.task(),
            29..=31 => self.locals(),
            32 => self.fault(),
            33 => self.world.mail.fail_tasks(self.dice.below(3)),
            34..=35 => self.world.pass(Duration::from_secs(self.dice.below(40) as u64)),
            36..=37 => self.world.ring(),
            38 => drop(self.world.sweep()),
            _ => {
                let at = self.any_process();
                self.replace(at);
            }
        }
    }

    fn runs(&self) -> Vec<RunKey> {
        let exists = |run: &RunKey| !self.world.records(run).is_empty();
        IDS.iter().flat_map(|(id, ..)| (0..).map(|ordinal| run(id, ordinal)).take_while(exists)).collect()
    }

    /// Nothing fails any more, and time passes: all comes to an end.
    fn settle(&mut self) {
        self.calm = true;
        self.world.mail.fail_tasks(0);
        for at in 0..self.processes.len() {
            self.replace(at);
        }
        for round in 0..200 {
            for _ in 0..10_000 {
                self.locals();
                if self.world.mail.messages().is_empty() && self.tasks.iter().all(|t| t.not_before > self.world.now()) {
                    break;
                }
                self.message();
                self.task();
            }
            let open: Vec<_> = self.runs().into_iter().filter(|run| self.world.state(run).closed.is_none()).collect();
            if open.is_empty() && self.runs().iter().all(|run| self.world.due(run).is_none()) {
                return;
            }
            // Whoever waits for a word gets one, after the sweep has had its time.
            for run in open.iter().filter(|_| round % 10 == 9) {
                let word = format!("w{round}");
                self.processes[0].signal(&run.workflow.workflow_id, &word, "word", &word);
            }
            self.world.pass(Duration::from_mins(5));
            self.world.ring();
            self.world.sweep();
        }
        for run in self.runs() {
            println!("{:#?}\n{:?}", self.world.state(&run), self.world.row(&run));
        }
        panic!("it does not come to an end");
    }

    /// What must be true of every history, at the end.
    fn check(&self) {
        let mut heard = BTreeMap::<_, u32>::new();
        for run in self.runs() {
            let (state, row) = (self.world.state(&run), self.world.row(&run).unwrap());
            assert_eq!((row.status, row.run_id), (state.status(), state.run_id()), "the index row tells the truth");
            for event in self.world.batches(&run).iter().flat_map(|batch| &batch.events) {
                // Recorded as it came, or with the turn that heard it.
                if let Event::Input(Input::Signaled(operations::Signaled { request_id, .. }))
                | Event::Turn(Turn {
                    input: Some(Input::Signaled(operations::Signaled { request_id, .. })), ..
                }) = event
                {
                    *heard.entry((run.workflow.workflow_id.to_string(), request_id.clone())).or_default() += 1;
                }
            }
        }
        for (signal, times) in &heard {
            assert_eq!(*times, 1, "{signal:?} is in the histories of its workflow once");
        }
        for (id, request) in &self.acknowledged {
            assert!(heard.contains_key(&((*id).to_owned(), request.clone())), "{request} to {id} was acknowledged");
        }
        (0..self.processes.len()).for_each(|process| self.nothing_is_parked(process));
    }
}

fn walk(seed: u64, steps: usize, shared: bool) {
    let mut walk = Walk::new(seed, shared);
    for (id, workflow_type, input) in IDS {
        let body = match workflow_type {
            "in time" => start_body(workflow_type, id, &(), IdConflictPolicy::Fail),
            _ => start_body(workflow_type, id, &input, IdConflictPolicy::Fail),
        };
        drive(walk.processes[0].front.start(Some("first"), body)).unwrap().unwrap();
    }
    for _ in 0..steps {
        walk.step();
    }
    walk.settle();
    walk.check();
}

/// `DORMOUSE_WALK=<seed>` walks one way alone.
fn all_rules_hold(shared: bool) {
    if let Some(seed) = std::env::var("DORMOUSE_WALK").ok().and_then(|seed| seed.parse().ok()) {
        return walk(seed, 400, shared);
    }
    let walks = std::env::var("DORMOUSE_WALKS").ok().and_then(|walks| walks.parse().ok()).unwrap_or(40);
    for seed in 0..walks {
        if let Err(panic) = std::panic::catch_unwind(|| walk(seed, 400, shared)) {
            println!("repeat it with DORMOUSE_WALK={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn all_rules_hold_on_every_walk() {
    all_rules_hold(false);
}

/// The same among processes that ask the store first, as functions do.
#[test]
fn all_rules_hold_on_every_shared_walk() {
    all_rules_hold(true);
}
