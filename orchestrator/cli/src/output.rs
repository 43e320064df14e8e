//! Output: tables for people, JSON for scripts, colours only where they are seen.

use std::io::{ErrorKind, IsTerminal, Write};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use dormouse_core::{Payload, Status};
use serde::Serialize;

use crate::error::CliError;
pub(crate) use crate::format::Format;

/// How long a line of explanations becomes.
const LINE_WIDTH: usize = 100;

/// Whether somebody asked for no colours (<https://no-color.org>).
pub(crate) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether standard output shows colours.
pub(crate) fn colours() -> bool {
    std::io::stdout().is_terminal() && !no_colour()
}

/// Writes a text and a newline to standard output, at once.
pub(crate) fn say(text: &str) -> Result<(), CliError> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(CliError::nobody_reads()),
        outcome => Ok(outcome?),
    }
}

/// Writes a value as JSON, over several lines.
pub(crate) fn say_json<T: Serialize>(value: &T) -> Result<(), CliError> {
    say(&serde_json::to_string_pretty(value)?)
}

/// A user's value on one line: the space between its tokens goes, and nothing else changes.
pub(crate) fn one_line(value: &Payload) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = |c: &char| {
        (in_string, escaped) = match (in_string, c) {
            (true, '\\') if !escaped => (true, true),
            (true, '"') if !escaped => (false, false),
            (true, _) => (true, false),
            (false, c) => (*c == '"', false),
        };
        in_string || !c.is_ascii_whitespace()
    };
    value.to_string().chars().filter(kept).collect()
}

/// Text that came from elsewhere, with nothing in it that a terminal obeys.
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let unsafe_here = c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let (shown, escaped) = if unsafe_here { (None, Some(c.escape_unicode())) } else { (Some(c), None) };
            shown.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// The same, cut off where a line would become too long to read.
fn short(text: &str, most: usize) -> String {
    let text = tame(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The same, cut off unless everything is wanted.
pub(crate) fn fitted(text: &str, most: usize, full: bool) -> String {
    if full { tame(text) } else { short(text, most) }
}

/// Text of several lines from elsewhere, each tamed and broken where it would become too long to read; those behind the
/// first are indented.
pub(crate) fn wrapped(text: &str, indent: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .flat_map(|line| {
            let line = tame(line);
            let deeper = " ".repeat(line.len() - line.trim_start().len() + 2);
            let options = textwrap::Options::new(LINE_WIDTH).subsequent_indent(&deeper).break_words(false);
            textwrap::wrap(&line, options).into_iter().map(|part| part.into_owned()).collect::<Vec<_>>()
        })
        .collect();
    lines.join(&format!("\n{indent}"))
}

/// An id as it is written on a command line.
pub(crate) fn quoted(id: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    if !id.is_empty() && id.chars().all(plain) {
        id.to_owned()
    } else {
        format!("'{}'", tame(id).replace('\'', "'\\''"))
    }
}

/// A table with these headings.
pub(crate) fn table(headings: &[&str], colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings.iter().map(|text| {
        let cell = Cell::new(text);
        if colour { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    table
}

/// A cell with text from elsewhere.
pub(crate) fn cell(text: &str) -> Cell {
    Cell::new(tame(text))
}

/// A status, in its colour.
pub(crate) fn status_cell(status: Status, parked: bool, colour: bool) -> Cell {
    let text = if parked { format!("{status} (parked)") } else { status.to_string() };
    // A server of another build may call it anything.
    let cell = cell(&text);
    if !colour {
        return cell;
    }
    cell.fg(match status {
        _ if parked => Color::Red,
        Status::Running => Color::Cyan,
        Status::Completed => Color::Green,
        Status::Failed | Status::Terminated => Color::Red,
        Status::Canceled | Status::ContinuedAsNew => Color::Yellow,
        Status::Unknown(_) => Color::Magenta,
    })
}

/// A table as text, without the spaces at the ends of its lines.
pub(crate) fn render(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_commanded_from_afar() {
        assert_eq!(tame("a\u{1b}[2Jb\nc\u{9b}d\u{202e}e"), "a\\u{1b}[2Jb\\u{a}c\\u{9b}d\\u{202e}e");
        assert_eq!(tame("日本語 🐭"), "日本語 🐭");
        assert_eq!([quoted("a/b-1"), quoted("o 1"), quoted("it's")], ["a/b-1", "'o 1'", r"'it'\''s'"]);
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
        assert_eq!(fitted("ab\u{1b}cdef", 4, true), "ab\\u{1b}cdef");
        assert_eq!(wrapped("a\u{1b}\nb", "  "), "a\\u{1b}\n  b");
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let words = "word ".repeat(40);
        let text = wrapped(&format!("why:\n  {words}"), "");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (4, "why:"), "{text}");
        assert!(lines[1].starts_with("  word") && lines[2].starts_with("    word"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= LINE_WIDTH), "{text}");
        let one_word = "x".repeat(300);
        assert_eq!(wrapped(&one_word, ""), one_word, "a place or an id is copied whole");
    }

    #[test]
    fn tables_are_plain_when_nobody_looks() {
        let mut table = table(&["ID", "STATUS"], false);
        table.add_row([cell("order-1"), status_cell(Status::Completed, false, false)]);
        table.add_row([cell("a\u{1b}"), status_cell(Status::Running, true, false)]);
        assert_eq!(render(&table), " ID       STATUS\n order-1  Completed\n a\\u{1b}  Running (parked)");
    }
}
