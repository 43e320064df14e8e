//! `workflow start`.

use std::process::ExitCode;

use clap::Args;
use dormouse_core::api::StartBody;
use dormouse_core::{IdConflictPolicy, IdReusePolicy};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::CliError;
use crate::input::payload;
use crate::output::{Format, say, say_json, tame};
use crate::parked;
use crate::remote::{Remote, request_id, write_error};
use crate::verb::{Context, Verb};
use crate::verbs::workflow::result::say_outcome;

/// Start a workflow
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow start --type {type} --id example-1 \\
      --input {input}
  workflow start --type {type} --id example-2 --input @input.json --wait
  echo {input} |
      workflow start --type {type} --input -")]
pub(crate) struct Start {
    /// The workflow's name, as the application registers it
    #[arg(long = "type", value_name = "NAME")]
    workflow_type: String,
    /// The workflow's id; one is made up when missing
    #[arg(long = "id", value_name = "ID")]
    workflow_id: Option<String>,
    /// Its argument: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// Wait for the result, and print it as `workflow result` does
    #[arg(long)]
    wait: bool,
    /// With --wait: do not wait for a run that is parked, since its code cannot go on
    #[arg(long, requires = "wait")]
    fail_if_parked: bool,
    /// Whether an id whose runs are closed may be used again: AllowDuplicate, AllowDuplicateFailedOnly, RejectDuplicate
    #[arg(long, value_name = "POLICY", default_value = "AllowDuplicate", value_parser = policy::<IdReusePolicy>)]
    id_reuse_policy: IdReusePolicy,
    /// What happens when the id has an open run: Fail, UseExisting, TerminateExisting
    #[arg(long, value_name = "POLICY", default_value = "Fail", value_parser = policy::<IdConflictPolicy>)]
    id_conflict_policy: IdConflictPolicy,
    /// Names this request: the same name again gives the first answer again
    #[arg(long, value_name = "NAME")]
    request_id: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

fn policy<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(Value::String(text.to_owned()))
}

impl Verb for Start {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let client = self.remote.client()?;
        let body = StartBody {
            workflow_type: self.workflow_type,
            workflow_id: self.workflow_id,
            input: payload(self.input.as_deref())?,
            id_reuse_policy: self.id_reuse_policy,
            id_conflict_policy: self.id_conflict_policy,
        };
        let request_id = request_id(self.request_id);
        let started = client.start(&body, Some(&request_id)).await;
        let started = started.map_err(|error| write_error(error, &cx, &request_id))?;
        if self.wait {
            let handle = client.workflow(&started.workflow_id, Some(started.run_id));
            let outcome = parked::outcome(&handle, None, self.fail_if_parked, cx.format).await?;
            return say_outcome(&started.workflow_id, &outcome, cx.format);
        }
        let (id, run_id) = (tame(&started.workflow_id), started.run_id);
        match cx.format {
            Format::Json => say_json(&started)?,
            Format::Table if started.existing => say(&format!("{id} was running (run {run_id}); nothing was started"))?,
            Format::Table => say(&format!("Started {id} (run {run_id})"))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
