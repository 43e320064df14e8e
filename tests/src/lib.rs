//! What tests of whole processes need: servers as children, and proof of what they wrote before they answered.

pub mod dice;
pub mod server;
pub mod syncs;
