//! `workflow show`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dormouse_client::{Patience, RawHandle};
use dormouse_core::api::{HistoryBody, HistoryEvent};

use crate::error::CliError;
use crate::output::{Format, quoted, say, say_json};
use crate::parked;
use crate::remote::Which;
use crate::timeline::Timeline;
use crate::verb::{Context, Verb};

/// How often a followed history is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// One look in so many that finds nothing new asks whether the run is parked.
const LOOKS: u32 = 4;

/// Show a workflow's history, a line for each event
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  workflow show example-1
  workflow show example-1 --full                    inputs and results however long they are
  workflow show example-1 --follow                  until it has ended
  workflow show example-1 --follow --output json    a JSON object for each event, on a line of its own")]
pub(crate) struct Show {
    /// Go on showing events as they come, until the run has ended
    #[arg(long, short)]
    follow: bool,
    /// Show everything of each event: long values uncut, request ids, options, places in the source
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    which: Which,
}

impl Verb for Show {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let handle = self.which.handle()?;
        let mut timeline = Timeline::new().colour(cx.colour).full(self.full);
        if self.follow {
            return self.follow(&handle, &mut timeline, cx.format).await;
        }
        let events = handle.history().await?;
        let open = !events.iter().any(ends_run);
        match cx.format {
            Format::Json => say_json(&HistoryBody { events, next_page_token: None })?,
            Format::Table => events.iter().try_for_each(|event| say(&timeline.line(event)))?,
        }
        if open && let Some(parked) = parked::now(&handle).await {
            parked::note(&self.which.workflow_id, &parked, cx.format);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    async fn follow(&self, handle: &RawHandle, timeline: &mut Timeline, format: Format) -> Result<ExitCode, CliError> {
        // This run and no later one, also when another begins meanwhile.
        let run_id = handle.describe().await?.run.run_id;
        let handle = handle.of_run(Some(run_id));
        let (mut seen, mut patience) = (0, Patience::default());
        let (mut nothing_new, mut told) = (0, false);
        patience.answered();
        loop {
            let events = match handle.history_after(seen).await {
                Ok(events) => events,
                Err(error) => {
                    patience.bear(error).await?;
                    continue;
                }
            };
            patience.answered();
            for event in &events {
                match format {
                    Format::Json => say(&serde_json::to_string(event)?)?,
                    Format::Table => say(&timeline.line(event))?,
                }
                seen = event.event_id;
            }
            if events.iter().any(ends_run) {
                if events.iter().any(|event| event.event_type == CONTINUED) {
                    let id = quoted(&self.which.workflow_id);
                    eprintln!("The run was continued as new. The next one: workflow show {id} --follow");
                }
                return Ok(ExitCode::SUCCESS);
            }
            if events.is_empty() {
                if !told
                    && nothing_new % LOOKS == 0
                    && let Some(parked) = parked::now(&handle).await
                {
                    parked::note(&self.which.workflow_id, &parked, format);
                    told = true;
                }
                nothing_new += 1;
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }
}

/// The event with which a run hands over to the next.
const CONTINUED: &str = "WorkflowContinuedAsNew";

fn ends_run(event: &HistoryEvent) -> bool {
    let ends = ["WorkflowCompleted", "WorkflowFailed", "WorkflowCanceled", "WorkflowTerminated", CONTINUED];
    ends.contains(&event.event_type.as_str())
}
