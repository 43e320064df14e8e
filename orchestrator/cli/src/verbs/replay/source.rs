//! Where histories come from: files, a store, a server. Runs are named a page at a time, and read a stretch at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dormouse_client::{ListFilter, RawClient};
use dormouse_core::api::RunSummary;
use dormouse_core::history::HistoryFile;
use dormouse_core::{RunId, RunKey, Status, WorkflowKey};
use dormouse_engine::embedded::DEFAULT_NAMESPACE;
use dormouse_engine::store::{ListCursor, RunFilter, RunRow, Store};

use crate::error::CliError;
use crate::exit::EXIT_NOT_FOUND;

/// Runs that are named at a time.
const PAGE: usize = 1_000;

/// Where histories come from.
pub(super) enum Source {
    /// Exported ones.
    Files(Vec<PathBuf>),
    /// Runs of a store, which is only read.
    Store(Arc<dyn Store>),
    /// Runs of a server.
    Server(RawClient),
}

/// Which runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// One workflow, and one run of it.
    pub(super) one: Option<(String, Option<RunId>)>,
    pub(super) workflow_type: Option<String>,
    pub(super) id_prefix: Option<String>,
    /// Closed runs too.
    pub(super) closed: bool,
}

/// A history by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    File(PathBuf),
    Row(RunKey),
    Run(String, RunId),
}

impl Item {
    /// What tells it from others, wherever it stands in a listing.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Row(run) => run.to_string(),
            Self::Run(workflow_id, run_id) => format!("{workflow_id} {run_id}"),
        }
    }

    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Row(_) | Self::Run(..) => None,
        }
    }
}

/// Where a listing goes on.
pub(super) enum After {
    Row(ListCursor),
    Page(String),
}

/// Batches of a history, in order.
pub(super) struct Stretch {
    pub(super) run: RunKey,
    pub(super) records: Vec<Bytes>,
    /// Whether the next batch is lost.
    pub(super) gap: bool,
    /// Where it goes on, if it does.
    pub(super) next: Option<Next>,
}

/// Where a history goes on.
pub(super) enum Next {
    Sequence(u64),
    Page(String),
}

impl Source {
    /// The exported histories at these paths: files, and those of directories that end in `.json`.
    pub(super) fn files(paths: &[PathBuf]) -> Result<Self, CliError> {
        let mut files = Vec::new();
        for path in paths {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            let unreadable = |error| CliError::usage(format!("{} cannot be read: {error}", path.display()));
            let mut found = Vec::new();
            for entry in std::fs::read_dir(path).map_err(unreadable)? {
                let file = entry.map_err(unreadable)?.path();
                found.extend(file.extension().is_some_and(|extension| extension == "json").then_some(file));
            }
            if found.is_empty() {
                return Err(CliError::usage(format!(
                    "there is no history in {}: no file ends in .json",
                    path.display()
                ))
                .hint("`workflow export --dir DIR` writes those of all open runs"));
            }
            found.sort();
            files.extend(found);
        }
        Ok(Self::Files(files))
    }

    /// The next page of what is wanted, and where it goes on.
    pub(super) async fn page(&self, wanted: &Wanted, after: Option<After>) -> Result<Named, CliError> {
        match (self, &wanted.one) {
            (Self::Files(files), _) => Ok((files.iter().cloned().map(Item::File).collect(), None)),
            (Self::Store(store), Some((id, run_id))) => Ok((vec![one_row(&**store, id, *run_id).await?], None)),
            (Self::Server(client), Some((id, run_id))) => {
                let run = client.workflow(id, *run_id).describe().await?.run;
                Ok((vec![Item::Run(run.workflow_id, run.run_id)], None))
            }
            (Self::Store(store), None) => rows(&**store, wanted, after).await,
            (Self::Server(client), None) => runs(client, wanted, after).await,
        }
    }

