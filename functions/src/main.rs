//! The sample application's program: the engine, its command line, and a verb of its own.

mod demo;

use std::process::ExitCode;

use functions::app;
use functions::ledger::Ledger;

fn main() -> ExitCode {
    dormouse::cli(app(Ledger::from_env())).verb::<demo::Demo>("demo").main()
}
