//! The shell around the core: it loads histories, commits decisions and hands out work.
//!
//! Read [`handle`] first: it is the way of an event; `pass` is its heart, `dispatch` its end. Then [`commit`] (one conditional create and what its answers
//! mean), [`intake`] (taking inputs in without deciding), [`attempts`] and [`worker`] (activities), [`front`] (what
//! callers may ask). [`store`] and [`seams`] are the traits that a backend implements; [`stores`] and [`embedded`]
//! are backends.

pub mod attempts;
pub mod commit;
mod dispatch;
pub mod embedded;
mod error;
pub mod front;
pub mod handle;
pub mod host;
pub mod intake;
pub mod parking;
mod pass;
pub mod ports;
pub mod seams;
pub mod store;
pub mod stores;
pub mod sweep;
pub mod worker;

pub use error::ApiError;
