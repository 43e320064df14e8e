//! The shell around the core: it loads histories, commits decisions and hands out work.
//!
//! Read [`handle`] first: it is the way of an event; then, as things happen, `post` (messages, sorted), `know` (the run,
//! looked up), `pass` (its heart), [`commit`] (one conditional create and what its answers mean), `dispatch`, `close`;
//! `lost` and [`sweep`] for what may be lost on the way, [`parking`] for code that cannot go on.
//!
//! [`states`] is the one way to know a run without its code. [`intake`] takes inputs in without deciding, [`front`] is
//! what callers may ask, [`describe`] what they are told of a run, `journal` what the log says, `query` the questions that code answers, [`attempts`] and [`worker`] are activities, [`thread`] is
//! where workflow code runs, [`host`] where time and chance come from. [`store`]
//! and [`seams`] are the traits that a backend implements; [`stores`] and [`embedded`] are backends.

mod activity_threads;
pub mod attempts;
mod cache;
mod close;
pub mod commit;
pub mod decider;
pub mod describe;
mod dispatch;
pub mod embedded;
mod error;
pub mod front;
pub mod handle;
pub mod host;
pub mod intake;
mod journal;
mod know;
mod lost;
pub mod parking;
pub mod parkings;
mod pass;
pub mod ports;
mod post;
mod query;
mod repeats;
pub mod seams;
pub mod states;
pub mod stop;
pub mod store;
pub mod stores;
pub mod sweep;
pub mod thread;
pub mod worker;

pub use error::ApiError;
