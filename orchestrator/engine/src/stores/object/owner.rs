//! One process at a time: an object under the prefix says which. It is taken, renewed and released by conditional puts.
//!
//! **Taking over** is for whoever finds the object missing or released, or sees that it is not renewed for the length
//! of its lease: by his own clock, from the moment he first saw it so. Clocks are never compared. Each taking
//! counts the epoch up, so attempts that were claimed under an earlier one are known to be a dead process's.
//!
//! **Renewing** happens on a thread of its own, with a client of its own, at a third of the lease: activities that
//! block the runtime do not cost the ownership. The owner believes in his lease for nine tenths of it, counted from
//! before he sent what renewed it, so he has stopped before another may begin.
//!
//! **Losing it** is final for this process: from then on every put is refused before it is sent, and
//! [`Ownership::lost`] says why, so that the process ends. A put that was under way, or a process that was stopped and
//! woke up too late, meets what fences any two engines: batches are created once, rows and attempts are replaced by
//! version.
//!
//! **If we die** before a put, nothing has happened; after it, the next process waits a lease out. If its answer is
//! lost, what stands there is read: every record differs from every other, so ours is known.

#![expect(
    clippy::disallowed_methods,
    reason = "a sign of life that tells of this process, whatever host its engine has"
)]

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_core::{Timestamp, millis};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{Error, ObjectStore as Objects, ObjectStoreExt, PutMode, UpdateVersion};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::fault::failed;
use crate::host::{random_id, wall_clock};
use crate::store::{Cause, Patience, StoreError, Try, insist};

/// The shortest lease: a third of it must be enough for a put and a read.
pub const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// How often a put of unknown outcome is looked at and sent again before the taker gives up.
const TRIES: u32 = 5;

/// How often people are told that somebody is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// An object that changes so often while somebody watches has a live owner. Once is not enough: the last renewal of a
/// dead one may arrive late.
const SIGNS_OF_LIFE: u32 = 2;

/// How a store is owned.
#[derive(Debug, Clone)]
pub struct OwnerSettings {
    /// How long the store is believed to be owned after its owner's last sign of life; after a crash, the next start
    /// waits so long. At least [`SHORTEST_LEASE`].
    pub lease: Duration,
    /// Where this process runs, for people.
    pub host: String,
}

impl Default for OwnerSettings {
    fn default() -> Self {
        Self { lease: Duration::from_secs(10), host: gethostname::gethostname().to_string_lossy().into_owned() }
    }
}

/// Who owns a store, as people are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The host that it named.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its epoch.
    pub epoch: u64,
    /// Until when it means to own the store, by its own clock.
    pub until: Timestamp,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {}, pid {} (epoch {}, until {})", self.host, self.pid, self.epoch, self.until)
    }
}

/// Another process owns the store, and has shown no sign of life yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub holder: Holder,
    /// How much longer it is waited for.
    pub left: Duration,
}

/// Why a store could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// Its owner lives.
    #[error("{place} is in use by another process: {holder}; stop it or choose another prefix")]
    InUse {
        /// The store.
        place: String,
        /// The owner.
        holder: Holder,
    },
    /// Two processes could overwrite each other.
    #[error(
        "{place} ignores {what} on puts: two processes would overwrite each other; choose a store that keeps to \
         conditional writes"
    )]
    Ignores {
        /// The store.
        place: String,
        /// The condition.
        what: &'static str,
    },
    /// There is nothing to write into.
    #[error(
        "{place}: the bucket does not exist; create it, or look at the region (AWS_REGION) and at AWS_ENDPOINT_URL"
    )]
    NoBucket {
        /// The store.
        place: String,
    },
    /// What stands in the owner's place is no owner.
    #[error("{key} in {place} is damaged ({reason}); if no process uses this prefix, delete that object")]
    Damaged {
        /// The store.
        place: String,
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The lease cannot be kept up.
    #[error("a lease of {0:?} is too short; take {SHORTEST_LEASE:?} or more")]
    TooShort(Duration),
    /// The object store did not answer, or refused.
    #[error("the store cannot be taken over: {0}")]
    Store(#[from] StoreError),
    /// The thread that renews could not be started.
    #[error("the thread that renews the ownership could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// Nobody waits for the answer any more.
    #[error("the taking over was given up")]
    GivenUp,
}

/// What is stored, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    epoch: u64,
    /// Nobody else's.
    owner: String,
    /// Counts, so that no two records of one owner are the same bytes, and no two ETags.
    renewals: u64,
    released: bool,
    lease_ms: u64,
    until: Timestamp,
    host: String,
    pid: u32,
}

impl Record {
    fn holder(&self) -> Holder {
        Holder { host: self.host.clone(), pid: self.pid, epoch: self.epoch, until: self.until }
    }
}

