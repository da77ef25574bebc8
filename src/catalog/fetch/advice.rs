//! What an answer that is an error means, and what to do about it.

use reqwest::Response;
use reqwest::header::{HeaderName, RETRY_AFTER};

use super::error::FetchError;
use super::http::{shown, text};

/// How the hub says what is wrong.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");

/// What was asked for, as advice names it.
#[derive(Clone, Debug)]
pub(super) enum Asked {
    /// A file of the hub.
    Hub {
        /// The hub's address.
        endpoint: String,
        repo: String,
        revision: String,
        file: String,
    },
    /// An address of the manifest.
    Address,
}

/// Who answers, and whom it takes us for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerer {
    /// The place that was asked first, without a token.
    Home,
    /// The place that was asked first, with a token.
    HomeWithToken,
    /// Where it led to.
    Elsewhere,
}

/// The error that an answer is.
pub(super) fn refusal(response: &Response, asked: &Asked, by: Answerer) -> FetchError {
    let status = response.status().as_u16();
    let code = text(response.headers(), &ERROR_CODE).unwrap_or_default();
    let retry_after = text(response.headers(), &RETRY_AFTER);
    let retry_after_seconds = retry_after.and_then(|seconds| seconds.trim().parse().ok());
    let advice = match asked {
        _ if by == Answerer::Elsewhere => elsewhere(status),
        Asked::Hub {
            endpoint,
            repo,
            revision,
            file,
        } => of_hub(status, code, by, endpoint, [repo, revision, file]),
        Asked::Address => of_address(status),
    };
    FetchError::Status {
        url: shown(response.url()),
        status,
        advice: advice + &wait(retry_after_seconds),
        retry_after_seconds,
    }
}

fn of_hub(status: u16, code: &str, by: Answerer, endpoint: &str, of: [&str; 3]) -> String {
    let [repo, revision, file] = of;
    let page = format!("{}/{repo}", endpoint.trim_end_matches('/'));
    let has_token = by == Answerer::HomeWithToken;
    match (status, code, has_token) {
        (401 | 403, "GatedRepo", false) => format!(
            "the repository is gated: accept its terms on {page} and set HF_TOKEN to a token of that \
             account"
        ),
        (401 | 403, "GatedRepo", true) => format!(
            "the repository is gated: accept its terms on {page} with the account of the token in \
             HF_TOKEN, and see that the token may read gated repositories"
        ),
        (401 | 403 | 404, "RepoNotFound", false) => format!(
            "there is no repository {repo}, or it is private: check hub.repo, or set HF_TOKEN to a \
             token that may read it"
        ),
        (401 | 403 | 404, "RepoNotFound", true) => format!(
            "there is no repository {repo}, or the token in HF_TOKEN may not read it: check hub.repo"
        ),
        (404, "RevisionNotFound", _) => {
            format!("{repo} has no revision {revision}: check hub.revision")
        }
        (404, "EntryNotFound", _) => {
            format!("{repo} has no file {file} in revision {revision}: check hub.file")
        }
        (401 | 403, _, false) => format!(
            "the repository is private, gated or does not exist: accept its terms on {page} and set \
             HF_TOKEN to a token of that account"
        ),
        (401, _, true) => format!(
            "the hub does not take the token in HF_TOKEN, which may have expired: make another on \
             {}/settings/tokens",
            endpoint.trim_end_matches('/')
        ),
        (403, _, true) => format!(
            "the token in HF_TOKEN may not read this repository: accept its terms on {page} with \
             that account, or use another token"
        ),
        (404 | 410, ..) => {
            "there is no such file: check repo, revision and file in the model's manifest"
                .to_owned()
        }
        (429, _, false) => "too many requests: wait, or set HF_TOKEN to be allowed more".to_owned(),
        _ => common(status)
            .unwrap_or("this is not expected of a hub: check HF_ENDPOINT")
            .to_owned(),
    }
}

fn of_address(status: u16) -> String {
    let advice = match status {
        401 | 403 => "the server wants a login or does not let us in: use an address open to all",
        404 | 410 => "there is no such file: check url in the model's manifest",
        _ => common(status).unwrap_or("this is not expected of a file: check url in the manifest"),
    };
    advice.to_owned()
}

fn elsewhere(status: u16) -> String {
    let advice = match status {
        401 | 403 => "the link to where the file is stored was refused: try again",
        404 | 410 => "the file is not where the link leads: try again later",
        _ => common(status).unwrap_or("this is not expected of a file store: try again later"),
    };
    advice.to_owned()
}

/// What any server may say.
fn common(status: u16) -> Option<&'static str> {
    match status {
        407 => Some(
            "the proxy wants a name and a password: write them into its address, \
             http://name:password@host:port",
        ),
        416 => Some("it has no such part of the file: try again"),
        429 => Some("too many requests: wait and try again"),
        451 => Some("it may not be given out where you are, for legal reasons"),
        500..=599 => Some("the server has a problem of its own: try again later"),
        _ => None,
    }
}

/// How long the server asks to wait, if it says so.
fn wait(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| {
        format!(" (it asks to wait {seconds} s)")
    })
}
