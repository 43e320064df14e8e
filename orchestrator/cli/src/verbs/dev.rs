//! `dev`: everything in one process, kept in one directory or one prefix of an object store.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use dormouse_engine::embedded::Settings;
use dormouse_http::{AllowedHost, Listen, Server, StartError, parse_duration};
use serde_json::json;

use crate::error::CliError;
use crate::exit::EXIT_INTERRUPTED;
use crate::key::Key;
use crate::output::{Format, say};
use crate::place::{Place, StoreUrl};
use crate::verb::{Context, Verb};

/// Run workflows, activities and the HTTP API in this process, until told to stop
///
/// Whatever was begun goes on where it stood when the process is started again with the same data directory, or the
/// same object store. One process at a time owns either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dev                                      listen on http://127.0.0.1:7780
  dev --listen 127.0.0.1:0                 any free port; the first line printed names it
  dev --data-dir /var/lib/orders --log debug
  dev --listen 0.0.0.0:7780 --allow-host orders.internal
                                           for other machines too, which ask for it by that name, and show the token
  dev --store s3://bucket/orders           kept in S3, on no disk: any machine may go on with it
  AWS_ENDPOINT_URL=http://127.0.0.1:9000 dev --store s3://bucket/orders
                                           the same on what speaks S3's protocol

Beyond the loopback interface requests must show a token: the variable DORMOUSE_TOKEN says which; without it, one is made
at the first start, in the file dormouse.token of the data directory, or, with --store, anew at each start.

An object store must keep to conditional puts; that is tried out first. Its owner renews a lease; after kill -9 the
next start waits until it is over. Who cannot renew it in time stops writing and ends. Needs the feature `s3`.

The first Ctrl-C (or SIGTERM) stops gracefully, the second at once; nothing is lost either way.")]
pub(crate) struct Dev {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "dormouse-data")]
    data_dir: PathBuf,
    /// Keep everything in an object store instead. Access as usual: AWS_REGION, AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...
    #[arg(long, value_name = "s3://BUCKET/PREFIX", conflicts_with = "data_dir")]
    store: Option<StoreUrl>,
    /// How long an object store is ours after the last sign of life; at least 1s. The next start after a crash waits so
    /// long, and the store may fail to answer for nearly so long
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, requires = "store")]
    lease: Duration,
    /// Where to listen; port 0 picks a free one. Where other machines can reach it, requests must show a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7780")]
    listen: String,
    /// Ask nobody for a token: whoever reaches the address may do everything
    #[arg(long)]
    no_auth: bool,
    /// A host name that requests may give beside localhost and the address listened at; may be repeated. Others are
    /// refused (421): any web page can make a name of its own lead here
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<AllowedHost>,
    /// How long running activities may take to end when told to stop
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    grace: Duration,
    /// How long workflow code may run without waiting for anything, at least 100ms. Beyond it the code is given up as endless, and its run
    /// is parked until a build with mended code takes it up
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = turn_limit)]
    turn_limit: Duration,
    /// Activities that may run at the same time; others wait for their turn
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().concurrent_activities)]
    concurrent_activities: usize,
}

/// Less is a slow machine's ordinary turn.
fn turn_limit(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(limit) if limit < Duration::from_millis(100) => Err("it must be at least 100ms".into()),
        limit => limit.map_err(|error| error.to_string()),
    }
}

