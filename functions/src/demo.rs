//! `demo`: an order survives `kill -9`.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use dormouse::{CliError, Client, Context, Verb, timeline};
use functions::ledger::{Entry, Ledger};
use functions::orders::{Order, order_workflow};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Watch an order survive `kill -9`: it is charged once, whatever happens to the server
///
/// Everything happens in a temporary directory, and nothing is left behind.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// How long the order waits between its confirmation and its shipping, in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    delay: u64,
}

impl Verb for Demo {
    async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
        let dir = tempfile::tempdir()?;
        let ledger = Ledger::at(dir.path().join("ledger.jsonl"));
        let clock = Clock(Instant::now());

        clock.say("start a server: one process, one data directory");
        let mut server = Server::start(dir.path()).await?;
        let client = Client::connect(&server.url, &cx.app)?;

        clock.say("start order-42: charge, confirm, sleep, ship");
        let order = Order {
            order_id: "order-42".into(),
            amount_cents: 4200,
            fulfilment_delay_ms: self.delay * 1000,
            flaky: 0.0,
        };
        client.start(order_workflow, "order-42", &order).await?;
        until_recorded(&ledger, "sendConfirmation").await?;

        server.process.kill().await?;
        clock.say(&format!("KILL -9 {}: the customer is charged, the parcel is not sent", server.pid));
        tokio::time::sleep(Duration::from_secs(1)).await;

        clock.say("start another server over the same directory");
        let mut server = Server::start(dir.path()).await?;
        let client = Client::connect(&server.url, &cx.app)?;
        let handle = client.workflow(order_workflow, "order-42", None);
        let shipment = handle.result().await?;
        clock.say(&format!("order-42 is shipped: {}", shipment.tracking));

        println!("\nThe history, as `workflow show order-42` prints it:\n");
        print!("{}", timeline(&handle.history().await?));
        println!("\nThe ledger, a line for every time that an activity ran:\n");
        let entries = ledger.entries()?;
        for Entry { activity, attempt, idempotency_key, .. } in &entries {
            println!("   {activity:<18} attempt {attempt}   {idempotency_key}");
        }
        server.process.kill().await?;
        verdict(&entries)
    }
}

/// The one thing that the demonstration claims.
fn verdict(entries: &[Entry]) -> Result<ExitCode, CliError> {
    let charges = entries.iter().filter(|entry| entry.activity == "charge").count();
    if charges != 1 {
        return Err(CliError::new(format!("the customer was charged {charges} times, and it should have been once")));
    }
    println!("\nCharged once. While the order slept, nothing had to run.");
    Ok(ExitCode::SUCCESS)
}

async fn until_recorded(ledger: &Ledger, activity: &str) -> Result<(), CliError> {
    let patience = Instant::now();
    while !ledger.entries()?.iter().any(|entry| entry.activity == activity) {
        if patience.elapsed() > Duration::from_secs(20) {
            return Err(CliError::new(format!("{activity} did not run within 20 seconds")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The ledger is written first, the history a moment later; let the step end.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(())
}

/// A server in a process of its own, ended with the demonstration.
struct Server {
    process: Child,
    pid: u32,
    url: String,
}

impl Server {
    async fn start(dir: &Path) -> Result<Self, CliError> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["dev", "--listen", "127.0.0.1:0", "--log", "warn", "--data-dir"])
            .arg(dir.join("data"))
            .env("LEDGER_FILE", dir.join("ledger.jsonl"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().unwrap_or_default();
        let stdout = process.stdout.take().ok_or_else(|| CliError::new("the server has no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next_line().await?.unwrap_or_default();
        let url = first.split_whitespace().last().filter(|url| url.starts_with("http://"));
        let Some(url) = url.map(str::to_owned) else {
            return Err(CliError::new(format!("the server did not start; it said {first:?}")));
        };
        Ok(Self { process, pid, url })
    }
}

/// What happens when.
struct Clock(Instant);

impl Clock {
    fn say(&self, what: &str) {
        println!("{:>6.2} s  {what}", self.0.elapsed().as_secs_f64());
    }
}
