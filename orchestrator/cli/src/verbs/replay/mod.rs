//! `replay`: today's code, held against what is recorded. Nothing is written, and no activity runs.

mod progress;
mod report;
mod sample;
mod source;
mod tally;
mod workers;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use dormouse_core::{App, RunId};
use dormouse_http::parse_duration;
use tokio::sync::mpsc::{self, Sender};

use self::progress::Progress;
use self::sample::Sample;
use self::source::{Item, Source, Wanted};
use self::tally::Tally;
use self::workers::{Work, Workers};
use crate::error::CliError;
use crate::exit::{EXIT_DOES_NOT_FIT, EXIT_INTERRUPTED};
use crate::output::{Format, say_json};
use crate::place::{Place, StoreUrl};
use crate::remote::Remote;
use crate::verb::{Context, Verb};

/// So many histories are named ahead of those that replay them.
const AHEAD: usize = 256;
/// How often it is looked whether a turn never ends, and how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// Replay histories on this program's code: would open runs go on with it?
///
/// Run it before a deployment: code that does something else than a history holds would park the run. Each history is
/// replayed to its present end; nothing is written, and no activity runs. What is stored and was not read yet (inputs,
/// results of activities, declared signals and queries) is held against today's types as well.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  replay                                 all open runs of the server at --address
  replay --data-dir dormouse-data        those of a directory; `dev` may be running there
  replay --store s3://bucket/orders      those of an object store (feature `s3`)
  replay --id example-1                  one run
  replay histories --junit replay.xml    exported ones (`workflow export`), in CI
  replay --sample 500 --seed 7           500 of very many; the same seed chooses the same ones
  replay --output json | jq '.do_not_fit[] | {workflow_id, recorded, attempted, differences}'

Exit code 8: at least one history does not fit. Told of each: both places in the source, and each
field that differs. Other arguments than the recorded ones are let be and counted, unless --strict
or the App says otherwise.")]
pub(crate) struct Replay {
    /// Exported histories: files, and directories with files that end in .json
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Runs that `dev` keeps in this directory; it may be running
    #[arg(long, value_name = "DIR", conflicts_with = "paths")]
    data_dir: Option<PathBuf>,
    /// Runs that are kept in an object store; its owner may be running
    #[arg(long, value_name = "s3://BUCKET/PREFIX", conflicts_with_all = ["paths", "data_dir"])]
    store: Option<StoreUrl>,
    /// Only this workflow: its latest run
    #[arg(long, value_name = "ID", conflicts_with = "paths")]
    id: Option<String>,
    /// This run of it
    #[arg(long, requires = "id")]
    run_id: Option<RunId>,
    /// Only this type of workflow
    #[arg(long = "type", value_name = "NAME", conflicts_with_all = ["paths", "id"])]
    workflow_type: Option<String>,
    /// Only workflow ids that begin so
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["paths", "id"])]
    id_prefix: Option<String>,
    /// Closed runs too
    #[arg(long, conflicts_with_all = ["paths", "id"])]
    closed: bool,
    /// Other arguments than the recorded ones do not fit either, nor values of undeclared types that cannot be read
    #[arg(long)]
    strict: bool,
    /// Only so many, chosen by --seed
    #[arg(long, value_name = "NUMBER", conflicts_with = "id")]
    sample: Option<NonZeroUsize>,
    /// Which sample: the same seed chooses the same runs
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "sample")]
    seed: u64,
    /// Write a report for CI into this file: a case for each history that does not fit
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Threads that replay; as many as there are processors unless told
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,
    /// How long workflow code may hold a turn before it is given up as endless
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    turn_limit: Duration,
    #[command(flatten)]
    remote: Remote,
}

impl Verb for Replay {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let (tally, ended) = self.replay(cx.app).await?;
        if let Some(file) = &self.junit {
            report::to_junit(&tally, file)?;
        }
        match cx.format {
            Format::Json => say_json(&report::to_scripts(&tally, ended == Ended::Interrupted))?,
            Format::Table => report::to_people(&tally, cx.colour)?,
        }
        Ok(match ended {
            Ended::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
            Ended::Whole if tally.strays() > 0 => ExitCode::from(EXIT_DOES_NOT_FIT),
            Ended::Whole => ExitCode::SUCCESS,
        })
    }
}

/// How it came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    /// By Ctrl-C: what is told is of those before.
    Interrupted,
}

impl Replay {
    async fn replay(&self, app: App) -> Result<(Tally, Ended), CliError> {
        let app = Arc::new(if self.strict { app.strict() } else { app });
        let (naming, items) = mpsc::channel(AHEAD);
        let (outcomes, mut outcome) = mpsc::channel(AHEAD);
        let source = Arc::new(self.source()?);
        let runtime = tokio::runtime::Handle::current();
        let work = Work { app, source: Arc::clone(&source), items: Mutex::new(items), outcomes, runtime };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut workers = Workers::begin(work, self.threads.map_or(threads, usize::from), self.turn_limit)?;

        let (mut tally, progress, mut total) = (Tally::default(), Progress::new(), None);
        let mut naming = pin!(self.name(&source, naming, &progress));
        let mut interrupted = pin!(tokio::signal::ctrl_c());
        let mut look = tokio::time::interval(LOOK);
        while total != Some(tally.runs) {
            tokio::select! {
                Some((item, replayed)) = outcome.recv() => tally.add(item, replayed?),
                named = &mut naming, if total.is_none() => total = Some(named?),
                _ = look.tick() => {
                    workers.give_up_endless().await?.into_iter().for_each(|(item, replayed)| tally.add(item, replayed));
                    progress.show(&tally);
                }
                _ = &mut interrupted => return Ok((tally, Ended::Interrupted)),
            }
        }
        Ok((tally, Ended::Whole))
    }

    fn source(&self) -> Result<Source, CliError> {
        if !self.paths.is_empty() {
            return Source::files(&self.paths);
        }
        let place = match (&self.data_dir, &self.store) {
            (Some(dir), _) => Place::Directory(dir.clone()),
            // Nobody is waited for who only reads.
            (None, Some(url)) => Place::Objects(url.clone(), Duration::ZERO),
            (None, None) => return Ok(Source::Server(self.remote.client()?)),
        };
        Ok(Source::Store(place.look()?))
    }

    /// Names all that is wanted to those who replay it. How many there are.
    async fn name(&self, source: &Source, items: Sender<Item>, progress: &Progress) -> Result<u64, CliError> {
        let wanted = Wanted {
            one: self.id.clone().map(|id| (id, self.run_id)),
            workflow_type: self.workflow_type.clone(),
            id_prefix: self.id_prefix.clone(),
            closed: self.closed,
        };
        let mut sample = self.sample.map(|size| Sample::new(size.get(), self.seed));
        let (mut after, mut named) = (None, 0);
        loop {
            let (page, next) = source.page(&wanted, after).await?;
            if named == 0 && next.is_none() && sample.is_none() {
                progress.of(page.len() as u64);
            }
            for item in page {
                match &mut sample {
                    Some(sample) => sample.offer(item),
                    None => named += send(&items, item).await,
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        let chosen = sample.map_or_else(Vec::new, Sample::chosen);
        progress.of(named + chosen.len() as u64);
        for item in chosen {
            named += send(&items, item).await;
        }
        Ok(named)
    }
}

/// Hands a history to those who replay them: one. Nobody is there any more: none.
async fn send(items: &Sender<Item>, item: Item) -> u64 {
    u64::from(items.send(item).await.is_ok())
}
