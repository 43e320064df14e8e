//! Index rows: what a listing shows.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::{Difference, ParkedCause, ParkedStep, RunId, RunKey, Status};
use dormouse_engine::store::{
    Creation, Entry, ListCursor, Newest, Opening, Parked, RowUpdate, RunFilter, RunRow, Store, StoreError,
};

use super::{append, at, create, later, opening, race, read_from, run, run_in, start, start_as};

pub(super) async fn a_row_begins_with_batch_0(store: Arc<dyn Store>) {
    let run = run("begun");
    assert_eq!(store.row(&run).await, Ok(None));
    assert_eq!(store.newest(&run.workflow).await, Ok(Newest::Nothing));
    start_as(&store, &run, opening("a type", 1_000, 2_000)).await;
    let row = RunRow {
        run: run.clone(),
        run_id: RunId::from_bytes([7; 16]),
        workflow_type: "a type".into(),
        status: Status::Running,
        started_at: at(1_000),
        closed_at: None,
        due: Some(at(2_000)),
        parked: None,
    };
    assert_eq!(store.row(&run).await, Ok(Some(row.clone())));
    assert_eq!(store.newest(&run.workflow).await.map(Newest::row), Ok(Some(row.clone())));
    assert_eq!(store.list("conformance", &RunFilter::default(), None, 10).await, Ok(vec![row]));
    assert_eq!(store.row(&run.workflow.run(1)).await, Ok(None), "another ordinal is another run");
}

pub(super) async fn a_row_follows_its_batches(store: Arc<dyn Store>) {
    let run = run("followed");
    start(&store, &run).await;
    append(&store, &run, 1, "no change", RowUpdate::NONE).await;
    let mut row = store.row(&run).await.unwrap().expect("a row");
    assert_eq!(row.due, Some(at(2_000)));
    for (sequence, due) in [(2, 1_500), (3, 1_500), (4, 9_000), (5, 3_000)] {
        append(&store, &run, sequence, format!("due {due}"), RowUpdate::due(at(due))).await;
        row.due = Some(at(due));
        assert_eq!(store.row(&run).await, Ok(Some(row.clone())));
    }
    let close = RowUpdate::close(Status::Failed, at(4_000), Some(at(4_500)));
    append(&store, &run, 6, "closed", close).await;
    row = RunRow { status: Status::Failed, closed_at: Some(at(4_000)), due: Some(at(4_500)), ..row };
    assert_eq!(store.row(&run).await, Ok(Some(row.clone())));
    assert_eq!(store.newest(&run.workflow).await.map(Newest::row), Ok(Some(row.clone())));
    assert_eq!(store.list("conformance", &RunFilter::default(), None, 10).await, Ok(vec![row]));
    for status in Status::ALL.into_iter().filter(|status| status.is_closed()) {
        let run = super::run(status.as_str());
        start(&store, &run).await;
        append(&store, &run, 1, "closed", RowUpdate::close(status, at(5), None)).await;
        let row = store.row(&run).await.unwrap().expect("a row");
        assert_eq!((row.status, row.closed_at, row.due), (status, Some(at(5)), None));
    }
}

pub(super) async fn a_loser_leaves_the_row_alone(store: Arc<dyn Store>) {
    let run = run("lost");
    start(&store, &run).await;
    append(&store, &run, 1, "won", RowUpdate::due(at(3_000))).await;
    append(&store, &run, 2, "won, and changed nothing", RowUpdate::NONE).await;
    let row = store.row(&run).await.unwrap().expect("a row");
    let lost = Bytes::from_static(b"lost");
    let answer = store.open(&run, lost.clone(), opening("another type", 5, 90_000)).await;
    assert!(matches!(answer, Ok(Creation::Exists(_))), "{answer:?}");
    assert_eq!(store.row(&run).await, Ok(Some(row.clone())));
    for (sequence, update) in [
        (1, RowUpdate::due(at(90_000))),
        (1, RowUpdate::close(Status::Completed, at(4_000), None)),
        (2, RowUpdate::due(at(90_000))),
        (2, RowUpdate::close(Status::Completed, at(4_000), None)),
    ] {
        let answer = store.append(&run, later(sequence), lost.clone(), update.clone()).await;
        assert!(matches!(answer, Ok(Creation::Exists(_))), "{answer:?}");
        assert_eq!(store.row(&run).await, Ok(Some(row.clone())), "{update:?}");
    }
    let answer = store.append(&run, later(1), lost, RowUpdate::due(at(10))).await;
    assert!(matches!(answer, Ok(Creation::Exists(_))), "{answer:?}");
    let after = store.row(&run).await.unwrap().expect("a row");
    assert!(after.due.is_some_and(|due| due <= at(3_000)), "too early is allowed, too late is not: {after:?}");
    assert_eq!(RunRow { due: row.due, ..after }, row);
}

