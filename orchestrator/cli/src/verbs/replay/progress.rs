//! How far it is, at a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Tally;

/// How often the line moves.
const TICK: Duration = Duration::from_millis(200);

/// A line on standard error that is gone when this is dropped; nothing where nobody looks.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(super) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::no_length();
        bar.set_style(style("{spinner} {human_pos} runs, {msg} ({per_sec})"));
        bar.enable_steady_tick(TICK);
        Self(Some(bar))
    }

    /// It is known how many there are.
    pub(super) fn of(&self, runs: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(runs);
            bar.set_style(style("[{bar:30}] {human_pos}/{human_len} runs, {msg} ({per_sec}, {eta} left)"));
        }
    }

    pub(super) fn show(&self, tally: &Tally) {
        if let Some(bar) = &self.0 {
            bar.set_position(tally.runs);
            bar.set_message(format!("{} events, {} do not fit", tally.events, tally.strays()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
