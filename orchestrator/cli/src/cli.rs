//! The program: verbs, what they share, and running the one that was asked for.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use dormouse_core::App;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::error::CliError;
use crate::examples;
use crate::exit::{self, EXIT_USAGE};
use crate::output::{self, Format};
use crate::verb::{Context, Entry, Verb, chosen};
use crate::verbs;

const EXAMPLES: &str = "\
Examples:
  dev                                            run everything here, kept in ./dormouse-data
  workflow start --type {type} --id example-1 \\
      --input {input}
  workflow show example-1                        what has happened to it
  workflow result example-1 --wait 60s           wait for its result
  workflow list --status Running --output json   for scripts
  replay --data-dir dormouse-data                would open runs go on with the code of this program?";

const CLIENT_EXAMPLES: &str = "\
Examples:
  export DORMOUSE_ADDRESS=https://...            where the application's API is
  workflow start --type {type} --id example-1 --input {input}
  workflow show example-1                        what has happened to it
  workflow result example-1 --wait 60s           wait for its result
  workflow list --status Running --output json   for scripts";

/// What every verb takes.
#[derive(Debug, Args)]
struct Shared {
    /// For people, or for scripts
    #[arg(long, global = true, value_enum, default_value_t = Format::Table, help_heading = "Shared options")]
    output: Format,
    /// What to log to standard error, such as `debug` or `info,dormouse_engine=trace`
    #[arg(long, global = true, env = "RUST_LOG", help_heading = "Shared options")]
    log: Option<String>,
}

/// An application's command line.
///
/// See [`Verb`] for how an application adds verbs of its own.
pub struct Cli {
    app: App,
    entries: Vec<Entry>,
    host: Option<Host>,
    examples: &'static str,
}

/// Runs the application if this process was started by somebody who gives no arguments.
type Host = fn(App) -> Option<ExitCode>;

impl Cli {
    /// The command line of this application: `dev`, `workflow ...`, `replay`, `quarantine ...`, `completion`.
    #[must_use]
    pub fn new(app: App) -> Self {
        Self { app, entries: verbs::all(), host: None, examples: EXAMPLES }
    }

    /// The command line of no application, for the servers of any: the same without `dev` and `replay`.
    #[must_use]
    pub fn client() -> Self {
        Self { app: App::new(), entries: verbs::of_clients(), host: None, examples: CLIENT_EXAMPLES }
    }

    /// Replaces the examples that `--help` shows, their heading included.
    #[must_use]
    pub fn examples(self, examples: &'static str) -> Self {
        Self { examples, ..self }
    }

    /// Adds a verb, or replaces the one of this name.
    #[must_use]
    pub fn verb<V: Verb>(mut self, name: &'static str) -> Self {
        self.entries.retain(|entry| entry.command.get_name() != name);
        self.entries.push(Entry::of::<V>(name));
        self
    }

    /// Asks this first when the program starts: it runs the application, and ends with its exit code, where a process
    /// is started without arguments, as on Lambda.
    #[must_use]
    pub fn host(mut self, host: fn(App) -> Option<ExitCode>) -> Self {
        self.host = Some(host);
        self
    }

    /// Runs the verb that the process was started with.
    #[must_use]
    pub fn main(self) -> ExitCode {
        if let Some(done) = self.host.and_then(|host| host(self.app.clone())) {
            return done;
        }
        self.main_from(std::env::args_os())
    }

