//! `kill -9` under load: nothing that was acknowledged is lost, and nothing that is recorded is done again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use comfy_table::Table;
use dormouse::api::StartBody;
use dormouse::{
    ClientError, IdConflictPolicy, IdReusePolicy, ListFilter, Payload, RawClient, RetryState, RunId, Status,
};
use dormouse_core::history::{Batch, Closed, CommandId, Event, Input, RunState, Turn, turn_time};
use dormouse_core::{LiveRun, RunKey, Timestamp, WorkflowKey};
use dormouse_engine::attempts::{AttemptRecord, AttemptState};
use dormouse_engine::commit::{read_history, read_state};
use dormouse_engine::store::{RunFilter, RunRow, Store};
use dormouse_engine::stores::sqlite::SqliteStore;
use dormouse_tests::dice::Dice;
use dormouse_tests::server::{Server, dev, functions};
use functions::ledger::{Entry, Ledger};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

/// The soaks share a machine that may be slow: one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const ORDERS: usize = 200;
const EXPENSES: usize = 60;
/// What is begun between two kills: enough for every round up to the last but few.
const ORDERS_A_ROUND: usize = 9;
const EXPENSES_A_ROUND: usize = 3;
const KILLS: usize = 20;
const KILLS_BETWEEN: usize = 10;
const KILLS_AT_MOST: usize = 40;
const FAILURES_AT_MOST: usize = 5;
const PATIENCE: Duration = Duration::from_secs(180);

// --- the client, which survives all this ---

/// What a 2xx answer acknowledged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Ack {
    Start { workflow_id: String, run_id: RunId },
    Signal { workflow_id: String, request_id: String },
}

/// The client's own log: a line is on the disk before the client goes on.
#[derive(Clone)]
struct AckLog(Arc<Mutex<File>>);

impl AckLog {
    fn create(path: &Path) -> Self {
        Self(Arc::new(Mutex::new(File::options().create_new(true).append(true).open(path).unwrap())))
    }

    fn write(&self, ack: &Ack) {
        let mut line = serde_json::to_vec(ack).unwrap();
        line.push(b'\n');
        let mut file = self.0.lock().unwrap();
        file.write_all(&line).unwrap();
        file.sync_data().unwrap();
    }

