//! What verbs share that talk to a server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dormouse_client::{Auth, ClientError, RawClient, RawHandle, fresh_request_id};
use dormouse_core::RunId;
use dormouse_core::api::ParkedBody;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::{Format, say, say_json};
use crate::parked;
use crate::verb::Context;

/// Where a token is looked for unless a file is named.
pub(crate) const TOKEN_VARIABLE: &str = "DORMOUSE_TOKEN";

/// Which server to talk to, and as whom.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// The server's address
    #[arg(long, env = "DORMOUSE_ADDRESS", default_value = "http://127.0.0.1:7780", help_heading = "Shared options")]
    pub address: String,
    /// How to show who asks. Unless told: `aws` at *.execute-api.*.amazonaws.com and *.lambda-url.*.on.aws, `bearer`
    /// with --token-file, otherwise `none`
    #[arg(long, env = "DORMOUSE_AUTH", value_enum, help_heading = "Shared options")]
    pub auth: Option<AuthKind>,
    /// The file that holds the token of `--auth bearer`, instead of the variable DORMOUSE_TOKEN
    #[arg(long, value_name = "FILE", help_heading = "Shared options")]
    pub token_file: Option<PathBuf>,
    /// Show the token at an http address of another machine too: everybody on the way can read it there
    #[arg(long, help_heading = "Shared options")]
    pub token_over_http: bool,
    /// The region of `--auth aws`, where neither the address nor AWS_REGION or the profile tell it
    #[arg(long, help_heading = "Shared options")]
    pub region: Option<String>,
}

/// How to show who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthKind {
    /// Not at all.
    None,
    /// Sign requests with AWS credentials (Signature Version 4).
    Aws,
    /// Show a token.
    Bearer,
}

impl Remote {
    /// A client of that server.
    ///
    /// # Errors
    /// The address is none, there is no token, or this program cannot sign.
    pub fn client(&self) -> Result<RawClient, CliError> {
        // Somebody sits in front of the screen: a server that is not there is reported at once.
        let client = RawClient::new(&self.address)?.tries(3);
        let usual = match &self.token_file {
            Some(_) => AuthKind::Bearer,
            None if client.is_amazon() => AuthKind::Aws,
            None => AuthKind::None,
        };
        let kind = self.auth.unwrap_or(usual);
        if self.token_file.is_some() && kind != AuthKind::Bearer {
            return Err(CliError::usage("--token-file goes with --auth bearer only"));
        }
        if self.token_over_http && kind != AuthKind::Bearer {
            return Err(CliError::usage("--token-over-http goes with --auth bearer only"));
        }
        if self.region.is_some() && kind != AuthKind::Aws {
            return Err(CliError::usage("--region goes with --auth aws only"));
        }
        Ok(client.auth(match kind {
            AuthKind::None => Auth::None,
            AuthKind::Bearer if self.token_over_http => Auth::bearer(&self.token()?)?.even_over_http(),
            AuthKind::Bearer => Auth::bearer(&self.token()?)?,
            AuthKind::Aws => signing(self.region.as_deref())?,
        }))
    }

    fn token(&self) -> Result<String, CliError> {
        let Some(file) = &self.token_file else {
            return std::env::var(TOKEN_VARIABLE).map_err(|_| {
                CliError::usage("--auth bearer needs a token")
                    .hint(format!("put it into the variable {TOKEN_VARIABLE}, or name its file with --token-file"))
            });
        };
        std::fs::read_to_string(file)
            .map_err(|error| CliError::usage(format!("the token file {} cannot be read: {error}", file.display())))
    }
}

#[cfg(feature = "aws")]
fn signing(region: Option<&str>) -> Result<Auth, CliError> {
    let signer = dormouse_client::AwsSigner::new();
    Ok(Auth::Aws(match region {
        Some(region) => signer.region(region),
        None => signer,
    }))
}

#[cfg(not(feature = "aws"))]
fn signing(_: Option<&str>) -> Result<Auth, CliError> {
    Err(CliError::usage("this program cannot sign requests: it was built without the feature `aws`").hint(
        "build it with the feature `aws` of the crate dormouse (the sample application: cargo run --features aws -- \
         ...; the program `dormouse`: cargo install --features aws ...), or choose --auth none or --auth bearer",
    ))
}