struct Found {
    record: Record,
    version: UpdateVersion,
}

/// What came of a conditional put.
enum Placed {
    Stands(UpdateVersion),
    Another(Option<Found>),
}

/// That this process owns a store. Cloning is cheap. When the last clone is gone without [`Ownership::release`], it is
/// renewed no more, as after a crash.
#[derive(Clone)]
pub struct Ownership {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<oneshot::Sender<Result<(), StoreError>>>,
}

struct Shared {
    epoch: u64,
    place: String,
    /// Until when the owner believes in his lease.
    until: Mutex<Instant>,
    ended: watch::Sender<Option<Ended>>,
}

#[derive(Clone)]
enum Ended {
    Released,
    Lost(String),
}

impl std::fmt::Debug for Ownership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ownership")
            .field("place", &self.shared.place)
            .field("epoch", &self.shared.epoch)
            .finish_non_exhaustive()
    }
}

impl Ownership {
    /// How often the store has been taken over, this time included.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    /// Whether we may write.
    ///
    /// # Errors
    /// [`StoreError::Refused`] from the moment when the ownership has ended, for ever.
    pub fn check(&self) -> Result<(), StoreError> {
        self.shared.check()
    }

    /// Resolves with the reason when the ownership is lost: the process should end, since it can write no more. Does not
    /// resolve when it was released.
    pub async fn lost(&self) -> String {
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(|ended| matches!(ended, Some(Ended::Lost(_)))).await.as_deref() {
            Ok(Some(Ended::Lost(reason))) => reason.clone(),
            _ => std::future::pending().await,
        }
    }

    /// Ends the ownership: every later put is refused, and the next process need not wait. Call it when nothing is to
    /// be written any more. Takes at most a lease.
    ///
    /// # Errors
    /// [`StoreError`] when the object store did not answer, or the ownership was lost before: then the next process
    /// waits the lease out.
    pub async fn release(&self) -> Result<(), StoreError> {
        self.check()?;
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::unknown(format!("whoever renews the ownership of {} is gone", self.shared.place));
        self.requests.send(reply).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Shared {
    fn check(&self) -> Result<(), StoreError> {
        if self.ended.borrow().is_none() && Instant::now() >= *self.until.lock().unwrap_or_else(PoisonError::into_inner)
        {
            self.end(Ended::Lost("it could not be renewed in time".into()));
        }
        match &*self.ended.borrow() {
            None => Ok(()),
            Some(Ended::Released) => Err(StoreError::refused(format!("{} was released by this process", self.place))),
            Some(Ended::Lost(reason)) => Err(StoreError::refused(reason.clone())),
        }
    }

    /// The first end is the one that counts.
    fn end(&self, end: Ended) {
        let end = match end {
            Ended::Lost(reason) => Ended::Lost(format!(
                "this process owns {} no longer ({reason}); it has stopped writing, whatever was under way goes on with \
                 the next owner",
                self.place
            )),
            Ended::Released => end,
        };
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(end);
            }
            first
        });
    }
}

/// A name that nobody else draws.
pub(super) fn fresh_name() -> String {
    uuid::Uuid::from_bytes(random_id()).to_string()
}

/// Takes a store over, and keeps it. `waiting` is told of an owner in the way, at first sight and now and then.
pub(super) async fn own(
    objects: Arc<dyn Objects>,
    place: String,
    key: Path,
    probe_key: Path,
    settings: OwnerSettings,
    waiting: impl FnMut(Waiting) + Send + 'static,
) -> Result<Ownership, OwnError> {
    if settings.lease < SHORTEST_LEASE {
        return Err(OwnError::TooShort(settings.lease));
    }
    let (reply, answer) = oneshot::channel();
    let keeper = Keeper { objects, place, key, settings };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("dormouse-owner".into()).spawn(move || {
        runtime.block_on(async move {
            let taken = match super::probe::probe(&keeper.objects, &keeper.place, &probe_key).await {
                Ok(()) => keeper.take(waiting, || reply.is_closed()).await,
                Err(error) => Err(error),
            };
            match taken {
                Err(error) => drop(reply.send(Err(error))),
                Ok(held) => keeper.keep(held, reply).await,
            }
        });
    })?;
    answer.await.unwrap_or_else(|_| Err(OwnError::GivenUp))
}

/// The object, and who wants it.
struct Keeper {
    objects: Arc<dyn Objects>,
    place: String,
    key: Path,
    settings: OwnerSettings,
}

/// What we put, what to name when replacing it, and a time at which it was not there yet.
struct Held {
    record: Record,
    version: UpdateVersion,
    since: Instant,
}

impl Keeper {
    /// How long the owner believes in what he put.
    fn believed(&self) -> Duration {
        self.settings.lease * 9 / 10
    }

