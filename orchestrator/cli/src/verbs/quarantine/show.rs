//! `quarantine show`.

use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;
use dormouse_client::ClientError;
use dormouse_core::api::LetterShownBody;

use crate::error::CliError;
use crate::output::{Format, cell, render, say, say_json, table, wrapped};
use crate::remote::Remote;
use crate::verb::{Context, Verb};

/// Show one quarantined message: why it is there, what it says, and whether it can be sent again
#[derive(Debug, Args)]
#[command(after_help = "\
What a message says may hold what users gave: inputs, signals, results.

Examples:
  quarantine show 1763820000000-0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77
  quarantine show 1763820000000-0b0e7c26-53a5-4f0e-8f3c-6f1e4b1f2a77 --output json | jq -r .message")]
pub(crate) struct Show {
    /// Which; `quarantine list` shows the ids
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    remote: Remote,
}

impl Verb for Show {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let shown = self.remote.client()?.quarantined(&self.id).await.map_err(|error| {
            let told = matches!(error, ClientError::NotFound(_));
            let error = CliError::from(error);
            if told { error.hint("`quarantine list` shows the letters that there are") } else { error }
        })?;
        match cx.format {
            Format::Json => say_json(&shown)?,
            Format::Table => say(&text(&shown, cx.colour))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(shown: &LetterShownBody, colour: bool) -> String {
    let letter = &shown.letter;
    let mut facts = table(&["LETTER", ""], colour);
    facts.set_header([cell("LETTER"), cell(&letter.id)]);
    let mut fact = |name: &str, value: &str| {
        facts.add_row([Cell::new(name), cell(value)]);
    };
    fact("queue", &letter.queue);
    fact("received", &letter.received_at.to_string());
    if let Some(workflow_id) = &letter.workflow_id {
        fact("workflow", workflow_id);
    }
    fact("reason", &letter.reason);
    match (&shown.goes_to, &shown.stays_because) {
        (Some(queue), _) => fact("redrive", &format!("to {queue}")),
        (None, Some(why)) => fact("redrive", &format!("never: {why}; `quarantine discard` throws it away")),
        (None, None) => {}
    }
    let message = shown.message.as_deref().map_or_else(|| "(lost)".to_owned(), |message| wrapped(message, ""));
    format!("{}\n\n{message}", render(&facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_is_shown_and_obeyed_by_no_terminal() {
        let shown = json!({
            "id": "1-a", "queue": "prod-tasks-dead", "received_at": "2026-03-01T09:00:00.000Z", "reason": "no JSON",
            "size": 4, "message": "te\u{1b}a", "stays_because": "it cannot be read",
        });
        assert_eq!(
            text(&serde_json::from_value(shown).unwrap(), false),
            " LETTER    1-a
 queue     prod-tasks-dead
 received  2026-03-01T09:00:00.000Z
 reason    no JSON
 redrive   never: it cannot be read; `quarantine discard` throws it away

te\\u{1b}a"
        );
    }
}