    /// Batches of a history, from its beginning or from there on.
    pub(super) async fn read(&self, item: &Item, from: Option<Next>) -> Result<Stretch, CliError> {
        match (self, item) {
            (_, Item::File(path)) => {
                let wrong = |why: String| CliError::usage(format!("{}: {why}", path.display()));
                let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                let HistoryFile { run, records } =
                    HistoryFile::from_json(&text).map_err(|error| wrong(error.to_string()))?;
                Ok(Stretch { run, records, gap: false, next: None })
            }
            (Self::Store(store), Item::Row(run)) => {
                let from = match from {
                    Some(Next::Sequence(from)) => from,
                    Some(Next::Page(_)) | None => 0,
                };
                let read = store.read(run, from).await?;
                let next = from + read.records.len() as u64;
                let next = (read.more && !read.records.is_empty()).then_some(Next::Sequence(next));
                Ok(Stretch { run: run.clone(), records: read.records, gap: read.gap, next })
            }
            (Self::Server(client), Item::Run(workflow_id, run_id)) => {
                let token = match from {
                    Some(Next::Page(token)) => Some(token),
                    Some(Next::Sequence(_)) | None => None,
                };
                let page = client.workflow(workflow_id, Some(*run_id)).records_page(token.as_deref()).await?;
                let run = WorkflowKey::new(&page.namespace, &page.workflow_id)?.run(page.ordinal);
                let records = page.records.into_iter().map(|record| record.0).collect();
                Ok(Stretch { run, records, gap: false, next: page.next_page_token.map(Next::Page) })
            }
            (_, Item::Row(_) | Item::Run(..)) => Err(CliError::new(format!("{} is not of this source", item.name()))),
        }
    }
}

/// Histories, and where the listing goes on, if it does.
pub(super) type Named = (Vec<Item>, Option<After>);

fn status(wanted: &Wanted) -> Option<Status> {
    (!wanted.closed).then_some(Status::Running)
}

async fn rows(store: &dyn Store, wanted: &Wanted, after: Option<After>) -> Result<Named, CliError> {
    let filter = RunFilter {
        status: status(wanted),
        workflow_type: wanted.workflow_type.clone(),
        id_prefix: wanted.id_prefix.clone(),
        parked: false,
    };
    let after = match after {
        Some(After::Row(cursor)) => Some(cursor),
        Some(After::Page(_)) | None => None,
    };
    let rows = store.list(DEFAULT_NAMESPACE, &filter, after.as_ref(), PAGE).await?;
    let last = rows.last().filter(|_| rows.len() == PAGE);
    let after = last.map(|RunRow { run, started_at, .. }| {
        let workflow_id = run.workflow.workflow_id.to_string();
        After::Row(ListCursor { started_at: *started_at, workflow_id, ordinal: run.ordinal })
    });
    Ok((rows.into_iter().map(|row| Item::Row(row.run)).collect(), after))
}

async fn runs(client: &RawClient, wanted: &Wanted, after: Option<After>) -> Result<Named, CliError> {
    let filter = ListFilter {
        status: status(wanted),
        workflow_type: wanted.workflow_type.clone(),
        id_prefix: wanted.id_prefix.clone(),
        parked: false,
    };
    let token = match after {
        Some(After::Page(token)) => Some(token),
        Some(After::Row(_)) | None => None,
    };
    let page = client.list_page(&filter, PAGE, token.as_deref()).await?;
    let named = page.workflows.into_iter().map(|RunSummary { workflow_id, run_id, .. }| Item::Run(workflow_id, run_id));
    Ok((named.collect(), page.next_page_token.map(After::Page)))
}

/// The latest run of a workflow, or the one that is named.
async fn one_row(store: &dyn Store, id: &str, run_id: Option<RunId>) -> Result<Item, CliError> {
    let no_such = || {
        let what = run_id.map_or_else(String::new, |run_id| format!(" with a run {run_id}"));
        CliError::new(format!("there is no workflow {id:?}{what}")).code(EXIT_NOT_FOUND)
    };
    let workflow = WorkflowKey::new(DEFAULT_NAMESPACE, id).map_err(|e| CliError::usage(e.to_string()))?;
    let latest = store.newest(&workflow).await?.row().ok_or_else(no_such)?;
    let Some(run_id) = run_id.filter(|run_id| *run_id != latest.run_id) else { return Ok(Item::Row(latest.run)) };
    let run = workflow.run(run_id.ordinal(latest.run.ordinal).ok_or_else(no_such)?);
    match store.row(&run).await? {
        Some(row) if row.run_id == run_id => Ok(Item::Row(run)),
        _ => Err(no_such()),
    }
}