    fn pause(&self) -> Duration {
        self.settings.lease / 20
    }

    async fn take(&self, mut waiting: impl FnMut(Waiting), given_up: impl Fn() -> bool) -> Result<Held, OwnError> {
        let owner = fresh_name();
        let mut watched: Option<Watched> = None;
        loop {
            if given_up() {
                return Err(OwnError::GivenUp);
            }
            let found = self.look().await?;
            if let Some(found) = found.as_ref().filter(|found| !found.record.released) {
                let watched = Watched::look(&mut watched, found);
                if watched.signs >= SIGNS_OF_LIFE {
                    return Err(OwnError::InUse { place: self.place.clone(), holder: found.record.holder() });
                }
                let lease = Duration::from_millis(found.record.lease_ms);
                let left = lease.saturating_sub(watched.since.elapsed());
                if !left.is_zero() {
                    if watched.is_time_to_tell() {
                        waiting(Waiting { holder: found.record.holder(), left });
                    }
                    sleep(left.min(lease / 10).min(Duration::from_secs(1))).await;
                    continue;
                }
            }
            let record = Record {
                epoch: found.as_ref().map_or(0, |found| found.record.epoch) + 1,
                owner: owner.clone(),
                renewals: 0,
                released: false,
                lease_ms: millis(self.settings.lease),
                until: wall_clock() + self.settings.lease,
                host: self.settings.host.clone(),
                pid: std::process::id(),
            };
            if let Some(held) = self.place(record, found.map(|found| found.version)).await? {
                return Ok(held);
            }
        }
    }

    /// Puts the record where nothing stands, or that. `None`: somebody was faster.
    async fn place(&self, mut record: Record, mut expected: Option<UpdateVersion>) -> Result<Option<Held>, OwnError> {
        loop {
            let since = Instant::now();
            match self.put(&record, expected.as_ref(), TRIES).await? {
                Placed::Another(_) => return Ok(None),
                Placed::Stands(version) if since.elapsed() < self.believed() / 2 => {
                    return Ok(Some(Held { record, version, since }));
                }
                // So slow that others may soon take us for dead.
                Placed::Stands(version) => {
                    expected = Some(version);
                    record.renewals += 1;
                    record.until = wall_clock() + self.settings.lease;
                }
            }
        }
    }

    /// Hands the ownership out, and renews it until it ends.
    async fn keep(self, mut held: Held, reply: oneshot::Sender<Result<Ownership, OwnError>>) {
        let (requests, mut inbox) = mpsc::unbounded_channel::<oneshot::Sender<_>>();
        let shared = Arc::new(Shared {
            epoch: held.record.epoch,
            place: self.place.clone(),
            until: Mutex::new(held.since + self.believed()),
            ended: watch::Sender::new(None),
        });
        let ownership = Ownership { shared: Arc::clone(&shared), requests };
        if reply.send(Ok(ownership)).is_err() {
            // Whoever asked has gone: the next one need not wait.
            if let Err(error) = self.release(&mut held, Instant::now() + self.believed()).await {
                tracing::debug!(place = %self.place, %error, "not released; the next start waits the lease out");
            }
            return;
        }
        loop {
            let due = held.since + self.settings.lease / 3;
            tokio::select! {
                biased;
                asked = inbox.recv() => {
                    // `None`: let go without a word, as by a crash.
                    let Some(reply) = asked else { return };
                    shared.end(Ended::Released);
                    let until = held.since + self.believed();
                    // Whoever asked may have gone.
                    drop(reply.send(self.release(&mut held, until).await));
                    return;
                }
                () = sleep_until(due) => {}
            }
            if shared.check().is_err() {
                return;
            }
            match self.renew(&mut held).await {
                Ok(()) => {
                    *shared.until.lock().unwrap_or_else(PoisonError::into_inner) = held.since + self.believed();
                }
                Err(reason) => return shared.end(Ended::Lost(reason)),
            }
        }
    }

    /// Renews the lease; an error is the reason for which that can no longer be done.
    async fn renew(&self, held: &mut Held) -> Result<(), String> {
        let until = held.since + self.believed();
        let next = Record {
            renewals: held.record.renewals + 1,
            until: wall_clock() + self.settings.lease,
            ..held.record.clone()
        };
        let since = Instant::now();
        match self.insist(&next, &held.version, until).await {
            Ok(Placed::Stands(version)) => {
                *held = Held { record: next, version, since };
                Ok(())
            }
            Ok(Placed::Another(Some(found))) => Err(format!("it is owned by {}", found.record.holder())),
            Ok(Placed::Another(None)) => Err(format!("{} has been deleted", self.key)),
            Err(error) => Err(format!("it could not be renewed in time: {error}")),
        }
    }

