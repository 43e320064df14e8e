//! `quarantine list`.

use std::process::ExitCode;

use clap::Args;
use dormouse_core::api::{LetterBody, QuarantineBody};

use crate::error::CliError;
use crate::output::{Format, cell, render, say, say_json, table};
use crate::remote::Remote;
use crate::verb::{Context, Verb};

/// List messages that nobody could handle, the oldest first
#[derive(Debug, Args)]
#[command(after_help = "\
A deployed system puts a message here after many deliveries that all failed, or when it cannot be read. No workflow
depends on it: the sweep hands out again what a run still needs. What a message says is not shown here.

Examples:
  quarantine list --address https://a1b2c3.execute-api.eu-central-1.amazonaws.com
  quarantine list --output json | jq -r '.letters[].reason' | sort | uniq -c
  quarantine show 1763820000000-0b0e7c26         what one says
  quarantine redrive --all                       send them again, once the cause is mended
  quarantine discard 1763820000000-0b0e7c26      throw one away")]
pub(crate) struct List {
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    remote: Remote,
}

impl Verb for List {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let letters = self.remote.client()?.quarantine(self.limit).await?;
        match cx.format {
            Format::Json => say_json(&QuarantineBody { letters, next_page_token: None })?,
            Format::Table if letters.is_empty() => say("Nothing is in quarantine.")?,
            Format::Table => say(&tabulate(&letters, cx.colour))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn tabulate(letters: &[LetterBody], colour: bool) -> String {
    let mut table = table(&["ID", "QUEUE", "RECEIVED", "WORKFLOW", "BYTES", "REASON"], colour);
    for letter in letters {
        // An ARN ends with the queue's name.
        let queue = letter.queue.rsplit(':').next().unwrap_or_default();
        table.add_row([
            cell(&letter.id),
            cell(queue),
            cell(&letter.received_at.to_string()),
            cell(letter.workflow_id.as_deref().unwrap_or("-")),
            cell(&letter.size.map_or_else(|| "lost".to_owned(), |size| size.to_string())),
            cell(&letter.reason),
        ]);
    }
    render(&table)
}

#[cfg(test)]
mod tests {
    use dormouse_core::Timestamp;

    use super::*;

    #[test]
    fn letters_are_lined_up() {
        let letter = |id: &str, workflow_id: Option<&str>, size| LetterBody {
            id: id.into(),
            queue: "arn:aws:sqs:us-east-1:000000000000:prod-runs-dead".into(),
            received_at: Timestamp::from_millis(1_772_355_600_000),
            reason: "not a message".into(),
            workflow_id: workflow_id.map(str::to_owned),
            ordinal: workflow_id.map(|_| 0),
            size,
        };
        let letters = [letter("1-a", Some("order-1"), Some(120)), letter("2-\u{1b}", None, None)];
        assert_eq!(
            tabulate(&letters, false),
            " ID        QUEUE           RECEIVED                  WORKFLOW  BYTES  REASON
 1-a       prod-runs-dead  2026-03-01T09:00:00.000Z  order-1   120    not a message
 2-\\u{1b}  prod-runs-dead  2026-03-01T09:00:00.000Z  -         lost   not a message"
        );
    }
}
