//! Random workflows, random arrivals: a small interpreter runs a random program, whose outcomes come in a random order,
//! with duplicates, merges, reloads and jumps of the clock. Whatever happens, every replay gives the same state.

mod common;

use common::{GO, MINUTE, NUMBER, World, cancel, completed, double, failed, halve, json, signal};
use dormouse_core::operations;
use dormouse_core::{
    Arrival, CommandId, Decision, Failure, Merge, Query, RetryState, RunState, Status, TimeoutKind, Workflow, select,
};
use futures::future::{FutureExt, LocalBoxFuture, join_all};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

const TRACE: Query<u64> = Query::new("trace");

/// What the interpreter can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Op {
    Activity(u32),
    Local(u32),
    Sleep(u64),
    Signal,
    Abandon(u32),
    StartThen(u32, Vec<Op>),
    Timeout(u64, Vec<Op>),
    Together(Vec<Vec<Op>>),
    Race(Vec<Op>, Vec<Op>),
    Until(u32),
    Publish,
    Chance,
}

type Steps = LocalBoxFuture<'static, Result<(), Failure>>;

#[derive(Clone)]
struct Interpreter {
    cx: Workflow,
    trace: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Interpreter {
    fn note(&self, value: u64) {
        self.trace.set(self.trace.get().wrapping_mul(31).wrapping_add(value));
    }

    fn all(&self, ops: Vec<Op>) -> Steps {
        let this = self.clone();
        async move {
            for op in ops {
                this.step(op).await?;
            }
            Ok(())
        }
        .boxed_local()
    }

    /// Failures of activities are noted; only cancellation ends the program.
    fn outcome(&self, outcome: Result<u32, Failure>) -> Result<(), Failure> {
        match outcome {
            Ok(value) => self.note(u64::from(value)),
            Err(failure) if failure.is_canceled() => return Err(failure),
            Err(_) => self.note(1),
        }
        Ok(())
    }

    fn step(&self, op: Op) -> Steps {
        let this = self.clone();
        async move {
            let cx = &this.cx;
            match op {
                Op::Activity(n) => this.outcome(cx.activity(double, &n).options(MINUTE).await)?,
                Op::Local(n) => this.outcome(cx.local_activity(halve, &n).await)?,
                Op::Sleep(ms) => {
                    cx.sleep(std::time::Duration::from_millis(ms)).await?;
                    this.note(cx.now().as_millis());
                }
                Op::Signal => this.note(u64::from(cx.signal(NUMBER).await?)),
                Op::Abandon(n) => drop(cx.activity(double, &n).options(MINUTE).start()),
                Op::StartThen(n, then) => {
                    let pending = cx.activity(double, &n).options(MINUTE).start();
                    this.all(then).await?;
                    this.outcome(pending.await)?;
                }
                Op::Timeout(ms, ops) => {
                    let limited = cx.timeout(std::time::Duration::from_millis(ms), this.all(ops)).await?;
                    this.note(u64::from(limited.is_some()));
                }
                Op::Together(arms) => {
                    for arm in join_all(arms.into_iter().map(|arm| this.all(arm))).await {
                        arm?;
                    }
                }
                Op::Race(one, two) => {
                    select! {
                        one = this.all(one) => { one?; this.note(2) },
                        two = this.all(two) => { two?; this.note(3) },
                    }
                }
                Op::Until(low) => {
                    let trace = this.trace.clone();
                    let before = trace.get();
                    select! {
                        held = cx.wait_until(move || trace.get() != before && trace.get() % 4 >= u64::from(low)) => held?,
                        go = cx.signal(GO) => drop(go?),
                    }
                }
                Op::Publish => drop(cx.publish(TRACE, this.trace.get())),
                Op::Chance => this.note(u64::from(cx.uuid().as_bytes()[0]) + (cx.random("op").fraction() * 100.0) as u64),
            }
            Ok(())
        }
        .boxed_local()
    }
}

async fn interpret(cx: Workflow, ops: Vec<Op>) -> Result<u64, Failure> {
    let interpreter = Interpreter { cx, trace: Default::default() };
    interpreter.all(ops).await?;
    Ok(interpreter.trace.get())
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        3 => any::<u8>().prop_map(|n| Op::Activity(n.into())),
        3 => any::<u8>().prop_map(|n| Op::Local(n.into())),
        2 => (0..5_000u64).prop_map(Op::Sleep),
        2 => Just(Op::Signal),
        1 => any::<u8>().prop_map(|n| Op::Abandon(n.into())),
        1 => (0..4u32).prop_map(Op::Until),
        1 => Just(Op::Publish),
        1 => Just(Op::Chance),
    ];
    leaf.prop_recursive(3, 24, 3, |op| {
        let ops = || vec(op.clone(), 1..3);
        prop_oneof![
            (any::<u8>(), ops()).prop_map(|(n, then)| Op::StartThen(n.into(), then)),
            (0..5_000u64, ops()).prop_map(|(ms, ops)| Op::Timeout(ms, ops)),
            vec(ops(), 2..4).prop_map(Op::Together),
            (ops(), ops()).prop_map(|(one, two)| Op::Race(one, two)),
        ]
    })
}

