//! Object stores without transactions: what a crash, a lost answer or an old listing leaves behind.

use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::{Status, Timestamp};
use dormouse_engine::store::{
    AttemptKey, Attempts, Creation, Entry, Histories, Index, Opening, Parked, RowUpdate, RunFilter, StoreError,
};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_testing::later;
use dormouse_tests::objects::{Spoil, Spoiled};
use futures::executor::block_on;

use super::{opening, run};

pub fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A store, and another process on the same objects.
fn two() -> (Arc<Spoiled>, ObjectStore, ObjectStore) {
    let objects = Arc::new(Spoiled::default());
    let store = ObjectStore::new(Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>, "p");
    let other = ObjectStore::new(Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>, "p");
    (objects, store, other)
}

/// Rule C4.
#[test]
fn a_gap_in_a_listing_is_looked_at_again() {
    let (objects, store, other) = two();
    let run = run("listed", 0);
    block_on(async {
        store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
        for sequence in 1..20_u64 {
            store.append(&run, later(sequence), format!("batch {sequence}").into(), RowUpdate::NONE).await.unwrap();
        }
        for hidden in [0, 1, 7, 18, 19_u64] {
            for from in [0, 1, 5] {
                objects.hide(&format!("/log/{hidden:020}"));
                let log = other.read(&run, from).await.unwrap();
                let expected: Vec<Bytes> = (from..20).map(|sequence| format!("batch {sequence}").into()).collect();
                assert_eq!(log.records, expected, "from {from}, with {hidden} hidden");
            }
        }
    });
}

#[test]
fn a_start_without_its_batch_is_not_shown() {
    let (objects, store, other) = two();
    let (first, second) = (run("started", 0), run("started", 1));
    block_on(async {
        store.open(&first, "batch 0".into(), opening(2_000)).await.unwrap();
        objects.spoil(Some(("/log/", Spoil::Before)));
        let lost = store.open(&second, "batch 0 of the second".into(), opening(1_500)).await;
        assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
        for store in [&store, &other] {
            assert_eq!(store.row(&second).await, Ok(None));
            assert_eq!(store.newest(&first.workflow).await.unwrap().row().map(|row| row.run), Some(first.clone()));
            assert_eq!(store.list("default", &RunFilter::default(), None, 10).await.unwrap().len(), 1);
            assert_eq!(store.due(at(9_000), None, 10).await.unwrap().len(), 1);
            let refused = store.append(&second, later(1), "x".into(), RowUpdate::NONE).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        }
        // Another start comes in its place: the row is that one's.
        objects.spoil(None);
        let opening = Opening {
            run_id: dormouse_core::RunId::from_bytes([9; 16]),
            workflow_type: "another".into(),
            started_at: at(1_100),
            due: at(3_000),
        };
        assert_eq!(other.open(&second, "another".into(), opening).await, Ok(Creation::Created));
        for store in [&store, &other] {
            let row = store.newest(&first.workflow).await.unwrap().row().expect("a row");
            assert_eq!((row.run, row.workflow_type.as_str(), row.due), (second.clone(), "another", Some(at(3_000))));
        }
    });
}

#[test]
fn a_batch_carries_its_row_even_if_the_writer_dies() {
    let (objects, store, other) = two();
    let run = run("cut short", 0);
    let entries = [
        Entry::Open(opening(2_000)),
        Entry::Append(later(1), RowUpdate::due(at(1_000))),
        Entry::Append(later(2), RowUpdate::due(at(8_000))),
        Entry::Append(later(3), RowUpdate::close(Status::Completed, at(5_000), None)),
    ];
    block_on(async {
        for (sequence, entry) in (0..).zip(entries) {
            // The batch lands; neither its answer nor anything behind it is ever heard of.
            objects.spoil(Some(("/log/", Spoil::After)));
            let record = Bytes::from(format!("batch {sequence}"));
            let lost = entry.clone().put(&store, &run, record.clone()).await;
            assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
            objects.spoil(None);
            let row = other.row(&run).await.unwrap().expect("a row");
            assert_eq!(other.list("default", &RunFilter::default(), None, 9).await, Ok(vec![row.clone()]));
            let expected = [Some(at(2_000)), Some(at(1_000)), Some(at(8_000)), None];
            assert_eq!(row.due, expected[sequence]);
            assert_eq!(row.status == Status::Completed, sequence == 3);
            // Whoever tries again, here or there, finds his own.
            let again = entry.put(&other, &run, record.clone()).await;
            assert_eq!(again, Ok(Creation::Exists(record)));
            assert_eq!(other.row(&run).await, Ok(Some(row)));
        }
    });
}

