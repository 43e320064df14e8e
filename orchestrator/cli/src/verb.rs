//! Verbs: what the binary can be told to do.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command};
use dormouse_core::App;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use serde::Serialize;

use crate::error::CliError;
use crate::output::{self, Format, quoted};

/// What a verb finds around it.
#[derive(Debug, Clone)]
pub struct Context {
    /// The application.
    pub app: App,
    /// For people or for scripts.
    pub format: Format,
    /// Whether standard output shows colours.
    pub colour: bool,
    /// The command line as it was typed.
    pub(crate) line: Arc<[String]>,
    pub(crate) command: Arc<Command>,
}

impl Context {
    /// The whole command line: all verbs and options that this program understands.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::clone(&self.command)
    }

    /// Writes a text and a newline to standard output, at once.
    ///
    /// # Errors
    /// It cannot be written. That nobody reads any more is an error that ends the verb, and is reported to nobody.
    pub fn say(&self, text: &str) -> Result<(), CliError> {
        output::say(text)
    }

    /// Writes a value to standard output as JSON, for scripts.
    ///
    /// # Errors
    /// As of [`say`](Self::say), or the value is none that JSON can hold.
    pub fn say_json<T: Serialize>(&self, value: &T) -> Result<(), CliError> {
        output::say_json(value)
    }

    /// The command line, to be typed once more under this request id.
    pub(crate) fn again(&self, request_id: &str) -> String {
        let mut line: Vec<String> = self.line.iter().map(|word| quoted(word)).collect();
        if !line.iter().any(|word| word == "--request-id" || word.starts_with("--request-id=")) {
            line.extend(["--request-id".to_owned(), quoted(request_id)]);
        }
        line.join(" ")
    }
}

/// Warnings, but for those of the search for AWS credentials and a region: what it comes to is said as an error, with
/// what to do.
const QUIET: &str = "warn,aws_config=off";

/// A verb of the command line: its arguments, and what it does. The arguments' documentation is the verb's help.
///
/// ```no_run
/// use std::process::ExitCode;
/// use dormouse_cli::{Cli, CliError, Context, Verb};
/// # use dormouse_core::App;
/// # fn app() -> App { App::new() }
///
/// /// Shows what this application can do.
/// #[derive(clap::Args)]
/// struct Demo {
///     /// How many orders to place.
///     #[arg(long, default_value_t = 3)]
///     orders: u32,
/// }
///
/// impl Verb for Demo {
///     async fn run(self, cx: Context) -> Result<ExitCode, CliError> {
///         println!("{} orders for {:?}", self.orders, cx.app);
///         Ok(ExitCode::SUCCESS)
///     }
/// }
///
/// fn main() -> ExitCode {
///     Cli::new(app()).verb::<Demo>("demo").main()
/// }
/// ```
///
/// `--output` and `--log` belong to every verb; its own arguments need other names.
pub trait Verb: Args + 'static {
    /// What is logged unless `--log` or `RUST_LOG` says otherwise.
    const LOG: &'static str = QUIET;

    /// Does it. Runs inside a tokio runtime.
    fn run(self, cx: Context) -> impl Future<Output = Result<ExitCode, CliError>>;
}

type Run = Box<dyn Fn(&ArgMatches, Context) -> LocalBoxFuture<'static, Result<ExitCode, CliError>>>;

/// A verb with its types forgotten.
pub(crate) struct Entry {
    pub(crate) command: Command,
    log: &'static str,
    run: Run,
    below: Vec<Entry>,
}

impl Entry {
    pub(crate) fn of<V: Verb>(name: &'static str) -> Self {
        let run: Run = Box::new(|matches, cx| match V::from_arg_matches(matches) {
            Ok(verb) => verb.run(cx).boxed_local(),
            Err(error) => std::future::ready(Err(CliError::usage(error.to_string()))).boxed_local(),
        });
        Self { command: V::augment_args(Command::new(name)), log: V::LOG, run, below: Vec::new() }
    }

    /// Verbs under a noun.
    pub(crate) fn group(command: Command, below: Vec<Entry>) -> Self {
        let command = command.subcommand_required(true).arg_required_else_help(true);
        let command = below.iter().fold(command, |command, entry| command.subcommand(&entry.command));
        let run: Run =
            Box::new(|_, _| std::future::ready(Err(CliError::usage("say which; --help lists them"))).boxed_local());
        Self { command, log: QUIET, run, below }
    }
}

/// The verb that was asked for, with its own matches.
pub(crate) fn chosen<'a>(entries: &'a [Entry], matches: &'a ArgMatches) -> Option<(&'a Entry, &'a ArgMatches)> {
    let (name, matches) = matches.subcommand()?;
    let entry = entries.iter().find(|entry| entry.command.get_name() == name)?;
    Some(chosen(&entry.below, matches).unwrap_or((entry, matches)))
}

impl Entry {
    pub(crate) fn log(&self) -> &'static str {
        self.log
    }

    pub(crate) fn run(&self, matches: &ArgMatches, cx: Context) -> LocalBoxFuture<'static, Result<ExitCode, CliError>> {
        (self.run)(matches, cx)
    }
}
