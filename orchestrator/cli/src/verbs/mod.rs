//! The verbs that every application has, a file for each.

mod completion;
mod dev;
mod quarantine;
mod replay;
mod workflow;

use crate::verb::Entry;

pub(crate) use completion::{COMPLETION, complete};

/// All of them. To add one: write its file, name it here.
pub(crate) fn all() -> Vec<Entry> {
    vec![
        Entry::of::<dev::Dev>("dev"),
        workflow::group(),
        Entry::of::<replay::Replay>("replay"),
        quarantine::group(),
        Entry::of::<completion::Completion>(COMPLETION),
    ]
}
