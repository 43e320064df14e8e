//! Addresses: where the server is, and how ids become parts of its paths.

use dormouse_core::write_path_part;
use reqwest::Url;

use crate::error::ClientError;

/// A server's base address, without a trailing slash.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    base: String,
    loopback: bool,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        let invalid = |why: &str| {
            ClientError::Invalid(format!("{text:?} is no server address ({why}); write it like http://127.0.0.1:7780"))
        };
        let url: Url = text.parse().map_err(|error| invalid(&format!("{error}")))?;
        match url.scheme() {
            "http" => {}
            "https" => return Err(invalid("this build has no TLS; put a proxy in between")),
            _ => return Err(invalid("it does not begin with http://")),
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it has a query or a fragment"));
        }
        let host = url.host_str().ok_or_else(|| invalid("it has no host"))?.trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), loopback })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.base
    }

    /// Whether the server is on this machine, where no proxy could reach it.
    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// The URL of `/v1/...`: fixed words and ids alternate as the caller gives them, each becoming one part.
    pub(crate) fn url(&self, segments: &[&str]) -> Result<Url, ClientError> {
        let mut text = format!("{}/v1", self.base);
        for segment in segments {
            if segment.is_empty() {
                return Err(ClientError::Invalid("an empty id or name; give it at least one character".into()));
            }
            text.push('/');
            text.push_str(&write_path_part(segment));
        }
        text.parse().map_err(|error| ClientError::Invalid(format!("{text:?} is no URL: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(id: &str) -> String {
        let address = Address::parse("http://localhost:7780/").unwrap();
        address.url(&["workflows", id, "cancel"]).unwrap().path().to_owned()
    }

    #[test]
    fn ids_stay_one_part_of_the_path() {
        assert_eq!(path("order-42_a.b"), "/v1/workflows/order-42_a.b/cancel");
        assert_eq!(path("a/b~c"), "/v1/workflows/a~2Fb~7Ec/cancel");
        assert_eq!(path("%2F"), "/v1/workflows/~252F/cancel");
        assert_eq!(path("../x"), "/v1/workflows/..~2Fx/cancel");
        assert_eq!(path("a?b#c d+e"), "/v1/workflows/a~3Fb~23c~20d~2Be/cancel");
        assert_eq!(path("é🐭"), "/v1/workflows/~C3~A9~F0~9F~90~AD/cancel");
        assert_eq!(path("\\"), "/v1/workflows/~5C/cancel");
    }

    #[test]
    fn dots_lead_nowhere_else() {
        assert_eq!(path("."), "/v1/workflows/~2E/cancel");
        assert_eq!(path(".."), "/v1/workflows/~2E~2E/cancel");
        assert_eq!(path("..."), "/v1/workflows/.../cancel");
        let address = Address::parse("http://localhost:7780").unwrap();
        assert!(matches!(address.url(&["workflows", ""]), Err(ClientError::Invalid(_))));
    }

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        for text in ["", "localhost:7780", "ftp://x", "https://x", "http://", "http://x?y", "127.0.0.1:7780"] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.to_string().contains("http://127.0.0.1:7780"), "{text}: {error}");
        }
        assert!(Address::parse("http://[::1]:7780").unwrap().is_loopback());
        assert!(!Address::parse("http://example.com/base/").unwrap().is_loopback());
        let based = Address::parse("http://example.com/base/").unwrap();
        assert_eq!(based.url(&["workflows"]).unwrap().as_str(), "http://example.com/base/v1/workflows");
    }
}