/// Which workflow is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// The workflow's id
    #[arg(value_name = "ID")]
    pub(crate) workflow_id: String,
    /// One run of it, instead of the latest
    #[arg(long)]
    pub(crate) run_id: Option<RunId>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

impl Which {
    pub(crate) fn handle(&self) -> Result<RawHandle, CliError> {
        Ok(self.remote.client()?.workflow(&self.workflow_id, self.run_id))
    }

    /// Why the run stands still, if its code cannot go on. Asked to say more about a request than that it was taken in,
    /// and before it is sent: what arrives has the run tried again, and nothing is parked that has ended.
    pub(crate) async fn parked(&self) -> Option<ParkedBody> {
        parked::now(&self.handle().ok()?).await
    }

    /// Says what a request that was taken in comes to: to scripts whom it went to, and why that one stands still, if it
    /// does; to people as much.
    pub(crate) fn told(
        &self,
        what: &str,
        parked: Option<ParkedBody>,
        mut json: Value,
        format: Format,
    ) -> Result<(), CliError> {
        match (format, parked) {
            (Format::Json, parked) => {
                json["workflow_id"] = self.workflow_id.as_str().into();
                if let Some(parked) = parked {
                    json["parked"] = json!(parked);
                }
                say_json(&json)
            }
            (Format::Table, None) => say(what),
            (Format::Table, Some(parked)) => {
                say(&format!("{what}; it is parked, and its code learns of it only when it can go on"))?;
                parked::note(&self.workflow_id, &parked, format);
                Ok(())
            }
        }
    }
}

/// An id for a write, to be shown should its outcome be unknown.
pub(crate) fn request_id(given: Option<String>) -> String {
    given.unwrap_or_else(fresh_request_id)
}

/// Of a write whose outcome is unknown: how to type it again, harmlessly.
pub(crate) fn write_error(error: ClientError, cx: &Context, request_id: &str) -> CliError {
    let unknown = error.is_outcome_unknown();
    let error = CliError::from(error);
    if !unknown {
        return error;
    }
    error.hint(format!("it may have been carried out. To ask again does nothing twice:\n  {}", cx.again(request_id)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        remote: Remote,
    }

    fn client(line: &str) -> Result<RawClient, CliError> {
        Line::parse_from(std::iter::once("app").chain(line.split_whitespace())).remote.client()
    }

    fn refusal(line: &str) -> String {
        format!("{:?}", client(line).unwrap_err())
    }

    #[test]
    fn a_file_with_a_token_means_to_show_it() {
        let file = std::env::temp_dir().join(format!("dormouse-token-{}", std::process::id()));
        std::fs::write(&file, "secret\n").unwrap();
        let shown = format!("{:?}", client(&format!("--token-file {}", file.display())).unwrap());
        std::fs::remove_file(&file).unwrap();
        assert!(shown.contains("Bearer") && !shown.contains("secret"), "{shown}");
        assert!(refusal("--token-file /nowhere/token").contains("/nowhere/token"));
        assert!(refusal("--token-file t --auth none").contains("--auth bearer"));
        assert!(refusal("--region eu-central-1").contains("--auth aws"));
        assert!(refusal("--token-over-http").contains("--auth bearer"));
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn without_the_feature_the_error_says_how_to_build_it() {
        assert!(refusal("--auth aws").contains("--features aws"));
        assert!(refusal("--address http://a.lambda-url.eu-central-1.on.aws").contains("--features aws"));
    }

    #[cfg(feature = "aws")]
    #[test]
    fn addresses_of_amazon_are_signed_for() {
        let debug = |line: &str| format!("{:?}", client(line).unwrap());
        assert!(debug("--address https://a.lambda-url.eu-central-1.on.aws").contains("AwsSigner"));
        assert!(debug("--address https://a.execute-api.eu-central-1.amazonaws.com").contains("AwsSigner"));
        assert!(!debug("--address https://a.lambda-url.eu-central-1.on.aws --auth none").contains("AwsSigner"));
        assert!(debug("--address http://127.0.0.1:1 --auth aws --region eu-west-1").contains("eu-west-1"));
        assert!(!debug("--address https://example.com").contains("AwsSigner"));
    }
}