pub(super) async fn racing_starts_leave_the_winner_s_row(store: Arc<dyn Store>) {
    for round in 0..5_u8 {
        let run = run(&format!("raced {round}"));
        let (racers, key) = (Arc::clone(&store), run.clone());
        race(8, move |racer| {
            let (store, run) = (Arc::clone(&racers), key.clone());
            async move {
                let opening = Opening {
                    run_id: RunId::from_bytes([racer as u8; 16]),
                    workflow_type: format!("type {racer}"),
                    started_at: at(1_000 + racer as u64),
                    due: at(2_000 + racer as u64),
                };
                create(&store, &run, format!("{racer}").into(), Entry::Open(opening)).await
            }
        });
        let log = read_from(&store, &run, 0).await;
        let winner: u8 = String::from_utf8_lossy(&log[0]).parse().expect("a racer's number");
        let row = store.row(&run).await.unwrap().expect("a row");
        assert_eq!(row.run_id, RunId::from_bytes([winner; 16]));
        assert_eq!(row.workflow_type, format!("type {winner}"));
        assert_eq!(row.started_at, at(1_000 + u64::from(winner)));
        assert_eq!(row.due, Some(at(2_000 + u64::from(winner))));
    }
}

pub(super) async fn the_latest_has_the_highest_ordinal(store: Arc<dyn Store>) {
    let workflow = run("chained").workflow;
    for ordinal in [0, 1, 2, 9, 10, 11, 100] {
        // The later the run, the earlier its start: the ordinal counts.
        start_as(&store, &workflow.run(ordinal), opening("test", 1_000 - ordinal, 2_000)).await;
        let latest = store.newest(&workflow).await.unwrap().row().expect("a row");
        assert_eq!(latest.run, workflow.run(ordinal));
    }
    // Those of others do not count.
    start(&store, &run_in("conformance", "chained!", 200)).await;
    start(&store, &run_in("conformance2", "chained", 300)).await;
    let latest = store.newest(&workflow).await.unwrap().row().expect("a row");
    assert_eq!(latest.run.ordinal, 100);
    assert_eq!(store.newest(&workflow).await, Ok(Newest::Run(Box::new(latest))));
    assert_eq!(store.newest(&run("nobody").workflow).await, Ok(Newest::Nothing));
}

/// Ids that are names, paths, patterns or commands elsewhere.
const HOSTILE: &[&str] = &[
    "..",
    ".",
    "../x",
    "x/..",
    "a/b",
    "a",
    "b",
    "%2F",
    "a%2Fb",
    "a%2fb",
    "%",
    "%25",
    "a%252Fb",
    "con",
    "NUL",
    "COM1",
    "A",
    "\u{e9}",
    "e\u{301}",
    "\u{1F42D}",
    "x",
    "x.",
    "x..",
    "x ",
    " x",
    "*",
    "?",
    "x*",
    "'",
    "\"",
    "`",
    "\\",
    "a\\b",
    "'; DROP TABLE runs; --",
    "%' OR '1'='1",
    "_",
    "x_",
    "log",
    ".rows",
    "attempts",
    "00000000000000000000",
    "#",
    "&amp;",
    "<script>",
    "${HOME}",
    "~",
    "a:b",
    "a|b",
    "-rf",
    "\u{202e}gnp",
];

