//! `ingle doctor`: what this machine has, which models fit it and how fast they are likely to be, and what
//! is misconfigured.

mod findings;
mod machine;
mod outlook;

use std::io::Write;

use anyhow::bail;
use indicatif::DecimalBytes;
use serde_json::{Value, json};

use super::app::{self, App};
use super::gpu::Choice;
use super::table;
use crate::catalog::Kind;
use crate::config::Config;
use crate::pool::{Description, ModelId, Pool};
use findings::{Finding, Grade};
use machine::Machine;
use outlook::Outlook;

/// Everything that is told.
struct Report {
    machine: Machine,
    budget_bytes: u64,
    models: Vec<Model>,
    findings: Vec<Finding>,
}

/// A model and what this machine can do with it.
struct Model {
    id: ModelId,
    is_here: bool,
    /// The longest of the told contexts that fits, with what it takes. `None`: none does.
    fitting: Option<(u32, u64)>,
    trained_context: Option<u32>,
    outlook: Option<Outlook>,
}

/// Looks at everything and tells it.
///
/// Errors: there is a problem, which has been told; `out` does not take more.
pub(super) async fn run(
    as_json: bool,
    config: &Config,
    gpu: Option<Choice>,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let (team, isa) = app::team(config)?;
    let measured = tokio::task::spawn_blocking(move || {
        let turn = team.take_turn();
        ingle_kernels::limits::Limits::measure(&turn)
    });
    let limits = measured.await?;
    let machine = Machine::look(config, isa, limits, gpu.as_ref());
    let findings = findings::find(config, &machine).await;
    let mut report = Report {
        budget_bytes: 0,
        models: Vec::new(),
        machine,
        findings,
    };
    // What keeps it from starting has been found.
    if let Ok(app) = App::start(config, gpu) {
        let pool = app.backend.pool();
        report.budget_bytes = pool.budget().host;
        report.models = models(pool, config, &report.machine).await?;
    }
    if as_json {
        writeln!(out, "{:#}", to_json(&report))?;
    } else {
        write(&report, out)?;
    }
    let problems = report.findings.iter();
    let n_problems = problems
        .filter(|found| found.grade == Grade::Problem)
        .count();
    match n_problems {
        0 => Ok(()),
        1 => bail!("there is a problem: see above"),
        n => bail!("there are {n} problems: see above"),
    }
}

/// The models of the catalogue that answer, and files it does not know.
async fn models(pool: &Pool, config: &Config, machine: &Machine) -> anyhow::Result<Vec<Model>> {
    let (catalog, _) = app::library(config)?;
    let mut models = Vec::new();
    for entry in pool.models().await {
        let manifest = catalog.find(entry.id.as_str()).ok();
        if manifest.is_some_and(|manifest| manifest.kind == Kind::Embedding) {
            continue;
        }
        // What cannot be read is told by `ingle info`.
        let Ok(described) = pool.describe(entry.id.as_str()).await else {
            continue;
        };
        let network = manifest.and_then(|manifest| manifest.network);
        let outlook = match (&described.file, network) {
            (Some(file), _) if file.architecture == "llama" => {
                Some(Outlook::of_file(file, &described, &machine.limits))
            }
            (None, Some(network)) => Some(Outlook::of_network(&network, &machine.limits)),
            // It does not write.
            (Some(_) | None, _) => None,
        };
        models.push(Model {
            is_here: entry.file.is_some(),
            fitting: fitting(&described, pool),
            trained_context: trained_context(&described),
            outlook,
            id: entry.id,
        });
    }
    Ok(models)
}

fn fitting(described: &Description, pool: &Pool) -> Option<(u32, u64)> {
    let budget = pool.budget();
    let fit = described.requirements.iter().filter(|one| {
        let is_as_configured =
            Some(one.kv_type) == described.requirements.first().map(|first| first.kv_type);
        is_as_configured && one.total().fits(budget)
    });
    let largest = fit.max_by_key(|one| one.n_ctx)?;
    Some((largest.n_ctx, largest.total().total()))
}

fn trained_context(described: &Description) -> Option<u32> {
    described.requirements.iter().map(|one| one.n_ctx).max()
}

fn write(report: &Report, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    table::write(&report.machine.rows(report.budget_bytes), out)?;
    let head = [
        "MODEL",
        "HERE",
        "LONGEST CONTEXT",
        "MEMORY",
        "PROMPT",
        "ANSWER",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for model in &report.models {
        let (context, memory) = match (model.fitting, model.trained_context) {
            (Some((fits, bytes)), Some(trained)) if fits < trained => (
                format!("{fits} of {trained}"),
                DecimalBytes(bytes).to_string(),
            ),
            (Some((fits, bytes)), _) => (fits.to_string(), DecimalBytes(bytes).to_string()),
            (None, Some(_)) => ("does not fit".to_owned(), "-".to_owned()),
            (None, None) => ("unknown".to_owned(), "-".to_owned()),
        };
        let rate = |of: fn(&Outlook) -> f64| {
            let rate = model.outlook.as_ref().map(of);
            rate.map_or_else(|| "-".to_owned(), |rate| format!("{} tok/s", rounded(rate)))
        };
        rows.push([
            model.id.to_string(),
            if model.is_here { "yes" } else { "no" }.to_owned(),
            context,
            memory,
            rate(|outlook| outlook.prompt_tokens_per_second),
            rate(|outlook| outlook.tokens_per_second),
        ]);
    }
    writeln!(out)?;
    table::write(&rows, out)?;
    writeln!(
        out,
        "Rates are of the processor, foreseen from its limits: `ingle bench engine` measures them."
    )?;
    writeln!(out)?;
    if report.findings.is_empty() {
        writeln!(out, "Nothing is misconfigured.")?;
    }
    for Finding { grade, text } in &report.findings {
        writeln!(out, "{}: {text}", grade.word())?;
    }
    Ok(())
}

/// Two figures are more than is known.
fn rounded(rate: f64) -> String {
    let step = 10_f64.powf(rate.max(0.01).log10().floor() - 1.0);
    let rounded = (rate / step).round() * step;
    if rounded < 10.0 {
        format!("{rounded:.1}")
    } else {
        format!("{rounded:.0}")
    }
}

fn to_json(report: &Report) -> Value {
    let models = report.models.iter().map(|model| {
        json!({
            "id": model.id.as_str(),
            "here": model.is_here,
            "trained_context": model.trained_context,
            "longest_context": model.fitting.map(|(n_ctx, _)| n_ctx),
            "memory_bytes": model.fitting.map(|(_, bytes)| bytes),
            "prompt_tokens_per_second": model.outlook.map(|outlook| outlook.prompt_tokens_per_second),
            "tokens_per_second": model.outlook.map(|outlook| outlook.tokens_per_second),
        })
    });
    let findings = report.findings.iter();
    let findings = findings.map(|found| json!({"grade": found.grade.word(), "text": found.text}));
    json!({
        "machine": report.machine.to_json(report.budget_bytes),
        "models": models.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn rates_have_two_figures() {
        for (rate, text) in [
            (0.1234, "0.1"),
            (2.349, "2.3"),
            (9.97, "10"),
            (34.7, "35"),
            (638.0, "640"),
        ] {
            assert_eq!(rounded(rate), text);
        }
    }
}
