//! What listings and the sweep are answered from.
//!
//! **Open runs**, those that owe something, have a *marker*: an empty object that is put before the batch that makes
//! the run owe something, and named by that batch's sequence. So a start finds them by listing markers, and reads no
//! row of any other. Once a run owes nothing, what is known of it goes into the name of another empty object, from
//! which it is listed without being read; then its markers are deleted, but none of a later batch than the row had
//! seen: whoever makes the run owe something again has put one of those.
//!
//! **If we die** before a marker: no batch stands either. Between marker and batch: the next owner finds a run that is
//! not there, or owes what it owed. Between the closed run's key and its marker's end: it has both, and the next look
//! ends it. Each of these requests may arrive twice.
//!
//! **With an owner** the rows of open runs are remembered, as all writes go through its process; a look reads only
//! those of which it cannot be sure: a write failed, or a batch was under way. And a few more each time, in turn: a
//! former owner whose clock stood still may have written what we were not told. It is healed as late as that takes.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use dormouse_core::{RunKey, Timestamp};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Error, ObjectStoreExt, PutMode};

use super::fault::failed;
use super::row::RowObject;
use super::{CONCURRENT_GETS, Inner, Known};
use crate::store::{ListCursor, RunFilter, RunRow, StoreError};

/// So many remembered rows are read again by each look at what is due.
const DOUBTED_IN_TURN: usize = 16;

/// So many runs that owe nothing any more are put away by each look at what is due; the rest is for the next.
const PUT_AWAY_AT_ONCE: usize = 1_000;

/// The runs that owe something, as far as this process knows. Only an owner's outlasts a look.
#[derive(Default)]
pub(super) struct Open {
    /// Whether the markers were ever listed.
    listed: bool,
    runs: BTreeMap<RunKey, Remembered>,
    /// Up to here they were read again in turn.
    turn: Option<RunKey>,
}

#[derive(Default)]
struct Remembered {
    known: Option<Known>,
    /// It must be read before anything is said of it.
    doubted: bool,
}

impl Remembered {
    fn object(&self) -> Option<&RowObject> {
        self.known.as_ref().map(|known| &known.object)
    }

    fn must_be_read(&self) -> bool {
        self.doubted || self.object().is_none_or(|object| object.undecided().is_some())
    }
}

