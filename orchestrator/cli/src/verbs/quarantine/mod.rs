//! `quarantine ...`: messages that nobody could handle, a file for each verb.

mod discard;
mod list;
mod outcomes;
mod redrive;
mod show;

use clap::Command;

use crate::verb::Entry;

/// All of them.
pub(crate) fn group() -> Entry {
    Entry::group(
        Command::new("quarantine").about("Look at messages that nobody could handle, send them again, throw them away"),
        vec![
            Entry::of::<list::List>("list"),
            Entry::of::<show::Show>("show"),
            Entry::of::<redrive::Redrive>("redrive"),
            Entry::of::<discard::Discard>("discard"),
        ],
    )
}
