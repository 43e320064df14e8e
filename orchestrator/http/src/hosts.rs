//! The names that the server answers to. Whoever reaches `dev` may do everything, and any web page can reach it under a
//! name whose owner lets it lead to 127.0.0.1 (DNS rebinding): to a browser, page and server are then of one origin. What
//! gives it away is the name in the request.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::problem::{Kind, Refused};

/// Which hosts requests may name. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Hosts(Option<Arc<BTreeSet<String>>>);

impl Hosts {
    /// Any: something in front of the server, such as a gateway that knows who asks, owns the name.
    #[must_use]
    pub fn any() -> Self {
        Self(None)
    }

    /// Names and addresses of this machine's loopback interface, and these.
    #[must_use]
    pub fn loopback_and(allowed: impl IntoIterator<Item = AllowedHost>) -> Self {
        Self(Some(Arc::new(allowed.into_iter().map(|host| host.0).collect())))
    }
}

/// A name or an address that requests may name as their host, whatever the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost(String);

/// A text that is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no host; write a name or an address alone, such as orders.internal or 10.0.0.7, without scheme and port"
)]
pub struct InvalidHost(String);

impl FromStr for AllowedHost {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let invalid = || InvalidHost(text.to_owned());
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_canonical().to_string()));
        }
        let authority: Authority = text.parse().map_err(|_| invalid())?;
        let bracketed = text.starts_with('[') && text.ends_with(']');
        if text.contains(['@', '*']) || text.contains(':') && !bracketed {
            return Err(invalid());
        }
        Ok(Self(plain(&authority)))
    }
}

/// A host as it is compared: lower case, addresses in their one form, no dot at the end.
fn plain(authority: &Authority) -> String {
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host.parse::<IpAddr>().map_or(host, |address| address.to_canonical().to_string())
}

fn is_ours(allowed: &BTreeSet<String>, authority: &Authority) -> bool {
    let host = plain(authority);
    let loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    // Whatever stands before an @ only misleads.
    !authority.as_str().contains('@') && (loopback || allowed.contains(&host))
}

/// Refuses requests that name another host, and those that a page of another origin sends.
pub(crate) async fn only_ours(State(hosts): State<Hosts>, request: Request, next: Next) -> Result<Response, Refused> {
    if let Some(allowed) = &hosts.0 {
        check_hosts(allowed, &request)?;
        check_origin(allowed, &request)?;
    }
    Ok(next.run(request).await)
}

/// All that names a host must name ours: a proxy in between may go by either.
fn check_hosts(allowed: &BTreeSet<String>, request: &Request) -> Result<(), Refused> {
    let in_line = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let named: Vec<&[u8]> =
        in_line.into_iter().chain(request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes)).collect();
    if named.is_empty() {
        return Err(Kind::ForeignHost.because("the request names no host; send the header Host, such as localhost"));
    }
    for name in named {
        let authority = Authority::try_from(name).ok();
        if authority.as_ref().is_some_and(|authority| is_ours(allowed, authority)) {
            continue;
        }
        let sound = authority.as_ref().filter(|authority| !authority.as_str().contains('@'));
        let host = sound.map_or_else(|| String::from_utf8_lossy(name).into_owned(), plain);
        let host: String = host.chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(Kind::ForeignHost.because(format!(
            "this server does not answer to the host {host:?}: any name can be made to lead here. Ask for localhost; if \
             the name is yours, start the server with --allow-host {host}"
        )));
    }
    Ok(())
}

/// Browsers name the origin of the page that asks across origins, also where they say nothing else about it.
fn check_origin(allowed: &BTreeSet<String>, request: &Request) -> Result<(), Refused> {
    for origin in request.headers().get_all(header::ORIGIN) {
        let uri = Uri::try_from(origin.as_bytes()).ok();
        let page = uri.as_ref().filter(|uri| uri.scheme().is_some()).and_then(Uri::authority);
        if !page.is_some_and(|authority| is_ours(allowed, authority)) {
            return Err(Kind::CrossSite.because(
                "a page of another origin may not ask here; send the request from your own backend, or, if the page is \
                 yours, start the server with --allow-host and the host that it comes from",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(host: &str, allowed: &[&str]) -> bool {
        let allowed = allowed.iter().map(|host| host.parse::<AllowedHost>().unwrap().0).collect();
        host.parse().is_ok_and(|authority| is_ours(&allowed, &authority))
    }

    #[test]
    fn loopback_is_ours_and_what_is_allowed() {
        for host in ["localhost", "LOCALHOST:7780", "127.0.0.1", "127.255.0.1:1", "[::1]", "[::ffff:127.0.0.1]:80"] {
            assert!(ours(host, &[]), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "x@localhost", "10.0.0.7", "127.1", "0.0.0.0", "[::]", ""]
        {
            assert!(!ours(host, &[]), "{host}");
        }
        for (host, allowed) in [
            ("orders.internal:8080", "Orders.Internal"),
            ("ORDERS.internal.", "orders.internal"),
            ("10.0.0.7:7780", "10.0.0.7"),
            ("[fe80:0::1]", "fe80::1"),
            ("[fe80::1]:80", "[fe80:0::1]"),
        ] {
            assert!(ours(host, &[allowed]), "{host} for {allowed}");
            assert!(!ours(&format!("x{host}"), &[allowed]), "x{host} for {allowed}");
        }
    }

    #[test]
    fn hosts_stand_alone() {
        for text in ["", "http://a", "a:80", "[::1]:80", "a/b", "a b", "x@a", "*.a"] {
            assert!(text.parse::<AllowedHost>().unwrap_err().to_string().contains("orders.internal"), "{text}");
        }
    }
}
