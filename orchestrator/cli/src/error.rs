//! What a verb says when it did not do what was asked: one message, a hint, an exit code; for scripts, a problem.

use std::error::Error;
use std::process::ExitCode;

use dormouse_client::ClientError;
use dormouse_core::api::Problem;
use dormouse_core::{Failure, RunId};
use serde::Serialize;

use crate::exit::{
    EXIT_NOT_FOUND, EXIT_PARKED, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, EXIT_WORKFLOW_FAILED, title,
};
use crate::format::Format;

/// Why a verb did not do what was asked. Any `std::error::Error` becomes one through `?`.
#[derive(Debug)]
pub struct CliError {
    message: String,
    hint: Option<String>,
    code: u8,
    /// What the server said.
    problem: Option<Box<Problem>>,
    quiet: bool,
}

impl CliError {
    /// A refusal with this message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: EXIT_REFUSED, problem: None, quiet: false }
    }

    /// A command line that makes no sense.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).code(EXIT_USAGE)
    }

    /// With another exit code than that of a refusal.
    #[must_use]
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Adds what to do about it, or says something better than was known before.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The reader of our output has gone; that is no failure.
    pub(crate) fn nobody_reads() -> Self {
        Self { quiet: true, ..Self::new("").code(0) }
    }

    pub(crate) fn is_nobody_reads(&self) -> bool {
        self.quiet
    }

    /// Says it on standard error: in prose, or as a problem (RFC 9457) on a line of its own, the last one.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        match format {
            _ if self.quiet => {}
            // What cannot be written as JSON is said all the same.
            Format::Json => {
                let said = Said::of(self);
                eprintln!("{}", serde_json::to_string(&said).unwrap_or_else(|_| self.message.clone()));
            }
            Format::Table => {
                eprintln!("error: {}", self.message);
                if let Some(hint) = &self.hint {
                    eprintln!("hint: {hint}");
                }
            }
        }
        ExitCode::from(self.code)
    }
}

/// An error, for scripts: what the server said, where it was the server, and our exit code.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(rename = "type")]
    problem_type: &'a str,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn of(error: &'a CliError) -> Self {
        let problem = error.problem.as_deref();
        Self {
            problem_type: problem.map_or("about:blank", |problem| &problem.problem_type),
            title: problem.map_or_else(|| title(error.code), |problem| &problem.title),
            status: problem.map(|problem| problem.status),
            detail: &error.message,
            hint: error.hint.as_deref(),
            exit_code: error.code,
            run_id: problem.and_then(|problem| problem.run_id),
            failure: problem.and_then(|problem| problem.failure.as_ref()),
            pointer: problem.and_then(|problem| problem.pointer.as_deref()),
        }
    }
}

impl<E: Error + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        if let Some(error) = error.downcast_ref::<ClientError>() {
            return from_client(error);
        }
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat their cause in their own message.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(message)
    }
}

fn from_client(error: &ClientError) -> CliError {
    let said =
        CliError { problem: problem(error).cloned().map(Box::new), ..CliError::new(in_flags(&error.to_string())) };
    match error {
        ClientError::Transport { reached: false, .. } => said
            .code(EXIT_UNREACHABLE)
            .hint("is the server running? An application's program starts one with `dev`; --address or DORMOUSE_ADDRESS name another"),
        ClientError::Transport { reached: true, .. } => {
            said.code(EXIT_UNREACHABLE).hint("the server was there, and did not answer to the end; ask again")
        }
        ClientError::Problem(problem) if problem.status >= 500 => said.code(EXIT_UNREACHABLE),
        ClientError::Invalid(_) => said.code(EXIT_USAGE),
        ClientError::AlreadyStarted(_) => {
            said.hint("choose another --id, or say what shall happen with --id-conflict-policy or --id-reuse-policy")
        }
        ClientError::Denied(_) => {
            said.hint("--auth, --token-file, --region and AWS_PROFILE say as whom to ask; --help tells more")
        }
        ClientError::DoesNotFit(problem) => said.hint(match problem.pointer.as_deref() {
            None | Some("") => "nothing was written; correct the value (--input) and send it again".to_owned(),
            Some(pointer) => format!("nothing was written; correct {pointer} in the value (--input) and send it again"),
        }),
        // The message says which queries there are.
        ClientError::NotFound(problem) if problem.problem_type == NO_SUCH_QUERY => said.code(EXIT_NOT_FOUND),
        ClientError::NotFound(_) => {
            said.code(EXIT_NOT_FOUND).hint("`workflow list` shows the workflows that there are")
        }
        ClientError::Parked(_) => said.code(EXIT_PARKED),
        ClientError::WorkflowFailed { .. } => said.code(EXIT_WORKFLOW_FAILED),
        _ => said,
    }
}

const NO_SUCH_QUERY: &str = "/problems/no-such-query";

fn problem(error: &ClientError) -> Option<&Problem> {
    match error {
        ClientError::NotFound(problem)
        | ClientError::AlreadyStarted(problem)
        | ClientError::Closed(problem)
        | ClientError::DoesNotFit(problem)
        | ClientError::Parked(problem)
        | ClientError::Problem(problem)
        | ClientError::Denied(problem) => Some(problem),
        _ => None,
    }
}

/// What the server calls by the names of its headers and fields, by those of our options.
fn in_flags(detail: &str) -> String {
    let names = [
        ("the same Idempotency-Key", "the same --request-id"),
        ("the Idempotency-Key", "--request-id"),
        ("Idempotency-Key", "--request-id"),
        ("an id_conflict_policy of", "an --id-conflict-policy of"),
        ("the request's id_reuse_policy", "--id-reuse-policy"),
    ];
    names.iter().fold(detail.to_owned(), |detail, (theirs, ours)| detail.replace(theirs, ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_the_kinds_apart() {
        let unreachable =
            ClientError::Transport { address: "http://x".into(), message: "refused".into(), reached: false };
        assert_eq!(CliError::from(unreachable).code, EXIT_UNREACHABLE);
        assert_eq!(CliError::from(ClientError::Invalid("x".into())).code, EXIT_USAGE);
        assert_eq!(CliError::from(std::io::Error::other("x")).code, EXIT_REFUSED);
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_place() {
        let problem = serde_json::from_value(serde_json::json!({
            "type": "/problems/does-not-fit", "title": "t", "status": 422, "detail": "d", "pointer": "/amount_cents",
        }));
        let error = CliError::from(ClientError::DoesNotFit(Box::new(problem.unwrap())));
        let said = serde_json::to_value(Said::of(&error)).unwrap();
        assert_eq!((&said["pointer"], &said["status"]), (&"/amount_cents".into(), &422.into()));
        assert_eq!((error.code, error.hint.unwrap().contains("/amount_cents")), (EXIT_REFUSED, true));
    }
}
