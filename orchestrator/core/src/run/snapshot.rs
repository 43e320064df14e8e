//! The folded history in one piece, so that a long run can be looked at without its history.
//!
//! Stored form: a version byte, the fold version and the state in CBOR, and a hash of all that. It proves nothing: what
//! stands behind it in the history is appended to it, and its head must fit.

use bytes::Bytes;
use minicbor::{Decoder, Encoder};

use super::state::RunState;
use crate::history::Damage;
use crate::ids::{BatchHash, RunKey};

/// The version of a snapshot's form that this build writes and reads.
const SNAPSHOT_VERSION: u8 = 1;

/// The version of what folding a history comes to. Raised whenever the same history gives another [`RunState`]: a
/// snapshot of another fold is stale, and the history is folded anew.
pub const FOLD_VERSION: u32 = 3;

/// A snapshot is of another build's fold: no damage, but the history must be folded anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StaleSnapshot {
    /// It is of another form or another fold.
    #[error(
        "the snapshot is of version {version}, fold {fold}; this build's are {SNAPSHOT_VERSION} and {FOLD_VERSION}"
    )]
    Stale {
        /// The version of its form.
        version: u8,
        /// The version of its fold; 0 when the form is not known.
        fold: u32,
    },
    /// It cannot be read, or is another run's.
    #[error("the snapshot cannot be used: {0}")]
    Damaged(#[from] Damage),
}

impl RunState {
    /// Whether all that is folded in is in the history: no draft.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.drafted == 0
    }

    /// The state as bytes, for [`from_snapshot`](Self::from_snapshot). The same state always gives the same bytes.
    ///
    /// # Panics
    /// When a draft is folded in ([`is_committed`](Self::is_committed)): it may never become true.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        assert!(self.is_committed(), "a draft is not in the history, so it is in no snapshot");
        let mut bytes = Vec::with_capacity(512);
        bytes.push(SNAPSHOT_VERSION);
        let mut encoder = Encoder::new(&mut bytes);
        match encoder.u32(FOLD_VERSION).and_then(|encoder| encoder.encode(self)) {
            Ok(_) => {}
            // A Vec takes every byte and our types have no failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
        let hash = BatchHash::of(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes.into()
    }

    /// The state that a snapshot holds: exactly the one that it was made of.
    ///
    /// # Errors
    /// [`StaleSnapshot`] when it is another build's, damaged, or of another run: fold the history instead.
    pub fn from_snapshot(run: &RunKey, snapshot: &[u8]) -> Result<Self, StaleSnapshot> {
        let undecodable = |problem: &str| Damage::Undecodable { sequence: 0, problem: problem.into() };
        let (body, hash) = snapshot.split_last_chunk::<16>().ok_or_else(|| undecodable("it is too short"))?;
        let (version, state) = body.split_first().ok_or_else(|| undecodable("it is empty"))?;
        if *version != SNAPSHOT_VERSION {
            return Err(StaleSnapshot::Stale { version: *version, fold: 0 });
        }
        if BatchHash::of(body) != BatchHash::from_bytes(*hash) {
            return Err(undecodable("its hash does not fit").into());
        }
        let mut decoder = Decoder::new(state);
        let fold = decoder.u32().map_err(|error| undecodable(&error.to_string()))?;
        if fold != FOLD_VERSION {
            return Err(StaleSnapshot::Stale { version: *version, fold });
        }
        let state: Self = decoder.decode().map_err(|error| undecodable(&error.to_string()))?;
        if decoder.position() != body.len() - 1 {
            return Err(undecodable("bytes follow its end").into());
        }
        if state.run != *run {
            return Err(undecodable(&format!("it is of run {}", state.run)).into());
        }
        Ok(state)
    }
}
