//! The rules of the protocol, each shown by what it makes true of the engine: a test's name begins with its rule.
//!
//! | rule | says |
//! | --- | --- |
//! | C1 | a commit is known by its bytes: whoever finds its own has won |
//! | C2 | losing is normal and cheap: a loser hands nothing out, and keeps what it has |
//! | C3 | a cache proves nothing by itself |
//! | C4 | a key is never free again; a gap is looked at twice |
//! | C5 | a run begins only after the one before it is closed |
//! | C6 | a closing batch holds all of the next run: anyone creates it, all the same |
//! | C7 | a batch that is missing, moved or altered is noticed |
//! | C8 | recorded time never goes back, and waits go by the clock |
//! | C9 | a history that was recorded once is read for ever |
//! | F1 | anyone takes inputs in, only the decider decides, and what waits is decided |
//! | F2 | the intent is on the queue before the commit |
//! | F3 | an intent is for one run |
//! | F4 | a message that names no run follows the chain |
//! | F5 | the index row is due in time, whatever crashes |
//! | F6 | the sweep heals every lost message |
//! | R1 | what is delivered again sends nothing new |
//! | L1 | everything has a bound, and the bound has a name |
//! | O1 | an operator's word needs no user code |
//! | A1 | an attempt is claimed once, and only the history ends its lease |
//!
//! `planted` tests these tests: each fault that can be switched on in our own code must make one of them fail.

#[path = "rules/attempts.rs"]
mod attempts;
#[path = "rules/bounds.rs"]
mod bounds;
#[path = "rules/clocks.rs"]
mod clocks;
#[path = "rules/commit.rs"]
mod commit;
#[path = "rules/flow.rs"]
mod flow;
#[path = "rules/histories.rs"]
mod histories;
#[path = "rules/http.rs"]
mod http;
#[path = "rules/negative.rs"]
mod negative;
#[path = "rules/operator.rs"]
mod operator;
#[path = "rules/planted.rs"]
mod planted;
#[path = "rules/redelivery.rs"]
mod redelivery;
#[path = "rules/runs.rs"]
mod runs;
#[path = "rules/shared.rs"]
mod shared;
#[path = "rules/sweep.rs"]
mod sweep;
#[path = "rules/tamper.rs"]
mod tamper;
#[path = "rules/walk.rs"]
mod walk;
#[path = "rules/workflows.rs"]
mod workflows;
