//! What bounds a run. Every bound has a name, which its error tells and its setting carries.

use crate::planted::{Bug, planted};

/// How much a run may hold. Bytes are those of payloads and a little more for each event; close to what is stored, and
/// the same in every build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events of one turn: the inputs that it takes, the commands that it gives.
    pub turn_events: u64,
    /// Bytes of one turn.
    pub turn_bytes: u64,
    /// Events of a history: beyond it, no further turn is taken, and no further signal.
    pub history_events: u64,
    /// Stored bytes of a history: beyond it, no further turn is taken, and no further signal.
    pub history_bytes: u64,
    /// Inputs that wait to be delivered: beyond it, no further signal is taken in.
    pub inbox_events: u64,
    /// Bytes of inputs that wait to be delivered: beyond it, no further signal is taken in.
    pub inbox_bytes: u64,
    /// Signals that the workflow's code has not taken: beyond it, no further signal is taken in. They go along when the run
    /// continues as new.
    pub unread_signals: u64,
    /// Bytes of signals that the workflow's code has not taken: beyond it, no further signal is taken in.
    pub unread_bytes: u64,
}

/// What every event is reckoned to take besides its payload.
pub(crate) const EVENT_BYTES: usize = 32;

impl Limits {
    /// What holds unless it is set otherwise: a turn of 20,000 events and 64 MiB, a history of 500,000 and 512 MiB, an
    /// inbox of 20,000 and 64 MiB, unread signals of 20,000 and 16 MiB.
    pub const DEFAULT: Self = Self {
        turn_events: 20_000,
        turn_bytes: 64 << 20,
        history_events: 500_000,
        history_bytes: 512 << 20,
        inbox_events: 20_000,
        inbox_bytes: 64 << 20,
        unread_signals: 20_000,
        unread_bytes: 16 << 20,
    };

    /// The first limit that a turn of this size is beyond: its name and its value.
    pub(crate) fn exceeded_by_turn(&self, events: u64, bytes: u64) -> Option<(&'static str, u64)> {
        first(&[("turn_events", events, self.turn_events), ("turn_bytes", bytes, self.turn_bytes)])
    }

    /// The first limit that a history of this size has reached.
    pub(crate) fn reached_by_history(&self, events: u64, bytes: u64) -> Option<(&'static str, u64)> {
        first(&[
            ("history_events", events.saturating_add(1), self.history_events),
            ("history_bytes", bytes.saturating_add(1), self.history_bytes),
        ])
    }

    /// The first limit that an inbox of this size would be beyond with one more input of this many bytes.
    pub(crate) fn exceeded_by_inbox(&self, events: u64, bytes: u64, more: u64) -> Option<(&'static str, u64)> {
        first(&[
            ("inbox_events", events.saturating_add(1), self.inbox_events),
            ("inbox_bytes", bytes.saturating_add(more), self.inbox_bytes),
        ])
    }

    /// The first limit that unread signals of this size would be beyond with one more of this many bytes.
    pub(crate) fn exceeded_by_unread(&self, signals: u64, bytes: u64, more: u64) -> Option<(&'static str, u64)> {
        first(&[
            ("unread_signals", signals.saturating_add(1), self.unread_signals),
            ("unread_bytes", bytes.saturating_add(more), self.unread_bytes),
        ])
    }
}

fn first(held: &[(&'static str, u64, u64)]) -> Option<(&'static str, u64)> {
    let exceeded = |found, limit| found > limit && !planted(Bug::L1NoBounds);
    held.iter().find(|(_, found, limit)| exceeded(found, limit)).map(|(name, _, limit)| (*name, *limit))
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