/// What the world does next; numbers choose among what is possible.
#[derive(Clone, Debug)]
enum Happens {
    Outcome(prop::sample::Index, bool),
    Oldest,
    Lost(prop::sample::Index),
    Signal(u8),
    Alarm(u64),
    Cancel,
    Reload,
    Merge(Box<Happens>),
    Twice(Box<Happens>),
    Together(Box<Happens>, Box<Happens>),
    /// The first is decided on here, while somebody else commits the second, or the same.
    Conflict(Box<Happens>, Option<Box<Happens>>),
    Commit,
}

fn happens() -> impl Strategy<Value = Happens> {
    let one = prop_oneof![
        8 => (any::<prop::sample::Index>(), prop::bool::weighted(0.8)).prop_map(|(at, well)| Happens::Outcome(at, well)),
        1 => any::<prop::sample::Index>().prop_map(Happens::Lost),
        4 => (0..6u8).prop_map(Happens::Signal),
        3 => (0..4_000u64).prop_map(Happens::Alarm),
        1 => prop::bool::weighted(0.2).prop_map(|really| if really { Happens::Cancel } else { Happens::Commit }),
        1 => Just(Happens::Reload),
    ];
    let two = one.clone();
    prop_oneof![
        6 => one.clone(),
        1 => one.clone().prop_map(|one| Happens::Merge(Box::new(one))),
        1 => one.clone().prop_map(|one| Happens::Twice(Box::new(one))),
        1 => (one.clone(), two.clone()).prop_map(|(one, two)| Happens::Together(Box::new(one), Box::new(two))),
        2 => (one.clone(), one, proptest::option::of(two)).prop_map(|(one, other, two)| {
            let both = Happens::Together(Box::new(one), Box::new(other));
            Happens::Conflict(Box::new(both), two.map(Box::new))
        }),
    ]
}

/// The outcome of one of the activities that are open.
fn outcome(
    state: &RunState,
    choose: impl FnOnce(&[(CommandId, bool)]) -> (CommandId, bool),
    well: bool,
) -> Vec<Arrival> {
    let queued = state.pending.activities.open.keys().map(|id| (*id, false));
    let mut open: Vec<_> = queued.chain(state.pending.locals.open.keys().map(|id| (*id, true))).collect();
    open.sort_unstable();
    if open.is_empty() {
        return Vec::new();
    }
    let (failure, over) = (Failure::application("no"), RetryState::NonRetryableFailure);
    let (id, local) = choose(&open);
    let attempt = state.pending.activities.open.get(&id).map_or(1, |pending| pending.lost + 1);
    let result = json(&id.to_string());
    vec![match (local, well) {
        (false, true) => Arrival::ActivityCompleted(operations::ActivityCompleted { id, attempt, result }),
        (false, false) => failed(id, attempt, failure, over),
        (true, true) => common::local(id, &id.to_string()),
        (true, false) => Arrival::LocalFailed(operations::LocalFailed { id, attempt: 1, failure, retry_state: over }),
    }]
}

struct Driver {
    world: World,
    requests: u32,
}

