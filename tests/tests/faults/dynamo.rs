//! Commits on DynamoDB, through the SDK.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::Builder;
use aws_sdk_dynamodb::config::retry::RetryPartition;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use dormouse_aws::blobs::Blobs;
use dormouse_aws::store::DynamoStore;
use dormouse_engine::commit::{Outcome, commit};
use dormouse_engine::host::Machine;
use dormouse_engine::store::{AttemptKey, Attempts, Entry, Histories, Index, RowUpdate, RunFilter, StoreError, Swap};
use dormouse_testing::later;
use dormouse_tests::proxy::{Action, Proxy, Refusal, Rule, Spoiled};
use object_store::memory::InMemory;
use tokio::runtime::Handle;

use super::commits::{Case, Fate, TRIES, ask, ask_the_loser, ask_the_zombie, ask_with_the_row, every_store, history};
use super::parts::{PATIENCE, at, fresh, opening, run, sdk, service};

const PUT: &str = "dynamodb/PutItem/batch";
const TRANSACTION: &str = "dynamodb/TransactWriteItems/batch+row";

/// A proxy before a DynamoDB, and a table behind both.
struct Table {
    name: String,
    proxy: Proxy,
    blobs: Blobs,
    store: DynamoStore,
    truth: DynamoStore,
}

impl Table {
    /// One for everything that speaks DynamoDB, as `DORMOUSE_TEST_DYNAMODB_ENDPOINTS` names it (`name=url,name=url`),
    /// else for the one service. None: skipped.
    async fn all() -> Vec<Self> {
        let endpoints = match std::env::var("DORMOUSE_TEST_DYNAMODB_ENDPOINTS") {
            Ok(listed) => listed.split(',').map(|part| part.split_once('=').unwrap().1.to_owned()).collect(),
            Err(_) => service().into_iter().collect::<Vec<_>>(),
        };
        let mut tables = Vec::new();
        for endpoint in endpoints {
            let name = fresh("faults");
            let client = Client::new(&sdk(&endpoint).await);
            DynamoStore::create_table(&client, &name).await.unwrap();
            let proxy = Proxy::start(&endpoint).await.unwrap();
            let blobs = Blobs::new(Arc::new(InMemory::new()), Handle::current());
            let truth = DynamoStore::new(client, &name, blobs.clone(), Handle::current());
            let store = Self::through(&proxy, &name, &blobs).await;
            tables.push(Self { name, proxy, blobs, store, truth });
        }
        tables
    }

    /// A store whose client stands alone: after some hundreds of failures, all clients of a process that share a
    /// region stop retrying, for a while.
    async fn through(proxy: &Proxy, table: &str, blobs: &Blobs) -> DynamoStore {
        let patient = TimeoutConfig::builder().operation_attempt_timeout(PATIENCE).build();
        let config = Builder::from(&sdk(&proxy.url()).await).timeout_config(patient);
        let config = config.retry_partition(RetryPartition::new(fresh("retries"))).build();
        DynamoStore::new(Client::from_conf(config), table, blobs.clone(), Handle::current())
    }
}

#[tokio::test]
async fn dynamodb_commits_survive_every_fault() {
    for Table { proxy, store, truth, .. } in Table::all().await {
        let mut cases = every_store();
        // DynamoDB's own ways to be busy; and answers that cannot be read, whatever their status.
        let busy = |code: &str| Action::Refuse(Refusal::Code(400, code.into()));
        for action in [busy("ThrottlingException"), busy("RequestLimitExceeded"), busy("SomethingNew")] {
            cases.push(Case { action, times: 1, fate: Fate::Won, sent: 2, landed: 1 });
        }
        cases.push(Case { action: Action::Spoil(Spoiled::Half), times: 1, fate: Fate::Won, sent: 2, landed: 2 });
        cases.push(Case { action: Action::Spoil(Spoiled::Null), times: 1, fate: Fate::Won, sent: 2, landed: 2 });
        ask(&store, &truth, &proxy, &run("table"), PUT, cases).await;
    }
}

#[tokio::test]
async fn dynamodb_losers_find_whoever_won() {
    for Table { proxy, store, .. } in Table::all().await {
        ask_the_loser(&store, &proxy, &run("loser"), PUT).await;
    }
}

#[tokio::test]
async fn dynamodb_zombies_find_their_place_taken() {
    for Table { proxy, store, truth, .. } in Table::all().await {
        ask_the_zombie(&store, &truth, &proxy, &run("zombie"), PUT).await;
    }
}

#[tokio::test]
async fn dynamodb_rows_go_with_their_batches() {
    for Table { proxy, store, truth, .. } in Table::all().await {
        ask_with_the_row(&store, &truth, &proxy, &run("row"), &[TRANSACTION]).await;
        for reason in ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "SomethingNew"] {
            let sequence = history(&truth, &run("row")).await.len() as u64;
            let due = at(700_000 - sequence);
            proxy.rule(Rule::once(TRANSACTION, Action::Refuse(Refusal::Canceled(reason.into()))));
            drop(proxy.reset());
            let entry = Entry::Append(later(sequence), RowUpdate::due(due));
            let outcome = commit(&store, &Machine::here(), &run("row"), &"b".into(), &entry).await;
            assert_eq!(outcome, Ok(Outcome::Won), "{reason}");
            assert_eq!(truth.row(&run("row")).await.unwrap().unwrap().due, Some(due), "{reason}");
            assert_eq!(proxy.counts().came("dynamodb"), 2, "{reason}: {:?}", proxy.counts());
        }
    }
}

