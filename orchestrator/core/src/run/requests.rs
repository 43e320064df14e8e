//! Requests that a workflow id has answered (rule F3): which run answered which, by the hash of the request's id.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::ids::derive;
use crate::operations::EarlierRequest;
use crate::time::Timestamp;

/// How many earlier requests batch 0 of a run remembers, at most.
pub const EARLIER_REQUESTS: usize = 256;

/// How long a request id is remembered after its run closed: longer than any message lives.
pub const REQUEST_WINDOW: Duration = Duration::from_hours(24 * 14);

/// Eight bytes that stand for a request id.
#[must_use]
pub fn request_hash(request_id: &str) -> u64 {
    let bytes = derive("dormouse 2026 request id", &[request_id.as_bytes()]);
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// The requests that a run knows to be answered.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(crate) struct Requests {
    /// Those in the history, oldest first.
    #[n(0)]
    recorded: Vec<EarlierRequest>,
    /// Those of a draft, which has no time yet.
    #[n(1)]
    drafted: Vec<EarlierRequest>,
    /// The ordinals of the runs that answered them, by hash.
    #[n(2)]
    ordinals: BTreeMap<u64, u64>,
}

impl Requests {
    /// What batch 0 brings along.
    pub(crate) fn earlier(earlier: &[EarlierRequest]) -> Self {
        let ordinals = earlier.iter().map(|request| (request.hash, request.ordinal)).collect();
        Self { recorded: earlier.to_vec(), drafted: Vec::new(), ordinals }
    }

    /// This run answers a request: in the history, or in a draft that has no time yet.
    pub(crate) fn answer(&mut self, request_id: &str, ordinal: u64, recorded_at: Option<Timestamp>) {
        let hash = request_hash(request_id);
        self.ordinals.insert(hash, ordinal);
        match recorded_at {
            Some(at) => self.recorded.push(EarlierRequest { hash, ordinal, at }),
            None => self.drafted.push(EarlierRequest { hash, ordinal, at: Timestamp::default() }),
        }
    }

    /// The draft is in the history, as of this time.
    pub(crate) fn committed(&mut self, at: Timestamp) {
        self.recorded.extend(self.drafted.drain(..).map(|request| EarlierRequest { at, ..request }));
    }

    pub(crate) fn answered_in(&self, request_id: &str) -> Option<u64> {
        self.ordinals.get(&request_hash(request_id)).copied()
    }

    /// About how much memory this takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        (self.recorded.len() + self.drafted.len()) * 64
    }

    /// Those that the next run must remember: bounded in number and in age, oldest first.
    pub(crate) fn to_remember(&self, now: Timestamp) -> Vec<EarlierRequest> {
        let all = self.recorded.iter().chain(&self.drafted);
        let fresh: Vec<_> = all.filter(|request| now.since(request.at) <= REQUEST_WINDOW).cloned().collect();
        fresh[fresh.len().saturating_sub(EARLIER_REQUESTS)..].to_vec()
    }
}
