//! `GET /v1/usage`: what was used. A key sees its team's, or its own; an administrator all.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::AppState;
use super::error::ApiError;
use crate::caller::{Caller, TeamId};
use crate::limit::Per;
use crate::money::MicroUsd;
use crate::router::money::{By, Moment, UsageQuestion, UsageRow};

/// What may be asked.
const PARAMETERS: [&str; 5] = ["by", "team", "key", "from", "to"];

type Asked = HashMap<String, String>;

/// What was used since the beginning of the month, or as asked.
pub(super) async fn usage(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let asked = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let question = question(&caller, &asked.into_owned().collect(), Moment::now())?;
    let shown = (question.by, question.from, question.to);
    let rows = state.router.money().usage(question).await;
    let rows =
        rows.map_err(|error| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let (by, from, to) = shown;
    let mut total = UsageRow::default();
    for row in &rows {
        total.add(row);
    }
    let data = rows.iter().map(|row| {
        let mut value = figures(row);
        value[by.name()] = json!((!row.name.is_empty()).then_some(&row.name));
        value
    });
    Ok(Json(json!({
        "object": "list",
        "by": by.name(),
        "from": from.to_string(),
        "to": to.to_string(),
        "data": data.collect::<Vec<_>>(),
        "total": figures(&total),
    })))
}

fn question(caller: &Caller, asked: &Asked, now: Moment) -> Result<UsageQuestion, ApiError> {
    if let Some(name) = asked.keys().find(|name| !PARAMETERS.contains(&&***name)) {
        let message = format!(
            "{name}: there is no such parameter: there are {}",
            PARAMETERS.join(", ")
        );
        return Err(ApiError::invalid(name, message));
    }
    let moment = |name: &str| {
        let Some(text) = asked.get(name) else {
            return Ok(None);
        };
        Moment::read(text).map(Some).ok_or_else(|| {
            let message = format!("{name} is {text:?}: write a day such as 2026-11-26");
            ApiError::invalid(name, message)
        })
    };
    let by = match asked.get("by") {
        None => By::Team,
        Some(text) => text.parse().map_err(|error: crate::router::money::NoBy| {
            ApiError::invalid("by", error.to_string())
        })?,
    };
    let mut question = UsageQuestion {
        team: asked.get("team").map(|team| TeamId::new(team).to_string()),
        key: asked.get("key").cloned(),
        from: moment("from")?.unwrap_or_else(|| Per::Month.start(now)),
        to: moment("to")?.unwrap_or(now),
        by,
    };
    if !caller.is_admin {
        narrow(&mut question, caller)?;
    }
    Ok(question)
}

/// To what a key may see.
fn narrow(question: &mut UsageQuestion, caller: &Caller) -> Result<(), ApiError> {
    let own_team = caller.team.as_ref().map(ToString::to_string);
    let own_key = caller.key.as_ref().map(ToString::to_string);
    let refused = || ApiError {
        code: Some("not_yours"),
        ..ApiError::new(
            StatusCode::FORBIDDEN,
            "this key sees what its own team uses, or without a team what it uses itself: ask with an administrator's key",
        )
    };
    let is_own = |asked: &Option<String>, own: &Option<String>| asked.is_none() || asked == own;
    if !is_own(&question.team, &own_team)
        || (own_team.is_none() && !is_own(&question.key, &own_key))
    {
        return Err(refused());
    }
    if own_team.is_none() {
        question.key = own_key;
    } else {
        question.team = own_team;
    }
    Ok(())
}

/// The figures of a row, in dollars and exactly.
pub fn figures(row: &UsageRow) -> Value {
    let money = |amount: MicroUsd| json!({"usd": amount.to_usd(), "micro_usd": amount.0});
    json!({
        "requests": row.n_requests,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "completion_tokens": row.completion_tokens,
        "cost": money(row.cost),
        "unconfirmed": {"attempts": row.n_unconfirmed, "cost": money(row.unconfirmed_cost)},
        "held": {"attempts": row.n_held, "cost": money(row.held)},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::KeyId;

    fn caller(team: Option<&str>, is_admin: bool) -> Caller {
        Caller {
            key: Some(KeyId::new("k")),
            team: team.map(TeamId::new),
            is_admin,
            ..Caller::unnamed()
        }
    }

    fn asked(pairs: &[(&str, &str)]) -> Asked {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pairs.collect()
    }

    #[test]
    fn a_key_sees_its_team_or_itself_and_an_administrator_all() {
        let now = Moment::read("2026-11-26T10:00:00Z").unwrap();
        let of = |caller: &Caller, pairs: &[(&str, &str)]| {
            let question = question(caller, &asked(pairs), now).map_err(|error| error.status)?;
            Ok::<_, StatusCode>((question.team, question.key))
        };
        let some = |text: &str| Some(text.to_owned());
        let member = caller(Some("a-team"), false);
        assert_eq!(of(&member, &[]), Ok((some("a"), None)));
        assert_eq!(
            of(&member, &[("team", "a"), ("key", "x")]),
            Ok((some("a"), some("x")))
        );
        assert_eq!(of(&member, &[("team", "b")]), Err(StatusCode::FORBIDDEN));
        let alone = caller(None, false);
        assert_eq!(of(&alone, &[]), Ok((None, some("k"))));
        assert_eq!(of(&alone, &[("key", "x")]), Err(StatusCode::FORBIDDEN));
        assert_eq!(of(&alone, &[("team", "a")]), Err(StatusCode::FORBIDDEN));
        assert_eq!(
            of(&caller(None, true), &[("team", "b")]),
            Ok((some("b"), None))
        );
        for wrong in [("by", "hour"), ("from", "today"), ("tema", "a")] {
            assert_eq!(
                of(&member, &[wrong]),
                Err(StatusCode::BAD_REQUEST),
                "{wrong:?}"
            );
        }
    }
}