    /// The same with these arguments; the first is the program's name.
    #[must_use]
    pub fn main_from<I: IntoIterator<Item = T>, T: Into<OsString> + Clone>(self, arguments: I) -> ExitCode {
        let line: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let format = asked_format(&line);
        match self.command().try_get_matches_from(&line) {
            Ok(matches) => self.run(&matches, &line).unwrap_or_else(|error| error.report(format)),
            Err(error) if error.use_stderr() && format == Format::Json => {
                CliError::usage(error.render().to_string().trim_end()).report(format)
            }
            Err(error) => {
                // Help goes to standard output; if nobody reads it, there is nobody to tell.
                let _ = error.print();
                ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 })
            }
        }
    }

    fn command(&self) -> Command {
        let name = std::env::args_os().next().map(std::path::PathBuf::from);
        let has_app = self.entries.iter().any(|entry| entry.command.get_name() == verbs::DEV);
        let name = name.as_deref().and_then(|path| path.file_stem()?.to_str()).unwrap_or("dormouse").to_owned();
        // First the shared options: what follows replaces the description that they bring along.
        let root = Shared::augment_args(Command::new(name))
            .version(concat!("(Dormouse ", env!("CARGO_PKG_VERSION"), ")"))
            .about("Durable workflows: code that survives crashes, restarts and waits of any length")
            .after_help(format!("{}\n\n{}", self.examples, exit::table(has_app)))
            .subcommand_required(true)
            .arg_required_else_help(true);
        examples::fill(self.entries.iter().fold(root, |root, entry| root.subcommand(&entry.command)), &self.app)
    }

    fn run(&self, matches: &ArgMatches, line: &[OsString]) -> Result<ExitCode, CliError> {
        self.app.check().map_err(|error| CliError::usage(error.to_string()))?;
        let (entry, matches) =
            chosen(&self.entries, matches).ok_or_else(|| CliError::usage("no verb was given; --help lists them"))?;
        let shared = Shared::from_arg_matches(matches).map_err(|error| CliError::usage(error.to_string()))?;
        start_logging(shared.log.as_deref().unwrap_or(entry.log()))?;
        let line = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (app, format, colour) = (self.app.clone(), shared.output, output::colours());
        let cx = Context { app, format, colour, line, command: Arc::new(self.command()) };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(entry.run(matches, cx));
        // A verb that is done waits for nobody: what still runs in the background is not worth a delay.
        runtime.shutdown_background();
        outcome
    }
}

/// How errors are to be written, also where the line is not understood.
fn asked_format(line: &[OsString]) -> Format {
    let json = |words: &[OsString]| words[0] == "--output" && words[1] == "json";
    let joined = line.iter().any(|word| word == "--output=json");
    if joined || line.windows(2).any(json) { Format::Json } else { Format::Table }
}

