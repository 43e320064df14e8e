//! Names of things: workflows, runs, requests. Checked once, where they enter; everything behind trusts the types.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names a command within its run, in the order in which the workflow issued them, from 1.
/// An activity's is its activity id.
pub type CommandId = u64;

/// The longest id or name that is accepted, in bytes of UTF-8.
///
/// Small enough that an id whose every byte is percent-encoded still fits an S3 object key (1,024 bytes).
pub const MAX_ID_BYTES: usize = 255;

/// Why an id or name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("{what} is empty; give it 1 to {MAX_ID_BYTES} bytes")]
    Empty {
        /// What the text was meant to name.
        what: &'static str,
    },
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("{what} is {length} bytes long; the limit is {MAX_ID_BYTES}")]
    TooLong {
        /// What the text was meant to name.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
    },
    /// The text holds a control character (NUL, newline, ...), which no log or table could show.
    #[error("{what} holds the control character {character:?} at byte {at}; use printable text")]
    Control {
        /// What the text was meant to name.
        what: &'static str,
        /// The character.
        character: char,
        /// Its place.
        at: usize,
    },
}

/// Checks a name that a user or a caller chose: 1 to [`MAX_ID_BYTES`] bytes, no control characters.
///
/// # Errors
/// [`InvalidId`] says which rule was broken.
pub fn check_id(what: &'static str, text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty { what });
    }
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidId::TooLong { what, length: text.len() });
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, character)) => Err(InvalidId::Control { what, character, at }),
        None => Ok(()),
    }
}

/// A workflow within its namespace: the thing that has one open run at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkflowKey {
    /// The namespace; `default` unless told otherwise.
    pub namespace: Arc<str>,
    /// The id that the user chose, or that was derived from the request.
    pub workflow_id: Arc<str>,
}

impl WorkflowKey {
    /// A key from checked parts.
    ///
    /// # Errors
    /// [`InvalidId`] when either part is empty, too long or holds control characters.
    pub fn new(namespace: &str, workflow_id: &str) -> Result<Self, InvalidId> {
        check_id("the namespace", namespace)?;
        check_id("the workflow id", workflow_id)?;
        Ok(Self { namespace: namespace.into(), workflow_id: workflow_id.into() })
    }

    /// The run with this ordinal.
    #[must_use]
    pub fn run(&self, ordinal: u64) -> RunKey {
        RunKey { workflow: self.clone(), ordinal }
    }
}

impl fmt::Display for WorkflowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.workflow_id)
    }
}

/// Where a run's history lives: its workflow and its ordinal, counted from 0.
///
/// The ordinal is the lock (the first batch of ordinal n+1 can be created only after run n is closed);
/// the [`RunId`] in batch 0 is the identity that messages and idempotency keys carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey {
    /// The workflow.
    pub workflow: WorkflowKey,
    /// How many runs of this workflow came before.
    pub ordinal: u64,
}

impl<C> minicbor::Encode<C> for RunKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(3)?.str(&self.workflow.namespace)?.str(&self.workflow.workflow_id)?.u64(self.ordinal)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for RunKey {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(3) {
            return Err(minicbor::decode::Error::message("expected namespace, workflow id and ordinal"));
        }
        let workflow = WorkflowKey::new(d.str()?, d.str()?).map_err(minicbor::decode::Error::custom)?;
        Ok(workflow.run(d.u64()?))
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.workflow, self.ordinal)
    }
}

macro_rules! sixteen_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// From sixteen bytes that are already random or derived.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The sixteen bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(self.as_bytes())?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let bytes: [u8; 16] = d
                    .bytes()?
                    .try_into()
                    .map_err(|_| minicbor::decode::Error::message("expected sixteen bytes"))?;
                Ok(Self::from_bytes(bytes))
            }
        }
    };
}

sixteen_bytes! {
    /// The identity of one run: random, or derived from its predecessor when a run continues as new. Its last four bytes
    /// are the run's ordinal, so that one read finds it among all runs of its workflow.
    RunId
}

impl RunId {
    /// The id of the run with this ordinal, from sixteen bytes that are random or derived.
    #[must_use]
    pub fn of_run(bytes: [u8; 16], ordinal: u64) -> Self {
        let [.., a, b, c, d] = ordinal.to_be_bytes();
        let mut bytes = bytes;
        bytes[12..].copy_from_slice(&[a, b, c, d]);
        Self::from_bytes(bytes)
    }

