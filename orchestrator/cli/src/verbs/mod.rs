//! The verbs that every application has, a file for each.

mod completion;
mod dev;
mod quarantine;
mod replay;
mod workflow;

use crate::verb::Entry;

/// The one that runs the application.
pub(crate) const DEV: &str = "dev";

/// All of them.
pub(crate) fn all() -> Vec<Entry> {
    let of_application = [Entry::of::<dev::Dev>(DEV), Entry::of::<replay::Replay>("replay")];
    of_application.into_iter().chain(of_clients()).collect()
}

/// Those that need no application. To add one: write its file, name it here.
pub(crate) fn of_clients() -> Vec<Entry> {
    vec![workflow::group(), quarantine::group(), Entry::of::<completion::Completion>("completion")]
}
