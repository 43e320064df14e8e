//! Addresses: where the server is, and how ids become parts of its paths.

use dormouse_core::write_path_part;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use crate::error::ClientError;

/// Everything but RFC 3986's unreserved characters: what signatures are computed over is then what is sent.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A server's base address, without a trailing slash.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    base: String,
    loopback: bool,
    amazon: Option<Amazon>,
}

/// What an address under Amazon's own names tells.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Amazon {
    service: &'static str,
    region: String,
}

impl Amazon {
    /// `<id>.execute-api.<region>.amazonaws.com` or `<id>.lambda-url.<region>.on.aws`.
    fn of(host: &str) -> Option<Self> {
        let labels: Vec<&str> = host.split('.').collect();
        let (service, region) = match labels.as_slice() {
            [_, "lambda-url", region, "on", "aws"] => ("lambda", region),
            [.., "execute-api", region, "amazonaws", "com"]
            | [.., "execute-api", region, "amazonaws", "com", "cn"]
            | [.., "execute-api", region, "vpce", "amazonaws", "com"] => ("execute-api", region),
            _ => return None,
        };
        Some(Self { service, region: (*region).to_owned() })
    }
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        let invalid = |why: &str| {
            ClientError::Invalid(format!("{text:?} is no server address ({why}); write it like http://127.0.0.1:7780"))
        };
        // As people say it: a host, or one with a port.
        let spelled = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url: Url = spelled.parse().map_err(|error| invalid(&format!("{error}")))?;
        match url.scheme() {
            "http" => {}
            "https" if cfg!(feature = "tls") => {}
            "https" => {
                return Err(ClientError::Invalid(format!(
                    "{text} needs TLS, which this program was built without; build it with the feature `aws` of the \
                     crate dormouse (the sample application: cargo run --features aws -- ...), or with `tls`"
                )));
            }
            _ => return Err(invalid("it begins with neither http:// nor https://")),
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it has a query or a fragment"));
        }
        let host = url.host_str().ok_or_else(|| invalid("it has no host"))?.trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), loopback, amazon: Amazon::of(host) })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.base
    }

    /// Whether the server is on this machine, where no proxy could reach it.
    pub(crate) fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Whether the name is one of Amazon's, behind which signatures are usually wanted.
    pub(crate) fn is_amazon(&self) -> bool {
        self.amazon.is_some()
    }

    /// The service that signatures are for; behind a name of one's own stands an API Gateway.
    #[cfg(feature = "aws")]
    pub(crate) fn aws_service(&self) -> &'static str {
        self.amazon.as_ref().map_or("execute-api", |amazon| amazon.service)
    }

    /// The region, where the name tells it.
    #[cfg(feature = "aws")]
    pub(crate) fn aws_region(&self) -> Option<&str> {
        self.amazon.as_ref().map(|amazon| amazon.region.as_str())
    }

    /// The URL of `/v1/...`: fixed words and ids alternate as the caller gives them, each becoming one part.
    pub(crate) fn url(&self, segments: &[&str], query: &[(&str, String)]) -> Result<Url, ClientError> {
        let mut text = format!("{}/v1", self.base);
        for segment in segments {
            if segment.is_empty() {
                return Err(ClientError::Invalid("an empty id or name; give it at least one character".into()));
            }
            text.push('/');
            text.push_str(&write_path_part(segment));
        }
        for (at, (name, value)) in query.iter().enumerate() {
            text.push(if at == 0 { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, QUERY));
        }
        text.parse().map_err(|error| ClientError::Invalid(format!("{text:?} is no URL: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(id: &str) -> String {
        let address = Address::parse("http://localhost:7780/").unwrap();
        address.url(&["workflows", id, "cancel"], &[]).unwrap().path().to_owned()
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
        assert!(matches!(address.url(&["workflows", ""], &[]), Err(ClientError::Invalid(_))));
    }

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        for text in ["", "ftp://x", "http://", "http://x?y", "127.0.0.1:many"] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.to_string().contains("http://127.0.0.1:7780"), "{text}: {error}");
        }
        for text in ["localhost:7780", "127.0.0.1:7780", "[::1]:7780", "http://[::1]:7780"] {
            assert!(Address::parse(text).unwrap().is_loopback(), "{text}");
        }
        assert!(!Address::parse("http://example.com/base/").unwrap().is_loopback());
        let based = Address::parse("http://example.com/base/").unwrap();
        assert_eq!(based.url(&["workflows"], &[]).unwrap().as_str(), "http://example.com/base/v1/workflows");
    }

    #[test]
    fn queries_hold_unreserved_characters_only() {
        let address = Address::parse("http://localhost:7780").unwrap();
        let url = address.url(&["workflows"], &[("id_prefix", "a b+c*~é&=%".into()), ("limit", "3".into())]).unwrap();
        assert_eq!(url.query(), Some("id_prefix=a%20b%2Bc%2A~%C3%A9%26%3D%25&limit=3"));
        let read: Vec<_> = url.query_pairs().collect();
        assert_eq!((read[0].1.as_ref(), read[1].1.as_ref()), ("a b+c*~é&=%", "3"));
    }

    #[test]
    fn addresses_of_amazon_tell_service_and_region() {
        for (host, expected) in [
            ("a1b2.execute-api.eu-central-1.amazonaws.com", Some(("execute-api", "eu-central-1"))),
            ("a1b2-vpce-1.execute-api.us-east-1.amazonaws.com", Some(("execute-api", "us-east-1"))),
            ("vpce-1.execute-api.us-east-1.vpce.amazonaws.com", Some(("execute-api", "us-east-1"))),
            ("a1b2.execute-api.cn-north-1.amazonaws.com.cn", Some(("execute-api", "cn-north-1"))),
            ("abc.lambda-url.us-west-2.on.aws", Some(("lambda", "us-west-2"))),
            ("s3.us-west-2.amazonaws.com", None),
            ("a.execute-api.us-east-1.amazonaws.com.example.org", None),
            ("127.0.0.1", None),
        ] {
            let told = Amazon::of(host);
            assert_eq!(told.as_ref().map(|told| (told.service, told.region.as_str())), expected, "{host}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_tls_the_error_says_how_to_build_it() {
        let error = Address::parse("https://a1b2.execute-api.eu-central-1.amazonaws.com").unwrap_err();
        assert!(error.to_string().contains("--features aws"), "{error}");
    }
}
