//! The fault proxy as a program, for processes that are not tests: see `dormouse_tests::proxy`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dormouse_tests::proxy::{Proxy, read_rules};

/// Stands between AWS clients and what answers them; counts their requests, and spoils those that a rule names.
///
/// Prints `http://host:port` when it listens. `GET /__proxy/counts` and `/__proxy/rules`, `POST /__proxy/rules` and
/// `/__proxy/reset`, `DELETE /__proxy/rules` steer it. A rule is JSON, like
/// {"on": "dynamodb/PutItem/batch", "action": "drop_answer", "skip": 2, "times": 1}.
#[derive(Parser)]
#[command(name = "fault-proxy")]
struct Arguments {
    /// Where it listens; port 0 is any free one. It has no authentication: stay on the loopback interface.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// What it forwards to, `http://host:port`.
    #[arg(long)]
    upstream: String,
    /// A file of rules to begin with: one, or a list.
    #[arg(long)]
    rules: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fault-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let rules = match &arguments.rules {
        Some(file) => read_rules(&std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?)?,
        None => Vec::new(),
    };
    let proxy = Proxy::listen(&arguments.listen, &arguments.upstream).await?;
    for rule in rules {
        proxy.rule(rule);
    }
    println!("{}", proxy.url());
    Ok(proxy.serve().await?)
}