pub(super) async fn hostile_ids_are_ids(store: Arc<dyn Store>) {
    let long = "a".repeat(255);
    let longer_than_its_key = "\u{1F42D}".repeat(63);
    let ids: Vec<&str> = HOSTILE.iter().copied().chain([long.as_str(), &longer_than_its_key]).collect();
    let runs: Vec<RunKey> = ids
        .iter()
        .map(|id| run_in("conformance", id, 0))
        .chain(["..", "a/b", "a%2Fb", "A", "'", ".rows"].map(|namespace| run_in(namespace, "a", 0)))
        .collect();
    for (i, run) in runs.iter().enumerate() {
        start_as(&store, run, opening(&format!("type {i}"), 1_000, 2_000)).await;
        append(&store, run, 1, format!("batch of {i}"), RowUpdate::NONE).await;
    }
    for (i, run) in runs.iter().enumerate() {
        let row = store.row(run).await.unwrap().expect("a row");
        assert_eq!((&row.run, row.workflow_type), (run, format!("type {i}")));
        assert_eq!(store.newest(&run.workflow).await.unwrap().row().map(|row| row.run).as_ref(), Some(run));
        assert_eq!(read_from(&store, run, 1).await, [format!("batch of {i}")], "{run}");
    }
    let listed = store.list("conformance", &RunFilter::default(), None, 1_000).await.unwrap();
    let listed: BTreeSet<_> = listed.into_iter().map(|row| row.run.workflow.workflow_id.to_string()).collect();
    assert_eq!(listed, ids.iter().map(ToString::to_string).collect());
    // Each is its own prefix, and nothing in it is a pattern.
    for prefix in &ids {
        let filter = RunFilter { id_prefix: Some((*prefix).into()), ..RunFilter::default() };
        let listed = store.list("conformance", &filter, None, 1_000).await.unwrap();
        let listed: BTreeSet<_> = listed.into_iter().map(|row| row.run.workflow.workflow_id.to_string()).collect();
        let expected = ids.iter().filter(|id| id.starts_with(*prefix)).map(ToString::to_string).collect();
        assert_eq!(listed, expected, "the prefix {prefix:?}");
    }
    let by = store.due(at(2_000), None, 1_000).await.unwrap();
    assert_eq!(by.len(), runs.len(), "all of them are due");
}

/// Runs whose start times often are equal, of three types and two statuses.
async fn many(store: &Arc<dyn Store>) -> Vec<RunRow> {
    let mut rows = Vec::new();
    for i in 0..40_u64 {
        let id = format!("{}-{}", ["order", "Order", "o%der", "refund"][i as usize % 4], i / 8);
        let run = run_in("conformance", &id, i % 8);
        let (workflow_type, started_at) = (["a", "b", "c"][i as usize % 3], 1_000 + i / 10);
        start_as(store, &run, opening(workflow_type, started_at, 5_000)).await;
        if i % 5 == 0 {
            let close = RowUpdate::close(Status::Completed, at(6_000), None);
            append(store, &run, 1, "closed", close).await;
        }
        rows.push(store.row(&run).await.unwrap().expect("a row"));
    }
    start(store, &run_in("elsewhere", "order-0", 0)).await;
    rows.sort_by_key(|row| std::cmp::Reverse(cursor(row)));
    rows
}

pub(super) fn cursor(row: &RunRow) -> ListCursor {
    ListCursor {
        started_at: row.started_at,
        workflow_id: row.run.workflow.workflow_id.to_string(),
        ordinal: row.run.ordinal,
    }
}

pub(super) async fn lists_from_the_latest_start(store: Arc<dyn Store>) {
    let rows = many(&store).await;
    assert_eq!(store.list("conformance", &RunFilter::default(), None, 1_000).await, Ok(rows.clone()));
    assert_eq!(store.list("conformance", &RunFilter::default(), None, 7).await.as_deref(), Ok(&rows[..7]));
    assert_eq!(store.list("conformance", &RunFilter::default(), None, 0).await, Ok(vec![]));
    assert_eq!(store.list("nowhere", &RunFilter::default(), None, 1_000).await, Ok(vec![]));
    assert_eq!(store.list("elsewhere", &RunFilter::default(), None, 1_000).await.unwrap().len(), 1);
}

