//! What a storage backend is: the cases that each must pass. One call per backend.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use dormouse_engine::stores::object::ObjectStore;
//! # use dormouse_testing::conformance::{Subject, damage_objects};
//! let make = async || {
//!     let objects = Arc::new(object_store::memory::InMemory::new());
//!     let store = Arc::new(ObjectStore::new(objects.clone(), "anywhere"));
//!     Subject { store: store.clone(), damage: Box::new(move |damage| {
//!         let (objects, store) = (objects.clone(), store.clone());
//!         Box::pin(async move { damage_objects(&*objects, "anywhere", &damage).await; store as _ })
//!     }) }
//! };
//! let report = futures::executor::block_on(dormouse_testing::store_conformance(make));
//! println!("{report}");
//! ```
//!
//! The futures run wherever the caller runs them; what races, races on threads of its own. Whether an acknowledged
//! write survives a crash is not asked here: that needs a process to kill.

mod attempts;
mod batches;
mod damage;
mod due;
mod rows;
mod snapshots;

use std::fmt;
use std::num::NonZeroU64;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_core::{RunId, RunKey, Timestamp, WorkflowKey};
use dormouse_engine::store::{Creation, Entry, Opening, RowUpdate, Store, StoreError};
use futures::FutureExt;
use futures::future::BoxFuture;

pub use self::damage::{Damage, damage_objects};

/// A fresh store, and a way to what it keeps behind its back.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Does this to what is kept, as a failing disk or another build would. Answers the store as it is then: as
    /// whoever opens it next has it, where its owner remembers.
    pub damage: Box<dyn Fn(Damage) -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync>,
}

/// One case: its name, and what it does to a fresh store.
pub type Case = (&'static str, fn(Subject) -> BoxFuture<'static, ()>);

macro_rules! cases {
    ($subject:ident, $what:expr; $($room:ident: $($case:ident),+;)+) => {
        &[$($((concat!(stringify!($room), "::", stringify!($case)), |$subject| Box::pin($room::$case($what)))),+),+]
    };
}

/// The cases that only use the store.
pub const CASES: &[Case] = cases! { subject, subject.store;
    batches:
        creates_only_if_absent,
        nothing_is_an_empty_stretch,
        refuses_what_has_no_run,
        one_of_many_wins,
        racing_chains_have_no_gaps,
        an_answer_may_be_lost,
        a_request_may_be_lost,
        a_put_may_be_sent_twice,
        a_zombie_finds_its_sequence_taken,
        pages_are_read_back_whole,
        large_batches_are_read_back_whole,
        a_stretch_ends_at_a_gap;
    rows:
        a_row_begins_with_batch_0,
        a_row_follows_its_batches,
        a_loser_leaves_the_row_alone,
        racing_starts_leave_the_winner_s_row,
        the_latest_has_the_highest_ordinal,
        hostile_ids_are_ids,
        lists_from_the_latest_start,
        lists_what_the_filter_admits,
        pages_of_lists_neither_lose_nor_repeat,
        parks_and_unparks, lists_what_is_parked;
    due:
        the_earliest_comes_first,
        is_lowered_raised_and_taken_away,
        pages_neither_lose_nor_repeat,
        settles_only_what_is_closed,
        racing_commits_leave_the_last_due_time;
    attempts:
        are_created_read_and_replaced,
        belong_to_one_activity_of_one_run,
        racing_swaps_have_one_winner_each,
        an_answer_may_be_lost;
    snapshots:
        the_last_one_kept_is_read,
        belong_to_one_run_and_touch_nothing_else,
        large_ones_are_read_back_whole;
};

/// The cases in which something cannot be read.
pub const DAMAGED: &[Case] = cases! { subject, subject;
    damage:
        an_unreadable_row_hides_no_other,
        a_status_of_another_build_is_a_status,
        an_unreadable_parking_hides_no_row,
        an_unreadable_attempt_concerns_itself_alone;
};

/// What has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which suite it was.
    pub suite: &'static str,
    /// The names of the cases that passed: all, or there would be no report.
    pub passed: Vec<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} cases of {} conformance passed", self.passed.len(), self.suite)
    }
}

