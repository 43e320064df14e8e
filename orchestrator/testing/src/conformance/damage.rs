//! What cannot be read: it stops nobody but itself.

use std::sync::Arc;

use dormouse_core::{RunKey, Status, Timestamp};
use dormouse_engine::store::{AttemptKey, Parked, RowUpdate, RunFilter, RunRow, Store, StoreError};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore as Objects, ObjectStoreExt};

use super::{Subject, append, at, opening, run, start, start_as};

/// Something that a store may find one day. The ids of these runs are plain: letters and dashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The run's index row cannot be read.
    Row(RunKey),
    /// The run's index row has a status that this build does not know.
    Status(RunKey, &'static str),
    /// What the index row says of the run's parking cannot be read.
    Parking(RunKey),
    /// The attempt record cannot be read.
    Attempt(AttemptKey),
}

/// Pages through what is due; a page that is not full must be the last one.
async fn all_due(store: &Arc<dyn Store>, limit: usize) -> Vec<RunRow> {
    let mut found: Vec<RunRow> = Vec::new();
    loop {
        let after = found.last().map(|row| (row.due.expect("a due time"), row.run.clone()));
        let page = store.due(at(9_000), after, limit).await.expect("one unreadable row is no error of the page");
        let full = page.len() == limit;
        found.extend(page);
        if !full {
            return found;
        }
    }
}

async fn all_listed(store: &Arc<dyn Store>, limit: usize) -> Vec<RunRow> {
    let mut found: Vec<RunRow> = Vec::new();
    loop {
        let after = found.last().map(super::rows::cursor);
        let page = store.list("conformance", &RunFilter::default(), after.as_ref(), limit).await;
        let page = page.expect("one unreadable row is no error of the page");
        let full = page.len() == limit;
        found.extend(page);
        if !full {
            return found;
        }
    }
}

fn names(rows: &[RunRow]) -> Vec<&str> {
    rows.iter().map(|row| &*row.run.workflow.workflow_id).collect()
}

pub(super) async fn an_unreadable_row_hides_no_other(subject: Subject) {
    let Subject { mut store, damage } = subject;
    const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
    for (place, name) in (0..).zip(NAMES) {
        start_as(&store, &run(name), opening("test", 1_000 + place, 2_000 + place)).await;
    }
    // Of those that are closed, too.
    let close = RowUpdate::close(Status::Completed, at(3_000), None);
    append(&store, &run("g"), 1, "closed", close).await;
    for broken in ["b", "c", "f"] {
        store = damage(Damage::Row(run(broken))).await;
    }
    for limit in [1, 2, 3, 4, 100] {
        assert_eq!(names(&all_due(&store, limit).await), ["a", "d", "e"], "by {limit}");
        assert_eq!(names(&all_listed(&store, limit).await), ["g", "e", "d", "a"], "by {limit}");
    }
    // Whoever asks for it is told, for good, and does not begin another over it.
    for told in [store.row(&run("c")).await.map(drop), store.newest(&run("c").workflow).await.map(drop)] {
        let Err(StoreError::Refused(why)) = told else { panic!("{told:?}") };
        let why = why.to_string();
        assert!(why.contains("index row") && why.contains('c'), "{why}");
    }
}

pub(super) async fn a_status_of_another_build_is_a_status(subject: Subject) {
    let Subject { mut store, damage } = subject;
    let (open, closed, other) = (run("open"), run("closed"), run("other"));
    for (place, run) in (0..).zip([&open, &closed, &other]) {
        start_as(&store, run, opening("test", 1_000 + place, 2_000)).await;
    }
    let close = RowUpdate::close(Status::Failed, at(3_000), None);
    append(&store, &closed, 1, "closed", close).await;
    assert_eq!(names(&all_due(&store, 10).await), ["open", "other"]);
    for run in [&open, &closed] {
        store = damage(Damage::Status(run.clone(), "Hibernating")).await;
    }
    let rows = all_listed(&store, 2).await;
    assert_eq!(names(&rows), ["other", "closed", "open"]);
    let shown: Vec<_> = rows.iter().map(|row| row.status.to_string()).collect();
    assert_eq!(shown, ["Running", "Hibernating", "Hibernating"]);
    assert_eq!(names(&all_due(&store, 1).await), ["open", "other"]);
    assert_eq!(store.row(&closed).await.unwrap().map(|row| row.closed_at), Some(Some(at(3_000))));
    // It is not lost by what happens next.
    append(&store, &open, 1, "later", RowUpdate::due(at(1_500))).await;
    let row = store.row(&open).await.unwrap().expect("a row");
    assert_eq!((row.status.to_string().as_str(), row.due), ("Hibernating", Some(at(1_500))));
    // Only what has closed is settled, whatever its status is called.
    store.settle(&open).await.unwrap();
    assert_eq!(store.row(&open).await.unwrap().and_then(|row| row.due), Some(at(1_500)));
}

