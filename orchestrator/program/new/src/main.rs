//! The program: `dev` runs it, `workflow ...` uses it, `--help` says more.

use std::process::ExitCode;

fn main() -> ExitCode {
    dormouse::main({{crate}}::app())
}
