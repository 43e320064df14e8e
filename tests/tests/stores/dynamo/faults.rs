//! What the SDK, and the store above it, make of lost answers and of errors (rule C1), and how many requests each
//! operation takes: counted on the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::Status;
use dormouse_engine::store::{
    AttemptKey, Attempts, Creation, Histories, Index, RowUpdate, RunFilter, Store, StoreError, Swap,
};
use dormouse_testing::later;
use futures::executor::block_on;
use object_store::memory::InMemory;

use super::relay::{Relay, Spoil};
use super::{Part, at, opening, parts, run};

/// A store behind a relay.
fn relayed(part: &Part) -> (Relay, impl Store) {
    let relay = Relay::to(&part.url);
    let behind = Part { name: part.name.clone(), url: relay.url.clone() };
    (relay, behind.store(&part.table(), Arc::new(InMemory::new())))
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(operation, count)| (operation.to_owned(), count)).collect()
}

fn unknown<T: std::fmt::Debug>(answer: &Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
}

#[test]
fn a_write_whose_answer_is_lost_is_sent_once_and_found_again() {
    for part in parts("lost answers") {
        let (relay, store) = relayed(&part);
        for (round, spoil) in
            [Spoil::DropAnswer, Spoil::AnswerInstead(500), Spoil::AnswerInstead(503)].into_iter().enumerate()
        {
            let run = run(&format!("lost {round}"), 0);
            block_on(async {
                relay.plan("TransactWriteItems", spoil.clone());
                let lost = store.open(&run, "batch 0".into(), opening(2_000)).await;
                unknown(&lost);
                assert_eq!(relay.counts(), counts([("TransactWriteItems", 1)]), "no hidden retry");
                let again = store.open(&run, "batch 0".into(), opening(2_000)).await;
                assert_eq!(again, Ok(Creation::Exists("batch 0".into())), "whoever tries again finds his own");

                relay.counts();
                relay.plan("PutItem", spoil.clone());
                unknown(&store.append(&run, later(1), "batch 1".into(), RowUpdate::NONE).await);
                assert_eq!(relay.counts(), counts([("PutItem", 1)]), "no hidden retry");
                let other = store.append(&run, later(1), "other".into(), RowUpdate::NONE).await;
                assert_eq!(other, Ok(Creation::Exists("batch 1".into())), "it has landed");

                relay.counts();
                relay.plan("PutItem", spoil.clone());
                let key = AttemptKey { run: run.clone(), activity: 1 };
                unknown(&store.swap(&key, None, "claim".into()).await);
                assert_eq!(relay.counts(), counts([("PutItem", 1)]), "no hidden retry");
                let Ok(Swap::Stale(Some(found))) = store.swap(&key, None, "claim".into()).await else {
                    panic!("it has landed")
                };
                assert_eq!((found.version, &found.record[..]), (1, &b"claim"[..]));

                relay.counts();
                relay.plan("UpdateItem", spoil.clone());
                unknown(&store.park(&run, None).await);
                relay.plan("UpdateItem", spoil);
                unknown(&store.settle(&run).await);
                assert_eq!(relay.counts(), counts([("UpdateItem", 2)]), "no hidden retry");
            });
        }
    }
}

#[test]
fn a_write_that_nothing_is_heard_of_is_given_up_as_unknown() {
    for part in parts("silence") {
        let (relay, store) = relayed(&part);
        let run = run("silent", 0);
        block_on(async {
            relay.plan("TransactWriteItems", Spoil::Hold);
            unknown(&store.open(&run, "batch 0".into(), opening(2_000)).await);
            assert_eq!(relay.counts()["TransactWriteItems"], 1, "no hidden retry");
            let again = store.open(&run, "batch 0".into(), opening(2_000)).await;
            assert_eq!(again, Ok(Creation::Exists("batch 0".into())));
        });
    }
}

#[test]
fn reads_are_tried_again() {
    for part in parts("retried reads") {
        let (relay, store) = relayed(&part);
        let run = run("read", 0);
        block_on(async {
            store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
            relay.counts();
            relay.plan("Query", Spoil::AnswerInstead(500));
            relay.plan("GetItem", Spoil::DropAnswer);
            assert_eq!(store.read(&run, 0).await.unwrap().records, ["batch 0"]);
            assert!(store.row(&run).await.unwrap().is_some());
            assert_eq!(relay.counts(), counts([("GetItem", 2), ("Query", 2)]));
        });
    }
}

fn error(code: &str) -> String {
    format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"planned"}}"#)
}

fn canceled(batch: &str, row: &str) -> String {
    format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","message":"planned",
            "CancellationReasons":[{{"Code":"{batch}","Message":"m"}},{{"Code":"{row}","Message":"m"}}]}}"#
    )
}

