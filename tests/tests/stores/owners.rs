//! One process at a time owns an object store: taking, renewing, releasing, losing, and what a crash or a lost answer
//! leaves behind. Two ways to the same objects stand for two processes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dormouse_core::{RunId, Status, Timestamp};
use dormouse_engine::store::{
    AttemptKey, Attempts, Creation, Entry, Histories, Index, ListCursor, Opening, Parked, RowUpdate, RunFilter, RunRow,
    Store, StoreError, Swap,
};
use dormouse_engine::stores::object::{ObjectStore, OwnError, OwnerSettings, Ownership, SHORTEST_LEASE};
use dormouse_testing::conformance::{Subject, damage_objects};
use dormouse_testing::{later, store_conformance};
use dormouse_tests::objects::{Requests, Spoil, Spoiled};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore as _;
use object_store::memory::InMemory;

use super::objects::at;
use super::{opening, run};

const LEASE: Duration = SHORTEST_LEASE;

fn store(objects: &Arc<Spoiled>) -> ObjectStore {
    ObjectStore::new(Arc::clone(objects) as _, "p")
}

fn settings(host: &str) -> OwnerSettings {
    OwnerSettings { lease: LEASE, host: host.into() }
}

async fn own(objects: &Arc<Spoiled>, host: &str) -> Result<(ObjectStore, Ownership), OwnError> {
    store(objects).own("the objects", settings(host), |_| ()).await
}

/// Two ways to the same objects.
fn two() -> (Arc<Spoiled>, Arc<Spoiled>, Arc<InMemory>) {
    let objects = Arc::new(InMemory::new());
    (Spoiled::over(&objects), Spoiled::over(&objects), objects)
}

