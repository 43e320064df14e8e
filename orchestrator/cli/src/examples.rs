//! Examples in the help: what they name is the application's own.

use clap::Command;
use dormouse_core::App;

/// What stands in the examples for a workflow type, its input, a signal, a query, and the program itself.
const PLACES: [&str; 5] = ["{type}", "{input}", "{signal}", "{query}", "{program}"];

/// Fills the examples of this command, and of those below it, with names of this application, and with the input that it
/// gave as an example; where it gave none, the word JSON stands for one.
pub(crate) fn fill(command: Command, app: &App) -> Command {
    let example = app.examples().next();
    let workflow_type = example.map(|(name, _)| name).or_else(|| app.workflow_types().next());
    let input = example.map_or_else(|| "JSON".to_owned(), |(_, input)| input.to_string());
    let texts = [
        workflow_type.unwrap_or("TYPE").to_owned(),
        format!("'{}'", input.replace('\'', "'\\''")),
        app.declared().signals().next().unwrap_or("SIGNAL").to_owned(),
        app.declared().queries().next().unwrap_or("QUERY").to_owned(),
        command.get_name().to_owned(),
    ];
    fill_with(command, &texts)
}

fn fill_with(command: Command, texts: &[String; 5]) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command =
        below.iter().fold(command, |command, name| command.mut_subcommand(name, |below| fill_with(below, texts)));
    let Some(help) = command.get_after_help().map(ToString::to_string) else { return command };
    command.after_help(PLACES.iter().zip(texts).fold(help, |help, (place, text)| help.replace(place, text)))
}