/// Most of these no emulator ever says.
#[test]
fn errors_are_told_apart() {
    for part in parts("errors") {
        let (relay, store) = relayed(&part);
        let run = run("told", 0);
        let refused = ["ValidationException", "ResourceNotFoundException", "ItemCollectionSizeLimitExceededException"];
        let open = [
            (400, "ThrottlingException"),
            (400, "ProvisionedThroughputExceededException"),
            (400, "RequestLimitExceeded"),
            (400, "TransactionConflictException"),
            // Rights come back.
            (400, "AccessDeniedException"),
            (400, "UnrecognizedClientException"),
            (400, "ExpiredTokenException"),
            (403, "AccessDenied"),
            (400, "UnrecognizedClientException"),
            (400, "AccessDeniedException"),
            (500, "InternalServerError"),
            (503, "ServiceUnavailable"),
        ];
        block_on(async {
            store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
            relay.counts();
            let plain = async || store.append(&run, later(1), "x".into(), RowUpdate::NONE).await;
            let with_row = async || store.append(&run, later(1), "x".into(), RowUpdate::due(at(9))).await;
            for code in refused {
                relay.plan("PutItem", Spoil::Refuse(400, error(code)));
                let answer = plain().await;
                let Err(StoreError::Refused(why)) = &answer else { panic!("{code}: {answer:?}") };
                assert!(why.as_str().contains(code) && why.as_str().contains("planned"), "{why}");
                relay.plan("TransactWriteItems", Spoil::Refuse(400, error(code)));
                assert!(matches!(with_row().await, Err(StoreError::Refused(_))), "{code}");
            }
            for (status, code) in open {
                relay.plan("PutItem", Spoil::Refuse(status, error(code)));
                unknown(&plain().await);
                relay.plan("TransactWriteItems", Spoil::Refuse(status, error(code)));
                unknown(&with_row().await);
                let key = AttemptKey { run: run.clone(), activity: 1 };
                relay.plan("PutItem", Spoil::Refuse(status, error(code)));
                unknown(&store.swap(&key, None, "claim".into()).await);
            }
            for (batch, row) in [
                ("None", "TransactionConflict"),
                ("TransactionConflict", "None"),
                ("TransactionConflict", "TransactionConflict"),
                ("None", "ThrottlingError"),
                ("ProvisionedThroughputExceeded", "None"),
                // The row's condition may have failed for what was in the way of the batch.
                ("TransactionConflict", "ConditionalCheckFailed"),
                ("None", "None"),
            ] {
                relay.plan("TransactWriteItems", Spoil::Refuse(400, canceled(batch, row)));
                unknown(&with_row().await);
            }
            for (batch, row) in [("None", "ConditionalCheckFailed"), ("None", "ValidationError")] {
                relay.plan("TransactWriteItems", Spoil::Refuse(400, canceled(batch, row)));
                let answer = with_row().await;
                assert!(matches!(answer, Err(StoreError::Refused(_))), "{batch}, {row}: {answer:?}");
            }
            // Said to have failed, and nothing is there: nobody knows.
            relay.plan("TransactWriteItems", Spoil::Refuse(400, canceled("ConditionalCheckFailed", "None")));
            unknown(&with_row().await);
            let sent = relay.counts();
            let (refused, open) = (refused.len(), open.len());
            let once = (refused + 2 * open, refused + open + 7 + 2 + 1);
            assert_eq!((sent["PutItem"], sent["TransactWriteItems"]), once, "once each");
            assert_eq!(store.read(&run, 0).await.unwrap().records, ["batch 0"], "nothing was written");
            assert_eq!(with_row().await, Ok(Creation::Created));
            // The answer does not say what stands there: it is looked up.
            relay.plan("TransactWriteItems", Spoil::Refuse(400, canceled("ConditionalCheckFailed", "None")));
            assert_eq!(with_row().await, Ok(Creation::Exists("x".into())));
        });
    }
}

#[test]
fn what_each_operation_costs() {
    const STEPS: u64 = 20;
    for part in parts("costs") {
        let (relay, store) = relayed(&part);
        let run = run("counted", 0);
        block_on(async {
            store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
            for sequence in 1..=STEPS {
                store.append(&run, later(sequence), "a step".into(), RowUpdate::NONE).await.unwrap();
            }
            let expected = counts([("PutItem", STEPS as usize), ("TransactWriteItems", 1)]);
            assert_eq!(relay.counts(), expected, "N steps, N + 1 creates, no reads");

            assert!(matches!(
                store.append(&run, later(3), "late".into(), RowUpdate::NONE).await,
                Ok(Creation::Exists(_))
            ));
            assert_eq!(relay.counts(), counts([("PutItem", 1)]), "to lose costs no read");
            let change = RowUpdate::due(at(5_000));
            assert!(matches!(store.append(&run, later(3), "late".into(), change).await, Ok(Creation::Exists(_))));
            let lost = relay.counts();
            let more = lost.get("GetItem").copied().unwrap_or(0);
            if more > 0 {
                dormouse_tests::tell!("{} does not answer with the item that stood in a transaction's way", part.name);
            }
            assert_eq!(lost["TransactWriteItems"], 1);

            let key = AttemptKey { run: run.clone(), activity: 1 };
            assert_eq!(store.swap(&key, None, Bytes::from_static(b"1")).await, Ok(Swap::Done(1)));
            assert_eq!(store.swap(&key, Some(1), Bytes::from_static(b"2")).await, Ok(Swap::Done(2)));
            assert!(matches!(store.swap(&key, Some(1), Bytes::from_static(b"3")).await, Ok(Swap::Stale(Some(_)))));
            assert_eq!(relay.counts(), counts([("PutItem", 3)]), "a claim is one write");

            store.read(&run, STEPS + 1).await.unwrap();
            store.read(&run, 0).await.unwrap();
            store.newest(&run.workflow).await.unwrap();
            assert_eq!(relay.counts(), counts([("Query", 3)]));
            store.row(&run).await.unwrap();
            store.attempt(&key).await.unwrap();
            assert_eq!(relay.counts(), counts([("GetItem", 2)]));
            store.due(at(9_000), None, 100).await.unwrap();
            store.list("default", &RunFilter::default(), None, 100).await.unwrap();
            assert_eq!(relay.counts(), counts([("Query", 16)]), "one for each part of the index");

            let close = RowUpdate::close(Status::Completed, at(3_000), Some(at(4_000)));
            store.append(&run, later(STEPS + 1), "the end".into(), close).await.unwrap();
            store.settle(&run).await.unwrap();
            assert_eq!(relay.counts(), counts([("TransactWriteItems", 1), ("UpdateItem", 1)]));
        });
    }
}
