//! Comments that allow a finding: `// dormouse: allow(clock): only logged`.

use std::collections::BTreeSet;

use proc_macro2::{LineColumn, TokenStream, TokenTree};
use quote::ToTokens;

use crate::reach::Found;
use crate::report::Finding;
use crate::rules::RULES;
use crate::sources::Source;

/// The name under which comments are findings.
const ALLOW: &str = "allow";
const HOW: &str = "`// dormouse: allow(RULE): REASON`, on the line of the finding or above it";

/// A comment that is meant for us.
struct Comment {
    at: LineColumn,
    /// The line of which it speaks.
    line: usize,
    said: Result<Allowed, String>,
}

struct Allowed {
    rules: Vec<String>,
    has_reason: bool,
}

/// Takes away what is allowed, and adds comments that are not as they should be.
pub(crate) fn apply(files: &[Source], found: Found) -> Vec<Finding> {
    let mut findings: Vec<Finding> = found.into_values().collect();
    for file in files {
        let mut about = Vec::new();
        for comment in comments(file) {
            let allowed = match &comment.said {
                Ok(allowed) => allowed,
                Err(said) => {
                    about.push(finding(file, &comment, said.clone(), "nobody knows what it allows"));
                    continue;
                }
            };
            if !allowed.has_reason {
                let what = format!("`allow({})` without a reason", allowed.rules.join(", "));
                about.push(finding(file, &comment, what, "whoever reads it next cannot tell whether it still holds"));
            }
            for rule in &allowed.rules {
                let before = findings.len();
                let is_meant = |finding: &Finding| {
                    finding.file == file.name && finding.line == comment.line && finding.rule == *rule
                };
                findings.retain(|finding| !is_meant(finding));
                if findings.len() == before {
                    let what = format!("`allow({rule})` that allows nothing");
                    about.push(finding(file, &comment, what, "what it allowed is gone, or it stands at another line"));
                }
            }
        }
        findings.extend(about);
    }
    findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    findings
}

fn finding(file: &Source, comment: &Comment, what: String, why: &'static str) -> Finding {
    Finding {
        file: file.name.clone(),
        line: comment.at.line,
        column: comment.at.column + 1,
        rule: ALLOW,
        what,
        why,
        instead: HOW,
        called: Vec::new(),
    }
}

/// The comments of a file that begin with `dormouse:`, but for those in code that was left alone.
fn comments(file: &Source) -> Vec<Comment> {
    // What stands in a text is no comment.
    let mut literals = Vec::new();
    spans(file.code.to_token_stream(), &mut literals);
    let in_literal = |at: LineColumn| literals.iter().any(|(start, end)| *start <= at && at < *end);
    let lines: Vec<&str> = file.text.lines().collect();
    let mut comments = Vec::new();
    for (index, text) in lines.iter().enumerate() {
        let line = index + 1;
        if file.skipped.iter().any(|lines| lines.contains(&line)) {
            continue;
        }
        if !text.contains("dormouse:") {
            continue;
        }
        let starts =
            text.match_indices("//").map(|(at, _)| (at, LineColumn { line, column: text[..at].chars().count() }));
        let Some((start, at)) = starts.into_iter().find(|(_, at)| !in_literal(*at)) else { continue };
        let Some(said) = text[start + 2..].trim_start().strip_prefix("dormouse:") else { continue };
        let alone = text[..start].trim().is_empty();
        let below = || lines[index..].iter().position(|text| !text.trim_start().starts_with("//"));
        let line = if alone { line + below().unwrap_or(0) } else { line };
        comments.push(Comment { at, line, said: understand(said.trim()) });
    }
    comments
}

fn understand(said: &str) -> Result<Allowed, String> {
    let parts = said.strip_prefix("allow").and_then(|rest| rest.trim_start().strip_prefix('(')?.split_once(')'));
    let Some((rules, reason)) = parts else {
        return Err(format!("`dormouse: {said}`, a comment that is not understood"));
    };
    let rules: Vec<String> = rules.split(',').map(|rule| rule.trim().to_owned()).collect();
    let known: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    if let Some(unknown) = rules.iter().find(|rule| !known.contains(rule.as_str())) {
        let known: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
        return Err(format!("`allow({unknown})`, and there is no such rule; there are {}", known.join(", ")));
    }
    let reason = reason.trim_start().strip_prefix(':').unwrap_or_default().trim();
    Ok(Allowed { rules, has_reason: !reason.is_empty() })
}

/// Where a file's literals are, doc comments among them.
fn spans(tokens: TokenStream, found: &mut Vec<(LineColumn, LineColumn)>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => spans(group.stream(), found),
            TokenTree::Literal(literal) => found.push((literal.span().start(), literal.span().end())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_name_rules_and_a_reason() {
        let read = |said: &str| understand(said).map(|allowed| (allowed.rules.join(" "), allowed.has_reason));
        assert_eq!(read("allow(clock): only logged"), Ok(("clock".to_owned(), true)));
        assert_eq!(read("allow (clock, file) : logged"), Ok(("clock file".to_owned(), true)));
        assert_eq!(read("allow(clock)"), Ok(("clock".to_owned(), false)));
        assert_eq!(read("allow(clock):  "), Ok(("clock".to_owned(), false)));
        assert!(read("allow(clocks): x").unwrap_err().contains("there are clock, random"));
        assert!(read("allow clock").unwrap_err().contains("not understood"));
    }
}
