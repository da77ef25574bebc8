//! `ingle key`: who may ask the server, and what they may.

use std::io::Write;

use clap::{Args, Subcommand};

use super::table;
use crate::caller::TeamId;
use crate::config::Config;
use crate::egress::Privacy;
use crate::keys::{self, Key, Keys};
use crate::limit::{Limit, Measure, Per};
use crate::money::MicroUsd;
use crate::router::money::Moment;

/// `ingle key`.
#[derive(Debug, Subcommand)]
pub(super) enum KeyVerb {
    /// Make a key, and show it: this once.
    Add(AddArgs),
    /// List the keys, not what they are.
    List,
    /// Make a key open nothing any more, also on a running server.
    Revoke {
        /// What the key is called.
        name: String,
    },
}

/// `ingle key add`.
#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// What to call it.
    name: String,
    /// The team it is for.
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// How far what is said with it may go: any, zdr_only or local_only.
    #[arg(long, value_name = "CLASS", default_value = "any")]
    privacy: Privacy,
    /// It may ask in another team's name.
    #[arg(long)]
    any_team: bool,
    /// It may load and remove models, and see what others use and what left this machine.
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What may be used with a key.
#[derive(Args, Debug)]
#[expect(clippy::struct_field_names, reason = "they are the flags' names")]
struct LimitArgs {
    /// Dollars it may cost a day.
    #[arg(long, value_name = "USD")]
    limit_usd_day: Option<MicroUsd>,
    /// Dollars it may cost a month.
    #[arg(long, value_name = "USD")]
    limit_usd_month: Option<MicroUsd>,
    /// Requests a minute.
    #[arg(long, value_name = "N")]
    limit_requests_minute: Option<u64>,
    /// Requests a day.
    #[arg(long, value_name = "N")]
    limit_requests_day: Option<u64>,
    /// Tokens a minute.
    #[arg(long, value_name = "N")]
    limit_tokens_minute: Option<u64>,
    /// Tokens a day.
    #[arg(long, value_name = "N")]
    limit_tokens_day: Option<u64>,
}

impl LimitArgs {
    fn of(&self, key: &Key) -> Vec<Limit> {
        let usd = |amount: Option<MicroUsd>| amount.map(|amount| amount.0);
        let said = [
            (Per::Day, Measure::Money, usd(self.limit_usd_day)),
            (Per::Month, Measure::Money, usd(self.limit_usd_month)),
            (Per::Minute, Measure::Requests, self.limit_requests_minute),
            (Per::Day, Measure::Requests, self.limit_requests_day),
            (Per::Minute, Measure::Tokens, self.limit_tokens_minute),
            (Per::Day, Measure::Tokens, self.limit_tokens_day),
        ];
        let limits = said.into_iter();
        limits
            .filter_map(|(per, measure, most)| Some(key.limit(per, measure, most?)))
            .collect()
    }
}

/// Does what was said.
///
/// Errors: as for [`keys::add`] and [`keys::revoke`]; `out` does not take more.
pub(super) fn run(verb: &KeyVerb, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let now = Moment::now().to_string();
    let today = now.split('T').next().unwrap_or_default();
    match verb {
        KeyVerb::Add(args) => {
            let mut key = Key::new(&args.name, today);
            key.team = args.team.as_deref().map(TeamId::new);
            key.privacy = args.privacy;
            key.any_team = args.any_team;
            key.is_admin = args.admin;
            key.limits = args.limits.of(&key);
            let secret = keys::add(&config.home, key)?;
            Ok(writeln!(out, "{secret}")?)
        }
        KeyVerb::List => list(&Keys::open(&config.home)?, out),
        KeyVerb::Revoke { name } => {
            keys::revoke(&config.home, name, today)?;
            Ok(writeln!(out, "{name} opens nothing any more")?)
        }
    }
}

fn list(keys: &Keys, out: &mut dyn Write) -> anyhow::Result<()> {
    let head = [
        "NAME", "TEAM", "PRIVACY", "MAY", "LIMITS", "ADDED", "REVOKED",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for key in keys.all().iter() {
        let may = [("admin", key.is_admin), ("any team", key.any_team)];
        let may = may
            .into_iter()
            .filter_map(|(may, does)| does.then_some(may));
        let limits = key.limits.iter().map(|limit| {
            let most = limit.measure.shown(limit.most);
            format!("{most} a {}", limit.per)
        });
        let dash = |text: String| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text
            }
        };
        let team = key.team.as_ref().map(ToString::to_string);
        rows.push([
            key.name.clone(),
            dash(team.unwrap_or_default()),
            key.privacy.to_string(),
            dash(may.collect::<Vec<_>>().join(", ")),
            dash(limits.collect::<Vec<_>>().join(", ")),
            key.added.clone(),
            dash(key.revoked.clone().unwrap_or_default()),
        ]);
    }
    Ok(table::write(&rows, out)?)
}
