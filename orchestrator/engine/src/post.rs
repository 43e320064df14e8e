//! Messages of one run, sorted: what a [`Decider`](crate::decider::Decider) makes of what it is delivered.

use bytes::Bytes;
use dormouse_core::{Arrival, RunId, StartRequest};

use crate::lost::Lost;
use crate::seams::{Delivery, Intent, RunMessage, Wish};

/// Messages of one run, sorted.
#[derive(Default)]
pub(crate) struct Post {
    /// Batches that somebody committed.
    pub(crate) accepted: Vec<(u64, Bytes)>,
    /// What is to be taken in.
    pub(crate) arrivals: Vec<Coming>,
    /// Starts that somebody announced.
    pub(crate) starts: Vec<StartRequest>,
    /// The store must be asked before anything is believed.
    pub(crate) fresh: bool,
    /// What may be lost of what was handed out before.
    pub(crate) lost: Lost,
}

/// Something that arrives for a run.
pub(crate) struct Coming {
    /// The run that it means; `None`: whichever has the ordinal (rule F3).
    pub(crate) run_id: Option<RunId>,
    pub(crate) arrival: Arrival,
    /// Whether it goes on to the run that this one continues as (rule F4).
    pub(crate) follows: bool,
}

impl Post {
    pub(crate) fn sort(messages: Vec<RunMessage>, delivery: Delivery) -> Self {
        let again = delivery == Delivery::Again;
        let lost = if again { Lost::LastDispatch } else { Lost::Nothing };
        let mut post = Self { fresh: again, lost, ..Self::default() };
        for message in messages {
            match message {
                // Its caller may have recorded it by now, or died before that: the history tells.
                RunMessage::Intent(Intent { wish, .. }) => {
                    post.fresh = true;
                    match wish {
                        Wish::Start(request) => post.starts.push(request),
                        Wish::Take { arrival, pinned } => {
                            post.arrivals.push(Coming { run_id: None, arrival, follows: !pinned });
                        }
                    }
                }
                RunMessage::Accepted { sequence, record, .. } => post.accepted.push((sequence, record)),
                RunMessage::Arrived { run_id, arrival, .. } => {
                    post.arrivals.push(Coming { run_id: Some(run_id), arrival, follows: false });
                }
                RunMessage::Sweep { .. } => (post.fresh, post.lost) = (true, Lost::Anything),
            }
        }
        post
    }

    /// Whether the run is to be looked at as if an alarm rang, and its row is to be raised afterwards.
    pub(crate) fn sweeps(&self) -> bool {
        self.lost == Lost::Anything
    }

    /// Whether somebody outside has something new to say. What is delivered again is none.
    pub(crate) fn is_news(&self) -> bool {
        let announced = self.arrivals.iter().any(|coming| coming.run_id.is_none()) || !self.starts.is_empty();
        !self.accepted.is_empty() || (announced && self.lost == Lost::Nothing)
    }

    /// The first batch of a run, when this is what the messages begin with.
    pub(crate) fn first_batch(&self) -> Option<&Bytes> {
        self.accepted.first().filter(|(sequence, _)| *sequence == 0).map(|(_, record)| record)
    }

    /// What a caller wants of whichever run goes on, for a run that does not.
    pub(crate) fn followers(&self) -> impl Iterator<Item = &Arrival> {
        self.arrivals.iter().filter(|coming| coming.follows).map(|coming| &coming.arrival)
    }
}