fn filters() -> Vec<RunFilter> {
    let mut filters = Vec::new();
    for status in [None, Some(Status::Running), Some(Status::Completed), Some(Status::Failed)] {
        for workflow_type in [None, Some("a"), Some("A"), Some("absent")] {
            for id_prefix in [None, Some(""), Some("o"), Some("order-"), Some("O"), Some("o%"), Some("o_d"), Some("zz")]
            {
                filters.push(RunFilter {
                    status,
                    workflow_type: workflow_type.map(ToOwned::to_owned),
                    id_prefix: id_prefix.map(ToOwned::to_owned),
                    parked: false,
                });
            }
        }
    }
    filters
}

pub(super) async fn lists_what_the_filter_admits(store: Arc<dyn Store>) {
    let rows = many(&store).await;
    for filter in filters() {
        let expected: Vec<_> = rows.iter().filter(|row| filter.admits(row)).cloned().collect();
        assert_eq!(store.list("conformance", &filter, None, 1_000).await, Ok(expected), "{filter:?}");
    }
}

pub(super) async fn pages_of_lists_neither_lose_nor_repeat(store: Arc<dyn Store>) {
    let rows = many(&store).await;
    let running = RunFilter { status: Some(Status::Running), ..RunFilter::default() };
    for (filter, limit) in [(RunFilter::default(), 1), (RunFilter::default(), 7), (running, 3)] {
        let mut listed: Vec<RunRow> = Vec::new();
        loop {
            let after = listed.last().map(cursor);
            let page = store.list("conformance", &filter, after.as_ref(), limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit);
            listed.extend(page);
            assert!(listed.len() <= rows.len(), "a page has repeated what another had");
        }
        let expected: Vec<_> = rows.iter().filter(|row| filter.admits(row)).cloned().collect();
        assert_eq!(listed, expected, "{filter:?} by {limit}");
    }
}

/// Why runs are parked, as data: a row keeps every part of it.
fn causes() -> Vec<ParkedCause> {
    let step = |name: &str, places: &[&str]| ParkedStep {
        command: Some("activity".into()),
        name: Some(name.into()),
        id: Some("3".into()),
        places: places.iter().map(ToString::to_string).collect(),
    };
    let difference =
        Difference { field: "input".into(), recorded: "{\"a\": \"\u{1F42D}\"}".into(), attempted: "nothing".into() };
    vec![
        ParkedCause::Divergence {
            turn: 2,
            recorded: step("charge", &["src/orders.rs:7"]),
            attempted: step("refund", &["src/orders.rs:9", "C:\\new.rs:1"]),
            differences: vec![difference],
        },
        ParkedCause::Divergence {
            turn: u64::MAX,
            recorded: ParkedStep::default(),
            attempted: ParkedStep::default(),
            differences: Vec::new(),
        },
        ParkedCause::Panic { turn: 1, message: "three is\nnot \"four\"".into(), place: Some("src/a.rs:1:9".into()) },
        ParkedCause::Panic { turn: 1, message: String::new(), place: None },
        ParkedCause::ForeignFuture { turn: 1 },
        ParkedCause::EndlessTurn { limit_ms: 10_000 },
        ParkedCause::LimitReached { turn: 1, limit: "turn_events".into(), at_most: 20_000 },
        ParkedCause::NotRegistered { what: "activity".into(), name: "a::b".into(), place: None },
        ParkedCause::ProcessEnded { times: 4 },
        ParkedCause::DamagedHistory { damage: "broken_chain".into(), batch: 3, problem: "it is".into() },
        ParkedCause::NotStored { problem: "400 KB".into() },
        ParkedCause::Unknown,
    ]
}

