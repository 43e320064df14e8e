//! The embedded engine behind its HTTP API, in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::App;
use dormouse_engine::embedded::{Embedded, OpenError, Settings};
use dormouse_engine::store::Store;
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::connections::{Connections, serve};
use crate::{AllowedHost, Hosts, Limits, Token, guarded};

/// How long requests that are under way may take to end. Only those that wait for a result take longer, and whoever
/// sent them asks again.
const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// A running server. Dropping it abandons the requests that are under way; [`Server::stop`] lets them end.
pub struct Server {
    address: SocketAddr,
    engine: Embedded,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// Where a server listens, and which hosts its requests may name.
#[derive(Debug, Clone)]
pub struct Listen {
    address: String,
    allowed: Vec<AllowedHost>,
    connections: Connections,
    token: Option<Token>,
}

impl Listen {
    /// At this address, such as `127.0.0.1:7780`; port 0: any free one. Requests may name this very host, or the loopback
    /// interface.
    #[must_use]
    pub fn at(address: impl Into<String>) -> Self {
        let address = address.into();
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        // Everywhere is nobody's name.
        let host: Option<AllowedHost> = host.parse().ok().filter(|_| !["0.0.0.0", "[::]", ""].contains(&host));
        Self { allowed: host.into_iter().collect(), address, connections: Connections::default(), token: None }
    }

    /// Requests may name these too.
    #[must_use]
    pub fn allow(mut self, hosts: impl IntoIterator<Item = AllowedHost>) -> Self {
        self.allowed.extend(hosts);
        self
    }

    /// Requests must show this token: where other machines can reach the address.
    #[must_use]
    pub fn token(self, token: Option<Token>) -> Self {
        Self { token, ..self }
    }

    /// Connections are bounded so.
    #[must_use]
    pub fn connections(self, connections: Connections) -> Self {
        Self { connections, ..self }
    }
}

impl From<&str> for Listen {
    fn from(address: &str) -> Self {
        Self::at(address)
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen at this address.
    #[error("cannot listen on {listen}: {error}")]
    Listen {
        /// The address.
        listen: String,
        /// What the system says.
        #[source]
        error: std::io::Error,
    },
    /// The engine did not start.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Server {
    /// Listens, and answers requests that name a host of ours (see [`Listen`]), opens the engine over this store and begins. Call inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`StartError`]: the address is in the way, or the engine does not start.
    pub async fn start(
        app: Arc<App>,
        store: Arc<dyn Store>,
        settings: Settings,
        listen: impl Into<Listen>,
    ) -> Result<Self, StartError> {
        let Listen { address: listen, allowed, connections, token } = listen.into();
        let cannot = |error| StartError::Listen { listen: listen.clone(), error };
        // First the address: when another process holds it, work is better not begun.
        let listener = TcpListener::bind(&listen).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        let limits = Limits { max_payload_bytes: settings.max_payload_bytes };
        let engine = Embedded::open(app, store, settings).await?;
        let routes = guarded(engine.front(), limits, Hosts::loopback_and(allowed), token);
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            // A sender that is gone means the same as one that has sent.
            serve(listener, routes, connections, stopped.map(drop)).await;
        });
        Ok(Self { address, engine, stop, serving })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as clients write it; an unspecified address is named by the loopback one.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }

    /// The engine behind it.
    #[must_use]
    pub fn engine(&self) -> &Embedded {
        &self.engine
    }

    /// Takes nothing new, lets what is under way end for up to `grace`, and closes the store.
    pub async fn stop(self, grace: Duration) {
        let Self { engine, stop, mut serving, .. } = self;
        // Nobody listens any more only if serving has ended already.
        let _ = stop.send(());
        let requests = async {
            if tokio::time::timeout(grace.min(REQUEST_GRACE), &mut serving).await.is_err() {
                serving.abort();
                // It ends where it stands, and lets go of the store.
                let _ = serving.await;
            }
        };
        tokio::join!(requests, engine.shutdown(grace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_has_no_name_by_that() {
        let names = |address: &str| Listen::at(address).allowed.len();
        assert_eq!(["orders.internal:80", "10.0.0.7:80", "[fe80::1]:80"].map(names), [1, 1, 1]);
        assert_eq!(["0.0.0.0:80", "[::]:80", ":80"].map(names), [0, 0, 0]);
    }
}
