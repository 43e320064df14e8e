//! The engine as Lambda functions: AWS's event envelopes in, messages of the engine out. One program, three roles,
//! chosen by `DORMOUSE_ROLE`.
//!
//! | role | invoked by | does |
//! | --- | --- | --- |
//! | `orchestrator` | run queue, alarm queue, dead-letter queues, the sweep's schedule, the API's queries | decides; the only one that runs workflow code (rule F1) |
//! | `activity` | a task queue | runs activities |
//! | `api` | HTTP API, REST API or function URL | accepts and reads; runs no user code |
//!
//! [`envelope`] turns an SQS event into letters and what became of them into the one answer that Lambda understands;
//! `orchestrator` hands letters to the workflow thread (`thread`), which is the engine's
//! [workflow thread](dormouse_engine::thread): a decider and a small executor without a tokio runtime.
//!
//! A process may be frozen or killed at any instruction. Nothing here needs to survive: what was not acknowledged is
//! delivered again, and the conditional create fences whatever wakes up late.

mod activity;
mod api;
mod cloud;
pub mod envelope;
mod metrics;
pub mod orchestrator;
mod query;
mod settings;
mod thread;

use std::process::ExitCode;
use std::sync::Arc;

use dormouse_core::App;
use lambda_runtime::Error;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::cloud::Cloud;
use crate::settings::{Role, Settings};

/// Whether this process was started by Lambda.
#[must_use]
pub fn is_lambda() -> bool {
    std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some()
}

/// Serves invocations in the role that the environment names, until Lambda ends the process.
#[must_use]
pub fn main(app: App) -> ExitCode {
    let wanted = std::env::var("DORMOUSE_LOG").ok().and_then(|filter| filter.parse::<Targets>().ok());
    let usual = [("aws", LevelFilter::WARN), ("hyper", LevelFilter::WARN)];
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO).with_targets(usual));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_target(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(app)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the function does not start");
            ExitCode::FAILURE
        }
    }
}

async fn serve(app: App) -> Result<(), Error> {
    app.check()?;
    let settings = Settings::from_env(|name| std::env::var(name).ok())?;
    let role = settings.role;
    let cloud = Cloud::connect(Arc::new(app), settings).await?;
    match role {
        Role::Orchestrator => orchestrator::serve(cloud).await,
        Role::Activity => activity::serve(cloud).await,
        Role::Api => api::serve(cloud).await,
    }
}