    /// The ordinal of the run with this id, when the latest run of its workflow has this one: of those that end alike,
    /// the greatest. `None`: there cannot be such a run.
    #[must_use]
    pub fn ordinal(&self, latest: u64) -> Option<u64> {
        let [.., a, b, c, d] = *self.as_bytes();
        let end = u64::from(u32::from_be_bytes([a, b, c, d]));
        let ordinal = latest & !u64::from(u32::MAX) | end;
        if ordinal <= latest { Some(ordinal) } else { ordinal.checked_sub(1 << 32) }
    }
}

sixteen_bytes! {
    /// Unique per commit: tells a retried write that landed from one that lost (rule C1).
    CommitId
}

sixteen_bytes! {
    /// The first sixteen bytes of the BLAKE3 hash of a stored batch: the link of the chain (rule C7).
    BatchHash
}

impl BatchHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_bytes(first_sixteen(blake3::hash(bytes)))
    }

    /// What batch 0 of a run links to: the run's own address, so that a history moved to another place is detected.
    #[must_use]
    pub fn origin(run: &RunKey) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [run.workflow.namespace.as_bytes(), run.workflow.workflow_id.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.update(&run.ordinal.to_le_bytes());
        Self::from_bytes(first_sixteen(hasher.finalize()))
    }
}

/// Sixteen bytes derived from an identity and a purpose: run ids, commit ids and seeds that anyone can recompute (rule C6).
#[must_use]
pub fn derive(purpose: &str, parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    first_sixteen(hasher.finalize())
}

fn first_sixteen(hash: blake3::Hash) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_at_the_door() {
        assert!(check_id("the workflow id", "../../etc/passwd").is_ok(), "odd, but stores encode ids");
        assert!(matches!(check_id("x", ""), Err(InvalidId::Empty { .. })));
        assert!(matches!(check_id("x", &"a".repeat(256)), Err(InvalidId::TooLong { length: 256, .. })));
        assert!(matches!(check_id("x", "a\0b"), Err(InvalidId::Control { at: 1, .. })));
    }

    /// Golden: histories that stand are chained and named by these.
    #[test]
    fn what_is_derived_never_changes() {
        let workflow = WorkflowKey::new("default", "order-1").unwrap();
        let hashes = [
            BatchHash::of(b""),
            BatchHash::of(b"a batch"),
            BatchHash::origin(&workflow.run(0)),
            BatchHash::origin(&workflow.run(258)),
        ];
        let golden = [
            "af1349b9-f5f9-a1a6-a040-4dea36dcc949",
            "bbb6a0b5-e29d-0e5a-edaa-4d1fa7b2a946",
            "9272114a-ab6c-47ce-c567-894659bd2938",
            "84d49487-6602-4e3f-e301-094239a712cd",
        ];
        assert_eq!(hashes.map(|hash| hash.to_string()), golden);
        let derived = |purpose, parts: &[&[u8]]| CommitId::from_bytes(derive(purpose, parts)).to_string();
        let derived = [
            derived("dormouse test", &[b"a", b"bc"]),
            derived("dormouse test", &[b"ab", b"c"]),
            derived("dormouse test, another", &[b"a", b"bc"]),
        ];
        let golden = [
            "421a8b9c-1e85-13bd-9b5d-3ff1207cd280",
            "734f3942-a62a-1a05-3403-7781eb473978",
            "83c28de7-e180-ec2e-134f-d5d485edf46d",
        ];
        assert_eq!(derived, golden);
    }

    #[test]
    fn origins_do_not_collide_when_parts_shift() {
        let one = WorkflowKey::new("a", "bc").unwrap().run(0);
        let two = WorkflowKey::new("ab", "c").unwrap().run(0);
        assert_ne!(BatchHash::origin(&one), BatchHash::origin(&two));
    }

    #[test]
    fn a_run_id_tells_the_ordinal() {
        const ALL: u64 = 1 << 32;
        for ordinal in [0, 1, 7, ALL - 1, ALL, ALL + 7, u64::MAX] {
            let id = RunId::of_run([0xab; 16], ordinal);
            assert_eq!(id.as_bytes()[..12], [0xab; 12]);
            for later in [0, 1, 1_000] {
                let latest = ordinal.saturating_add(later);
                assert_eq!(id.ordinal(latest), Some(ordinal), "{ordinal} among {latest}");
            }
        }
        let eighth = RunId::of_run([0; 16], 7);
        assert_eq!(
            (eighth.ordinal(6), eighth.ordinal(ALL + 6), eighth.ordinal(ALL + 7)),
            (None, Some(7), Some(ALL + 7))
        );
    }
}