pub(super) async fn an_unreadable_parking_hides_no_row(subject: Subject) {
    let Subject { store, damage } = subject;
    let (broken, other) = (run("broken"), run("other"));
    start(&store, &broken).await;
    start(&store, &other).await;
    let parked = Parked {
        reason: "why".into(),
        cause: None,
        build: "b".into(),
        sequence: 1,
        attempts: 3,
        retry_at: at(u64::MAX >> 1),
        ends_process: false,
        since: None,
    };
    store.park(&broken, Some(parked)).await.unwrap();
    let store = damage(Damage::Parking(broken.clone())).await;
    let row = store.row(&broken).await.unwrap().expect("a row");
    let said = row.parked.clone().expect("that it is parked");
    assert!(said.reason.contains("cannot be read"), "{said:?}");
    assert_eq!((&*said.build, said.attempts, said.retry_at), ("", 0, Timestamp::default()), "it is tried at once");
    assert_eq!(names(&all_due(&store, 100).await), ["broken", "other"]);
    assert_eq!(all_listed(&store, 100).await[1], row);
    store.park(&broken, None).await.unwrap();
    assert_eq!(store.row(&broken).await.unwrap().expect("a row").parked, None);
}

pub(super) async fn an_unreadable_attempt_concerns_itself_alone(subject: Subject) {
    let Subject { store, damage } = subject;
    let run = run("attempted");
    start(&store, &run).await;
    let [broken, other] = [1, 2].map(|activity| AttemptKey { run: run.clone(), activity });
    for key in [&broken, &other] {
        store.swap(key, None, "one".into()).await.unwrap();
    }
    let store = damage(Damage::Attempt(broken.clone())).await;
    // For good: whoever asks again is told the same.
    for told in [store.attempt(&broken).await.map(drop), store.swap(&broken, Some(1), "two".into()).await.map(drop)] {
        let Err(StoreError::Refused(why)) = told else { panic!("{told:?}") };
        assert!(why.to_string().contains("attempt record"), "{why}");
    }
    assert_eq!(store.attempt(&other).await.unwrap().map(|found| found.record), Some("one".into()));
    assert_eq!(names(&all_listed(&store, 10).await), ["attempted"]);
}

/// Damages what a store over these objects keeps under a prefix.
///
/// # Panics
/// When there is nothing to damage.
pub async fn damage_objects(objects: &dyn Objects, prefix: &str, damage: &Damage) {
    let place = |run: &RunKey| format!("{}/{}/{:020}", run.workflow.namespace, run.workflow.workflow_id, run.ordinal);
    let row = |run: &RunKey| Path::from(format!("{prefix}/.rows/{}", place(run)));
    let replace = async |key: &Path, from: &str, to: &str| {
        let bytes = objects.get(key).await.expect("an object").bytes().await.expect("its bytes");
        let text = String::from_utf8(bytes.to_vec()).expect("JSON");
        assert!(text.contains(from), "{text}");
        objects.put(key, text.replacen(from, to, 1).into()).await.expect("a put");
    };
    match damage {
        Damage::Row(run) => {
            let key = row(run);
            assert!(objects.head(&key).await.is_ok(), "{key}");
            objects.put(&key, "{\"row\": 7}".into()).await.expect("a put");
        }
        Damage::Status(run, to) => {
            let from = if objects_say_closed(objects, &row(run)).await { "Failed" } else { "Running" };
            replace(&row(run), &format!("\"status\":\"{from}\""), &format!("\"status\":\"{to}\"")).await;
            // Where listings find it, if it is closed.
            let listed: Vec<_> =
                objects.list(Some(&format!("{prefix}/.closed").into())).try_collect().await.expect("a listing");
            let name = format!("/{}/", run.workflow.workflow_id);
            for key in listed.into_iter().map(|meta| meta.location).filter(|key| key.as_ref().contains(&name)) {
                objects.put(&Path::from(key.as_ref().replace(from, to)), "".into()).await.expect("a put");
                objects.delete(&key).await.expect("a delete");
            }
        }
        Damage::Parking(run) => replace(&row(run), "\"attempts\":3", "\"attempts\":\"three\"").await,
        Damage::Attempt(AttemptKey { run, activity }) => {
            let key = Path::from(format!("{prefix}/{}/attempts/{activity:020}", place(run)));
            assert!(objects.head(&key).await.is_ok(), "{key}");
            objects.put(&key, "x".into()).await.expect("a put");
        }
    }
}

async fn objects_say_closed(objects: &dyn Objects, row: &Path) -> bool {
    let bytes = objects.get(row).await.expect("a row").bytes().await.expect("its bytes");
    String::from_utf8_lossy(&bytes).contains("\"status\":\"Failed\"")
}
