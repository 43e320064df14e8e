//! Object stores without transactions: what a crash, a lost answer or an old listing leaves behind.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dormouse_core::{Status, Timestamp};
use dormouse_engine::store::{
    AttemptKey, Attempts, Creation, Entry, Histories, Index, Opening, Parked, RowUpdate, RunFilter, StoreError,
};
use dormouse_engine::stores::object::ObjectStore;
use dormouse_testing::later;
use futures::StreamExt;
use futures::executor::block_on;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

use super::{opening, run};

/// What happens to a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// It never arrives.
    Before,
    /// Its answer is lost.
    After,
    /// It meets a conflict, and nothing is written: S3's 409.
    Conflict,
    /// It is carried out when puts are no longer spoiled; until then, reads of such keys wait as well.
    Hold,
    /// Its conditions are ignored: it overwrites.
    Overwrite,
    /// The same, but only of those that replace a version.
    OverwriteUpdates,
    /// 401: whoever asks is not known, or not any more.
    Unauthenticated,
    /// 403: he may not, or not yet.
    Denied,
}

/// What was asked of the objects, but for the owner's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requests {
    pub puts: usize,
    pub gets: usize,
    /// Pages of 1,000 keys.
    pub lists: usize,
    pub deletes: usize,
}

/// Objects in memory, some requests spoiled.
#[derive(Debug, Default)]
pub struct Spoiled {
    inner: Arc<InMemory>,
    /// All puts to keys that contain this.
    puts: watch::Sender<Option<(&'static str, Spoil)>>,
    /// The next listing does not show keys that end so.
    hidden: Mutex<Option<String>>,
    requests: Arc<Mutex<Requests>>,
}

impl Spoiled {
    /// Another way to these objects, which may be spoiled otherwise.
    pub fn over(inner: &Arc<InMemory>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(inner), ..Self::default() })
    }

    pub fn spoil(&self, puts: Option<(&'static str, Spoil)>) {
        self.puts.send_replace(puts);
    }

    /// How a request for this key is spoiled, once it is no longer held.
    async fn spoiled(&self, location: &Path) -> Option<Spoil> {
        let spoil = |puts: &Option<(&'static str, Spoil)>| {
            puts.filter(|(key, _)| location.as_ref().contains(key)).map(|(_, spoil)| spoil)
        };
        let mut puts = self.puts.subscribe();
        let now = puts.wait_for(|puts| spoil(puts) != Some(Spoil::Hold)).await.expect("we hold the sender");
        spoil(&now)
    }

    /// The requests up to now; begins at zero again.
    pub fn take_requests(&self) -> Requests {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn count(&self, location: &Path, count: impl FnOnce(&mut Requests)) {
        if ![".owner", ".scratch"].iter().any(|own| location.as_ref().contains(own)) {
            count(&mut self.requests.lock().unwrap());
        }
    }

    fn hide(&self, end: &str) {
        *self.hidden.lock().unwrap() = Some(end.to_owned());
    }

    fn stale(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.lock().unwrap().lists += 1;
        let (requests, mut shown) = (Arc::clone(&self.requests), 0);
        let listing = listing
            .inspect(move |_| {
                shown += 1;
                if shown > 1_000 && shown % 1_000 == 1 {
                    requests.lock().unwrap().lists += 1;
                }
            })
            .boxed();
        match self.hidden.lock().unwrap().take() {
            None => listing,
            Some(end) => listing
                .filter(move |meta| {
                    let hidden = meta.as_ref().is_ok_and(|meta| meta.location.as_ref().ends_with(&end));
                    std::future::ready(!hidden)
                })
                .boxed(),
        }
    }
}

impl fmt::Display for Spoiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("spoiled")
    }
}

#[async_trait]
impl object_store::ObjectStore for Spoiled {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.count(location, |requests| requests.puts += 1);
        let lost = || Error::Generic { store: "spoiled", source: "lost".into() };
        let path = location.to_string();
        let spoil = self.spoiled(location).await;
        let spoil = spoil.filter(|spoil| *spoil != Spoil::OverwriteUpdates || matches!(opts.mode, PutMode::Update(_)));
        match spoil {
            Some(Spoil::Overwrite | Spoil::OverwriteUpdates) => {
                self.inner.put_opts(location, payload, PutMode::Overwrite.into()).await
            }
            None | Some(Spoil::Hold) => self.inner.put_opts(location, payload, opts).await,
            Some(Spoil::Before) => Err(lost()),
            Some(Spoil::Unauthenticated) => Err(Error::Unauthenticated { path, source: "401".into() }),
            Some(Spoil::Denied) => Err(Error::PermissionDenied { path, source: "403".into() }),
            Some(Spoil::After) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(lost())
            }
            Some(Spoil::Conflict) => Err(Error::AlreadyExists { path: location.to_string(), source: "409".into() }),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.count(location, |requests| requests.gets += 1);
        let path = location.to_string();
        match self.spoiled(location).await {
            Some(Spoil::Unauthenticated) => return Err(Error::Unauthenticated { path, source: "401".into() }),
            Some(Spoil::Denied) => return Err(Error::PermissionDenied { path, source: "403".into() }),
            _ => {}
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let requests = Arc::clone(&self.requests);
        let counted = move |location: &Result<Path>| {
            if location.as_ref().is_ok_and(|location| !location.as_ref().contains(".scratch")) {
                requests.lock().unwrap().deletes += 1;
            }
        };
        self.inner.delete_stream(locations.inspect(counted).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stale(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stale(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

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
        build: "b".into(),
        sequence: 1,
        attempts: 1,
        retry_at: at(3_000),
        ends_process: false,
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
