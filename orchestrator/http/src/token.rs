//! The token that a server asks for which other machines can reach.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use constant_time_eq::constant_time_eq;

use crate::problem::{Kind, Refused};

/// What requests must show: `Authorization: Bearer ...`. Debug output does not show it. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// The text can be no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a token has {} visible ASCII characters or more, without white space between them", Token::SHORTEST)]
pub struct InvalidToken;

impl Token {
    /// A shorter one could be guessed.
    pub const SHORTEST: usize = 16;

    /// This one. White space around it, such as the end of a file's line, is passed over.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        let fine = text.len() >= Self::SHORTEST && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fine { Ok(Self(text.into())) } else { Err(InvalidToken) }
    }

    fn is_shown_by(&self, request: &Request) -> bool {
        let mut shown = request.headers().get_all(header::AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else { return false };
        let Some((scheme, token)) = shown.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && constant_time_eq(token.trim_ascii(), self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What tells nothing of any workflow: whether the server lives, and how it is to be asked.
fn is_open(path: &str) -> bool {
    ["/healthz", "/openapi.json", "/problems"].contains(&path) || path.starts_with("/problems/")
}

/// Refuses requests that do not show the token, if there is one.
pub(crate) async fn only_with_token(
    State(token): State<Option<Token>>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if token.is_some_and(|token| !is_open(request.uri().path()) && !token.is_shown_by(&request)) {
        return Err(Kind::Unauthorized.because(
            "show the token that this server was started with: `Authorization: Bearer TOKEN` (on the command line \
             --token-file FILE); it said at its start where the token is",
        ));
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_not_shown() {
        for text in ["", "short", "with white space in it", "with-umläuts-in-itself"] {
            assert_eq!(Token::new(text), Err(InvalidToken), "{text}");
        }
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        let shown = |values: &[&str]| {
            let mut request = Request::new(axum::body::Body::empty());
            for value in values {
                request.headers_mut().append(header::AUTHORIZATION, value.parse().unwrap());
            }
            token.is_shown_by(&request)
        };
        assert!(shown(&["Bearer 0123456789abcdef"]) && shown(&["bearer  0123456789abcdef"]));
        let two = ["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"];
        for other in [
            &[][..],
            &["0123456789abcdef"],
            &["Bearer "],
            &["Bearer 0123456789abcdeg"],
            &["Basic 0123456789abcdef"],
            &two,
        ] {
            assert!(!shown(other), "{other:?}");
        }
    }

    #[test]
    fn what_tells_nothing_is_open_and_nothing_else() {
        assert!(["/healthz", "/openapi.json", "/problems", "/problems/unauthorized"].into_iter().all(is_open));
        assert!(!["/", "/v1/workflows", "/healthz/", "/problemsx", "/v1/../healthz", ""].into_iter().any(is_open));
    }
}