    async fn release(&self, held: &mut Held, until: Instant) -> Result<(), StoreError> {
        let next = Record { renewals: held.record.renewals + 1, released: true, ..held.record.clone() };
        match self.insist(&next, &held.version, until).await? {
            Placed::Stands(_) => Ok(()),
            Placed::Another(_) => Err(StoreError::refused(format!("{} is owned by another process", self.place))),
        }
    }

    /// Puts the record until the answer is certain, or the time has come.
    async fn insist(&self, record: &Record, expected: &UpdateVersion, until: Instant) -> Result<Placed, StoreError> {
        let mut last = StoreError::unknown("there was no time to try");
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(last);
            }
            match timeout(left, self.put(record, Some(expected), 1)).await {
                Ok(Ok(placed)) => return Ok(placed),
                Ok(Err(OwnError::Store(error))) => last = error,
                Ok(Err(error)) => return Err(StoreError::Refused(Cause::of(error))),
                Err(_) => return Err(last),
            }
            sleep(self.pause()).await;
        }
    }

    /// One conditional put. While its outcome is unknown, what stands there is read, and the same bytes are sent again.
    async fn put(&self, record: &Record, expected: Option<&UpdateVersion>, tries: u32) -> Result<Placed, OwnError> {
        let text = serde_json::to_vec(record).map_err(|error| StoreError::Refused(Cause::of(error)))?;
        let mode = expected.map_or(PutMode::Create, |version| PutMode::Update(version.clone()));
        insist(self.patience(tries), Some(&asleep), || async {
            let put = self.objects.put_opts(&self.key, text.clone().into(), mode.clone().into());
            let unknown = match self.patiently(put).await.map_err(failed) {
                Ok(put) => return Ok(Try::Done(Ok(Placed::Stands(put.into())))),
                Err(error @ StoreError::Refused(_)) => return Err(error),
                Err(error @ StoreError::Unknown(_)) => error,
            };
            match self.look_once().await {
                Ok(Some(found)) if found.record == *record => Ok(Try::Done(Ok(Placed::Stands(found.version)))),
                // It may still land; if it does, the same bytes sent again are in conflict with it.
                Ok(found) if found.as_ref().map(|found| &found.version.e_tag) == expected.map(|v| &v.e_tag) => {
                    Err(unknown)
                }
                Ok(found) => Ok(Try::Done(Ok(Placed::Another(found)))),
                Err(OwnError::Store(error)) => Err(error),
                Err(error) => Ok(Try::Done(Err(error))),
            }
        })
        .await?
    }

    /// Who owns the store, as it stands.
    async fn look(&self) -> Result<Option<Found>, OwnError> {
        insist(self.patience(TRIES), Some(&asleep), || async {
            match self.look_once().await {
                Err(OwnError::Store(error)) => Err(error),
                answer => Ok(Try::Done(answer)),
            }
        })
        .await?
    }

    /// All pauses together are less than half a lease.
    fn patience(&self, tries: u32) -> Patience {
        Patience { tries, pause: self.pause() / 2 }
    }

    async fn look_once(&self) -> Result<Option<Found>, OwnError> {
        let read = async {
            let found = self.objects.get(&self.key).await?;
            let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok((found.bytes().await?, version))
        };
        let (bytes, version) = match self.patiently(read).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error).into()),
        };
        let record = serde_json::from_slice(&bytes).map_err(|error| OwnError::Damaged {
            place: self.place.clone(),
            key: self.key.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Some(Found { record, version }))
    }

    async fn patiently<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let patience = self.settings.lease / 4;
        timeout(patience, request).await.unwrap_or_else(|_| {
            Err(Error::Generic { store: "owner", source: format!("no answer within {patience:?}").into() })
        })
    }
}

/// Waits on the runtime of whoever renews.
fn asleep(pause: Duration) -> BoxFuture<'static, ()> {
    sleep(pause).boxed()
}

/// An owner in the way, watched by our own clock.
struct Watched {
    e_tag: Option<String>,
    /// When the object was first seen with this ETag.
    since: Instant,
    /// How often it has changed.
    signs: u32,
    told: Option<Instant>,
}

impl Watched {
    fn look<'a>(watched: &'a mut Option<Self>, found: &Found) -> &'a mut Self {
        let e_tag = &found.version.e_tag;
        let watched =
            watched.get_or_insert_with(|| Self { e_tag: e_tag.clone(), since: Instant::now(), signs: 0, told: None });
        if watched.e_tag != *e_tag {
            *watched = Self { e_tag: e_tag.clone(), since: Instant::now(), signs: watched.signs + 1, ..*watched };
        }
        watched
    }

    fn is_time_to_tell(&mut self) -> bool {
        let now = Instant::now();
        let due = self.told.is_none_or(|told| now - told >= TELL_EVERY);
        if due {
            self.told = Some(now);
        }
        due
    }
}
