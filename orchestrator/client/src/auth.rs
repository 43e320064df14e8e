//! Who asks: what a deployed API wants to know before it answers.

use reqwest::Request;
use reqwest::header::{AUTHORIZATION, HeaderValue};

use crate::address::Address;
#[cfg(feature = "aws")]
use crate::aws::AwsSigner;
use crate::error::ClientError;

/// How requests show who sends them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Auth {
    /// They do not: `dev` asks nobody.
    #[default]
    None,
    /// With a token in the header `Authorization`, as OpenID Connect providers issue it.
    Bearer(BearerToken),
    /// With a signature (AWS Signature Version 4): for APIs that ask IAM.
    #[cfg(feature = "aws")]
    Aws(AwsSigner),
}

/// A token. Debug output does not show it.
#[derive(Debug, Clone)]
pub struct BearerToken {
    value: HeaderValue,
    /// It may travel for everybody on the way to read.
    openly: bool,
}

impl Auth {
    /// Shows this token with each request.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] when the text is empty or holds what no header may hold. White space around it, such
    /// as the end of a file's line, is passed over.
    pub fn bearer(token: &str) -> Result<Self, ClientError> {
        let token = token.trim();
        let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = visible.then(|| HeaderValue::try_from(format!("Bearer {token}")).ok()).flatten();
        let mut value = value.ok_or_else(|| {
            ClientError::Invalid("the token is empty or holds white space; give one token as it was issued".into())
        })?;
        value.set_sensitive(true);
        Ok(Self::Bearer(BearerToken { value, openly: false }))
    }

    /// The same, and at http addresses of other machines too, where everybody on the way can read it: for networks that
    /// are trusted.
    #[must_use]
    pub fn even_over_http(self) -> Self {
        match self {
            Self::Bearer(token) => Self::Bearer(BearerToken { openly: true, ..token }),
            other => other,
        }
    }

    /// Signs each request with the credentials of AWS's standard chain: environment, profile, single sign-on,
    /// container, instance. They are looked for when the first request is sent.
    #[cfg(feature = "aws")]
    #[must_use]
    pub fn aws() -> Self {
        Self::Aws(AwsSigner::new())
    }

    /// Adds what shows who asks. Called for every try: signatures grow old.
    pub(crate) async fn authorize(&self, address: &Address, request: &mut Request) -> Result<(), ClientError> {
        match self {
            Self::None => {}
            Self::Bearer(token) => {
                if request.url().scheme() != "https" && !address.is_loopback() && !token.openly {
                    return Err(ClientError::Invalid(format!(
                        "a token would travel to {} for everybody on the way to read; use an https address, \
                         or, in a network that you trust, `Auth::even_over_http` (on the command line --token-over-http)",
                        address.as_str()
                    )));
                }
                request.headers_mut().insert(AUTHORIZATION, token.value.clone());
            }
            #[cfg(feature = "aws")]
            Self::Aws(signer) => signer.sign(address, request).await?,
        }
        Ok(())
    }

    /// What may help when the answer is 401 or 403.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::None => {
                "the request did not say who asks; sign it with AWS credentials (`Auth::aws`, on the command line \
                 --auth aws), or show a token (`Auth::bearer`, --auth bearer), whichever this API wants"
            }
            Self::Bearer(_) => {
                "the token was not accepted: has it expired, and is it meant for this API? An API that asks IAM wants \
                 a signature instead (`Auth::aws`, --auth aws)"
            }
            #[cfg(feature = "aws")]
            Self::Aws(_) => {
                "the signature was not accepted: may this identity call the API (execute-api:Invoke, or \
                 lambda:InvokeFunctionUrl), are its credentials those that you mean (`aws sts get-caller-identity`), \
                 is the region right, and this machine's clock?"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked_and_not_shown() {
        for text in ["", " \n", "a b", "a\nb", "é"] {
            assert!(matches!(Auth::bearer(text), Err(ClientError::Invalid(_))), "{text:?}");
        }
        let auth = Auth::bearer("secret.token\n").unwrap();
        assert!(!format!("{auth:?}").contains("secret"), "{auth:?}");
    }

    #[tokio::test]
    async fn tokens_travel_behind_tls_or_not_at_all() {
        let request = |url: &str| Request::new(reqwest::Method::GET, url.parse().unwrap());
        let auth = Auth::bearer("secret").unwrap();
        let near = Address::parse("http://127.0.0.1:1").unwrap();
        let mut sent = request("http://127.0.0.1:1/v1/workflows");
        auth.authorize(&near, &mut sent).await.unwrap();
        assert_eq!(sent.headers()[AUTHORIZATION], "Bearer secret");

        let far = Address::parse("http://example.com").unwrap();
        let refused = auth.authorize(&far, &mut request("http://example.com/v1/workflows")).await.unwrap_err();
        assert!(refused.to_string().contains("https"), "{refused}");
        let openly = auth.even_over_http();
        let mut sent = request("http://example.com/v1/workflows");
        openly.authorize(&far, &mut sent).await.unwrap();
        assert_eq!(sent.headers()[AUTHORIZATION], "Bearer secret");
        Auth::None.authorize(&far, &mut request("http://example.com/v1/workflows")).await.unwrap();
    }
}