pub(super) async fn parks_and_unparks(store: Arc<dyn Store>) {
    let run = run("parked");
    let parked = |attempts| Parked {
        reason: "step 3 was \"charge\",\nnow it is 'refund' \u{1F42D}".into(),
        cause: causes().into_iter().nth(attempts as usize - 1),
        build: "build-1".into(),
        sequence: 1,
        attempts,
        retry_at: at(7_000),
        ends_process: attempts == 1,
        since: (attempts == 2).then(|| at(4_000)),
    };
    let refused = store.park(&run, Some(parked(1))).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))), "there is no such run: {refused:?}");
    start(&store, &run).await;
    let row = store.row(&run).await.unwrap().expect("a row");
    // The last as an earlier build leaves it: without.
    for attempts in 1..=causes().len() as u32 + 1 {
        store.park(&run, Some(parked(attempts))).await.unwrap();
        let expected = RunRow { parked: Some(parked(attempts)), ..row.clone() };
        assert_eq!(store.row(&run).await, Ok(Some(expected.clone())));
        assert_eq!(store.newest(&run.workflow).await.map(Newest::row), Ok(Some(expected.clone())));
        assert_eq!(store.list("conformance", &RunFilter::default(), None, 9).await, Ok(vec![expected]));
    }
    store.park(&run, None).await.unwrap();
    store.park(&run, None).await.unwrap();
    assert_eq!(store.row(&run).await, Ok(Some(row)));
}

/// Those that are parked, in the order of listings, page by page. A run that has gone on or ended is not among them,
/// whatever else its row still says.
pub(super) async fn lists_what_is_parked(store: Arc<dyn Store>) {
    let rows = many(&store).await;
    let parked = |sequence| Parked {
        reason: "no workflow".into(),
        cause: causes().pop(),
        build: "build-1".into(),
        sequence,
        attempts: 1,
        retry_at: at(7_000),
        ends_process: false,
        since: Some(at(6_500)),
    };
    let only = RunFilter { parked: true, ..RunFilter::default() };
    assert_eq!(store.list("conformance", &only, None, 10).await, Ok(vec![]));
    // Of every five the first is closed.
    for row in rows.iter().step_by(3) {
        store.park(&row.run, Some(parked(1))).await.unwrap();
    }
    store.park(&run_in("elsewhere", "order-0", 0), Some(parked(1))).await.unwrap();
    let mut expected = Vec::new();
    for row in rows.iter().step_by(3).filter(|row| row.closed_at.is_none()) {
        expected.push(store.row(&row.run).await.unwrap().expect("a row"));
    }
    assert!(expected.len() > 5, "{expected:?}");
    assert_eq!(store.list("conformance", &only, None, 1_000).await, Ok(expected.clone()));
    let (first, second) = expected.split_at(4);
    assert_eq!(store.list("conformance", &only, None, 4).await.as_deref(), Ok(first));
    assert_eq!(store.list("conformance", &only, Some(&cursor(&first[3])), 1_000).await.as_deref(), Ok(second));
    let of_a_type = RunFilter { workflow_type: Some("a".into()), ..only.clone() };
    let of_the_type: Vec<_> = expected.iter().filter(|row| row.workflow_type == "a").cloned().collect();
    assert_eq!(store.list("conformance", &of_a_type, None, 1_000).await, Ok(of_the_type));
    let closed = RunFilter { status: Some(Status::Completed), ..only.clone() };
    assert_eq!(store.list("conformance", &closed, None, 1_000).await, Ok(vec![]));

    store.park(&expected[0].run, None).await.unwrap();
    append(&store, &expected[1].run, 1, "closed", RowUpdate::close(Status::Failed, at(8_000), None)).await;
    append(&store, &expected[2].run, 1, "goes on", RowUpdate::due(at(9_000))).await;
    let listed = store.list("conformance", &only, None, 1_000).await.unwrap();
    let listed: Vec<_> = listed.into_iter().map(|row| row.run).collect();
    assert_eq!(listed, expected[2..].iter().map(|row| row.run.clone()).collect::<Vec<_>>());
}
