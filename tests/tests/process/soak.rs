//! Hostile code beside ordinary runs, for as long as one likes:
//! `DORMOUSE_SOAK_SECONDS=600 cargo test -p dormouse-tests --release --test process -- --ignored soak --nocapture`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dormouse::{RawClient, Status};
use dormouse_tests::dice::Dice;
use serde_json::json;

use super::{log_of, oddities, start_body};

/// What an application can do to whoever runs it. Those that end the process come rarely, or it would do little else.
const MISCHIEF: [&str; 9] = [
    "blocks",
    "spins",
    "panics",
    "blocks locally",
    "panics locally",
    "never ends",
    "panics in a turn",
    "answers slowly",
    "answers by a panic",
];
const DEADLY: [&str; 4] = ["aborts", "overflows", "aborts locally", "overflows in a query"];

const GRACE: Duration = Duration::from_secs(2);
/// The time limit of the bar for an answer of the API.
const SOON: Duration = Duration::from_secs(1);

/// One server after another at the same address.
struct House {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
    deaths: u32,
}

impl House {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { child: spawn(&address, dir.path()), address, dir, deaths: 0 }
    }

    /// Whether it had ended by itself, and is there again.
    fn look_after(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else { return false };
        assert!(!status.success(), "nobody asked it to stop");
        self.deaths += 1;
        self.child = spawn(&self.address, self.dir.path());
        true
    }

    /// SIGTERM: how long it took to end.
    async fn stop(&mut self) -> Duration {
        let pid = self.child.id().to_string();
        let began = Instant::now();
        let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        // It may have died a moment before.
        while told.success() && self.child.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(address: &str, dir: &Path) -> Child {
    let mut command = Command::new(oddities());
    command.args(["dev", "--listen", address, "--log", "warn", "--turn-limit", "2s", "--grace", "2s", "--data-dir"]);
    command.arg(dir.join("data")).env("ODDITIES", "bad").env("LEDGER_FILE", dir.join("ledger.jsonl"));
    let log = std::fs::File::options().create(true).append(true).open(dir.join("stderr.log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// When ordinary runs began, and how long they took, from the request to the result.
    runs: Mutex<Vec<(Instant, Duration)>>,
    /// When a server was told to stop, and when the next one was begun.
    stops: Mutex<Vec<(Instant, Instant)>>,
    under_way: AtomicU64,
    /// The longest answer of the API, in milliseconds, while a server was up.
    slowest: AtomicU64,
    answers: AtomicU64,
    over: AtomicBool,
}

impl Seen {
    /// Of runs during which nobody told their server to stop: that takes its grace, whoever waits.
    fn percentile(&self, share: f64) -> Duration {
        let stops = self.stops.lock().unwrap();
        let met = |began: Instant, took: Duration| stops.iter().any(|(from, to)| began < *to && began + took > *from);
        let mut runs = self.runs.lock().unwrap().clone();
        runs.retain(|(began, took)| !met(*began, *took));
        let mut runs: Vec<_> = runs.into_iter().map(|(_, took)| took).collect();
        runs.sort();
        runs.get(((runs.len() as f64 * share) as usize).min(runs.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Begins five ordinary runs a second, and waits for each.
async fn ordinary(client: RawClient, seen: Arc<Seen>, name: &'static str) {
    for n in 0.. {
        if seen.over.load(Ordering::SeqCst) {
            return;
        }
        let (client, seen) = (client.clone(), Arc::clone(&seen));
        seen.under_way.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let (id, began) = (format!("{name}-{n}"), Instant::now());
            let body = start_body("ordinary", &id, json!(null));
            while client.start(&body, Some(&id)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let outcome = client.workflow(&id, None).outcome(Some(Duration::from_mins(5))).await.expect("an outcome");
            assert_eq!(outcome.status, Status::Completed, "{id}: {outcome:?}");
            seen.runs.lock().unwrap().push((began, began.elapsed()));
            seen.under_way.fetch_sub(1, Ordering::SeqCst);
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Asks the API for a list, five times a second.
async fn probe(client: RawClient, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::SeqCst) {
        let began = Instant::now();
        // One that is not there is another matter: it is begun again.
        if client.list(&dormouse::ListFilter::default(), 10).await.is_ok() {
            seen.slowest.fetch_max(began.elapsed().as_millis() as u64, Ordering::SeqCst);
            seen.answers.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn harm(client: &RawClient, id: &str, kind: &str) {
    // Whether it arrives does not matter.
    if client.start(&start_body("mischief", id, json!(kind)), Some(id)).await.is_ok() && kind.contains("answers")
        || kind.contains("query")
    {
        let client = client.clone();
        let id = id.to_owned();
        tokio::spawn(async move { drop(client.workflow(&id, None).query("harm", &dormouse::Payload::NULL).await) });
    }
}

/// Ordinary runs, with or without hostile ones, for so long.
async fn phase(
    house: &mut House,
    seconds: u64,
    hostile: bool,
    dice: &mut Dice,
) -> (Arc<Seen>, Vec<Duration>, BTreeMap<&'static str, u32>) {
    let client = RawClient::new(&format!("http://{}", house.address)).unwrap().tries(1);
    let seen = Arc::new(Seen::default());
    tokio::spawn(ordinary(client.clone(), Arc::clone(&seen), if hostile { "beside" } else { "alone" }));
    tokio::spawn(probe(client.clone(), Arc::clone(&seen)));
    let (mut stops, mut done) = (Vec::new(), BTreeMap::new());
    let began = Instant::now();
    let (mut tick, mut next_deadly, mut next_stop) = (0_u64, 20, 45);
    while began.elapsed() < Duration::from_secs(seconds) {
        tick += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
        house.look_after();
        if !hostile {
            continue;
        }
        let passed = began.elapsed().as_secs();
        if tick.is_multiple_of(8) {
            let kind = MISCHIEF[dice.within(0..MISCHIEF.len() as u64) as usize];
            harm(&client, &format!("mischief-{tick}"), kind).await;
            *done.entry(kind).or_default() += 1;
        }
        if passed >= next_deadly {
            next_deadly = passed + 40;
            let kind = DEADLY[dice.within(0..DEADLY.len() as u64) as usize];
            harm(&client, &format!("deadly-{tick}"), kind).await;
            *done.entry(kind).or_default() += 1;
        }
        if passed >= next_stop {
            next_stop = passed + 60;
            let told = Instant::now();
            stops.push(house.stop().await);
            house.child = spawn(&house.address, house.dir.path());
            seen.stops.lock().unwrap().push((told, Instant::now()));
        }
    }
    seen.over.store(true, Ordering::SeqCst);
    let patience = Instant::now();
    while seen.under_way.load(Ordering::SeqCst) > 0 {
        house.look_after();
        assert!(patience.elapsed() < Duration::from_mins(3), "ordinary runs do not end: {}", log_of(house.dir.path()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (seen, stops, done)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a soak: ten minutes; see the top of its file"]
async fn soak_with_hostile_code() {
    let seconds = std::env::var("DORMOUSE_SOAK_SECONDS").ok().map_or(600, |text| text.parse().expect("seconds"));
    let mut dice = Dice::cast("soak");
    let mut house = House::begin();
    let (alone, ..) = phase(&mut house, (seconds / 5).max(10), false, &mut dice).await;
    let (beside, stops, done) = phase(&mut house, seconds, true, &mut dice).await;
    let tell = |name: &str, seen: &Seen| {
        let runs = seen.runs.lock().unwrap().len();
        dormouse_tests::tell!(
            "{name}: {runs} ordinary runs, median {:?}, 95 % {:?}, 99 % {:?}; {} answers of the API, the slowest {} ms",
            seen.percentile(0.5),
            seen.percentile(0.95),
            seen.percentile(0.99),
            seen.answers.load(Ordering::SeqCst),
            seen.slowest.load(Ordering::SeqCst)
        );
    };
    tell("alone", &alone);
    tell("beside hostile code", &beside);
    dormouse_tests::tell!("{done:?}; the process ended {} times; SIGTERM took {stops:?}", house.deaths);
    assert!(stops.iter().all(|took| *took < GRACE + Duration::from_secs(2)), "{stops:?}");
    assert!(Duration::from_millis(beside.slowest.load(Ordering::SeqCst)) < SOON, "the API was silent");
}
