//! Attempt records: replaced if the version is the expected one.

use std::sync::Arc;

use bytes::Bytes;
use dormouse_engine::store::{AttemptKey, Attempts, Store, StoreError, Swap, Versioned};

use super::{race, run, run_in, start};
use crate::faulty::{Fault, FaultyStore, On};

fn key(workflow_id: &str, activity: u64) -> AttemptKey {
    AttemptKey { run: run(workflow_id), activity }
}

fn versioned(version: u64, record: &'static str) -> Versioned {
    Versioned { version, record: Bytes::from_static(record.as_bytes()) }
}

pub(super) async fn are_created_read_and_replaced(store: Arc<dyn Store>) {
    let key = key("swapped", 4);
    start(&store, &key.run).await;
    assert_eq!(store.attempt(&key).await, Ok(None));
    assert_eq!(store.swap(&key, Some(1), "early".into()).await, Ok(Swap::Stale(None)), "there is none yet");

    let Ok(Swap::Done(first)) = store.swap(&key, None, "one".into()).await else { panic!("it was free") };
    assert_eq!(store.attempt(&key).await, Ok(Some(versioned(first, "one"))));
    assert_eq!(store.swap(&key, None, "again".into()).await, Ok(Swap::Stale(Some(versioned(first, "one")))));

    let Ok(Swap::Done(second)) = store.swap(&key, Some(first), Bytes::new()).await else { panic!("expected") };
    assert!(second > first, "versions grow");
    for expected in [None, Some(first), Some(second + 1), Some(u64::MAX)] {
        let stale = store.swap(&key, expected, "stale".into()).await;
        assert_eq!(stale, Ok(Swap::Stale(Some(versioned(second, "")))), "expected {expected:?}");
    }
    assert_eq!(store.attempt(&key).await, Ok(Some(versioned(second, ""))));
}

pub(super) async fn belong_to_one_activity_of_one_run(store: Arc<dyn Store>) {
    let runs = [run("a"), run("b"), run_in("conformance", "a", 1), run_in("other", "a", 0)];
    let keys: Vec<AttemptKey> =
        runs.iter().flat_map(|run| [0, 1, 10].map(|activity| AttemptKey { run: run.clone(), activity })).collect();
    for run in &runs {
        start(&store, run).await;
    }
    for (i, key) in keys.iter().enumerate() {
        assert!(matches!(store.swap(key, None, format!("record {i}").into()).await, Ok(Swap::Done(_))), "{key:?}");
    }
    for (i, key) in keys.iter().enumerate() {
        let found = store.attempt(key).await.unwrap().expect("a record");
        assert_eq!(found.record, format!("record {i}"), "{key:?}");
    }
}

pub(super) async fn racing_swaps_have_one_winner_each(store: Arc<dyn Store>) {
    const ROUNDS: usize = 10;
    let key = key("raced", 0);
    start(&store, &key.run).await;
    let mut expected = None;
    for round in 0..ROUNDS {
        let (racers, raced) = (Arc::clone(&store), key.clone());
        let answers = race(8, move |racer| {
            let (store, key) = (Arc::clone(&racers), raced.clone());
            async move {
                let record = Bytes::from(format!("{round}:{racer}"));
                for _ in 0..1_000 {
                    match store.swap(&key, expected, record.clone()).await {
                        // An unknown outcome, tried again: to find one's own is to have won.
                        Ok(Swap::Stale(Some(found))) if found.record == record => return Swap::Done(found.version),
                        Ok(swap) => return swap,
                        Err(StoreError::Unknown(_)) => {}
                        Err(refused) => panic!("{refused}"),
                    }
                }
                panic!("the outcome stays unknown")
            }
        });
        let winners: Vec<_> = answers
            .iter()
            .enumerate()
            .filter_map(|(racer, answer)| match answer {
                Swap::Done(version) => Some((racer, *version)),
                Swap::Stale(_) => None,
            })
            .collect();
        let [(winner, version)] = winners[..] else { panic!("round {round} has the winners {winners:?}") };
        let standing = Versioned { version, record: format!("{round}:{winner}").into() };
        for (racer, answer) in answers.into_iter().enumerate().filter(|(racer, _)| *racer != winner) {
            assert_eq!(answer, Swap::Stale(Some(standing.clone())), "racer {racer} sees what won");
        }
        assert_eq!(store.attempt(&key).await, Ok(Some(standing)));
        assert!(Some(version) > expected, "versions grow");
        expected = Some(version);
    }
}

pub(super) async fn an_answer_may_be_lost(store: Arc<dyn Store>) {
    let key = key("lost", 1);
    start(&store, &key.run).await;
    let faulty = FaultyStore::new(Arc::clone(&store));
    let mut expected = None;
    for (round, fault) in [Fault::FailAfter, Fault::RetriedHidden, Fault::FailBefore].into_iter().enumerate() {
        faulty.plan(On::Swap(Some(1)), fault);
        let record = Bytes::from(format!("claim {round}"));
        let answer = faulty.swap(&key, expected, record.clone()).await;
        let standing = store.attempt(&key).await.unwrap();
        match fault {
            Fault::FailBefore => {
                assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
                assert_eq!(standing.as_ref().map(|found| found.version), expected, "nothing has happened");
            }
            Fault::FailAfter => {
                assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
                assert_eq!(standing.as_ref().map(|found| &found.record), Some(&record), "it has landed");
            }
            Fault::RetriedHidden => {
                assert_eq!(answer, Ok(Swap::Stale(standing.clone())), "\"stale\" is no proof of having lost");
                assert_eq!(standing.as_ref().map(|found| &found.record), Some(&record), "it has landed");
            }
            Fault::Refused | Fault::CrashBefore | Fault::CrashAfter => unreachable!("nobody dies here"),
        }
        expected = standing.map(|found| found.version);
    }
}