async fn keys(objects: &InMemory) -> Vec<String> {
    objects.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owned_store_conforms() {
    let report = store_conformance(async || {
        let objects = Arc::new(InMemory::new());
        let way = Spoiled::over(&objects);
        let (store, ownership) = own(&way, "a").await.unwrap();
        // The owner remembers: what was damaged is found by the next.
        let owner = Arc::new(tokio::sync::Mutex::new(Some(ownership)));
        let damage = move |damage| {
            let (objects, way, owner) = (Arc::clone(&objects), Arc::clone(&way), Arc::clone(&owner));
            Box::pin(async move {
                let mut owner = owner.lock().await;
                damage_objects(&*objects, "p", &damage).await;
                owner.take().unwrap().release().await.unwrap();
                let (store, next) = own(&way, "next").await.unwrap();
                *owner = Some(next);
                Arc::new(store) as Arc<dyn Store>
            }) as _
        };
        Subject { store: Arc::new(store), damage: Box::new(damage) }
    })
    .await;
    dormouse_tests::tell!("owned objects in memory: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_store_is_free_at_once_and_the_epoch_grows() {
    let (here, there, objects) = two();
    let run = run("kept", 0);
    for epoch in 1..4_u64 {
        let (store, ownership) = own(if epoch % 2 == 0 { &here } else { &there }, "a").await.unwrap();
        assert_eq!((store.epoch(), ownership.epoch()), (epoch, epoch));
        let entry = match epoch - 1 {
            0 => Entry::Open(opening(2_000)),
            sequence => Entry::Append(later(sequence), RowUpdate::NONE),
        };
        entry.put(&store, &run, format!("batch {epoch}").into()).await.unwrap();
        ownership.release().await.unwrap();
        let refused = store.append(&run, later(epoch), "too late".into(), RowUpdate::NONE).await;
        assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.as_str().contains("released")), "{refused:?}");
        assert_eq!(store.read(&run, 0).await.unwrap().records.len() as u64, epoch, "reading goes on");
        assert!(ownership.release().await.is_err(), "once");
    }
    assert!(keys(&objects).await.iter().all(|key| !key.contains("scratch")), "what was tried out is taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_owner_is_waited_for() {
    let (here, there, _) = two();
    let (store, ownership) = own(&here, "dead.example").await.unwrap();
    drop((store, ownership));
    let told = Arc::new(Mutex::new(Vec::new()));
    let (began, note) = (Instant::now(), Arc::clone(&told));
    let waiting = move |waiting| note.lock().unwrap().push(waiting);
    let (store, _ownership) = self::store(&there).own("the objects", settings("next"), waiting).await.unwrap();
    assert!(began.elapsed() >= LEASE, "{:?}", began.elapsed());
    assert_eq!(store.epoch(), 2);
    let told = told.lock().unwrap();
    let first = told.first().expect("people are told");
    assert_eq!(
        (first.holder.host.as_str(), first.holder.pid, first.holder.epoch),
        ("dead.example", std::process::id(), 1)
    );
    assert!(first.left <= LEASE);
}

/// The lease is the dead owner's: a hurried successor does not shorten it.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_says_how_long_he_is_waited_for() {
    let (here, there, _) = two();
    let patient = OwnerSettings { lease: LEASE * 2, host: "patient".into() };
    drop(store(&here).own("the objects", patient, |_| ()).await.unwrap());
    let began = Instant::now();
    own(&there, "hurried").await.unwrap();
    assert!(began.elapsed() >= LEASE * 2, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_owner_is_left_alone() {
    let (here, there, _) = two();
    let (store, ownership) = own(&here, "alive.example").await.unwrap();
    let refused = own(&there, "second").await.map(drop);
    assert!(matches!(refused, Err(OwnError::InUse { .. })), "{refused:?}");
    let said = refused.unwrap_err().to_string();
    let pid = format!("pid {}", std::process::id());
    assert!(["the objects", "alive.example", &pid, "prefix"].iter().all(|part| said.contains(part)), "{said}");
    ownership.check().unwrap();
    store.open(&run("living", 0), "batch".into(), opening(2_000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_takers_one_takes() {
    let objects = Arc::new(InMemory::new());
    // First where nothing is, then after a crash.
    for epoch in 1..3 {
        let takers = (0..6).map(|n| {
            let way = Spoiled::over(&objects);
            tokio::spawn(async move { own(&way, &format!("taker {n}")).await })
        });
        let outcomes: Vec<_> = futures::future::join_all(takers).await.into_iter().map(Result::unwrap).collect();
        let taken: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].1.epoch(), epoch);
        for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert!(matches!(refused, OwnError::InUse { .. }), "{refused}");
        }
    }
}

/// Of every put of the owner the answer is lost, or it never arrives, or it meets a conflict: what stands is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_tells_what_became_of_a_put() {
    let (here, there, _) = two();
    here.spoil(Some((".owner", Spoil::After)));
    let (_store, ownership) = own(&here, "a").await.unwrap();
    // Renewed all the same, more than once.
    tokio::time::sleep(LEASE * 2).await;
    ownership.check().unwrap();
    ownership.release().await.unwrap();

    for spoil in [Spoil::Before, Spoil::Conflict] {
        there.spoil(Some((".owner", spoil)));
        let unknown = own(&there, "b").await.map(drop);
        assert!(matches!(unknown, Err(OwnError::Store(StoreError::Unknown(_)))), "{unknown:?}");
        there.spoil(None);
        let (_store, ownership) = own(&there, "b").await.unwrap();
        there.spoil(Some((".owner", spoil)));
        let again = Arc::clone(&there);
        let release = tokio::spawn(async move { ownership.release().await });
        tokio::time::sleep(LEASE / 4).await;
        again.spoil(None);
        release.await.unwrap().unwrap();
    }
    assert_eq!(own(&here, "c").await.unwrap().1.epoch(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_renew_stops_before_another_begins() {
    let (here, there, _) = two();
    let run = run("cut off", 0);
    let (store, ownership) = own(&here, "cut off").await.unwrap();
    store.open(&run, "batch 0".into(), opening(2_000)).await.unwrap();
    here.spoil(Some((".owner", Spoil::Before)));
    let first = ownership.clone();
    let other = tokio::spawn(async move {
        let owned = own(&there, "other").await.unwrap();
        assert!(first.check().is_err(), "the first believes in its lease for too long");
        owned
    });
    let reason = ownership.lost().await;
    assert!(reason.contains("owns the objects no longer") && reason.contains("in time"), "{reason}");
    let (other, _ownership) = other.await.unwrap();
    // That its network is back changes nothing.
    here.spoil(None);
    let refused = store.append(&run, later(1), "late".into(), RowUpdate::NONE).await;
    assert_eq!(refused, Err(StoreError::refused(reason)));
    assert_eq!(other.append(&run, later(1), "other".into(), RowUpdate::NONE).await, Ok(Creation::Created));
    assert!(ownership.release().await.is_err());
}

/// A process that was stopped while its puts were under way, and wakes up when another has taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_finds_its_keys_taken_and_begins_nothing() {
    let (here, there, _) = two();
    let (written, unwritten) = (run("written", 0), run("unwritten", 0));
    let (zombie, ownership) = own(&here, "zombie").await.unwrap();
    for run in [&written, &unwritten] {
        zombie.open(run, "batch 0".into(), opening(2_000)).await.unwrap();
    }
    let claim = |run: &_, activity| AttemptKey { run: Clone::clone(run), activity };
    here.spoil(Some(("", Spoil::Hold)));
    let under_way = [&written, &unwritten].map(|run| {
        let (zombie, run, key) = (zombie.clone(), run.clone(), claim(run, 1));
        let change = RowUpdate::due(at(9_000));
        tokio::spawn(async move {
            futures::join!(
                zombie.append(&run, later(1), "zombie".into(), change),
                zombie.swap(&key, None, "zombie".into())
            )
        })
    });
    let (other, _) = own(&there, "other").await.unwrap();
    let parked = Parked {
        reason: "r".into(),
        cause: None,
        build: "b".into(),
        sequence: 2,
        attempts: 1,
        retry_at: at(3_000),
        ends_process: false,
        since: None,
    };
    assert_eq!(
        other.append(&written, later(1), "other".into(), RowUpdate::due(at(1_500))).await,
        Ok(Creation::Created)
    );
    assert_eq!(other.swap(&claim(&written, 1), None, "other".into()).await, Ok(Swap::Done(1)));
    other.park(&written, Some(parked.clone())).await.unwrap();

    // It wakes up. Its puts arrive after all.
    here.spoil(None);
    for answers in under_way {
        let (create, swap) = answers.await.unwrap();
        assert!(!matches!(create, Ok(Creation::Created)), "{create:?}");
        // No claim, no user code: whether it landed or not.
        assert!(!matches!(swap, Ok(Swap::Done(_))), "{swap:?}");
    }
    let reason = ownership.lost().await;
    let row = other.row(&written).await.unwrap().unwrap();
    assert_eq!((row.parked, row.due), (Some(parked.clone()), Some(at(1_500))), "the row is the new owner's");
    assert_eq!(other.read(&written, 0).await.unwrap().records, [Bytes::from("batch 0"), "other".into()]);
    let standing = other.attempt(&claim(&written, 1)).await.unwrap().unwrap();
    assert_eq!(standing.record, Bytes::from("other"));
    // Whatever it does now, from what it remembers, is refused before it is sent.
    let before = other.read(&unwritten, 0).await.unwrap();
    let refused = Err(StoreError::refused(reason));
    assert_eq!(zombie.append(&unwritten, later(2), "late".into(), RowUpdate::NONE).await.map(drop), refused);
    assert_eq!(zombie.swap(&claim(&unwritten, 2), None, "late".into()).await.map(drop), refused);
    assert_eq!(zombie.park(&written, None).await, refused);
    assert_eq!(other.read(&unwritten, 0).await.unwrap(), before);
    assert_eq!(other.row(&written).await.unwrap().unwrap().parked, Some(parked));
    // The new owner goes on, with whatever stands.
    let next = before.records.len() as u64;
    assert_eq!(other.append(&unwritten, later(next), "on".into(), RowUpdate::NONE).await, Ok(Creation::Created));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_conditions_is_refused() {
    let (here, _, objects) = two();
    here.spoil(Some((".scratch", Spoil::Overwrite)));
    let refused = own(&here, "a").await.map(drop).unwrap_err();
    assert!(matches!(refused, OwnError::Ignores { what: "If-None-Match: *", .. }), "{refused}");
    assert!(refused.to_string().contains("overwrite each other"), "{refused}");
    here.spoil(Some(("", Spoil::OverwriteUpdates)));
    let refused = own(&here, "a").await.map(drop).unwrap_err();
    assert!(matches!(refused, OwnError::Ignores { what: "If-Match", .. }), "{refused}");
    assert_eq!(keys(&objects).await, [""; 0], "nothing was taken, nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_owner_is_not_taken_for_one() {
    let (here, _, objects) = two();
    use object_store::ObjectStoreExt;
    objects.put(&"p/.owner".into(), "{}".into()).await.unwrap();
    let refused = own(&here, "a").await.map(drop).unwrap_err();
    assert!(matches!(&refused, OwnError::Damaged { key, .. } if key == "p/.owner"), "{refused}");
    let short = OwnerSettings { lease: LEASE / 2, ..OwnerSettings::default() };
    let refused = store(&here).own("the objects", short, |_| ()).await.map(drop);
    assert!(matches!(refused, Err(OwnError::TooShort(_))), "{refused:?}");
}

/// What is closed and settled costs nothing any more: no sweep, no listing and no start reads its row.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_closed_runs_cost_no_request_each() {
    const CLOSED: usize = 10_000;
    const OPEN: usize = 20;
    let (here, there, _) = two();
    let (store, ownership) = own(&here, "a").await.unwrap();
    let close = |n| RowUpdate::close(Status::Completed, at(5_000 + n), None);
    let closed = (0..CLOSED as u64).map(|n| {
        let (store, run) = (store.clone(), run(&format!("closed-{}", n / 2), n % 2));
        async move {
            let opening = Opening {
                run_id: RunId::from_bytes([7; 16]),
                workflow_type: "test".into(),
                started_at: at(1_000 + n / 3),
                due: at(2_000),
            };
            store.open(&run, "batch 0".into(), opening).await.unwrap();
            store.append(&run, later(1), "the end".into(), close(n)).await.unwrap();
        }
    });
    futures::stream::iter(closed).buffer_unordered(16).collect::<()>().await;
    for n in 0..OPEN {
        store.open(&run(&format!("open-{n}"), 0), "batch 0".into(), opening(2_000)).await.unwrap();
    }
    // What is closed is put away by and by.
    for _ in 0..=CLOSED / 1_000 {
        assert_eq!(store.due(at(9_000), None, 500).await.unwrap().len(), OPEN);
    }

    let spent = here.take_requests();
    dormouse_tests::tell!("{CLOSED} runs of two batches, and {OPEN} open ones: {spent:?}");
    assert_eq!(store.due(at(9_000), None, 500).await.unwrap().len(), OPEN);
    let sweep = here.take_requests();
    assert!(sweep.gets <= OPEN && sweep.lists == 1 && sweep.puts + sweep.deletes == 0, "a sweep: {sweep:?}");

    let newest = store.list("default", &RunFilter::default(), None, 100).await.unwrap();
    assert_eq!(newest.len(), 100);
    let page = here.take_requests();
    assert_eq!(page, Requests { lists: 1, ..Requests::default() }, "a page of a listing");
    let mut listed = newest;
    while listed.len() < CLOSED + OPEN {
        let after = listed.last().map(cursor).unwrap();
        let page = store.list("default", &RunFilter::default(), Some(&after), 1_000).await.unwrap();
        assert!(!page.is_empty(), "{} are listed", listed.len());
        listed.extend(page);
    }
    assert!(listed.is_sorted_by_key(|row| std::cmp::Reverse(cursor(row))));
    let failed = RunFilter { status: Some(Status::Failed), ..RunFilter::default() };
    assert_eq!(store.list("default", &failed, None, 10).await, Ok(vec![]));
    let whole = here.take_requests();
    assert!(whole.gets == 0 && whole.lists <= 2 * (CLOSED / 1_000 + 11), "whole listings: {whole:?}");

    ownership.release().await.unwrap();
    let (store, _ownership) = own(&there, "b").await.unwrap();
    assert_eq!(store.due(Timestamp::from_millis(u64::MAX), None, 500).await.unwrap().len(), OPEN);
    let start = there.take_requests();
    let expected = Requests { gets: OPEN, lists: 1, ..Requests::default() };
    assert_eq!(start, expected, "a start");
    dormouse_tests::tell!(
        "a sweep: {sweep:?}; a page of 100: {page:?}; all pages, twice: {whole:?}; a start: {start:?}"
    );
    assert_eq!(store.list("default", &RunFilter::default(), None, 20_000).await, Ok(listed));
}

fn cursor(row: &RunRow) -> ListCursor {
    ListCursor {
        started_at: row.started_at,
        workflow_id: row.run.workflow.workflow_id.to_string(),
        ordinal: row.run.ordinal,
    }
}
