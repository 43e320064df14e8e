//! `quarantine redrive`.

use std::process::ExitCode;

use clap::{ArgGroup, Args};
use dormouse_client::RawClient;
use dormouse_core::api::{Redriven, RedrivenBody, RedrivenLetterBody};

use super::outcomes::outcomes;
use crate::error::CliError;
use crate::exit::EXIT_REFUSED;
use crate::output::{Format, say, say_json};
use crate::remote::Remote;
use crate::verb::{Context, Verb};

/// Send quarantined messages to the queues that they were meant for
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").args(["ids", "all"]).required(true)))]
#[command(after_help = "\
Mend first what made them fail: a message that fails again comes back. What is sent twice does no harm. A message stays,
with the reason, when it is older than 14 days, lost, or cannot be read (Unsendable): look into it with `quarantine show`,
throw it away with `quarantine discard`. The exit code is 1 when a message stays that was named, or that might be sent.

Examples:
  quarantine list
  quarantine redrive 1763820000000-0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77
  quarantine redrive --all --output json | jq -r '.letters[] | select(.outcome != \"Sent\") | .detail'")]
pub(crate) struct Redrive {
    /// Which; `quarantine list` shows the ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Verb for Redrive {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let client = self.remote.client()?;
        let letters = if self.all { redrive_all(&client).await? } else { client.redrive(&self.ids).await? };
        // Of all there are, those that never can be sent keep nobody from having sent the others.
        let fine = |outcome| outcome == Redriven::Sent || (self.all && outcome == Redriven::Unsendable);
        let all_sent = letters.iter().all(|letter| fine(letter.outcome));
        match cx.format {
            Format::Json => say_json(&RedrivenBody { letters, next_page_token: None })?,
            Format::Table if letters.is_empty() => say("Nothing is in quarantine.")?,
            Format::Table => say(&tabulate(&letters, cx.colour))?,
        }
        Ok(if all_sent { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) })
    }
}

/// Page by page: what stays is passed by, not tried again.
async fn redrive_all(client: &RawClient) -> Result<Vec<RedrivenLetterBody>, CliError> {
    let mut letters = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let page = client.redrive_page(token.as_deref()).await.map_err(|error| {
            let error = CliError::from(error);
            match letters.len() {
                0 => error,
                done => error.hint(format!("{done} letters were done before; the same again does the others")),
            }
        })?;
        letters.extend(page.letters);
        match page.next_page_token {
            Some(next) => token = Some(next),
            None => return Ok(letters),
        }
    }
}

fn tabulate(letters: &[RedrivenLetterBody], colour: bool) -> String {
    outcomes(letters.iter().map(|letter| (&*letter.id, format!("{:?}", letter.outcome), &*letter.detail)), colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_letter_has_its_line() {
        let letter =
            |id: &str, outcome, detail: &str| RedrivenLetterBody { id: id.into(), outcome, detail: detail.into() };
        let letters = [
            letter("1-a", Redriven::Sent, "to the run queue"),
            letter("20-b", Redriven::Unsendable, "its message is lost"),
        ];
        assert_eq!(
            tabulate(&letters, false),
            " ID    OUTCOME     DETAIL
 1-a   Sent        to the run queue
 20-b  Unsendable  its message is lost"
        );
    }
}
