//! The start: whatever the process before has left is picked up. Runs over whose code it may have died come last.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{ParkedCause, RunKey, Timestamp};

use super::OpenError;
use super::mailroom::{Aside, Mailroom};
use super::trials::{Found, Trials};
use crate::parking::{
    MOST_COUNTED, StandingStill, Verdict, acquit, acquit_for, standing_still, suspect, take_try_back,
};
use crate::parkings::Standing;
use crate::ports::Ports;
use crate::seams::RunMessage;
use crate::store::{Parked, StoreError};
use crate::sweep::DueRows;

/// Whoever was suspected of ending processes is not any more when he has run for so long in one that lives: what his code
/// asked for may yet end it, a local activity, the turn after the next.
const PROBATION: Duration = Duration::from_secs(50);

/// How often it is looked whose probation is over.
const PROBATION_LOOK: Duration = Duration::from_secs(1);

/// How often it is looked whether a trial is over.
const TRIAL_LOOK: Duration = Duration::from_millis(10);

/// Begins to write down whose code runs; and finds those that the process before may have died over.
pub(super) fn begin_trials(path: Option<PathBuf>) -> Result<(Option<Arc<Trials>>, Found), OpenError> {
    let Some(path) = path else { return Ok((None, Found::default())) };
    let (trials, found) = Trials::begin(&path).map_err(|error| OpenError::Trials { path, error })?;
    Ok((Some(trials), found))
}

/// The suspects among those that were found; what their rows say of the process before is put right.
pub(super) async fn suspects_among(ports: &Ports, found: Found) -> Result<Vec<RunKey>, StoreError> {
    let Found { suspects, untried, acquitted } = found;
    // Remembered before anything is taken back: should this process die here, the next knows them still.
    for run in suspects.iter().chain(&untried) {
        ports.parkings.await_trial(run, waits_for_its_trial(ports));
    }
    for run in &acquitted {
        acquit_for(ports, run).await?;
    }
    for run in &untried {
        take_try_back(ports, run).await?;
    }
    Ok([suspects, untried].concat())
}

/// Start-up: every run that is owed something is looked at, or its alarm is set when that is all it waits for. Those whose
/// code may not give the thread back come last, and on a thread for themselves; suspects wait to be tried.
pub(super) async fn pick_up(ports: &Ports, mailroom: &Mailroom, suspects: &[RunKey]) -> Result<(), StoreError> {
    for run in suspects {
        mailroom.set_aside(run.workflow.clone(), Aside::Suspect);
    }
    let mut last = Vec::new();
    // Tasks and undecided inputs are due within one interval (longer only after sweeps have looked in vain), so
    // whatever is due later than the longest patience waits for time alone.
    let soon = ports.now() + ports.choices.sweep_interval * 64;
    let mut pages = DueRows::all();
    loop {
        let rows = pages.next(&*ports.store).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows.into_iter().filter(|row| !suspects.contains(&row.run)) {
            let parked = row.parked.is_some();
            if let Some(parked) = row.parked {
                mailroom.set_aside(row.run.workflow.clone(), Aside::Parked);
                last.push(row.run.clone());
                // One that is deadly is learned of when its message comes. Others are tried at once; should one go on, the
                // row is told, even if nothing else is to be recorded.
                if !parked.ends_process {
                    let same = *parked.build == *ports.choices.build;
                    let attempts = if same { parked.attempts } else { 0 };
                    ports.parkings.insert(row.run.clone(), Parked { attempts, retry_at: ports.now(), ..parked });
                }
            }
            match row.due {
                _ if parked => {}
                Some(due) if due > soon && !row.status.is_closed() => {
                    ports.alarms.set(&row.run, row.run_id, Some(due)).await?;
                }
                _ => ports.runs.send(RunMessage::Sweep { run: row.run }).await?,
            }
        }
    }
    for run in last {
        ports.runs.send(RunMessage::Sweep { run }).await?;
    }
    Ok(())
}

/// Whoever starts the program learns what stands still, and what can be done about it.
pub(super) async fn tell_what_stands_still(ports: &Ports) -> Result<(), StoreError> {
    let StandingStill { count, since, first } = standing_still(ports).await?;
    if count == 0 {
        return Ok(());
    }
    let ids: Vec<_> = first.iter().map(|run| run.workflow.workflow_id.to_string()).collect();
    tracing::warn!(
        parked = count,
        since = since.map(tracing::field::display),
        "{}{} parked: their code could not go on ({}{}). Each is tried again; `workflow list --parked` shows those that \
         still cannot, `workflow describe ID` says why. Start a build with mended code, or `workflow terminate ID`",
        if count == MOST_COUNTED { "at least " } else { "" },
        if count == 1 { "1 run is".to_owned() } else { format!("{count} runs are") },
        ids.join(", "),
        if count > ids.len() { ", ..." } else { "" },
    );
    Ok(())
}

/// Nothing of it runs until then.
fn waits_for_its_trial(ports: &Ports) -> Parked {
    Parked {
        reason: "the process before this one has ended while the run's code ran; it waits to be tried alone".into(),
        cause: Some(ParkedCause::ProcessEnded { times: 1 }),
        build: ports.choices.build.to_string(),
        sequence: 0,
        attempts: 0,
        retry_at: Timestamp::from_millis(u64::MAX),
        ends_process: true,
        since: Some(ports.now()),
    }
}

/// Tries each suspect alone: should this process die too, it is known over whom, and the next leaves it alone.
pub(super) async fn try_suspects(ports: Ports, suspects: Vec<RunKey>) {
    for run in suspects {
        let asked = async {
            match suspect(&ports, &run, 1).await? {
                Verdict::Try => {
                    tracing::warn!(%run, "a process has ended while this run's code ran: it is tried alone");
                }
                Verdict::LeaveAlone(retry_at) => {
                    tracing::error!(
                        %run, %retry_at,
                        "another process has ended while this run's code ran: it is left alone until then"
                    );
                    no_trial(&ports, &run);
                }
                Verdict::Over => no_trial(&ports, &run),
            }
            ports.runs.send(RunMessage::Sweep { run: run.clone() }).await
        };
        if let Err(error) = asked.await {
            // It stands still meanwhile; the next start tries again.
            tracing::error!(%run, %error, "it could not be tried");
        }
        while ports.parkings.is_on_trial(&run) {
            ports.host.sleep(TRIAL_LOOK).await;
        }
    }
}

/// Its row knows all there is.
fn no_trial(ports: &Ports, run: &RunKey) {
    ports.parkings.remove(run);
    ports.parkings.has_tried(run);
}

/// The process ends as it should: nobody who has been tried is suspected any more.
pub(super) async fn end_trials(ports: &Ports) {
    for (run, standing) in ports.parkings.all_suspects() {
        let ended = match standing {
            Standing::Proving(_) => acquit(ports, &run).await,
            Standing::Awaiting | Standing::OnTrial => take_try_back(ports, &run).await,
        };
        if let Err(error) = ended {
            tracing::warn!(%run, %error, "its row still says that it is parked; it is tried again at its time");
        }
    }
}

/// Acquits whoever has proven himself, for ever.
pub(super) async fn end_probations(ports: Ports) {
    loop {
        ports.host.sleep(PROBATION_LOOK).await;
        let now = ports.host.instant();
        let proven = |standing| matches!(standing, Standing::Proving(since) if now.since(since) >= PROBATION);
        for (run, _) in ports.parkings.all_suspects().into_iter().filter(|(_, standing)| proven(*standing)) {
            if let Err(error) = acquit(&ports, &run).await {
                tracing::warn!(%run, %error, "its row still says that it is parked; trying again");
            }
        }
    }
}