/// Rule A1: a claim whose answer was lost is known as one's own, and nobody else gets it.
#[tokio::test]
async fn dynamodb_claims_survive_every_fault() {
    for Table { proxy, store, truth, .. } in Table::all().await {
        for (number, Case { action, times, .. }) in (0..).zip(every_store()) {
            let name = format!("{action:?}, {times} times");
            let key = AttemptKey { run: run("claims"), activity: number };
            let struck = proxy.rule(Rule::once("dynamodb/PutItem/attempt", action.clone()).times(times));
            drop(proxy.reset());
            let mut answers = 0;
            let mine = loop {
                answers += 1;
                match store.swap(&key, None, "mine".into()).await {
                    // "Nothing is there" after "something is there": whoever claims begins again.
                    Err(StoreError::Unknown(_)) | Ok(Swap::Stale(None)) if answers <= TRIES => {}
                    answer => break answer,
                }
            };
            assert_eq!(struck.times(), times, "{name}");
            assert_eq!(proxy.counts().came("dynamodb/PutItem"), answers, "{name}: {:?}", proxy.counts());
            let read = u64::from(action == Action::Refuse(Refusal::Precondition));
            assert_eq!(proxy.counts().came("dynamodb/GetItem"), read, "{name}: {:?}", proxy.counts());
            proxy.clear();
            match mine {
                Ok(Swap::Done(1)) => {}
                Ok(Swap::Stale(Some(found))) => {
                    assert_eq!((found.version, &*found.record), (1, &b"mine"[..]), "{name}")
                }
                answer => panic!("{name}: {answer:?}"),
            }
            let theirs = truth.swap(&key, None, "theirs".into()).await;
            let Ok(Swap::Stale(Some(found))) = theirs else { panic!("{name}: {theirs:?}") };
            assert_eq!(&*found.record, b"mine", "{name}");
        }
    }
}

/// Reads may be retried, and are: nobody notices a fault that passes. One that stays is told, never taken for "nothing
/// is there".
#[tokio::test]
async fn dynamodb_reads_are_asked_again() {
    for Table { name: table, proxy, blobs, truth, .. } in Table::all().await {
        let run = run("read");
        truth.open(&run, "batch 0".into(), opening()).await.unwrap();
        let key = AttemptKey { run: run.clone(), activity: 1 };
        truth.swap(&key, None, "record".into()).await.unwrap();
        for action in [
            Action::Close,
            Action::DropAnswer,
            Action::Refuse(Refusal::Internal),
            Action::Refuse(Refusal::Unavailable),
            Action::Refuse(Refusal::Throttled),
            Action::Spoil(Spoiled::Half),
            Action::Slow(100),
        ] {
            let store = Table::through(&proxy, &table, &blobs).await;
            for times in [Some(1), None] {
                let name = format!("{action:?}, {times:?} times, on {table}");
                for on in ["Query/history", "GetItem/row", "Query/newest", "GetItem/attempt"] {
                    proxy.rule(Rule { times, ..Rule::once(&format!("dynamodb/{on}"), action.clone()) });
                }
                let (read, row, latest, attempt) = tokio::join!(
                    store.read(&run, 0),
                    store.row(&run),
                    store.newest(&run.workflow),
                    store.attempt(&key),
                );
                assert_eq!(proxy.outstanding(), [], "{name}");
                proxy.clear();
                let stays = times.is_none() && action != Action::Slow(100);
                // What each has found.
                let found = [
                    read.map(|stretch| stretch.records.len() == 1),
                    row.map(|row| row.is_some()),
                    latest.map(|newest| newest.row().is_some()),
                    attempt.map(|record| record.is_some()),
                ];
                for answer in found {
                    match stays {
                        true => assert!(matches!(answer, Err(StoreError::Unknown(_))), "{name}: {answer:?}"),
                        false => assert_eq!(answer, Ok(true), "{name}"),
                    }
                }
            }
        }
    }
}

/// An answer that says nothing is not the answer that nothing is there.
#[tokio::test]
async fn dynamodb_answers_of_null_are_no_answers() {
    for Table { proxy, store, truth, .. } in Table::all().await {
        let run = run("null");
        truth.open(&run, "batch 0".into(), opening()).await.unwrap();
        let key = AttemptKey { run: run.clone(), activity: 1 };
        truth.swap(&key, None, "record".into()).await.unwrap();
        proxy.rule(Rule::every("dynamodb", Action::Spoil(Spoiled::Null)));
        let answers = [
            store.read(&run, 0).await.map(drop),
            store.row(&run).await.map(drop),
            store.newest(&run.workflow).await.map(drop),
            store.attempt(&key).await.map(drop),
            store.list("default", &RunFilter::default(), None, 10).await.map(drop),
            store.due(at(1_000_000), None, 10).await.map(drop),
            store.swap(&key, Some(1), "next".into()).await.map(drop),
            store.settle(&run).await.map(drop),
            store.park(&run, None).await.map(drop),
        ];
        for answer in answers {
            assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        }
    }
}
