//! `ingle usage`: what was used, read from the ledger, whether or not a server runs.

use std::io::Write;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::table;
use crate::caller::TeamId;
use crate::config::Config;
use crate::http::usage_figures;
use crate::limit::Per;
use crate::router::money::{By, Moment, UsageQuestion, UsageRow, usage};

/// `ingle usage`.
#[derive(Args, Debug)]
pub(super) struct UsageArgs {
    /// Of this team only.
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// Of this key only.
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// By what it is added up: team, key, model, provider or day.
    #[arg(long, value_name = "WHAT", default_value = "team")]
    by: By,
    /// From this day on, such as 2026-11-26, in UTC; unless said, from the first of the month.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Up to the beginning of this day; unless said, up to now.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Shows what was used.
///
/// Errors: the ledger cannot be read; `out` does not take more.
pub(super) fn run(args: &UsageArgs, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let moment = |text: &Option<String>| {
        let moment = text.as_deref().map(|text| {
            let moment = Moment::read(text);
            moment.ok_or_else(|| anyhow!("{text:?} is no day: write one such as 2026-11-26"))
        });
        moment.transpose()
    };
    let now = Moment::now();
    let question = UsageQuestion {
        team: args
            .team
            .as_deref()
            .map(|team| TeamId::new(team).to_string()),
        key: args.key.clone(),
        from: moment(&args.from)?.unwrap_or_else(|| Per::Month.start(now)),
        to: moment(&args.to)?.unwrap_or(now),
        by: args.by,
    };
    let rows = usage(&config.home, &question)?;
    let mut total = UsageRow {
        name: "all".to_owned(),
        ..UsageRow::default()
    };
    for row in &rows {
        total.add(row);
    }
    if args.json {
        let data: Vec<Value> = rows
            .iter()
            .map(|row| {
                let mut value = usage_figures(row);
                value[args.by.name()] = json!((!row.name.is_empty()).then_some(&row.name));
                value
            })
            .collect();
        let (from, to) = (question.from.to_string(), question.to.to_string());
        let by = args.by.name();
        let all =
            json!({"by": by, "from": from, "to": to, "data": data, "total": usage_figures(&total)});
        return Ok(writeln!(out, "{all:#}")?);
    }
    let name = args.by.name().to_uppercase();
    let head = [
        &*name,
        "REQUESTS",
        "PROMPT",
        "CACHED",
        "ANSWERS",
        "COST",
        "UNCONFIRMED",
        "HELD",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(line));
    lines.push(line(&total));
    table::write(&lines, out)?;
    let (from, to) = (question.from, question.to);
    Ok(writeln!(
        out,
        "from {from} to {to}, tokens of prompts and answers"
    )?)
}

fn line(row: &UsageRow) -> [String; 8] {
    let name = if row.name.is_empty() { "-" } else { &row.name };
    [
        name.to_owned(),
        row.n_requests.to_string(),
        row.prompt_tokens.to_string(),
        row.cached_tokens.to_string(),
        row.completion_tokens.to_string(),
        row.cost.to_string(),
        row.unconfirmed_cost.to_string(),
        row.held.to_string(),
    ]
}
