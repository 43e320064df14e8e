//! The stored form of a batch: one version byte, then CBOR with numbered fields.
//!
//! Fields and variants are only ever added; a build that meets a version or a variant that it does not know says so
//! instead of guessing, and the run is parked until a newer build takes over.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::event::Event;
use crate::ids::{BatchHash, CommitId};
use crate::time::Timestamp;

/// The version that this build writes.
pub const VERSION: u8 = 2;

/// One commit: all the events that became true together.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Batch {
    /// Unique per commit (rule C1).
    #[n(0)]
    pub commit_id: CommitId,
    /// The hash of the batch before; of the run's address for batch 0 (rule C7).
    #[n(1)]
    pub previous: BatchHash,
    /// Recorded time: never before the previous batch's (rule C8).
    #[n(2)]
    pub time: Timestamp,
    /// Whether the workflow was consulted, or inputs were only taken in (rule F1).
    #[n(3)]
    pub kind: BatchKind,
    /// The events.
    #[n(4)]
    pub events: Vec<Event>,
    /// When the run is due next, where the index row was written together with this batch (rule F5).
    #[n(5)]
    pub due: Option<Timestamp>,
}

/// Who wrote a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum BatchKind {
    /// Anyone: inputs alone, yet to be delivered.
    #[n(0)]
    Accepted,
    /// The decider: turns, and the commands that they gave.
    #[n(1)]
    Decided,
    /// The sweep: no events, a later due time.
    #[n(2)]
    Swept,
}

/// Why stored bytes are no batch of this run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Written by a build that knows more.
    #[error("batch {sequence} is in format version {version}, this build reads up to {VERSION}; deploy a newer build")]
    UnknownVersion {
        /// Its place in the history.
        sequence: u64,
        /// The version it names.
        version: u8,
    },
    /// The bytes do not decode.
    #[error("batch {sequence} does not decode: {problem}")]
    Undecodable {
        /// Its place in the history.
        sequence: u64,
        /// What the decoder says.
        problem: String,
    },
    /// The chain is broken: a batch is missing, reordered or altered.
    #[error("batch {sequence} does not continue batch {before}: a batch is missing, reordered or altered", before = sequence.wrapping_sub(1))]
    BrokenChain {
        /// The batch whose link does not fit.
        sequence: u64,
    },
    /// Decided by behaviours of the engine that this build does not know.
    #[error(
        "batch {sequence} was decided by behaviour {behaviour} of the engine, which this build does not know; deploy a newer build"
    )]
    UnknownBehaviour {
        /// Its place in the history.
        sequence: u64,
        /// The behaviour, counted from 1.
        behaviour: u32,
    },
    /// The events contradict those before.
    #[error("batch {sequence} contradicts the history before it: {problem}")]
    Contradiction {
        /// Its place in the history.
        sequence: u64,
        /// What does not fit.
        problem: String,
    },
}

impl Batch {
    /// The bytes to store. The same batch always gives the same bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(160);
        bytes.push(VERSION);
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes.into(),
            // A Vec takes every byte and our types have no failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`Damage`] when the version is unknown or the bytes do not decode whole.
    pub fn decode(sequence: u64, record: &[u8]) -> Result<Self, Damage> {
        let undecodable = |problem: String| Damage::Undecodable { sequence, problem };
        let (version, body) = record.split_first().ok_or_else(|| undecodable("it is empty".into()))?;
        if *version != VERSION {
            return Err(Damage::UnknownVersion { sequence, version: *version });
        }
        let mut decoder = minicbor::Decoder::new(body);
        let batch = decoder.decode().map_err(|error| undecodable(error.to_string()))?;
        if decoder.position() != body.len() {
            return Err(undecodable(format!("{} bytes follow its end", body.len() - decoder.position())));
        }
        Ok(batch)
    }
}

/// Whether a history, given whole or by its last batches, ends with a closed run. Only the last batch that is not the
/// sweep's is looked at: after it nothing else can stand.
///
/// # Errors
/// [`Damage`] when a batch that is looked at does not decode. `first` is the sequence of the first record.
pub fn is_closed(first: u64, records: &[Bytes]) -> Result<bool, Damage> {
    for (index, record) in records.iter().enumerate().rev() {
        let batch = Batch::decode(first + index as u64, record)?;
        if batch.kind != BatchKind::Swept {
            // A termination in an accepted batch need not be its last event.
            return Ok(batch.events.iter().any(|event| match event {
                Event::Input(input) => input.closes().is_some(),
                Event::Command(command) => command.closes().is_some(),
                Event::Turn(_) | Event::DecidedBy(_) => false,
            }));
        }
    }
    Ok(false)
}