/// What a look is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// People.
    Listing,
    /// The sweep: it also notices what this process was not told, and puts away what is done.
    Due,
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row object stands so, or did a moment ago.
    pub(super) fn note(&self, run: &RunKey, known: &Known) {
        if self.ownership.is_some() {
            self.memory().note(run, known);
        }
    }

    /// Nobody knows how the row object stands.
    pub(super) fn doubt(&self, run: &RunKey) {
        if self.ownership.is_some() {
            self.memory().runs.entry(run.clone()).or_default().doubted = true;
        }
    }

    pub(super) async fn put_marker(&self, run: &RunKey, sequence: u64) -> Result<(), StoreError> {
        let key = self.keys.marker(run, sequence)?;
        self.put(&key, bytes::Bytes::new(), PutMode::Overwrite).await.map(drop)
    }

    /// The sequences of each run's markers.
    async fn markers(&self) -> Result<BTreeMap<RunKey, Vec<u64>>, StoreError> {
        let mut markers: BTreeMap<RunKey, Vec<u64>> = BTreeMap::new();
        let mut listing = self.reads.list(Some(&self.keys.open()?));
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            if let Some((run, sequence)) = self.keys.read_marker(&meta.location) {
                markers.entry(run).or_default().push(sequence);
            }
        }
        Ok(markers)
    }

    /// Brings what is known of open runs up to date, and answers what `tell` says of them.
    async fn open_rows(
        &self,
        look: Look,
        tell: impl Fn(&RowObject) -> Option<RunRow>,
    ) -> Result<BTreeMap<RunKey, Option<RunRow>>, StoreError> {
        let mut alone = Open::default();
        let owned = self.ownership.is_some();
        let mut markers = BTreeMap::new();
        if !owned || look == Look::Due || !self.memory().listed {
            markers = self.markers().await?;
        }
        let unread: Vec<RunKey> = if owned {
            let mut open = self.memory();
            open.meet(&markers);
            if look == Look::Due {
                open.doubt_in_turn();
            }
            open.unread()
        } else {
            alone.meet(&markers);
            alone.unread()
        };
        let mut reading = stream::iter(unread)
            .map(async |run| {
                let read = self.resolved(&run).await;
                (run, read)
            })
            .buffer_unordered(CONCURRENT_GETS);
        while let Some((run, read)) = reading.next().await {
            let known = match read {
                Ok(known) => known,
                Err(StoreError::Refused(why)) => {
                    self.passed_over.tell(&run.to_string(), why);
                    None
                }
                Err(error) => return Err(error),
            };
            let mut open = if owned { Some(self.memory()) } else { None };
            open.as_deref_mut().unwrap_or(&mut alone).learn(&run, known);
        }
        if look == Look::Due {
            self.put_away(&alone, &markers).await;
        }
        let guard = owned.then(|| self.memory());
        let open = guard.as_deref().unwrap_or(&alone);
        let told = |known: &Remembered| known.object().and_then(&tell);
        Ok(open.runs.iter().map(|(run, known)| (run.clone(), told(known))).collect())
    }

    /// Runs that owe nothing are listed from elsewhere, and have no marker. What fails is for the next look.
    async fn put_away(&self, alone: &Open, markers: &BTreeMap<RunKey, Vec<u64>>) {
        let owned = self.ownership.is_some();
        let done = if owned { self.memory().done() } else { alone.done() };
        let mut putting = stream::iter(done)
            .map(async |(run, known)| {
                let listed = markers.get(&run).map_or(&[][..], Vec::as_slice);
                let put = self.put_one_away(&run, known, listed).await;
                (run, put)
            })
            .buffer_unordered(CONCURRENT_GETS);
        while let Some((run, put)) = putting.next().await {
            match put {
                Ok(revision) if owned => self.memory().forget(&run, revision),
                Ok(_) => {}
                Err(error) => tracing::debug!(%run, %error, "a closed run is not put away yet"),
            }
        }
    }

    /// Answers up to which revision it is put away.
    async fn put_one_away(&self, run: &RunKey, mut known: Known, listed: &[u64]) -> Result<u64, StoreError> {
        // Whoever makes it owe something again must see that it does not.
        if known.object.is_ahead() && !self.replace_row(run, &mut known).await? {
            return Ok(0);
        }
        let object = &known.object;
        let Some(row) = object.clone().visible() else { return Ok(0) };
        self.put(&self.keys.closed(&row)?, bytes::Bytes::new(), PutMode::Overwrite).await?;
        for sequence in object.void_markers(listed) {
            if let Some(ownership) = &self.ownership {
                ownership.check()?;
            }
            match self.writes.delete(&self.keys.marker(run, sequence)?).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(object.revision())
    }

    pub(super) async fn due(
        &self,
        by: Timestamp,
        after: Option<(Timestamp, RunKey)>,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        // A later page goes on with what the first one found.
        let look = if after.is_none() { Look::Due } else { Look::Listing };
        let owed = |object: &RowObject| {
            let place = (object.due().filter(|due| *due <= by)?, object.run());
            (after.as_ref() < Some(&place)).then(|| object.clone().visible()).flatten()
        };
        let mut rows: Vec<_> = self.open_rows(look, owed).await?.into_values().flatten().collect();
        rows.sort_by_cached_key(|row| (row.due, row.run.clone()));
        rows.truncate(limit);
        Ok(rows)
    }

    pub(super) async fn list(
        &self,
        namespace: &str,
        filter: &RunFilter,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<Vec<RunRow>, StoreError> {
        let passes = |row: &RunRow| {
            *row.run.workflow.namespace == *namespace
                && filter.admits(row)
                && after.is_none_or(|after| place(row) < *after)
        };
        let open = self.open_rows(Look::Listing, |object| object.clone().visible()).await?;
        let mut rows = match filter.parked {
            // None of them can be.
            true => Vec::new(),
            false => self.closed_rows(namespace, after, limit, &open, &passes).await?,
        };
        rows.extend(open.into_values().flatten().filter(passes));
        rows.sort_by_cached_key(|row| std::cmp::Reverse(place(row)));
        rows.truncate(limit);
        Ok(rows)
    }

    /// The first of the closed rows that pass, at least `limit` if there are, in whatever order. Runs that are known to
    /// be open, or were a moment ago, are not among them.
    async fn closed_rows(
        &self,
        namespace: &str,
        after: Option<&ListCursor>,
        limit: usize,
        open: &BTreeMap<RunKey, Option<RunRow>>,
        passes: impl Fn(&RunRow) -> bool,
    ) -> Result<Vec<RunRow>, StoreError> {
        let tree = self.keys.closed_of_namespace(namespace)?;
        let mut listing = match after {
            None => self.reads.list(Some(&tree)),
            Some(after) => {
                self.reads.list_with_offset(Some(&tree), &self.keys.closed_from(namespace, after.started_at)?)
            }
        };
        let mut found: BTreeMap<RunKey, RunRow> = BTreeMap::new();
        let mut last = None;
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            let Some(closed) = self.keys.read_closed(&meta.location) else {
                self.passed_over.tell(meta.location.as_ref(), "its name makes no sense");
                continue;
            };
            // Those that began at the same time come in another order: all of them are needed.
            if found.len() >= limit && last.is_some_and(|last| closed.started_at < last) {
                break;
            }
            last = Some(closed.started_at);
            if open.contains_key(&closed.run) {
                continue;
            }
            let row = match closed.row {
                Some(row) => Some(row),
                None => match self.row(&closed.run).await {
                    Err(StoreError::Refused(why)) => {
                        self.passed_over.tell(meta.location.as_ref(), why);
                        None
                    }
                    read => read?,
                },
            };
            if let Some(row) = row.filter(&passes) {
                found.insert(closed.run, row);
            }
        }
        Ok(found.into_values().collect())
    }
}

