//! `dormouse`: a program without an application in it. What a client can do, for the servers of any application; the
//! determinism check of workflows; manual pages.

mod lint;
mod man;
mod new;

use std::process::ExitCode;

use dormouse_cli::Cli;

const EXAMPLES: &str = "\
Examples:
  new my-app --path ../dormouse                  a project of your own
  lint                                           what is not deterministic in this project
  export DORMOUSE_ADDRESS=https://...            where an application's API is
  workflow start --type {type} --id example-1 --input {input}
  workflow show example-1                        what has happened to it
  workflow result example-1 --wait 60s           wait for its result
  workflow list --status Running --output json   for scripts
  man workflow start                             the manual page of a verb

To run an application is its own program's: it has the same verbs, and `dev`.";

fn main() -> ExitCode {
    Cli::client().examples(EXAMPLES).verb::<new::New>("new").verb::<lint::Lint>("lint").verb::<man::Man>("man").main()
}
