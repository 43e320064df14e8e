//! `kill -9` under load: nothing that was acknowledged is lost, and nothing that is recorded is done again.

#[path = "crash/checks.rs"]
mod checks;
#[path = "crash/client.rs"]
mod client;
#[cfg(feature = "s3")]
#[path = "crash/objects.rs"]
mod objects;
#[path = "crash/places.rs"]
mod places;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::Table;
use dormouse::{ListFilter, RawClient, RetryState, Status};
use dormouse_core::Timestamp;
use dormouse_core::history::Closed;
use dormouse_engine::store::RunFilter;
use dormouse_tests::dice::Dice;
use dormouse_tests::server::Server;
use functions::ledger::{Entry, Ledger};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use checks::{Told, check_acknowledged, check_ledger, read_back};
use client::{Ack, AckLog, Caller};
use places::Place;

/// The soaks share a machine that may be slow: one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const PATIENCE: Duration = Duration::from_secs(180);

/// How much a soak does.
#[derive(Clone, Copy)]
struct Size {
    orders: usize,
    expenses: usize,
    /// What is begun between two kills: enough for every round up to the last but few.
    orders_a_round: usize,
    expenses_a_round: usize,
    kills: usize,
    kills_between: usize,
    kills_at_most: usize,
    failures_at_most: usize,
}

/// A place to keep things in, and the servers that come and go over it.
struct Soak {
    dir: tempfile::TempDir,
    place: Place,
    current: watch::Sender<Option<RawClient>>,
    server: Option<Server>,
}

impl Soak {
    fn new(place: impl FnOnce(&Path) -> Place) -> (Self, Caller) {
        let dir = tempfile::tempdir().unwrap();
        let log = AckLog::create(&dir.path().join("acknowledged.jsonl"));
        let (current, server) = watch::channel(None);
        (Self { place: place(dir.path()), dir, current, server: None }, Caller { server, log })
    }

    fn start(&mut self) {
        let server = Server::up(self.place.dev(self.dir.path()), self.dir.path());
        self.current.send_replace(Some(server.client()));
        self.server = Some(server);
    }

    fn kill(&mut self) {
        self.server.take().unwrap().kill();
        self.current.send_replace(None);
    }

    fn acknowledged(&self) -> Vec<Ack> {
        AckLog::read(&self.dir.path().join("acknowledged.jsonl"))
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger.jsonl")
    }

    /// The ledger's lines, but for those that a kill cut short: a write may end at the end of a page, and then the
    /// activity has not done what it does.
    fn entries(&self) -> Vec<Entry> {
        Ledger::at(self.ledger()).entries().unwrap()
    }

    fn ledger_size(&self) -> u64 {
        std::fs::metadata(self.ledger()).map_or(0, |metadata| metadata.len())
    }