fn place(row: &RunRow) -> ListCursor {
    ListCursor {
        started_at: row.started_at,
        workflow_id: row.run.workflow.workflow_id.to_string(),
        ordinal: row.run.ordinal,
    }
}

impl Open {
    /// Of two readings, the later one counts.
    fn note(&mut self, run: &RunKey, known: &Known) {
        if known.object.owes_nothing() && !self.runs.contains_key(run) {
            // It was put away, or its marker is not met yet.
            return;
        }
        let remembered = self.runs.entry(run.clone()).or_default();
        if remembered.object().is_none_or(|object| object.revision() <= known.object.revision()) {
            *remembered = Remembered { known: Some(known.clone()), doubted: false };
        }
    }

    /// These have markers.
    fn meet(&mut self, markers: &BTreeMap<RunKey, Vec<u64>>) {
        self.listed = true;
        for run in markers.keys() {
            self.runs.entry(run.clone()).or_default();
        }
    }

    fn doubt_in_turn(&mut self) {
        let from = self.turn.take().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        for (run, known) in self.runs.range_mut((from, std::ops::Bound::Unbounded)).take(DOUBTED_IN_TURN) {
            known.doubted = true;
            self.turn = Some(run.clone());
        }
    }

    fn unread(&self) -> Vec<RunKey> {
        self.runs.iter().filter(|(_, known)| known.must_be_read()).map(|(run, _)| run.clone()).collect()
    }

    /// A row was read. `None`: there is none that could be.
    fn learn(&mut self, run: &RunKey, known: Option<Known>) {
        match known {
            Some(known) => self.note(run, &known),
            // Its marker, if it has one, is met again. But it may have begun since it was looked for.
            None if self.runs.get(run).is_some_and(|remembered| remembered.known.is_none()) => {
                self.runs.remove(run);
            }
            None => {}
        }
    }

    fn done(&self) -> Vec<(RunKey, Known)> {
        let known = self.runs.iter().filter_map(|(run, known)| Some((run, known.known.as_ref()?)));
        let done = known.filter(|(_, known)| known.object.owes_nothing()).take(PUT_AWAY_AT_ONCE);
        done.map(|(run, known)| (run.clone(), known.clone())).collect()
    }

    /// It was put away as it was in this revision.
    fn forget(&mut self, run: &RunKey, revision: u64) {
        let same = |known: &Remembered| known.object().is_some_and(|object| object.revision() <= revision);
        if self.runs.get(run).is_some_and(same) {
            self.runs.remove(run);
        }
    }
}
