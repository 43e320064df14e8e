//! The same over object stores, S3's protocol on this machine, and what comes of two processes at one prefix.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dormouse::{ListFilter, Status};
use dormouse_core::RunState;
use dormouse_core::history::CommandId;
use dormouse_engine::attempts::AttemptRecord;
use dormouse_engine::states::read_state;
use dormouse_engine::store::{AttemptKey, Attempts, Index, RunFilter};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_tests::endpoints::Endpoint;
use dormouse_tests::server::{Server, functions, serve};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore as _, ObjectStoreExt};

use crate::places::{Hit, Place, is_claimed};
use crate::{ALONE, Size, Soak, orders_and_expenses};

/// What a successor waits after a kill. Short, and yet a machine may be busy for a third of it.
const LEASE: &str = "3s";

/// Kills cost a lease each.
const SIZE: Size = Size {
    orders: 40,
    expenses: 12,
    orders_a_round: 5,
    expenses_a_round: 2,
    kills: 8,
    kills_between: 4,
    kills_at_most: 20,
    failures_at_most: 4,
};

/// A prefix that nobody else uses.
pub struct Objects {
    endpoint: Endpoint,
    prefix: String,
}

impl Objects {
    fn fresh(endpoint: &Endpoint) -> Self {
        static FRESH: AtomicU32 = AtomicU32::new(0);
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let prefix = format!("crash-{since}-{}-{}", std::process::id(), FRESH.fetch_add(1, Ordering::Relaxed));
        Self { endpoint: endpoint.clone(), prefix }
    }

    pub fn dev(&self, dir: &Path) -> Command {
        let mut command = serve(functions(), dir);
        command.args(["--lease", LEASE, "--store"]).arg(format!("s3://{}/{}", self.endpoint.bucket, self.prefix));
        command.env("AWS_ENDPOINT_URL", &self.endpoint.url).env("AWS_REGION", "us-east-1");
        command.env_remove("AWS_ENDPOINT_URL_S3");
        command
    }

    /// For reading only, beside whoever owns it.
    pub fn store(&self) -> ObjectStore {
        ObjectStore::new(Arc::new(self.endpoint.client()), &self.prefix)
    }

    async fn epoch(&self) -> u64 {
        let owner =
            self.endpoint.client().get(&format!("{}/.owner", self.prefix).into()).await.unwrap().bytes().await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&owner).unwrap()["epoch"].as_u64().unwrap()
    }

    /// The attempts that the last owner has claimed, of activities that are open.
    pub async fn claimed(&self) -> Vec<(RunState, CommandId, AttemptRecord)> {
        let (store, epoch) = (self.store(), self.epoch().await);
        let running = RunFilter { status: Some(Status::Running), ..RunFilter::default() };
        let rows = store.list("default", &running, None, 100_000).await.unwrap();
        let claimed = futures::stream::iter(rows)
            .map(async |row| {
                let state = read_state(&store, &row.run).await.unwrap().unwrap();
                let mut claimed = Vec::new();
                for activity in state.pending.activities.open.keys().copied() {
                    let key = AttemptKey { run: row.run.clone(), activity };
                    let Some(standing) = store.attempt(&key).await.unwrap() else { continue };
                    let record = AttemptRecord::decode(&standing.record).unwrap();
                    if is_claimed(&record, epoch) {
                        claimed.push((state.clone(), activity, record));
                    }
                }
                claimed
            })
            .buffer_unordered(8);
        claimed.collect::<Vec<_>>().await.concat()
    }

    /// By workflow id: how many batches, and the highest sequence.
    pub async fn histories(&self) -> BTreeMap<String, (u64, u64)> {
        let keys: Vec<_> = self
            .endpoint
            .client()
            .list(Some(&self.prefix.as_str().into()))
            .map_ok(|meta| meta.location.to_string())
            .try_collect()
            .await
            .unwrap();
        let mut histories = BTreeMap::new();
        for key in keys.iter().map(|key| key.split('/').collect::<Vec<_>>()) {
            if let [_, "default", id, _, "log", sequence] = key[..] {
                let (count, last) = histories.entry(id.to_owned()).or_insert((0, 0));
                *count += 1;
                *last = sequence.parse::<u64>().unwrap().max(*last);
            }
        }
        histories
    }
}

