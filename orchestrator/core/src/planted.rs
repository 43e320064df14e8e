//! Faults in our own code that tests can switch on, one per rule of the protocol: they test the tests.
//!
//! Without the feature `planted-bugs`, [`planted`] is the constant `false` and the faults are not compiled in.

/// One switchable fault. The name of each begins with the rule that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A retried write that had landed is taken for a lost one.
    C1ForgetCommitId,
    /// A loser dispatches what it did not commit.
    C2DispatchLost,
    /// A run closes over inputs that it has not heard.
    C2CloseDeaf,
    /// A loser throws the results of finished local activities away.
    C2DropLocalResults,
    /// "Duplicate" is answered from the cache.
    C3TrustCache,
    /// A run in memory is taken for fresh although the store did not answer.
    C3BelieveMemory,
    /// A gap in a listing is taken for damage at once.
    C4NoReread,
    /// The next run begins while the last is open.
    C5IgnoreOpenRun,
    /// The next run's first batch is invented, not derived.
    C6InventNextRun,
    /// The hash chain is not looked at.
    C7SkipChain,
    /// The host's clock is recorded as it is.
    C8TrustClock,
    /// What is asked for is waited for from recorded time on, not by the clock.
    C8WaitFromRecorded,
    /// Accepted inputs are not decided when they come again.
    F1ForgetUndecided,
    /// A message that comes again hands nothing out.
    F1ForgetOutstanding,
    /// Code that ended its process is run again whatever comes.
    F1TryDeadlyCode,
    /// The commit comes before the intent is queued.
    F2CommitFirst,
    /// A late intent is applied to whatever run is the latest.
    F3AnyRun,
    /// A message is not forwarded along the chain.
    F4StopAtFirstRun,
    /// A message that was taken in before is taken in again.
    F4ForgetIds,
    /// The index row is not lowered with the commit.
    F5ForgetDue,
    /// A closed run leaves the index although it owes something.
    F5ForgetDebts,
    /// The sweep passes over outstanding activities.
    F6SkipActivities,
    /// User code runs without a claim.
    A1SkipClaim,
    /// A worker ends another's lease by itself.
    A1EndLease,
    /// The completion of a lost attempt counts.
    A1TakeLate,
    /// Nobody tells an activity's record that it is not wanted any more.
    A1RetryForever,
    /// A task is sent again although a worker has it.
    R1SendAgain,
    /// An alarm that rings for nothing is set again.
    R1RingForEver,
    /// A copy of a task whose attempt runs looks after it for ever.
    R1WatchTwice,
    /// No bound holds.
    L1NoBounds,
    /// A closed run is replayed before it is closed up.
    O1ReplayClosed,
    /// What arrives for another run is taken in by one that stands still.
    O1TakeForAnother,
    /// A function acknowledges what stands behind a message that failed.
    F1AcknowledgeTheRest,
    /// A function leaves a local activity that does not fit without a word.
    F6NoHandOver,
    /// A function runs deadly code without saying so first.
    F1TrustEveryCode,
}

impl Bug {
    /// Those of the functions' own code.
    pub const OF_FUNCTIONS: &[Self] = &[Self::F1AcknowledgeTheRest, Self::F6NoHandOver, Self::F1TrustEveryCode];

    /// All others.
    pub const ALL: &[Self] = &[
        Self::C1ForgetCommitId,
        Self::C2DispatchLost,
        Self::C2CloseDeaf,
        Self::C2DropLocalResults,
        Self::C3TrustCache,
        Self::C3BelieveMemory,
        Self::C4NoReread,
        Self::C5IgnoreOpenRun,
        Self::C6InventNextRun,
        Self::C7SkipChain,
        Self::C8TrustClock,
        Self::C8WaitFromRecorded,
        Self::F1ForgetUndecided,
        Self::F1ForgetOutstanding,
        Self::F1TryDeadlyCode,
        Self::F2CommitFirst,
        Self::F3AnyRun,
        Self::F4StopAtFirstRun,
        Self::F4ForgetIds,
        Self::F5ForgetDue,
        Self::F5ForgetDebts,
        Self::F6SkipActivities,
        Self::A1SkipClaim,
        Self::A1EndLease,
        Self::A1TakeLate,
        Self::A1RetryForever,
        Self::R1SendAgain,
        Self::R1RingForEver,
        Self::R1WatchTwice,
        Self::L1NoBounds,
        Self::O1ReplayClosed,
        Self::O1TakeForAnother,
    ];
}

/// Whether this fault is switched on, by the environment variable `DORMOUSE_PLANTED_BUG`.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    use std::sync::OnceLock;
    static SWITCHED_ON: OnceLock<Option<String>> = OnceLock::new();
    SWITCHED_ON
        .get_or_init(|| std::env::var("DORMOUSE_PLANTED_BUG").ok())
        .as_ref()
        .is_some_and(|name| *name == format!("{bug:?}"))
}

/// Whether this fault is switched on: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
pub const fn planted(_: Bug) -> bool {
    false
}
