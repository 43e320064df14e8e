//! `workflow ...`: what one does with workflows, a file for each verb.

mod cancel;
mod describe;
mod export;
mod list;
mod query;
mod result;
mod show;
mod signal;
mod start;
mod terminate;

use clap::Command;

use crate::verb::Entry;

/// All of them.
pub(crate) fn group() -> Entry {
    Entry::group(
        Command::new("workflow").about("Start workflows, look at them, influence them").alias("wf"),
        vec![
            Entry::of::<start::Start>("start"),
            Entry::of::<list::List>("list"),
            Entry::of::<describe::Describe>("describe"),
            Entry::of::<show::Show>("show"),
            Entry::of::<export::Export>("export"),
            Entry::of::<result::Result>("result"),
            Entry::of::<signal::Signal>("signal"),
            Entry::of::<query::Query>("query"),
            Entry::of::<cancel::Cancel>("cancel"),
            Entry::of::<terminate::Terminate>("terminate"),
        ],
    )
}
