//! Due times: what the sweep finds.

use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::{RunKey, Status, Timestamp};
use dormouse_engine::store::{Creation, Entry, RowUpdate, RunRow, Store, StoreError};

use super::{append, at, create, later, opening, race, read_from, run, run_in, start, start_as};

fn places(rows: &[RunRow]) -> Vec<(Timestamp, RunKey)> {
    rows.iter().map(|row| (row.due.expect("a due time"), row.run.clone())).collect()
}

/// Runs of two namespaces whose due times often are equal.
async fn many(store: &Arc<dyn Store>) -> Vec<(Timestamp, RunKey)> {
    let mut expected = Vec::new();
    for i in 0..30_u64 {
        let run = run_in(["one", "two"][i as usize % 2], &format!("w{}", i % 7), i);
        let due = 1_000 + (i * 7 % 5) * 100;
        start_as(store, &run, opening("test", 10, due)).await;
        expected.push((at(due), run));
    }
    expected.sort();
    expected
}

pub(super) async fn the_earliest_comes_first(store: Arc<dyn Store>) {
    let expected = many(&store).await;
    for by in [0, 999, 1_000, 1_150, 1_400, 9_000, u64::MAX] {
        let found = store.due(at(by), None, 1_000).await.unwrap();
        let wanted: Vec<_> = expected.iter().filter(|(due, _)| *due <= at(by)).cloned().collect();
        assert_eq!(places(&found), wanted, "by {by}");
    }
    let found = store.due(at(9_000), None, 4).await.unwrap();
    assert_eq!(places(&found), expected[..4]);
}

pub(super) async fn pages_neither_lose_nor_repeat(store: Arc<dyn Store>) {
    let expected = many(&store).await;
    for limit in [1, 4, 1_000] {
        let mut found: Vec<(Timestamp, RunKey)> = Vec::new();
        loop {
            let page = store.due(at(1_300), found.last().cloned(), limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            found.extend(places(&page));
            assert!(found.len() <= expected.len(), "a page has repeated what another had");
        }
        let wanted: Vec<_> = expected.iter().filter(|(due, _)| *due <= at(1_300)).cloned().collect();
        assert_eq!(found, wanted, "by {limit}");
    }
}

pub(super) async fn is_lowered_raised_and_taken_away(store: Arc<dyn Store>) {
    let (moved, other) = (run("moved"), run("other"));
    start(&store, &moved).await;
    start(&store, &other).await;
    for (sequence, due) in (1..).zip([1_000, 5_000, 500, 2_000]) {
        append(&store, &moved, sequence, format!("{due}"), RowUpdate::due(at(due))).await;
        let mut expected = vec![(at(due), moved.clone()), (at(2_000), other.clone())];
        expected.sort();
        assert_eq!(places(&store.due(at(9_000), None, 10).await.unwrap()), expected);
        let before = store.due(at(due - 1), None, 10).await.unwrap();
        assert!(before.iter().all(|row| row.run != moved), "not before {due}");
    }
    let owing = RowUpdate::close(Status::Completed, at(3_000), Some(at(3_500)));
    append(&store, &moved, 5, "closed, owing", owing).await;
    let expected = [(at(2_000), other.clone()), (at(3_500), moved.clone())];
    assert_eq!(places(&store.due(at(9_000), None, 10).await.unwrap()), expected);

    let paid = RowUpdate::close(Status::Completed, at(3_000), None);
    append(&store, &other, 1, "closed, owing nothing", paid).await;
    assert_eq!(places(&store.due(at(9_000), None, 10).await.unwrap()), [(at(3_500), moved)]);
}

pub(super) async fn settles_only_what_is_closed(store: Arc<dyn Store>) {
    let run = run("settled");
    let refused = store.settle(&run).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "there is no such run: {refused:?}");
    start(&store, &run).await;
    store.settle(&run).await.unwrap();
    assert_eq!(store.row(&run).await.unwrap().and_then(|row| row.due), Some(at(2_000)), "it is open");
    let close = RowUpdate::close(Status::Canceled, at(3_000), Some(at(3_500)));
    append(&store, &run, 1, "closed", close).await;
    for _ in 0..2 {
        store.settle(&run).await.unwrap();
        let row = store.row(&run).await.unwrap().expect("a row");
        assert_eq!((row.status, row.closed_at, row.due), (Status::Canceled, Some(at(3_000)), None));
        assert_eq!(store.due(at(9_000), None, 10).await, Ok(vec![]));
    }
    // What is owed may come later, too.
    append(&store, &run, 2, "forwarded", RowUpdate::due(at(8_000))).await;
    assert_eq!(store.row(&run).await.unwrap().and_then(|row| row.due), Some(at(8_000)));
}

pub(super) async fn racing_commits_leave_the_last_due_time(store: Arc<dyn Store>) {
    let run = run("raced");
    start(&store, &run).await;
    let (racers, key) = (Arc::clone(&store), run.clone());
    race(6, move |racer| {
        let (store, run) = (Arc::clone(&racers), key.clone());
        async move {
            let mut sequence = 1;
            for batch in 0..10_u64 {
                // Up and down, never twice the same.
                let due = 1_000 + (batch * 7_919 + racer as u64 * 104_729) % 9_973;
                let record = Bytes::from(format!("{due}"));
                let entry = |sequence| Entry::Append(later(sequence), RowUpdate::due(at(due)));
                while create(&store, &run, record.clone(), entry(sequence)).await != Creation::Created {
                    sequence += 1;
                }
                sequence += 1;
            }
        }
    });
    let log = read_from(&store, &run, 1).await;
    assert_eq!(log.len(), 60);
    let last = log.last().map(|record| String::from_utf8_lossy(record).into_owned());
    let due = store.row(&run).await.unwrap().and_then(|row| row.due).map(|due| due.as_millis().to_string());
    assert_eq!(due, last, "the due time of the last batch");
}
