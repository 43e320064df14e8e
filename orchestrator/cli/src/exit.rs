//! Exit codes: one for each kind of ending that a script acts differently on.

/// Everything that was asked for is done; for results: the workflow completed.
pub const EXIT_DONE: u8 = 0;
/// The request was refused, or something else went wrong.
pub const EXIT_REFUSED: u8 = 1;
/// The command line makes no sense.
pub const EXIT_USAGE: u8 = 2;
/// The server could not be reached, or did not answer: what was asked for may have happened.
pub const EXIT_UNREACHABLE: u8 = 3;
/// There is no such workflow, run or query.
pub const EXIT_NOT_FOUND: u8 = 4;
/// The workflow ended without a result.
pub const EXIT_WORKFLOW_FAILED: u8 = 5;
/// The workflow had not ended when the time was up.
pub const EXIT_RUNNING: u8 = 6;
/// The run is parked: its code cannot go on.
pub const EXIT_PARKED: u8 = 7;
/// Today's code does not follow every history that it was held against.
pub const EXIT_DOES_NOT_FIT: u8 = 8;
/// It was interrupted before it could end in order.
pub const EXIT_INTERRUPTED: u8 = 130;

/// All of them: the code, a title, and what it says. `--help` and the README show this table.
pub(crate) const EXIT_CODES: &[(u8, &str, &str)] = &[
    (EXIT_DONE, "Done", "done; for results: the workflow completed"),
    (EXIT_REFUSED, "Refused", "the request was refused, or something else went wrong: the message says what"),
    (EXIT_USAGE, "The command line makes no sense", "the command line makes no sense"),
    (
        EXIT_UNREACHABLE,
        "The server could not be reached",
        "the server did not answer: what was asked for may have happened",
    ),
    (EXIT_NOT_FOUND, "Not found", "there is no such workflow, run or query"),
    (EXIT_WORKFLOW_FAILED, "The workflow ended without a result", "the workflow failed, or was canceled or terminated"),
    (EXIT_RUNNING, "The workflow is still running", "the workflow was still running when the time was up"),
    (EXIT_PARKED, "The run is parked", "the run is parked: its code cannot go on"),
    (EXIT_DOES_NOT_FIT, "The code does not fit", "`replay`: today's code does not follow every history"),
    (EXIT_INTERRUPTED, "Interrupted", "`dev` was told to stop twice, or before it had begun; `replay` was interrupted"),
];

/// A title for the kind of ending.
pub(crate) fn title(code: u8) -> &'static str {
    EXIT_CODES.iter().find(|(known, ..)| *known == code).map_or("An error", |(_, title, _)| title)
}

/// What only verbs end with that an application has, `dev` and `replay`.
const OF_APPLICATIONS: [u8; 2] = [EXIT_DOES_NOT_FIT, EXIT_INTERRUPTED];

/// The table, for people: of an application's program, or of one without an application.
pub(crate) fn table(has_app: bool) -> String {
    let codes = EXIT_CODES.iter().filter(|(code, ..)| has_app || !OF_APPLICATIONS.contains(code));
    let lines = codes.map(|(code, _, says)| format!("\n  {code:<4} {says}"));
    "Exit codes:".to_owned() + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_same_table() {
        let readme = include_str!("../../../README.md");
        for (code, _, says) in EXIT_CODES {
            assert!(readme.contains(&format!("| {code} | {says} |")), "{code} {says}");
            assert!(table(true).contains(&format!("  {code:<4} {says}")));
        }
    }
}
