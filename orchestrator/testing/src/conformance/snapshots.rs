//! Snapshots: derived, kept for whoever reads next, the last one wins.

use std::sync::Arc;

use bytes::Bytes;
use dormouse_engine::store::{RowUpdate, RunFilter, Store};

use super::{append, at, read_from, run, run_in, start};

pub(super) async fn the_last_one_kept_is_read(store: Arc<dyn Store>) {
    let run = run("kept");
    assert_eq!(store.snapshot(&run).await, Ok(None), "there is no run");
    start(&store, &run).await;
    assert_eq!(store.snapshot(&run).await, Ok(None), "none was kept");
    // Whatever it is, and in whatever order: a store makes nothing of it.
    for snapshot in [&b"up to 7"[..], b"up to 9", b"up to 7", b"", b"\0\xff"] {
        store.keep_snapshot(&run, Bytes::from_static(snapshot)).await.unwrap();
        assert_eq!(store.snapshot(&run).await, Ok(Some(Bytes::from_static(snapshot))));
    }
}

pub(super) async fn belong_to_one_run_and_touch_nothing_else(store: Arc<dyn Store>) {
    let runs = [run("a"), run("b"), run_in("conformance", "a", 1), run_in("other", "a", 0), run("a/snapshot")];
    for run in &runs {
        start(&store, run).await;
        append(&store, run, 1, "one", RowUpdate::due(at(9_000))).await;
    }
    let before: Vec<_> = store.due(at(u64::MAX), None, 100).await.unwrap();
    for (i, run) in runs.iter().enumerate() {
        store.keep_snapshot(run, format!("snapshot {i}").into()).await.unwrap();
    }
    for (i, run) in runs.iter().enumerate() {
        assert_eq!(store.snapshot(run).await, Ok(Some(format!("snapshot {i}").into())), "{run}");
        assert_eq!(read_from(&store, run, 0).await, [&b"batch 0"[..], b"one"], "{run}");
        let newest = store.newest(&run.workflow).await.unwrap().row().expect("a row");
        assert_eq!(newest.run.ordinal, u64::from(run.workflow == runs[0].workflow), "{run}");
    }
    assert_eq!(store.due(at(u64::MAX), None, 100).await, Ok(before));
    assert_eq!(store.list("conformance", &RunFilter::default(), None, 100).await.unwrap().len(), 4);
}

pub(super) async fn large_ones_are_read_back_whole(store: Arc<dyn Store>) {
    let run = run("large");
    start(&store, &run).await;
    for length in [60 << 10, 3 << 20, 70 << 10, 10] {
        let snapshot: Bytes = (0..length).map(|at| (at * 31 + length) as u8).collect::<Vec<u8>>().into();
        store.keep_snapshot(&run, snapshot.clone()).await.unwrap();
        assert!(store.snapshot(&run).await == Ok(Some(snapshot)), "other bytes, of {length}");
    }
}