fn start_logging(filter: &str) -> Result<(), CliError> {
    let filter: Targets = filter
        .parse()
        .map_err(|error| CliError::usage(format!("{filter:?} is no log filter: {error}")).hint("try --log info"))?;
    let colour = std::io::stderr().is_terminal() && !output::no_colour();
    // An application that set up its own logging keeps it.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Args)]
    struct Demo {
        /// How many.
        #[arg(long, default_value_t = 3)]
        orders: u32,
    }

    impl Verb for Demo {
        async fn run(self, _: Context) -> Result<ExitCode, CliError> {
            Ok(ExitCode::from(u8::try_from(self.orders)?))
        }
    }

    fn cli() -> Cli {
        Cli::new(App::new()).verb::<Demo>("demo")
    }

    fn parse(line: &str) -> Result<ArgMatches, clap::Error> {
        cli().command().try_get_matches_from(std::iter::once("app").chain(line.split_whitespace()))
    }

    #[test]
    fn the_commands_are_sound() {
        cli().command().debug_assert();
    }

    #[test]
    fn verbs_of_the_application_run() {
        let code = |line: &str| format!("{:?}", cli().main_from(std::iter::once("app").chain(line.split_whitespace())));
        assert_eq!(code("demo --orders 7"), format!("{:?}", ExitCode::from(7)));
        assert_eq!(code("demo --orders many"), format!("{:?}", ExitCode::from(EXIT_USAGE)));
        assert_eq!(code("nonsense"), format!("{:?}", ExitCode::from(EXIT_USAGE)));
    }

    #[test]
    fn every_verb_is_understood() {
        for line in [
            "dev",
            "dev --data-dir d --listen 127.0.0.1:0 --output json",
            "--log debug dev",
            "workflow start --type t",
            "workflow start --type t --id a --input {} --wait --id-conflict-policy UseExisting",
            "workflow list --status Running --type t --id-prefix order- --limit 5 --output json",
            "workflow describe a --address http://localhost:1",
            "workflow list --address https://x.execute-api.eu-central-1.amazonaws.com --auth aws --region eu-central-1",
            "workflow list --auth bearer --token-file token --token-over-http",
            "dev --listen 0.0.0.0:7780 --no-auth",
            "workflow show a --follow --full",
            "workflow describe a --full",
            "dev --allow-host orders.internal --allow-host 10.0.0.7",
            "workflow result a --wait 60s --fail-if-parked",
            "workflow start --type t --wait --fail-if-parked",
            "workflow signal a approval --input true",
            "workflow query a status",
            "workflow cancel a --reason enough --run-id 67e55044-10b1-426f-9247-bb680e5fe0c8",
            "workflow terminate a",
            "quarantine list --limit 5 --output json",
            "quarantine redrive 1-a 2-b --address http://localhost:1",
            "quarantine redrive --all",
            "quarantine show 1-a --output json",
            "quarantine discard 1-a 2-b",
            "workflow list --parked",
            "workflow export a b --dir histories",
            "workflow export --dir histories --type t --id-prefix order- --closed --output json",
            "replay",
            "replay a.json histories --junit report.xml --strict --sample 10 --seed 7",
            "replay --data-dir d --type t --id-prefix order- --closed --threads 2 --turn-limit 1s",
            "replay --id order-1 --run-id 67e55044-10b1-426f-9247-bb680e5fe0c8 --address http://localhost:1",
            "completion bash",
            "demo --orders 2 --output json",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "workflow",
            "workflow start",
            "workflow start --type t --id-reuse-policy Sometimes",
            "workflow list --status Dreaming",
            "workflow list --auth password",
            "workflow result a --wait soon",
            "workflow cancel a --run-id 7",
            "quarantine",
            "quarantine list --all",
            "quarantine redrive",
            "quarantine redrive 1-a --all",
            "quarantine show",
            "quarantine discard",
            "quarantine discard --all",
            "dev --grace forever",
            "dev --turn-limit 99ms",
            "dev --allow-host http://orders.internal:80",
            "dev --store gs://bucket/prefix",
            "dev --lease 5s",
            "workflow export a",
            "workflow export a --dir d --type t",
            "replay a.json --data-dir d",
            "replay a.json --id order-1",
            "replay --data-dir d --store s3://b/p",
            "replay --run-id 67e55044-10b1-426f-9247-bb680e5fe0c8",
            "replay --sample 0",
            "replay --seed 7",
            "completion fishes",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn shared_options_may_stand_anywhere() {
        for line in ["--output json workflow list", "workflow --output json list", "workflow list --output json"] {
            let matches = parse(line).unwrap();
            let cli = cli();
            let (_, matches) = chosen(&cli.entries, &matches).unwrap();
            assert_eq!(Shared::from_arg_matches(matches).unwrap().output, Format::Json, "{line}");
        }
    }

    #[test]
    fn without_an_application_there_is_no_dev() {
        let command = Cli::client().command();
        command.clone().debug_assert();
        let verbs: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        assert_eq!(verbs, ["workflow", "quarantine", "completion"]);
        let help = command.clone().render_help().to_string();
        assert!(!help.contains("`dev`") && !help.contains("`replay`") && help.contains("--type TYPE"), "{help}");
        assert!(cli().command().render_help().to_string().contains("`dev` was told"));
        assert!(command.try_get_matches_from(["app", "dev"]).is_err());
    }

    #[test]
    fn help_teaches() {
        let help = cli().command().render_help().to_string();
        assert!(help.starts_with("Durable workflows"), "{help}");
        for word in ["dev", "workflow", "demo", "Exit codes", "Examples", "--type TYPE"] {
            assert!(help.contains(word), "{word} is not in:\n{help}");
        }
    }
}
