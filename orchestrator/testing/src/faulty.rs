//! A store that fails on cue, below the caller: what a network does to a request, without one.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_engine::store::{Around, Op, Store, StoreError, StoreFuture, Stretch};

/// Which request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The next create; with a number, the next one at this sequence.
    Create(Option<u64>),
    /// The next swap; with a number, the next one of this activity.
    Swap(Option<u64>),
    /// The next read of a history; with a number, the next one from this sequence on.
    Read(Option<u64>),
    /// The next parking or unparking.
    Park,
    /// The next read of an attempt record; with a number, the next one of this activity.
    Attempt(Option<u64>),
    /// The next snapshot that is kept.
    KeepSnapshot,
    /// The next snapshot that is asked for.
    Snapshot,
}

impl On {
    /// What a request is, in these words. `None`: such never fail.
    fn of(op: &Op<'_>) -> Option<Self> {
        match op {
            Op::Open { .. } => Some(Self::Create(Some(0))),
            Op::Append { sequence, .. } => Some(Self::Create(Some(sequence.get()))),
            Op::Read { from, .. } => Some(Self::Read(Some(*from))),
            Op::Swap { key, .. } => Some(Self::Swap(Some(key.activity))),
            Op::Attempt(key) => Some(Self::Attempt(Some(key.activity))),
            Op::Park(_) => Some(Self::Park),
            Op::KeepSnapshot(_) => Some(Self::KeepSnapshot),
            Op::Snapshot(_) => Some(Self::Snapshot),
            Op::Row(_) | Op::Newest(_) | Op::List | Op::Due | Op::Settle(_) | Op::Retire => None,
        }
    }

    fn meets(self, request: On) -> bool {
        let (wanted, got) = match (self, request) {
            (On::Create(wanted), On::Create(got))
            | (On::Swap(wanted), On::Swap(got))
            | (On::Read(wanted), On::Read(got))
            | (On::Attempt(wanted), On::Attempt(got)) => (wanted, got),
            (On::Park, On::Park) | (On::KeepSnapshot, On::KeepSnapshot) | (On::Snapshot, On::Snapshot) => return true,
            _ => return false,
        };
        wanted.is_none() || wanted == got
    }
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request never arrives; the caller is told that the outcome is unknown.
    FailBefore,
    /// The request is carried out, and its answer is lost.
    FailAfter,
    /// The request is carried out, its answer is lost, and something below the caller sends it again: the caller sees
    /// the second answer, "exists" or "stale", with its own bytes. On a read: the second answer, too.
    RetriedHidden,
    /// The request is refused, as it would be again.
    Refused,
    /// The caller dies before the request is made: it never arrives, and is never answered.
    CrashBefore,
    /// The caller dies when the request is carried out: it is never answered.
    CrashAfter,
}

/// Passes requests on to another store, but for those that were told to fail. See the module's documentation.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    script: Mutex<VecDeque<(On, Fault)>>,
    horizon: Mutex<Option<u64>>,
    requests: AtomicU64,
    /// At which of them the caller dies.
    death: Mutex<Option<(u64, Fault)>>,
    is_dead: AtomicBool,
}

impl FaultyStore {
    /// Without faults, for now.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            script: Mutex::default(),
            horizon: Mutex::default(),
            requests: AtomicU64::new(0),
            death: Mutex::default(),
            is_dead: AtomicBool::new(false),
        }
    }

    /// Adds a fault to the script. Each happens once, to the first request that it fits.
    pub fn plan(&self, on: On, fault: Fault) {
        self.script().push_back((on, fault));
    }

    /// The faults that have not happened yet.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.script().len()
    }

    /// From now on, reads show only batches before this sequence, as a reader of old data would see them;
    /// `None` shows all.
    pub fn show_only_before(&self, sequence: Option<u64>) {
        *self.horizon.lock().unwrap_or_else(PoisonError::into_inner) = sequence;
    }

    /// The caller dies at its n-th request, from 1, whatever that is: before it is made, or after it is carried out.
    pub fn die_at(&self, request: u64, fault: Fault) {
        *self.death.lock().unwrap_or_else(PoisonError::into_inner) = Some((request, fault));
    }

    /// How many requests came so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Whether the caller has died where it was to.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    fn death(&self) -> Option<Fault> {
        let request = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let death = *self.death.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, fault) = death.filter(|(at, _)| *at == request)?;
        self.is_dead.store(true, Ordering::SeqCst);
        Some(fault)
    }

    fn script(&self) -> MutexGuard<'_, VecDeque<(On, Fault)>> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self, request: On) -> Option<Fault> {
        let mut script = self.script();
        let at = script.iter().position(|(on, _)| on.meets(request))?;
        script.remove(at).map(|(_, fault)| fault)
    }

    /// What a reader of old data sees of a stretch that was asked for from here on.
    fn hide(&self, from: u64, stretch: &mut Stretch) {
        let horizon = *self.horizon.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(horizon) = horizon else { return };
        let visible = usize::try_from(horizon.saturating_sub(from)).unwrap_or(usize::MAX);
        if visible <= stretch.records.len() {
            stretch.records.truncate(visible);
            stretch.more = false;
        }
    }
}

impl Around for FaultyStore {
    fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    fn around<'a, T: Send + 'static>(
        &'a self,
        op: Op<'a>,
        call: impl Fn() -> StoreFuture<'a, T> + Send + Sync + 'a,
    ) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let fault = self.death().or_else(|| On::of(&op).and_then(|on| self.next_fault(on)));
            let mut answer = match fault {
                None => call().await?,
                Some(Fault::FailBefore) => return Err(StoreError::unknown("planned: the request was lost")),
                Some(Fault::FailAfter) => {
                    call().await?;
                    return Err(StoreError::unknown("planned: the answer was lost"));
                }
                Some(Fault::RetriedHidden) => {
                    call().await?;
                    call().await?
                }
                Some(Fault::Refused) => return Err(StoreError::refused("planned: the request is not to its liking")),
                Some(Fault::CrashBefore) => std::future::pending().await,
                Some(Fault::CrashAfter) => {
                    call().await?;
                    std::future::pending().await
                }
            };
            if let (Op::Read { from, .. }, Some(stretch)) = (op, (&mut answer as &mut dyn Any).downcast_mut()) {
                self.hide(from, stretch);
            }
            Ok(answer)
        })
    }
}
