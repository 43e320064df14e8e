//! A fault proxy on loopback, between the engine and the services that it uses or what imitates them.
//!
//! It understands what requests of DynamoDB, S3, SQS, EventBridge Scheduler and Lambda ask for ([`Call`]), counts them
//! ([`Counts`]), and does to those that a [`Rule`] names what real networks and services do, and imitations never:
//! answers lost after the write has landed, conflicts, throttling, duplicates, lost messages ([`Action`]).
//!
//! In a test: [`Proxy::start`]. For other processes: the program `fault-proxy`, steered over HTTP:
//!
//! ```text
//! GET    /__proxy/counts      what passed, as JSON
//! GET    /__proxy/rules       the rules, and how often each has struck
//! POST   /__proxy/rules       adds a rule, or a list of rules
//! DELETE /__proxy/rules       takes all rules away
//! POST   /__proxy/reset       counts begin at zero; the rules stay
//! ```
//!
//! **What it is exact about.** A request is counted before anything else happens to it. One that is forwarded is
//! forwarded once, on a connection of its own, and also when the client has gone away meanwhile: as on a network.
//! Nothing is retried. Bodies are held in memory, both ways. The `Host` header stays as the client signed it.

pub mod answers;
pub mod call;
pub mod counts;
pub mod rules;
mod server;
mod split;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::answers::Refusal;
pub use self::call::Call;
pub use self::counts::{Counts, Tally};
pub use self::rules::{Action, Rule, Spoiled, Struck};
use self::server::Shared;
pub use self::server::read_rules;

/// A running proxy. Dropping it closes its port; requests that are under way still reach the other side.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy on a free port of the loopback interface, before `upstream` (`http://host:port`), on the runtime that
    /// this is called on.
    ///
    /// # Errors
    /// When there is no port, or `upstream` is no such address.
    pub async fn start(upstream: &str) -> io::Result<Self> {
        Self::listen("127.0.0.1:0", upstream).await
    }

    /// The same at an address of the caller's choice.
    ///
    /// # Errors
    /// When it is taken, or `upstream` is no `http://host:port`.
    pub async fn listen(address: &str, upstream: &str) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(upstream)?);
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(server::accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where clients find it: `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, this happens. Rules are asked in the order of their making; the first that wants a request has it.
    /// The answer tells how often it has struck, then and later.
    ///
    /// # Panics
    /// When nothing could ever come of the rule.
    pub fn rule(&self, rule: Rule) -> Struck {
        assert_eq!(rule.nonsense(), None, "a rule must be able to strike");
        self.shared.rules.add(rule)
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        self.shared.rules.clear();
    }

    /// Every rule with how often it has struck, oldest first.
    #[must_use]
    pub fn rules(&self) -> Vec<(Rule, u64)> {
        self.shared.rules.all()
    }

    /// Rules that have not done what they were made for: a fault that never struck proves nothing.
    #[must_use]
    pub fn outstanding(&self) -> Vec<Rule> {
        self.shared.rules.outstanding()
    }

    /// What has passed since the start, or since the last reset.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counts.read()
    }

    /// What has passed; from now on, counts begin at zero.
    #[must_use = "or call it with `drop`, to say that nobody wants them"]
    pub fn reset(&self) -> Counts {
        self.shared.counts.take()
    }

    /// Waits as long as the proxy serves: for ever, unless its runtime ends.
    ///
    /// # Errors
    /// When the task that accepts connections has died.
    pub async fn serve(mut self) -> io::Result<()> {
        (&mut self.accepting).await.map_err(io::Error::other)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