impl Driver {
    /// The arrivals that this comes to, in the present state.
    fn arrivals(&mut self, happens: &Happens) -> Vec<Arrival> {
        let state = self.world.state();
        match happens {
            Happens::Outcome(at, well) => outcome(state, |open| *at.get(open), *well),
            Happens::Oldest => outcome(state, |open| open[0], true),
            Happens::Lost(at) => {
                let open: Vec<_> =
                    state.pending.activities.open.iter().map(|(id, pending)| (*id, pending.lost + 1)).collect();
                if open.is_empty() {
                    return vec![completed(999, "1")];
                }
                let (id, attempt) = *at.get(&open);
                vec![Arrival::AttemptLost(operations::WorkerGone {
                    id,
                    attempt,
                    timeout: TimeoutKind::StartToClose,
                    last_heartbeat: None,
                })]
            }
            Happens::Signal(kind) => {
                self.requests += 1;
                let id = format!("s{}", self.requests);
                vec![match kind {
                    0 => signal(&id, "go", "true"),
                    1 => signal(&id, "number", "\"ill-typed\""),
                    n => signal(&id, "number", &n.to_string()),
                }]
            }
            Happens::Alarm(ms) => {
                self.world.clock += ms;
                vec![Arrival::Alarm]
            }
            Happens::Cancel => vec![cancel("cancel")],
            Happens::Reload | Happens::Commit => Vec::new(),
            Happens::Merge(one) | Happens::Conflict(one, _) => self.arrivals(one),
            Happens::Twice(one) => {
                let arrivals = self.arrivals(one);
                [arrivals.clone(), arrivals].concat()
            }
            Happens::Together(one, two) => {
                let mut arrivals = self.arrivals(one);
                arrivals.extend(self.arrivals(two));
                arrivals
            }
        }
    }

    fn go(&mut self, happens: &Happens) {
        let arrivals = self.arrivals(happens);
        match happens {
            Happens::Reload => self.world.reload(),
            // Somebody else commits first what also reaches us, or something else.
            Happens::Merge(_) => self.merge(arrivals),
            Happens::Conflict(_, theirs) => {
                let theirs = match theirs {
                    Some(theirs) => self.arrivals(theirs),
                    None => arrivals[..arrivals.len().min(1)].to_vec(),
                };
                self.take_in(arrivals);
                // A decision that must be taken anew for other reasons is no conflict.
                if matches!(self.world.live.decide(self.world.now()).unwrap(), Decision::Decided) {
                    self.merge(theirs);
                } else {
                    self.world.reload();
                }
            }
            Happens::Commit => {
                if self.world.live.must_commit() {
                    self.world.commit();
                }
            }
            _ => self.take_in(arrivals),
        }
        self.world.settle();
    }

    fn take_in(&mut self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            if let Ok(inputs) = self.world.state().accept(&arrival, self.world.now()) {
                self.world.live.take_in(inputs);
            }
        }
    }

    fn merge(&mut self, arrivals: Vec<Arrival>) {
        // What the history alone allows: a draft of ours may know better, or may not know it.
        let state = self.world.replay().unwrap().state().clone();
        let arrivals: Vec<_> =
            arrivals.into_iter().filter(|arrival| state.accept(arrival, self.world.now()).is_ok()).collect();
        if arrivals.is_empty() {
            return;
        }
        let record = self.world.elsewhere(arrivals);
        match self.world.live.merge(&record) {
            Merge::Merged => {}
            Merge::Reload => self.world.reload(),
            Merge::Retake(retake) => {
                self.world.reload();
                self.world.live.resume(retake).unwrap();
            }
        }
    }
}

/// Lets everything come that is waited for, until the run closes.
fn finish(driver: &mut Driver) {
    for _ in 0..400 {
        if driver.world.status() != Status::Running {
            return;
        }
        driver.go(&Happens::Oldest);
        driver.go(&Happens::Signal(3));
        driver.go(&Happens::Signal(0));
        driver.go(&Happens::Alarm(6_000));
    }
    panic!("it never ends: {:?}", driver.world.state());
}

fn folded(log: &[bytes::Bytes]) -> RunState {
    let mut state = RunState::begin(common::run_key(0), &log[0]).unwrap().0;
    log[1..].iter().for_each(|record| drop(state.append(record).unwrap()));
    state
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_history_replays_to_the_same_state(ops in vec(op(), 1..6), happens in vec(happens(), 0..30)) {
        let mut driver = Driver { world: World::run(interpret, &ops), requests: 0 };
        for happens in &happens {
            if driver.world.status() != Status::Running {
                break;
            }
            driver.go(happens);
        }
        finish(&mut driver);
        // And from every prefix of the history.
        let world = &driver.world;
        for length in 1..=world.log.len() {
            dormouse_core::LiveRun::replay(&world.app, &world.state().run, &world.log[..length]).unwrap();
        }
        // And a snapshot taken anywhere, with the rest appended, is the whole fold.
        let whole = folded(&world.log);
        let state = (1..world.log.len()).fold(folded(&world.log[..1]), |state, at| {
            let mut state = RunState::from_snapshot(&state.run, &state.snapshot()).unwrap();
            state.append(&world.log[at]).unwrap();
            state
        });
        prop_assert_eq!(&state, &whole);
        prop_assert_eq!(&state, world.state());
        let status = world.status();
        prop_assert!(matches!(status, Status::Completed | Status::Canceled), "{status}");
    }
}
