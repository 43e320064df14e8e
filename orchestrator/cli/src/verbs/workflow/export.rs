//! `workflow export`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use dormouse_client::{ListFilter, RawClient, RawHandle};
use dormouse_core::api::RecordsBody;
use dormouse_core::history::HistoryFile;
use dormouse_core::{RunId, Status, WorkflowKey, write_path_part};
use serde_json::json;

use crate::error::CliError;
use crate::output::{Format, say, say_json, tame};
use crate::remote::Remote;
use crate::verb::{Context, Verb};

/// Runs that are listed at a time.
const PAGE: usize = 1_000;
/// The longest name of a file on the usual file systems, in bytes.
const LONGEST_NAME: usize = 255;

/// Write histories into files that can be replayed, a file for each run
///
/// Such a file holds what is recorded and, for people, the events in it. A project keeps some beside its tests, and
/// `replay` holds its code against them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow export example-1 --dir histories      the latest run of one workflow
  workflow export --dir histories                all open runs
  workflow export --dir histories --type {type} --closed
  replay histories                               what today's code makes of them")]
pub(crate) struct Export {
    /// These workflows, the latest run of each; without one, all open runs
    #[arg(value_name = "ID")]
    workflow_ids: Vec<String>,
    /// Where to: made if it is missing. A file that is there already is replaced
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Only this type of workflow
    #[arg(long = "type", value_name = "NAME", conflicts_with = "workflow_ids")]
    workflow_type: Option<String>,
    /// Only workflow ids that begin so
    #[arg(long, value_name = "PREFIX", conflicts_with = "workflow_ids")]
    id_prefix: Option<String>,
    /// Closed runs too
    #[arg(long, conflicts_with = "workflow_ids")]
    closed: bool,
    #[command(flatten)]
    remote: Remote,
}

impl Verb for Export {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let client = self.remote.client()?;
        let unwritable = |error| CliError::new(format!("{} cannot be made: {error}", self.dir.display()));
        std::fs::create_dir_all(&self.dir).map_err(unwritable)?;
        let mut files = Vec::new();
        for id in &self.workflow_ids {
            files.push(self.export(&client, id, None).await?);
        }
        if self.workflow_ids.is_empty() {
            self.export_all(&client, &mut files).await?;
        }
        match cx.format {
            Format::Json => say_json(&json!({ "files": files }))?,
            Format::Table if files.is_empty() => say("No workflows.")?,
            Format::Table => files.iter().try_for_each(|file| say(&tame(&file.display().to_string())))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Export {
    async fn export_all(&self, client: &RawClient, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
        let filter = ListFilter {
            status: (!self.closed).then_some(Status::Running),
            workflow_type: self.workflow_type.clone(),
            id_prefix: self.id_prefix.clone(),
            parked: false,
        };
        let mut token = None;
        loop {
            let page = client.list_page(&filter, PAGE, token.as_deref()).await?;
            for run in page.workflows {
                files.push(self.export(client, &run.workflow_id, Some(run.run_id)).await?);
            }
            token = page.next_page_token;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    async fn export(&self, client: &RawClient, id: &str, run_id: Option<RunId>) -> Result<PathBuf, CliError> {
        let handle = client.workflow(id, run_id);
        let first = handle.records_page(None).await?;
        let name = file_name(&first);
        let file = whole(&handle, first).await?;
        let path = self.dir.join(name);
        std::fs::write(&path, file.to_json())
            .map_err(|error| CliError::new(format!("{} cannot be written: {error}", path.display())))?;
        Ok(path)
    }
}

/// The rest of the pages. Of this run and no later one, also when another begins meanwhile.
async fn whole(handle: &RawHandle, first: RecordsBody) -> Result<HistoryFile, CliError> {
    let handle = handle.of_run(Some(first.run_id));
    let run = WorkflowKey::new(&first.namespace, &first.workflow_id)?.run(first.ordinal);
    let mut records = first.records;
    let mut token = first.next_page_token;
    while let Some(next) = token {
        let page = handle.records_page(Some(&next)).await?;
        records.extend(page.records);
        token = page.next_page_token;
    }
    Ok(HistoryFile { run, records: records.into_iter().map(|record| record.0).collect() })
}

/// By the workflow's id and which run of it this is; ids that make no file's name are left out.
fn file_name(page: &RecordsBody) -> PathBuf {
    let name = format!("{}.{}.json", write_path_part(&page.workflow_id), page.ordinal);
    let fits = name.len() <= LONGEST_NAME && !name.starts_with('.');
    Path::new(&if fits { name } else { format!("{}.json", page.run_id) }).to_owned()
}