/// Runs every case against a fresh store of its own.
///
/// # Panics
/// At the first case that fails; the message names it.
pub async fn store_conformance(make: impl AsyncFn() -> Subject) -> Report {
    let mut passed = Vec::with_capacity(CASES.len() + DAMAGED.len());
    for (name, case) in CASES.iter().chain(DAMAGED) {
        let subject = make().await;
        if let Err(panic) = AssertUnwindSafe(case(subject)).catch_unwind().await {
            panic!("store conformance, case {name}: {}", message(&*panic));
        }
        passed.push(*name);
    }
    Report { suite: "store", passed }
}

pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked without a message")
}

/// Runs `work` for each number on a thread of its own, all at once; answers in the order of the numbers.
fn race<T: Send + 'static, F: Future<Output = T>>(
    racers: usize,
    work: impl Fn(usize) -> F + Send + Sync + Clone + 'static,
) -> Vec<T> {
    let start = Arc::new(std::sync::Barrier::new(racers));
    let threads: Vec<_> = (0..racers)
        .map(|racer| {
            let (start, work) = (Arc::clone(&start), work.clone());
            std::thread::spawn(move || {
                start.wait();
                futures::executor::block_on(work(racer))
            })
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
        .collect()
}

/// The sequence of a batch behind the first.
///
/// # Panics
/// At 0.
#[must_use]
pub fn later(sequence: u64) -> NonZeroU64 {
    NonZeroU64::new(sequence).expect("batch 0 opens its run")
}

fn run(workflow_id: &str) -> RunKey {
    run_in("conformance", workflow_id, 0)
}

fn run_in(namespace: &str, workflow_id: &str, ordinal: u64) -> RunKey {
    WorkflowKey { namespace: namespace.into(), workflow_id: workflow_id.into() }.run(ordinal)
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn opening(workflow_type: &str, started_at: u64, due: u64) -> Opening {
    Opening {
        run_id: RunId::from_bytes([7; 16]),
        workflow_type: workflow_type.into(),
        started_at: at(started_at),
        due: at(due),
    }
}

/// Starts a run at time 1,000, due at 2,000.
async fn start(store: &Arc<dyn Store>, run: &RunKey) {
    start_as(store, run, opening("test", 1_000, 2_000)).await;
}

async fn start_as(store: &Arc<dyn Store>, run: &RunKey, opening: Opening) {
    let creation = create(store, run, Bytes::from_static(b"batch 0"), Entry::Open(opening)).await;
    assert_eq!(creation, Creation::Created, "batch 0 of {run}");
}

/// An append that must win.
async fn append(store: &Arc<dyn Store>, run: &RunKey, sequence: u64, record: impl Into<Bytes>, update: RowUpdate) {
    let creation = create(store, run, record.into(), Entry::Append(later(sequence), update)).await;
    assert_eq!(creation, Creation::Created, "batch {sequence} of {run}");
}

/// A create as rule C1 has it: what is unknown is tried again with the same bytes, and to find one's own bytes is to
/// have won.
async fn create(store: &Arc<dyn Store>, run: &RunKey, record: Bytes, entry: Entry) -> Creation {
    let sequence = entry.sequence();
    for _ in 0..1_000 {
        match entry.clone().put(&**store, run, record.clone()).await {
            Ok(Creation::Exists(found)) if found == record => return Creation::Created,
            Ok(creation) => return creation,
            Err(StoreError::Unknown(_)) => {}
            Err(refused) => panic!("batch {sequence} of {run}: {refused}"),
        }
    }
    panic!("batch {sequence} of {run}: the outcome stays unknown");
}

/// A whole history from a sequence on, through all its pages.
async fn read_from(store: &Arc<dyn Store>, run: &RunKey, from: u64) -> Vec<Bytes> {
    let mut records = Vec::new();
    loop {
        let stretch = store.read(run, from + records.len() as u64).await.expect("a page of history");
        assert!(!stretch.more || !stretch.records.is_empty(), "a page that promises more brings something");
        records.extend(stretch.records);
        if !stretch.more {
            return records;
        }
    }
}
