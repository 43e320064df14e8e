//! Histories: create if absent, read back.

use std::sync::Arc;

use bytes::Bytes;
use dormouse_engine::store::{Creation, Entry, Newest, RowUpdate, Store, StoreError, Stretch};

use super::{append, at, create, later, opening, race, read_from, run, start};
use crate::faulty::{Fault, FaultyStore, On};

pub(super) async fn creates_only_if_absent(store: Arc<dyn Store>) {
    let run = run("one");
    let first = store.open(&run, Bytes::from_static(b"first"), opening("test", 1, 2)).await;
    assert_eq!(first, Ok(Creation::Created));
    let second = store.open(&run, Bytes::from_static(b"second"), opening("test", 1, 2)).await;
    assert_eq!(second, Ok(Creation::Exists(Bytes::from_static(b"first"))));
    let next = store.append(&run, later(1), Bytes::new(), RowUpdate::NONE).await;
    assert_eq!(next, Ok(Creation::Created), "an empty record is a record");
    let again = store.append(&run, later(1), Bytes::from_static(b"x"), RowUpdate::due(at(9))).await;
    assert_eq!(again, Ok(Creation::Exists(Bytes::new())));
    assert_eq!(read_from(&store, &run, 0).await, [&b"first"[..], b""]);
}

pub(super) async fn nothing_is_an_empty_stretch(store: Arc<dyn Store>) {
    let run = run("there");
    start(&store, &run).await;
    assert_eq!(store.read(&super::run("not there"), 0).await, Ok(Stretch::default()));
    for behind in [1, 2, 1_000_000] {
        assert_eq!(store.read(&run, behind).await, Ok(Stretch::default()), "from {behind}");
    }
}

