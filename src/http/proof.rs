//! `GET /v1/egress/proof`: what left this machine for providers, from a log whose every line was checked. For
//! administrators.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::AppState;
use super::error::ApiError;
use crate::caller::TeamId;
use crate::egress::{LogError, Proof, Query};
use crate::router::money::Moment;

/// What may be asked.
const PARAMETERS: [&str; 4] = ["team", "from", "to", "head"];

type Asked = HashMap<String, String>;

/// What left, or why nobody can say it for sure.
pub(super) async fn proof(
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let asked = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let query = query(&asked.into_owned().collect())?;
    let records = state.router.egress_records().clone();
    // Of years of requests it takes seconds.
    let checked = tokio::task::spawn_blocking(move || {
        let proof = records.proof(&query);
        proof.map(|proof| figures(&proof, &query))
    });
    match checked.await {
        Ok(checked) => checked.map(Json).map_err(|error| not_proved(&error)),
        Err(_) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the egress log could not be checked, which is a bug",
        )),
    }
}

/// No figures are shown of a log that is not whole: they would prove nothing.
fn not_proved(error: &LogError) -> ApiError {
    let (status, code) = match error {
        LogError::Broken { .. } => (StatusCode::CONFLICT, "egress_log_broken"),
        LogError::Lost { .. } => (StatusCode::CONFLICT, "egress_log_lost"),
        LogError::Io { .. } | LogError::InUse { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "egress_log_unreadable")
        }
    };
    ApiError {
        code: Some(code),
        ..ApiError::new(status, error.to_string())
    }
}

fn query(asked: &Asked) -> Result<Query, ApiError> {
    if let Some(name) = asked.keys().find(|name| !PARAMETERS.contains(&&***name)) {
        let message = format!(
            "{name}: there is no such parameter: there are {}",
            PARAMETERS.join(", ")
        );
        return Err(ApiError::invalid(name, message));
    }
    let millis = |name: &str| {
        let moment = asked.get(name).map(|text| {
            Moment::read(text).ok_or_else(|| {
                let message = format!("{name} is {text:?}: write a day such as 2026-11-26");
                ApiError::invalid(name, message)
            })
        });
        let moment = moment.transpose()?;
        Ok::<_, ApiError>(moment.map(|moment| moment.as_millis().unsigned_abs()))
    };
    Ok(Query {
        team: asked.get("team").map(|team| TeamId::new(team).to_string()),
        from_ms: millis("from")?,
        to_ms: millis("to")?,
        head: asked.get("head").cloned(),
    })
}

/// The figures of a proof, and what they are of.
pub fn figures(proof: &Proof, query: &Query) -> Value {
    let time = |millis: Option<u64>| millis.map(|millis| moment(millis).to_string());
    json!({
        "object": "egress.proof",
        "holds": proof.forbidden.requests == 0,
        "log": {
            "entries": proof.n_entries,
            "repaired": proof.n_repaired,
            "head": proof.head,
        },
        "team": query.team,
        "from": time(query.from_ms),
        "to": time(query.to_ms),
        "first": time(proof.first_ms),
        "last": time(proof.last_ms),
        "total": proof.total,
        "by_class": proof.by_class,
        "by_keeping": proof.by_keeping,
        "by_provider": proof.by_provider,
        "local_only": {
            "to_our_machines": proof.local_only.requests - proof.local_only_elsewhere.requests,
            "elsewhere": proof.local_only_elsewhere.requests,
        },
        "forbidden": {
            "requests": proof.forbidden.requests,
            "first_line": proof.first_forbidden,
        },
    })
}

/// A moment of the log.
pub fn moment(millis: u64) -> Moment {
    Moment::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_wrongly_is_named() {
        let asked = |name: &str, text: &str| {
            let asked = [(name.to_owned(), text.to_owned())].into_iter().collect();
            query(&asked).map_err(|error| error.message)
        };
        assert_eq!(asked("team", "a-team").unwrap().team.as_deref(), Some("a"));
        assert_eq!(asked("to", "1970-01-02").unwrap().to_ms, Some(86_400_000));
        let error = asked("from", "today").unwrap_err();
        assert!(error.starts_with("from is \"today\""), "{error}");
        let error = asked("tema", "a").unwrap_err();
        assert!(error.contains("there are team, from, to, head"), "{error}");
    }
}