    /// Waits until the ledger has grown beyond this size, and no longer than that.
    fn await_ledger_line(&self, size: u64, limit: Duration) {
        let began = Instant::now();
        while self.ledger_size() <= size && began.elapsed() < limit {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits until all runs are closed, and there are so many of them.
    async fn until_closed(&self, least: usize) {
        let client = self.server.as_ref().unwrap().client();
        let began = Instant::now();
        loop {
            let runs = client.list(&ListFilter::default(), 1000).await.unwrap();
            let open: Vec<_> = runs.iter().filter(|run| run.status == Status::Running).collect();
            if open.is_empty() && runs.len() >= least {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{} of {} runs do not end, such as {:#?}",
                open.len(),
                runs.len(),
                open.first()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lets everything end, stops the server, and checks what is left. For `woken`, see [`check_ledger`].
    async fn end(&mut self, woken: Option<Timestamp>) -> (HashMap<String, Told>, Vec<Entry>) {
        self.until_closed(0).await;
        assert!(self.server.take().unwrap().terminate().success());
        let (runs, ledger) = (read_back(&*self.place.store(), &RunFilter::default()).await, self.entries());
        self.place.check(&runs).await;
        check_acknowledged(&self.acknowledged(), &runs);
        check_ledger(&ledger, &runs, woken);
        (runs, ledger)
    }
}

/// Orders and expenses come, servers are killed in the middle of them; then all ends, and must be as if nothing had
/// happened.
async fn orders_and_expenses(place: impl FnOnce(&Path) -> Place, size: Size) {
    let mut dice = Dice::cast("crash");
    let (mut soak, caller) = Soak::new(place);
    let (orders, expenses) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..size.orders {
        let (caller, turn, delay) = (caller.clone(), Arc::clone(&orders), dice.within(200..1500));
        callers.spawn(async move {
            turn.acquire().await.unwrap().forget();
            caller.order(n, delay).await;
        });
    }
    for n in 0..size.expenses {
        let (caller, turn) = (caller.clone(), Arc::clone(&expenses));
        let pauses = [dice.millis(0..400), dice.millis(0..400)];
        callers.spawn(async move {
            turn.acquire().await.unwrap().forget();
            caller.expense(n, pauses).await;
        });
    }

    let began = Instant::now();
    let (mut kills, mut between, mut interrupted) = (0, 0, 0);
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["kill", "at", "up for", "claimed, no outcome", "of those in the ledger"]);
    while kills < size.kills || between < size.kills_between {
        assert!(
            kills < size.kills_at_most,
            "{kills} kills, and only {between} between a claim and its completion\n{table}"
        );
        soak.start();
        let up = Instant::now();
        // What is new comes at the beginning of the round, or as a burst at its end: then much is under way at once.
        let burst = dice.within(0..4) > 0;
        let pause = dice.millis(50..800);
        if burst {
            tokio::time::sleep(pause).await;
        }
        let written = soak.ledger_size();
        orders.add_permits(size.orders_a_round);
        expenses.add_permits(size.expenses_a_round);
        if !burst {
            tokio::time::sleep(pause).await;
        }
        soak.await_ledger_line(written, soak.place.step());
        std::thread::sleep(Duration::from_micros(dice.within(0..700)));
        soak.kill();
        let up = up.elapsed();
        let hit = soak.place.hit(&soak.entries()).await;
        kills += 1;
        between += usize::from(hit.claimed > 0);
        interrupted += usize::from(hit.in_ledger > 0);
        dormouse_tests::tell!(
            "kill {kills:>2}: {} claimed without an outcome, {} of them in the ledger",
            hit.claimed,
            hit.in_ledger
        );
        table.add_row([
            kills.to_string(),
            format!("{:.1} s", began.elapsed().as_secs_f64()),
            format!("{} ms", up.as_millis()),
            hit.claimed.to_string(),
            hit.in_ledger.to_string(),
        ]);
    }
    soak.start();
    orders.add_permits(size.orders);
    expenses.add_permits(size.expenses);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let (runs, ledger) = soak.end(None).await;
    let acknowledged = soak.acknowledged();
    assert_eq!(runs.len(), size.orders + size.expenses);
    assert_eq!(acknowledged.len(), size.orders + 3 * size.expenses);
    let mut failures = 0;
    for (id, run) in &runs {
        match &run.state.closed {
            Some(Closed::Completed(_)) => assert!(run.failed.is_empty(), "{id}"),
            Some(Closed::Failed(failure)) => {
                failures += 1;
                assert_eq!(run.failed, [(5, RetryState::MaximumAttemptsReached)], "{id}: {failure}");
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    dormouse_tests::tell!("{table}");
    dormouse_tests::tell!(
        "{kills} kills, {between} between a claim and its completion ({interrupted} with the ledger already written); \
         {} runs, {failures} failed after their fifth attempt; {} acknowledgements, {} ledger lines; {:.0} s",
        runs.len(),
        acknowledged.len(),
        ledger.len(),
        began.elapsed().as_secs_f64(),
    );
    assert!(failures <= size.failures_at_most, "{failures} failed");
}

#[cfg(not(feature = "s3"))]
#[test]
fn orders_and_expenses_survive_kills_on_objects() {
    dormouse_tests::tell!("SKIPPED: the soak over objects needs the feature `s3`");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_expenses_survive_twenty_kills() {
    let _alone = ALONE.lock().await;
    let size = Size {
        orders: 200,
        expenses: 60,
        orders_a_round: 9,
        expenses_a_round: 3,
        kills: 20,
        kills_between: 10,
        kills_at_most: 40,
        failures_at_most: 5,
    };
    orders_and_expenses(Place::directory, size).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_starts_survive_a_kill_at_any_moment() {
    const CALLERS: usize = 8;
    const ROUNDS: usize = 30;
    let _alone = ALONE.lock().await;
    let mut dice = Dice::cast("starts");
    let (mut soak, caller) = Soak::new(Place::directory);
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let mut caller = caller.clone();
            tokio::spawn(async move {
                for m in 0.. {
                    let id = format!("load-{n}-{m}");
                    caller.start("expenseApprovalWorkflow", &id, json!({ "expense_id": id, "amount_cents": 1 })).await;
                }
            })
        })
        .collect();
    let mut killed_early = 0;
    for round in 0..ROUNDS {
        // Counted from its beginning, which may be before it is up, or from when it is up.
        let life = dice.millis(50..500);
        let mut server = Server::spawn(soak.place.dev(soak.dir.path()));
        if round % 2 == 0 {
            tokio::time::sleep(life).await;
            killed_early += 1;
        } else {
            assert!(server.wait_until_up().is_some());
            soak.current.send_replace(Some(server.client()));
            tokio::time::sleep(life).await;
        }
        server.kill();
        soak.current.send_replace(None);
    }
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    soak.start();
    let server = soak.server.take().unwrap();
    let acknowledged = soak.acknowledged();
    // Found at once, not only in the end.
    let listed = server.client().list(&ListFilter::default(), 100_000).await.unwrap();
    let listed: HashMap<_, _> = listed.into_iter().map(|run| (run.workflow_id, run.run_id)).collect();
    for ack in &acknowledged {
        let Ack::Start { workflow_id, run_id } = ack else { unreachable!("nothing but starts") };
        assert_eq!(listed.get(workflow_id), Some(run_id), "{workflow_id}");
    }
    assert!(server.terminate().success());
    let runs = read_back(&*soak.place.store(), &RunFilter::default()).await;
    soak.place.check(&runs).await;
    check_acknowledged(&acknowledged, &runs);
    for ack in &acknowledged {
        let Ack::Start { workflow_id, .. } = ack else { unreachable!("nothing but starts") };
        assert_eq!(runs[workflow_id].state.status(), Status::Running);
    }
    dormouse_tests::tell!(
        "{ROUNDS} kills ({killed_early} counted from the process's beginning): {} starts acknowledged, {} runs",
        acknowledged.len(),
        runs.len()
    );
    assert!(!acknowledged.is_empty());
}