    fn read(path: &Path) -> Vec<Ack> {
        std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A caller that repeats a request, with the same key, until somebody answers it.
#[derive(Clone)]
struct Caller {
    /// The server, while there is one: a dead server's port may be another's soon.
    server: watch::Receiver<Option<RawClient>>,
    log: AckLog,
}

impl Caller {
    async fn ask<T, F>(&mut self, ask: impl Fn(RawClient) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        loop {
            let client = self.server.wait_for(Option::is_some).await.expect("the soak goes on").clone();
            match ask(client.unwrap()).await {
                Err(ClientError::Transport { .. }) => {}
                Err(ClientError::Problem(problem)) if problem.status == 503 => {}
                answer => return answer,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn start(&mut self, workflow_type: &str, workflow_id: &str, input: Value) {
        let body = StartBody {
            workflow_type: workflow_type.into(),
            workflow_id: Some(workflow_id.into()),
            input,
            id_reuse_policy: IdReusePolicy::default(),
            id_conflict_policy: IdConflictPolicy::default(),
        };
        let request_id = format!("start-{workflow_id}");
        let start = |client: RawClient| {
            let (body, request_id) = (body.clone(), request_id.clone());
            async move { client.start(&body, Some(&request_id)).await }
        };
        let started = self.ask(start).await.unwrap();
        self.log.write(&Ack::Start { workflow_id: workflow_id.into(), run_id: started.run_id });
    }

    async fn signal(&mut self, workflow_id: &str, name: &str, argument: &Payload) {
        let request_id = format!("{name}-{workflow_id}");
        let signal = |client: RawClient| {
            let handle = client.workflow(workflow_id, None);
            let (name, argument, request_id) = (name.to_owned(), argument.clone(), request_id.clone());
            async move { handle.signal(&name, &argument, Some(&request_id)).await }
        };
        self.ask(signal).await.unwrap();
        self.log.write(&Ack::Signal { workflow_id: workflow_id.into(), request_id });
    }

    async fn order(mut self, n: usize, delay_ms: u64) {
        let id = format!("order-{n}");
        let input = json!({ "order_id": id, "amount_cents": n, "fulfilment_delay_ms": delay_ms, "flaky": 0.3 });
        self.start("orderWorkflow", &id, input).await;
    }

    async fn expense(mut self, n: usize, pauses: [Duration; 2]) {
        let id = format!("expense-{n}");
        self.start("expenseApprovalWorkflow", &id, json!({ "expense_id": id, "amount_cents": n })).await;
        tokio::time::sleep(pauses[0]).await;
        self.signal(&id, "note", &Payload::NULL).await;
        tokio::time::sleep(pauses[1]).await;
        self.signal(&id, "approval", &Payload::encode(&!n.is_multiple_of(3)).unwrap()).await;
    }
}

// --- the server, which does not ---

/// A data directory, and the servers that come and go over it.
struct Soak {
    dir: tempfile::TempDir,
    current: watch::Sender<Option<RawClient>>,
    server: Option<Server>,
}

impl Soak {
    fn new() -> (Self, Caller) {
        let dir = tempfile::tempdir().unwrap();
        let log = AckLog::create(&dir.path().join("acknowledged.jsonl"));
        let (current, server) = watch::channel(None);
        (Self { dir, current, server: None }, Caller { server, log })
    }

    fn start(&mut self) {
        let server = Server::start(functions(), self.dir.path());
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

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger.jsonl")
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
}

fn look(data: &Path) -> Connection {
    Connection::open_with_flags(data.join("dormouse.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// What a kill has hit.
#[derive(Default, Clone)]
struct Hit {
    /// Attempts that the dead process had claimed and whose activities have no outcome in the history.
    claimed: usize,
    /// Those of them that had written to the ledger: the outside world knows, the history does not.
    in_ledger: usize,
}

/// Looks into the data directory of a process that has just died.
fn hit(data: &Path, ledger: &[Entry]) -> Hit {
    let db = look(data);
    let epoch: u32 = db.query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0)).unwrap();
    let done: HashSet<_> =
        ledger.iter().map(|entry| (entry.run_id.as_str(), entry.activity_id.as_str(), entry.attempt)).collect();
    let mut attempts = db
        .prepare("SELECT namespace, workflow_id, ordinal, run, activity, record FROM attempts JOIN runs USING (run)")
        .unwrap();
    let mut histories = db.prepare("SELECT record FROM batches WHERE run = ?1 ORDER BY sequence").unwrap();
    let mut rows = attempts.query([]).unwrap();
    let mut hit = Hit::default();
    while let Some(row) = rows.next().unwrap() {
        let record = AttemptRecord::decode(&row.get::<_, Vec<u8>>(5).unwrap()).unwrap();
        if !matches!(record.state, AttemptState::Claimed { epoch: claimed_in, .. } if claimed_in == u64::from(epoch)) {
            continue;
        }
        let workflow = WorkflowKey::new(&row.get::<_, String>(0).unwrap(), &row.get::<_, String>(1).unwrap()).unwrap();
        let run = workflow.run(row.get::<_, u32>(2).unwrap().into());
        let activity = CommandId::from(row.get::<_, u32>(4).unwrap());
        let records = histories.query_map([row.get::<_, i64>(3).unwrap()], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        let state = fold(run, &records.map(|record| record.unwrap().into()).collect::<Vec<_>>());
        let open = state.activities.get(&activity).is_some_and(|pending| record.attempt > pending.lost);
        hit.claimed += usize::from(open);
        let run_id = state.run_id().to_string();
        hit.in_ledger += usize::from(open && done.contains(&(run_id.as_str(), &*activity.to_string(), record.attempt)));
    }
    hit
}

fn fold(run: RunKey, records: &[Bytes]) -> RunState {
    let (mut state, _) = RunState::begin(run, &records[0]).unwrap();
    records[1..].iter().for_each(|record| drop(state.append(record).unwrap()));
    state
}

/// The ledger's lines, but for those that a kill cut short: a write may end at the end of a page, and then the activity
/// has not done what it does.
fn ledger(path: &Path) -> Vec<Entry> {
    Ledger::at(path).entries().unwrap()
}

async fn until_all_closed(client: &RawClient) {
    let (began, running) = (Instant::now(), ListFilter { status: Some(Status::Running), ..ListFilter::default() });
    loop {
        let left = client.list(&running, 1000).await.unwrap();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{} runs do not end, such as {:#?}", left.len(), left[0]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

// --- what must be true afterwards ---

/// A run as the store has it.
struct Told {
    row: RunRow,
    state: RunState,
    /// When the history says that an activity succeeded, by its attempt.
    completed: BTreeMap<CommandId, (u32, Timestamp)>,
    /// Final failures.
    failed: Vec<(u32, RetryState)>,
    request_ids: Vec<String>,
}

/// Reads everything back and replays it: gapless, chained, and followed by today's code.
async fn read_back(data: &Path) -> HashMap<String, Told> {
    let store = SqliteStore::open(data).unwrap();
    let rows = store.list("default", &RunFilter::default(), None, 100_000).await.unwrap();
    let app = Arc::new(functions::app(Ledger::at(data.join("never"))));
    let mut runs = HashMap::new();
    for row in rows {
        let records = read_history(&store, &row.run).await.unwrap();
        let state = read_state(&store, &row.run).await.unwrap().unwrap();
        assert_eq!(state.next_sequence, records.len() as u64);
        assert_eq!((state.run_id(), state.status()), (row.run_id, row.status), "{}: row and history differ", row.run);
        let live = LiveRun::replay(&app, &row.run, &records).unwrap_or_else(|failure| panic!("{}: {failure}", row.run));
        assert_eq!(*live.state(), state, "{}", row.run);
        let mut told = Told { row, state, completed: BTreeMap::new(), failed: vec![], request_ids: vec![] };
        for (sequence, record) in records.iter().enumerate() {
            told.take(&Batch::decode(sequence as u64, record).unwrap());
        }
        runs.insert(told.row.run.workflow.workflow_id.to_string(), told);
    }
    drop(store);
    check_file(data, &runs);
    runs
}

impl Told {
    fn take(&mut self, batch: &Batch) {
        for event in &batch.events {
            let (at, input) = match event {
                Event::Turn(Turn { at_offset_ms, input: Some(input), .. }) => {
                    (turn_time(batch.time, *at_offset_ms), input)
                }
                Event::Input(input) => (batch.time, input),
                _ => continue,
            };
            self.request_ids.extend(input.request_id().map(ToOwned::to_owned));
            match input {
                Input::ActivityCompleted { id, attempt, .. } => {
                    assert_eq!(
                        self.completed.insert(*id, (*attempt, at)),
                        None,
                        "{}: {id} completes twice",
                        self.row.run
                    );
                }
                Input::ActivityFailed { attempt, retry_state, .. } => self.failed.push((*attempt, *retry_state)),
                _ => {}
            }
        }
    }
}

/// The file itself: sound, and no batch beyond a gap, where reading would not find it.
fn check_file(data: &Path, runs: &HashMap<String, Told>) {
    let db = look(data);
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(integrity, "ok");
    let mut statement = db
        .prepare("SELECT workflow_id, count(*), max(sequence) FROM batches JOIN runs USING (run) GROUP BY run")
        .unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?.into(), row.get::<_, u32>(2)?)));
    let mut seen = 0;
    for row in rows.unwrap() {
        let (id, count, last): (_, u64, _) = row.unwrap();
        assert_eq!((count, u64::from(last)), (runs[&id].state.next_sequence, count - 1), "{id}: a gap");
        seen += 1;
    }
    assert_eq!(seen, runs.len());
}

fn check_acknowledged(acknowledged: &[Ack], runs: &HashMap<String, Told>) {
    for ack in acknowledged {
        match ack {
            Ack::Start { workflow_id, run_id } => {
                let run = runs.get(workflow_id).unwrap_or_else(|| panic!("{workflow_id} was acknowledged and is lost"));
                assert_eq!(run.row.run_id, *run_id, "{workflow_id}");
            }
            Ack::Signal { workflow_id, request_id } => {
                let times = runs[workflow_id].request_ids.iter().filter(|id| *id == request_id).count();
                assert_eq!(times, 1, "signal {request_id} was acknowledged and is {times} times in the history");
            }
        }
    }
}

fn check_ledger(ledger: &[Entry], runs: &HashMap<String, Told>) {
    let (mut attempts, mut keys) = (HashSet::new(), HashMap::new());
    for entry in ledger {
        let run = &runs[&entry.workflow_id];
        assert_eq!(run.row.run_id.to_string(), entry.run_id);
        assert!(attempts.insert((&entry.idempotency_key, entry.attempt)), "twice: {entry:?}");
        let key = keys.entry((&entry.run_id, &entry.activity_id)).or_insert(&entry.idempotency_key);
        assert_eq!(*key, &entry.idempotency_key, "another key: {entry:?}");
        if let Some((attempt, at)) = run.completed.get(&entry.activity_id.parse().unwrap()) {
            assert!(entry.at <= at.as_millis(), "after its recorded completion at {}: {entry:?}", at.as_millis());
            assert!(entry.attempt <= *attempt, "a later attempt than {attempt}, which completed: {entry:?}");
        }
    }
    let all: BTreeSet<_> = keys.values().collect();
    assert_eq!(all.len(), keys.len(), "activities share a key");
    // What is recorded as done was done.
    for run in runs.values() {
        for (id, (attempt, _)) in &run.completed {
            let key = format!("{}:{id}", run.row.run_id);
            assert!(attempts.contains(&(&key, *attempt)), "{}: {id} completed and was never run", run.row.run);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_expenses_survive_twenty_kills() {
    let _alone = ALONE.lock().await;
    let mut dice = Dice::cast("crash");
    let (mut soak, caller) = Soak::new();
    let (orders, expenses) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..ORDERS {
        let (caller, turn, delay) = (caller.clone(), Arc::clone(&orders), dice.within(200..1500));
        callers.spawn(async move {
            turn.acquire().await.unwrap().forget();
            caller.order(n, delay).await;
        });
    }
    for n in 0..EXPENSES {
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
    while kills < KILLS || between < KILLS_BETWEEN {
        assert!(kills < KILLS_AT_MOST, "{kills} kills, and only {between} between a claim and its completion\n{table}");
        soak.start();
        let up = Instant::now();
        // What is new comes at the beginning of the round, or as a burst at its end: then much is under way at once.
        let burst = dice.within(0..4) > 0;
        let pause = dice.millis(50..800);
        if burst {
            tokio::time::sleep(pause).await;
        }
        let size = soak.ledger_size();
        orders.add_permits(ORDERS_A_ROUND);
        expenses.add_permits(EXPENSES_A_ROUND);
        if !burst {
            tokio::time::sleep(pause).await;
        }
        soak.await_ledger_line(size, Duration::from_millis(500));
        std::thread::sleep(Duration::from_micros(dice.within(0..700)));
        soak.kill();
        let up = up.elapsed();
        let hit = hit(&soak.data(), &ledger(&soak.ledger()));
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
    orders.add_permits(ORDERS);
    expenses.add_permits(EXPENSES);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let server = soak.server.take().unwrap();
    until_all_closed(&server.client()).await;
    assert!(server.terminate().success());

    let (acknowledged, ledger, runs) = (soak.acknowledged(), ledger(&soak.ledger()), read_back(&soak.data()).await);
    assert_eq!(runs.len(), ORDERS + EXPENSES);
    assert_eq!(acknowledged.len(), ORDERS + 3 * EXPENSES);
    check_acknowledged(&acknowledged, &runs);
    check_ledger(&ledger, &runs);
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
    assert!(failures <= FAILURES_AT_MOST, "{failures} failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_starts_survive_a_kill_at_any_moment() {
    const CALLERS: usize = 8;
    const ROUNDS: usize = 30;
    let _alone = ALONE.lock().await;
    let mut dice = Dice::cast("starts");
    let (mut soak, caller) = Soak::new();
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
        let mut server = Server::spawn(dev(functions(), soak.dir.path()));
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
    let runs = read_back(&soak.data()).await;
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
