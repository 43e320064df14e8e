//! `quarantine ...`: messages that nobody could handle, a file for each verb.

mod list;
mod redrive;

use clap::Command;

use crate::verb::Entry;

/// All of them.
pub(crate) fn group() -> Entry {
    Entry::group(
        Command::new("quarantine").about("Look at messages that nobody could handle, send them again"),
        vec![Entry::of::<list::List>("list"), Entry::of::<redrive::Redrive>("redrive")],
    )
}
