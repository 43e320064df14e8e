//! What a verb says when it did not do what was asked: one message, a hint, an exit code.

use std::error::Error;
use std::process::ExitCode;

use dormouse_client::ClientError;

/// The workflow failed, or the request was refused.
pub const EXIT_REFUSED: u8 = 1;
/// The command line makes no sense.
pub const EXIT_USAGE: u8 = 2;
/// The server could not be reached.
pub const EXIT_UNREACHABLE: u8 = 3;

/// Why a verb did not do what was asked. Any `std::error::Error` becomes one through `?`.
#[derive(Debug)]
pub struct CliError {
    message: String,
    hint: Option<String>,
    code: u8,
    quiet: bool,
}

impl CliError {
    /// A refusal with this message.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: EXIT_REFUSED, quiet: false }
    }

    /// A command line that makes no sense.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: EXIT_USAGE, ..Self::new(message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The reader of our output has gone; that is no failure.
    pub(crate) fn nobody_reads() -> Self {
        Self { message: String::new(), hint: None, code: 0, quiet: true }
    }

    pub(crate) fn is_nobody_reads(&self) -> bool {
        self.quiet
    }

    pub(crate) fn report(&self) -> ExitCode {
        if !self.quiet {
            eprintln!("error: {}", self.message);
            if let Some(hint) = &self.hint {
                eprintln!("hint: {hint}");
            }
        }
        ExitCode::from(self.code)
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
    let message = CliError::new(error.to_string());
    match error {
        ClientError::Transport { .. } => CliError { code: EXIT_UNREACHABLE, ..message }
            .hint("is the server running? Start it with `dev`, or name another with --address or DORMOUSE_ADDRESS"),
        ClientError::Invalid(_) => CliError { code: EXIT_USAGE, ..message },
        ClientError::AlreadyStarted(_) => {
            message.hint("choose another --id, or say what shall happen with --id-conflict-policy or --id-reuse-policy")
        }
        ClientError::Denied(_) => {
            message.hint("--auth, --token-file, --region and AWS_PROFILE say as whom to ask; --help tells more")
        }
        ClientError::DoesNotFit(problem) => message.hint(match problem.pointer.as_deref() {
            None | Some("") => "nothing was written; correct the value (--input) and send it again".to_owned(),
            Some(pointer) => format!("nothing was written; correct {pointer} in the value (--input) and send it again"),
        }),
        ClientError::NotFound(_) => message.hint("`workflow list` shows the workflows that there are"),
        _ => message,
    }
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
        assert_eq!((error.code, error.hint.unwrap().contains("/amount_cents")), (EXIT_REFUSED, true));
    }
}
