//! `ingle egress`: what left this machine for providers, proved from the log, whether or not a server runs.

use std::io::Write;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::table;
use crate::caller::TeamId;
use crate::config::Config;
use crate::egress::{Counted, EgressLog, LOG_NAME, Proof, Query};
use crate::http::{egress_figures, egress_moment};
use crate::router::money::Moment;

/// `ingle egress`.
#[derive(Debug, Subcommand)]
pub(super) enum EgressVerb {
    /// Check every line of the egress log, and show what left for whom.
    Proof(ProofArgs),
}

/// `ingle egress proof`.
#[derive(Args, Debug)]
pub(super) struct ProofArgs {
    /// What left for this team only.
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// From this day on, such as 2026-11-26, in UTC.
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// Up to the beginning of this day.
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// The head of an earlier proof, which must still be there.
    #[arg(long, value_name = "HASH")]
    head: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Shows what left.
///
/// Errors: the log is not as it was written, or something went where it may not; `out` does not take more.
pub(super) fn run(verb: &EgressVerb, config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let EgressVerb::Proof(args) = verb;
    let query = query(args)?;
    let path = config.home.join(LOG_NAME);
    let proof = EgressLog::proof_of(&path, &query)?;
    if args.json {
        writeln!(out, "{:#}", egress_figures(&proof, &query))?;
    } else {
        tell(&proof, out)?;
    }
    match proof.first_forbidden {
        None => Ok(()),
        Some(line) => Err(anyhow!(
            "{} requests went where their privacy class does not allow, the first in line {line} of {}",
            proof.forbidden.requests,
            path.display()
        )),
    }
}

fn query(args: &ProofArgs) -> anyhow::Result<Query> {
    let moment = |text: &Option<String>| {
        let moment = text.as_deref().map(|text| {
            let moment = Moment::read(text);
            moment.ok_or_else(|| anyhow!("{text:?} is no day: write one such as 2026-11-26"))
        });
        let moment: Option<Moment> = moment.transpose()?;
        Ok::<_, anyhow::Error>(moment.map(|moment| moment.as_millis().unsigned_abs()))
    };
    Ok(Query {
        team: args
            .team
            .as_deref()
            .map(|team| TeamId::new(team).to_string()),
        from_ms: moment(&args.from)?,
        to_ms: moment(&args.to)?,
        head: args.head.clone(),
    })
}

fn tell(proof: &Proof, out: &mut dyn Write) -> anyhow::Result<()> {
    let line = |what: &str, name: &str, counted: Counted| {
        let (requests, bytes) = (counted.requests.to_string(), counted.bytes.to_string());
        [what.to_owned(), name.to_owned(), requests, bytes]
    };
    let mut lines = vec![["BY", "", "REQUESTS", "BYTES"].map(str::to_owned)];
    for (class, counted) in &proof.by_class {
        lines.push(line("class", class, *counted));
    }
    for (keeping, counted) in &proof.by_keeping {
        lines.push(line("keeping", keeping, *counted));
    }
    for (provider, counted) in &proof.by_provider {
        lines.push(line("provider", provider, *counted));
    }
    lines.push(line("all", "", proof.total));
    table::write(&lines, out)?;
    let time = |millis: Option<u64>| millis.map(egress_moment);
    if let (Some(first), Some(last)) = (time(proof.first_ms), time(proof.last_ms)) {
        writeln!(out, "from {first} to {last}")?;
    }
    let n_elsewhere = proof.local_only_elsewhere.requests;
    let n_ours = proof.local_only.requests - n_elsewhere;
    writeln!(
        out,
        "of local_only requests {n_ours} went to a machine of ours, {n_elsewhere} elsewhere"
    )?;
    let (n_entries, n_repaired) = (proof.n_entries, proof.n_repaired);
    writeln!(
        out,
        "all {n_entries} lines are as they were written, {n_repaired} of them in place of one that was torn"
    )?;
    Ok(writeln!(out, "head {}", proof.head)?)
}