#[test]
fn a_due_time_is_never_too_late() {
    let (objects, store, other) = two();
    let run = run("raised", 0);
    block_on(async {
        store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
        // Sequence 1 raises it; its writer never gets to the row. Sequence 2, from elsewhere, lowers it again.
        objects.spoil(Some((".rows/", Spoil::Before)));
        let unmarked = store.append(&run, later(1), "one".into(), RowUpdate::due(at(9_000))).await;
        assert!(unmarked.is_err(), "no intent, no batch");
        assert!(other.read(&run, 1).await.unwrap().records.is_empty());
        objects.spoil(None);
        store.append(&run, later(1), "one".into(), RowUpdate::due(at(9_000))).await.unwrap();
        objects.spoil(Some(("/log/", Spoil::After)));
        assert!(other.append(&run, later(2), "two".into(), RowUpdate::due(at(3_000))).await.is_err());
        objects.spoil(None);
        assert_eq!(store.due(at(3_000), None, 9).await.unwrap().len(), 1);
        // A batch that never lands makes it earlier at most.
        objects.spoil(Some(("/log/", Spoil::Before)));
        assert!(store.append(&run, later(3), "three".into(), RowUpdate::due(at(7_000))).await.is_err());
        assert!(other.append(&run, later(3), "other".into(), RowUpdate::due(at(2_500))).await.is_err());
        assert_eq!(store.row(&run).await.unwrap().unwrap().due, Some(at(2_500)));
    });
}

#[test]
fn what_another_process_wrote_is_not_overwritten() {
    let (_, store, other) = two();
    let run = run("shared", 0);
    let parked = Parked {
        reason: "another opinion".into(),
        cause: None,
        build: "b".into(),
        sequence: 1,
        attempts: 1,
        retry_at: at(3_000),
        ends_process: false,
        since: None,
    };
    block_on(async {
        store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
        other.park(&run, Some(parked.clone())).await.unwrap();
        // This one still remembers the row without it.
        store.append(&run, later(1), "one".into(), RowUpdate::due(at(1_500))).await.unwrap();
        let row = other.row(&run).await.unwrap().expect("a row");
        assert_eq!((row.parked, row.due), (Some(parked), Some(at(1_500))));
    });
}

#[test]
fn a_conflict_where_nothing_is_written_is_unknown() {
    let (objects, store, _) = two();
    let run = run("in conflict", 0);
    block_on(async {
        store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
        objects.spoil(Some(("/log/", Spoil::Conflict)));
        let unknown = store.append(&run, later(1), "one".into(), RowUpdate::NONE).await;
        assert!(matches!(unknown, Err(StoreError::Unknown(_))), "{unknown:?}");
        objects.spoil(None);
        assert_eq!(store.append(&run, later(1), "one".into(), RowUpdate::NONE).await, Ok(Creation::Created));
    });
}

/// Credentials expire while a process lives, and are renewed: nothing is given up for that.
#[test]
fn a_moment_without_credentials_is_unknown() {
    let (objects, store, _) = two();
    let run = run("expired", 0);
    let key = AttemptKey { run: run.clone(), activity: 1 };
    block_on(async {
        store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
        store.swap(&key, None, "one".into()).await.unwrap();
        for spoil in [Spoil::Unauthenticated, Spoil::Denied] {
            objects.spoil(Some(("", spoil)));
            let told = [
                store.append(&run, later(1), "one".into(), RowUpdate::NONE).await.map(drop),
                store.append(&run, later(1), "one".into(), RowUpdate::due(at(9))).await.map(drop),
                store.read(&run, 0).await.map(drop),
                store.row(&run).await.map(drop),
                store.swap(&key, Some(1), "two".into()).await.map(drop),
                store.attempt(&key).await.map(drop),
                store.park(&run, None).await,
                store.settle(&run).await,
            ];
            for (n, told) in told.into_iter().enumerate() {
                assert!(matches!(told, Err(StoreError::Unknown(_))), "request {n}, {spoil:?}: {told:?}");
            }
        }
        objects.spoil(None);
        assert_eq!(store.append(&run, later(1), "one".into(), RowUpdate::NONE).await, Ok(Creation::Created));
    });
}
