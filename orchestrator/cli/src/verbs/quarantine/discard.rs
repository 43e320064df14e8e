//! `quarantine discard`.

use std::process::ExitCode;

use clap::Args;
use dormouse_core::api::{Discarded, DiscardedBody, DiscardedLetterBody};

use super::outcomes::outcomes;
use crate::error::CliError;
use crate::exit::EXIT_REFUSED;
use crate::output::{Format, say, say_json};
use crate::remote::Remote;
use crate::verb::{Context, Verb};

/// Throw quarantined messages away
#[derive(Debug, Args)]
#[command(after_help = "\
No workflow waits for a message in quarantine: the sweep hands out again what a run still needs. The exit code is 1 when
one was not there, or may still be.

Examples:
  quarantine discard 1763820000000-0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77
  quarantine redrive --all --output json | jq -r '.letters[] | select(.outcome == \"Unsendable\") | .id' | \\
      xargs quarantine discard")]
pub(crate) struct Discard {
    /// Which; `quarantine list` shows the ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    remote: Remote,
}

impl Verb for Discard {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let letters = self.remote.client()?.discard(&self.ids).await?;
        let all_gone = letters.iter().all(|letter| letter.outcome == Discarded::Discarded);
        match cx.format {
            Format::Json => say_json(&DiscardedBody { letters })?,
            Format::Table => say(&tabulate(&letters, cx.colour))?,
        }
        Ok(if all_gone { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) })
    }
}

fn tabulate(letters: &[DiscardedLetterBody], colour: bool) -> String {
    outcomes(letters.iter().map(|letter| (&*letter.id, format!("{:?}", letter.outcome), &*letter.detail)), colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_letter_has_its_line() {
        let letter =
            |id: &str, outcome, detail: &str| DiscardedLetterBody { id: id.into(), outcome, detail: detail.into() };
        let letters =
            [letter("1-a", Discarded::Discarded, "no JSON"), letter("20-b", Discarded::NotFound, "not there")];
        assert_eq!(
            tabulate(&letters, false),
            " ID    OUTCOME    DETAIL
 1-a   Discarded  no JSON
 20-b  NotFound   not there"
        );
    }
}