impl Verb for Dev {
    const LOG: &'static str = "info";

    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let mut stop = StopSignals::new()?;
        let app = Arc::new(cx.app.clone());
        let place = self.place();
        let (store, ours) = tokio::select! {
            opened = place.open() => opened?,
            () = stop.next() => return Ok(ExitCode::from(EXIT_INTERRUPTED)),
        };
        let key = match self.key(&place).await {
            Ok(key) => key,
            Err(error) => {
                ours.release().await;
                return Err(error);
            }
        };
        let token = key.as_ref().map(|key| key.token.clone());
        let listen = Listen::at(&self.listen).allow(self.allow_host.clone()).token(token);
        let Self { turn_limit, concurrent_activities, .. } = self;
        let trials = Some(place.trials());
        let settings = Settings { turn_limit, concurrent_activities, trials, ..Settings::default() };
        let server = match Server::start(app, store, settings, listen).await {
            Ok(server) => server,
            Err(error) => {
                ours.release().await;
                return Err(explain(error));
            }
        };
        if key.is_none() && !server.address().ip().is_loopback() {
            tracing::warn!(
                "{} is open to other machines, and --no-auth asks nobody for a token: whoever reaches it may do everything",
                server.address()
            );
        }
        match announce(&place, &server, key.as_ref(), &cx) {
            // Whoever started us reads the address and goes: no reason to stop serving.
            Err(error) if error.is_nobody_reads() => {}
            outcome => outcome?,
        }

        tokio::select! {
            () = stop.next() => {}
            // At once: another process may be running the same activities soon.
            error = ours.lost() => return Err(error),
        }
        tracing::info!("stopping; Ctrl-C again stops at once");
        let stopped = async {
            server.stop(self.grace).await;
            ours.release().await;
        };
        tokio::select! {
            () = stopped => {}
            error = ours.lost() => return Err(error),
            () = stop.next() => {
                tracing::warn!("stopped at once; what was under way begins again at the next start");
                return Ok(ExitCode::from(EXIT_INTERRUPTED));
            }
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

impl Dev {
    fn place(&self) -> Place {
        match &self.store {
            Some(url) => Place::Objects(url.clone(), self.lease),
            None => Place::Directory(self.data_dir.clone()),
        }
    }

    /// The token to ask for, where other machines can reach us.
    async fn key(&self, place: &Place) -> Result<Option<Key>, CliError> {
        if self.no_auth || is_loopback(&self.listen).await {
            return Ok(None);
        }
        Key::find(place).map(Some)
    }
}

/// Whether nobody but this machine can reach the address. One that makes no sense is refused by whoever listens there.
async fn is_loopback(listen: &str) -> bool {
    match tokio::net::lookup_host(listen).await {
        Ok(addresses) => addresses.into_iter().all(|address| address.ip().is_loopback()),
        Err(_) => true,
    }
}

fn announce(place: &Place, server: &Server, key: Option<&Key>, cx: &Context) -> Result<(), CliError> {
    let (url, data) = (server.url(), place.to_string());
    let workflows: Vec<_> = cx.app.workflow_types().collect();
    let activities: Vec<_> = cx.app.activity_types().collect();
    match cx.format {
        Format::Json => {
            let kind = match place {
                Place::Directory(_) => "data_dir",
                Place::Objects(..) => "store",
            };
            let mut said = json!({ "address": url, kind: data, "workflows": workflows, "activities": activities });
            if let Some(file) = key.and_then(|key| key.file.as_ref()) {
                said["token_file"] = json!(file);
            }
            say(&said.to_string())
        }
        // Scripts wait for the first line.
        Format::Table => say(&format!(
            "Dormouse is listening on {url}\n  data        {data}\n  workflows   {}\n  activities  {}\n  \
             API         {url}/openapi.json\n{}  stop        Ctrl-C; twice stops at once",
            names(&workflows),
            names(&activities),
            key.map_or_else(String::new, |key| format!("  token       {}\n", key.command(&url)))
        )),
    }
}

fn names(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn explain(error: StartError) -> CliError {
    let in_use = matches!(&error, StartError::Listen { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse);
    let error = CliError::from(error);
    if in_use { error.hint("another process listens there; --listen 127.0.0.1:0 takes a free port") } else { error }
}

/// Ctrl-C and SIGTERM, each time they come.
struct StopSignals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_only_this_machine_reaches_needs_no_token() {
        for (listen, alone) in [
            ("127.0.0.1:0", true),
            ("localhost:7780", true),
            ("[::1]:7780", true),
            ("0.0.0.0:7780", false),
            ("[::]:7780", false),
            ("10.0.0.7:80", false),
        ] {
            assert_eq!(is_loopback(listen).await, alone, "{listen}");
        }
    }
}
