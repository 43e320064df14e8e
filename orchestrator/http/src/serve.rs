//! Serving until told to stop.

use axum::Router;
use tokio::net::TcpListener;

/// Serves these routes until `stop` is ready; then takes no new connections and returns when the requests that are
/// under way have their answers.
///
/// # Errors
/// What the listener reports.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