pub(super) async fn refuses_what_has_no_run(store: Arc<dyn Store>) {
    let run = run("unopened");
    let record = Bytes::from_static(b"x");
    for (sequence, update) in [
        (1, RowUpdate::due(at(5))),
        (2, RowUpdate::due(at(5))),
        (1, RowUpdate::close(dormouse_core::Status::Completed, at(4), None)),
    ] {
        let refused = store.append(&run, later(sequence), record.clone(), update.clone()).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{sequence} with {update:?}: {refused:?}");
    }
    assert_eq!(store.read(&run, 0).await, Ok(Stretch::default()), "a refusal writes nothing");
    // To refuse this one may cost a read, so it is not asked; but it makes no run.
    match store.append(&run, later(1), record, RowUpdate::NONE).await {
        Ok(Creation::Created) | Err(StoreError::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(store.read(&run, 0).await.expect("a page of history").records, [&b""[..]; 0]);
    assert_eq!(store.row(&run).await, Ok(None));
    assert_eq!(store.newest(&run.workflow).await, Ok(Newest::Nothing));
    assert_eq!(store.due(at(u64::MAX), None, 10).await, Ok(vec![]));
}

pub(super) async fn one_of_many_wins(store: Arc<dyn Store>) {
    let run = run("contended");
    start(&store, &run).await;
    for (sequence, update) in [(1, RowUpdate::NONE), (2, RowUpdate::due(at(3_000)))] {
        let (racers, key) = (Arc::clone(&store), run.clone());
        let answers = race(32, move |racer| {
            let (store, run, update) = (Arc::clone(&racers), key.clone(), update.clone());
            let entry = Entry::Append(later(sequence), update);
            async move { create(&store, &run, format!("racer {racer}").into(), entry).await }
        });
        let winners: Vec<_> = (0..answers.len()).filter(|racer| answers[*racer] == Creation::Created).collect();
        let [winner] = winners[..] else { panic!("sequence {sequence} has the winners {winners:?}") };
        let bytes = Bytes::from(format!("racer {winner}"));
        for (racer, answer) in answers.iter().enumerate().filter(|(racer, _)| *racer != winner) {
            assert_eq!(*answer, Creation::Exists(bytes.clone()), "racer {racer} sees what won");
        }
        assert_eq!(read_from(&store, &run, sequence).await, [bytes]);
    }
}

pub(super) async fn racing_chains_have_no_gaps(store: Arc<dyn Store>) {
    const COMMITTERS: usize = 8;
    const BATCHES: usize = 25;
    let run = run("chain");
    start(&store, &run).await;
    let (racers, key) = (Arc::clone(&store), run.clone());
    race(COMMITTERS, move |racer| {
        let (store, run) = (Arc::clone(&racers), key.clone());
        async move {
            let mut sequence = 1;
            for batch in 0..BATCHES {
                // Some change the row, some do not.
                let due = (batch % 5 == 0).then(|| at(2_000 + batch as u64));
                let entry = |sequence| Entry::Append(later(sequence), RowUpdate { due, closing: None });
                let record = Bytes::from(format!("{racer}:{batch}"));
                while create(&store, &run, record.clone(), entry(sequence)).await != Creation::Created {
                    sequence += 1;
                }
                sequence += 1;
            }
        }
    });
    let log: Vec<String> =
        read_from(&store, &run, 1).await.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect();
    assert_eq!(log.len(), COMMITTERS * BATCHES, "each batch once, without a gap");
    for racer in 0..COMMITTERS {
        let own: Vec<&String> = log.iter().filter(|record| record.starts_with(&format!("{racer}:"))).collect();
        let expected: Vec<String> = (0..BATCHES).map(|batch| format!("{racer}:{batch}")).collect();
        assert_eq!(own, expected.iter().collect::<Vec<_>>(), "committer {racer}, in its order");
    }
}

pub(super) async fn an_answer_may_be_lost(store: Arc<dyn Store>) {
    let run = run("lost answers");
    let faulty = FaultyStore::new(Arc::clone(&store));
    for sequence in 0..3_u64 {
        faulty.plan(On::Create(Some(sequence)), Fault::FailAfter);
        let record = Bytes::from(format!("batch {sequence}"));
        let entry = match sequence {
            0 => Entry::Open(opening("test", 1_000, 2_000)),
            1 => Entry::Append(later(1), RowUpdate::due(at(5_000))),
            _ => Entry::Append(later(sequence), RowUpdate::NONE),
        };
        let lost = entry.clone().put(&faulty, &run, record.clone()).await;
        assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
        assert_eq!(read_from(&store, &run, sequence).await, std::slice::from_ref(&record), "it has landed");
        let again = entry.put(&faulty, &run, record.clone()).await;
        assert_eq!(again, Ok(Creation::Exists(record)), "whoever tries again finds his own");
    }
    let row = store.row(&run).await.unwrap().expect("a row");
    assert_eq!(row.due, Some(at(5_000)), "the row has changed with the batch");
    assert_eq!(faulty.outstanding(), 0);
}

pub(super) async fn a_request_may_be_lost(store: Arc<dyn Store>) {
    let run = run("lost requests");
    let faulty = FaultyStore::new(Arc::clone(&store));
    for sequence in 0..2_u64 {
        faulty.plan(On::Create(None), Fault::FailBefore);
        let record = Bytes::from(format!("batch {sequence}"));
        let entry = match sequence {
            0 => Entry::Open(opening("test", 1_000, 2_000)),
            _ => Entry::Append(later(sequence), RowUpdate::NONE),
        };
        let lost = entry.clone().put(&faulty, &run, record.clone()).await;
        assert!(matches!(lost, Err(StoreError::Unknown(_))), "{lost:?}");
        assert_eq!(store.read(&run, sequence).await, Ok(Stretch::default()), "nothing is there");
        assert_eq!(store.row(&run).await.unwrap().is_some(), sequence > 0);
        assert_eq!(entry.put(&faulty, &run, record).await, Ok(Creation::Created));
    }
}

pub(super) async fn a_put_may_be_sent_twice(store: Arc<dyn Store>) {
    let run = run("sent twice");
    let faulty = FaultyStore::new(Arc::clone(&store));
    for entry in [
        Entry::Open(opening("test", 1_000, 2_000)),
        Entry::Append(later(1), RowUpdate::NONE),
        Entry::Append(later(2), RowUpdate::due(at(1_500))),
    ] {
        let sequence = entry.sequence();
        faulty.plan(On::Create(Some(sequence)), Fault::RetriedHidden);
        let record = Bytes::from(format!("batch {sequence}"));
        let answer = entry.put(&faulty, &run, record.clone()).await;
        assert_eq!(answer, Ok(Creation::Exists(record)), "\"exists\" is no proof of having lost");
    }
    assert_eq!(read_from(&store, &run, 0).await.len(), 3, "each once");
    assert_eq!(store.row(&run).await.unwrap().and_then(|row| row.due), Some(at(1_500)));
}

pub(super) async fn a_zombie_finds_its_sequence_taken(store: Arc<dyn Store>) {
    let run = run("zombie");
    start(&store, &run).await;
    for sequence in 1..60_u64 {
        append(&store, &run, sequence, format!("batch {sequence}"), RowUpdate::NONE).await;
    }
    let close = RowUpdate::close(dormouse_core::Status::Completed, at(4_000), None);
    append(&store, &run, 60, "the end", close).await;
    let row = store.row(&run).await;
    for sequence in [1_u64, 7, 59] {
        for update in [RowUpdate::NONE, RowUpdate::due(at(9_000))] {
            let late = store.append(&run, later(sequence), Bytes::from_static(b"late"), update).await;
            assert_eq!(late, Ok(Creation::Exists(format!("batch {sequence}").into())));
        }
    }
    assert_eq!(store.row(&run).await, row, "and changes nothing");
    assert_eq!(read_from(&store, &run, 0).await.len(), 61);
}

pub(super) async fn pages_are_read_back_whole(store: Arc<dyn Store>) {
    let run = run("long");
    start(&store, &run).await;
    let mut expected = vec![Bytes::from_static(b"batch 0")];
    for sequence in 1..2_000_usize {
        // Now and then one of 100 KiB, so that pages end for their size, too.
        let length = if sequence % 100 == 50 { 100 << 10 } else { 30 + sequence % 50 };
        expected.push(vec![(sequence % 251) as u8; length].into());
    }
    // Several at a time: nobody reads before all are there.
    let (writers, batches, key) = (Arc::clone(&store), Arc::new(expected.clone()), run.clone());
    race(8, move |racer| {
        let (store, batches, run) = (Arc::clone(&writers), Arc::clone(&batches), key.clone());
        async move {
            for sequence in (1..batches.len()).filter(|sequence| sequence % 8 == racer) {
                append(&store, &run, sequence as u64, batches[sequence].clone(), RowUpdate::NONE).await;
            }
        }
    });
    for from in [0, 1, 49, 50, 51, 999, 1_000, 1_001, 1_950, 1_999, 2_000, 2_001] {
        let found = read_from(&store, &run, from as u64).await;
        let wanted = &expected[from.min(expected.len())..];
        assert_eq!(found.len(), wanted.len(), "from {from}");
        assert!(found == wanted, "from {from}: other bytes");
    }
}

pub(super) async fn large_batches_are_read_back_whole(store: Arc<dyn Store>) {
    let run = run("large");
    start(&store, &run).await;
    let large: Vec<Bytes> = [1 << 20, 3 << 20, 10, 1 << 20]
        .into_iter()
        .enumerate()
        .map(|(i, length)| (0..length).map(|at| (at * 31 + i) as u8).collect::<Vec<u8>>().into())
        .collect();
    for (sequence, record) in (1..).zip(&large) {
        append(&store, &run, sequence, record.clone(), RowUpdate::NONE).await;
    }
    assert!(read_from(&store, &run, 1).await == large, "other bytes");
    let exists = store.append(&run, later(2), Bytes::from_static(b"small"), RowUpdate::NONE).await;
    assert!(exists == Ok(Creation::Exists(large[1].clone())), "the whole of it is answered");
}

/// The store does not look whether earlier sequences exist; a reader does.
pub(super) async fn a_stretch_ends_at_a_gap(store: Arc<dyn Store>) {
    let run = run("gap");
    start(&store, &run).await;
    append(&store, &run, 1, "one", RowUpdate::NONE).await;
    append(&store, &run, 3, "three", RowUpdate::NONE).await;
    assert_eq!(read_from(&store, &run, 0).await, [&b"batch 0"[..], b"one"]);
    assert_eq!(read_from(&store, &run, 2).await, [&b""[..]; 0]);
    assert_eq!(read_from(&store, &run, 3).await, [&b"three"[..]]);
    let gap = async |from| store.read(&run, from).await.expect("a page of history").gap;
    assert!(gap(0).await && gap(2).await, "one is missing");
    assert!(!gap(3).await && !gap(4).await, "none is missing from here on");
    append(&store, &run, 2, "two", RowUpdate::NONE).await;
    assert!(!gap(0).await, "none is missing now");
    assert_eq!(read_from(&store, &run, 1).await, [&b"one"[..], b"two", b"three"]);
}