impl Soak {
    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr.log")).unwrap_or_default()
    }

    /// Stops the process while activities are claimed and have no outcome: when the ledger has just grown, and once
    /// more if they were faster.
    async fn stop_in_the_middle(&self, server: &Server) -> Hit {
        for _ in 0..20 {
            self.await_ledger_line(self.ledger_size(), self.place.step());
            server.signal("STOP");
            let hit = self.place.hit(&self.entries()).await;
            if hit.claimed > 0 {
                return hit;
            }
            server.signal("CONT");
        }
        panic!("nothing was ever under way; the server said: {}", self.log());
    }
}

/// Runs a test on each endpoint that there is, one after another.
async fn on_each<F: Future<Output = ()>>(test: &str, run: impl Fn(Objects) -> F) {
    let endpoints = Endpoint::all();
    if endpoints.is_empty() {
        dormouse_tests::tell!("SKIPPED: {test} needs DORMOUSE_TEST_S3_ENDPOINTS (CONTRIBUTING.md says how)");
    }
    for endpoint in endpoints {
        dormouse_tests::tell!("{test}, on {} at {}", endpoint.name, endpoint.url);
        run(Objects::fresh(&endpoint)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_expenses_survive_kills_on_objects() {
    let _alone = ALONE.lock().await;
    on_each("the soak over objects", |objects| orders_and_expenses(|_| Place::Objects(objects), SIZE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_for_one_process() {
    let _alone = ALONE.lock().await;
    on_each("one process at a prefix", async |objects| {
        let dir = tempfile::tempdir().unwrap();
        let log = || std::fs::read_to_string(dir.path().join("stderr.log")).unwrap_or_default();
        let server = Server::up(objects.dev(dir.path()), dir.path());
        let second = objects.dev(dir.path()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&second.stdout), "", "it does not say that it listens");
        let said = String::from_utf8_lossy(&second.stderr);
        let pid = format!("pid {}", server.pid());
        assert!(said.contains("in use by another process") && said.contains(&pid), "{said}");

        // The first does not mind. Its death is waited for, visibly.
        assert!(server.client().list(&ListFilter::default(), 1).await.unwrap().is_empty());
        assert_eq!((log().as_str(), objects.epoch().await), ("", 1));
        server.kill();
        let server = Server::up(objects.dev(dir.path()), dir.path());
        assert!(log().contains(&pid) && log().contains("waiting"), "{}", log());
        assert_eq!(objects.epoch().await, 2);

        // Told to stop, it lets go: nobody waits.
        let waited = log().matches("waiting").count();
        assert!(server.terminate().success());
        assert!(Server::up(objects.dev(dir.path()), dir.path()).terminate().success());
        assert_eq!((log().matches("waiting").count(), objects.epoch().await), (waited, 3));
    })
    .await;
}

/// Stopped in the middle, taken for dead, and awake again when another has gone on.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_wakes_up_too_late_does_no_harm() {
    const ORDERS: usize = 16;
    let _alone = ALONE.lock().await;
    on_each("a process that wakes up too late", async |objects| {
        let (mut soak, caller) = Soak::new(|_| Place::Objects(objects));
        soak.start();
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..ORDERS {
            callers.spawn(caller.clone().order(n, 300));
        }
        let mut zombie = soak.server.take().unwrap();
        let hit = soak.stop_in_the_middle(&zombie).await;
        soak.current.send_replace(None);

        soak.start();
        for n in ORDERS..ORDERS * 2 {
            callers.spawn(caller.clone().order(n, 100));
        }
        // Whatever does not wait for an answer of the one that sleeps comes to its end.
        soak.until_closed(ORDERS).await;
        let woken = dormouse_core::Timestamp::from_millis(
            u64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap(),
        );
        zombie.signal("CONT");
        assert_eq!(zombie.wait().code(), Some(1), "{}", soak.log());
        assert!(soak.log().contains("no longer") && soak.log().contains("stopped writing"), "{}", soak.log());

        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        let (runs, ledger) = soak.end(Some(woken)).await;
        assert_eq!(runs.len(), 2 * ORDERS);
        let late = ledger.iter().filter(|entry| entry.at >= woken.as_millis()).count();
        dormouse_tests::tell!(
            "it had claimed {} attempts ({} in the ledger); {} ledger lines, {late} after it woke up",
            hit.claimed,
            hit.in_ledger,
            ledger.len()
        );
    })
    .await;
}
