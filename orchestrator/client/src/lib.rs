//! The client: workflows from afar, over the HTTP API.
//!
//! [`Client`] knows the application, so that workflows are named by their functions and inputs and results have their
//! types. [`RawClient`] beneath it knows names and JSON only; the command line uses it.
//!
//! Every write carries an idempotency key and is repeated with the same key when the connection breaks or the server
//! is not available; so it takes effect once, however often it was sent.
//!
//! Towards a deployed API, [`Auth`] says who asks. Features: `tls` for https addresses, `aws` for signatures with AWS
//! credentials, which brings `tls` along.

mod address;
mod auth;
#[cfg(feature = "aws")]
mod aws;
mod client;
mod connection;
mod error;
mod handle;
mod patience;
mod quarantine;
mod raw;
mod raw_handle;
mod send;

pub use auth::{Auth, BearerToken};
#[cfg(feature = "aws")]
pub use aws::AwsSigner;
pub use client::{Client, StartCall};
pub use connection::fresh_request_id;
pub use error::ClientError;
pub use handle::WorkflowHandle;
pub use patience::Patience;
pub use raw::{ListFilter, RawClient};
pub use raw_handle::RawHandle;
