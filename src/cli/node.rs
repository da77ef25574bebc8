//! `ingle ps`, `load`, `unload`, `info` and `rm`: the models of the running Ingle.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{anyhow, bail};
use clap::Args;
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};

use super::app::App;
use super::running::{Lines, Running, error_message, path_part};
use super::table;
use crate::config::Config;
use crate::keep_alive::KeepAlive;

/// `ingle load`.
#[derive(Args, Debug)]
pub(super) struct LoadArgs {
    /// A name of the catalogue, or of a file the server was started with.
    model: String,
    /// How long it stays once nobody uses it: 10m, 90s, 0 for not at all, -1 for ever.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    keep_alive: Option<KeepAlive>,
    /// Keep it in memory whatever others need, as --keep-alive -1 does.
    #[arg(long, conflicts_with = "keep_alive")]
    pin: bool,
}

/// Lists what is in memory.
///
/// Errors: no Ingle is running; `out` does not take more.
pub(super) async fn ps(
    config: &Config,
    as_json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let running = Running::expect(config.listen).await?;
    let mut answer = running.json(Method::GET, "/api/models").await?;
    if let Some(models) = answer["models"].as_array_mut() {
        models.retain(|model| model["state"] != "absent");
    }
    if as_json {
        return Ok(writeln!(out, "{answer:#}")?);
    }
    let models = answer["models"].as_array().map_or(&[][..], Vec::as_slice);
    let head = [
        "MODEL", "STATE", "MEMORY", "CONTEXT", "REQUESTS", "IDLE", "STAYS",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(models.iter().map(row));
    table::write(&rows, out)?;
    for model in models {
        if let (Some(id), Some(reason)) = (model["id"].as_str(), model["reason"].as_str()) {
            writeln!(out, "{id}: {reason}")?;
        }
    }
    let memory = &answer["memory"];
    let (held, budget) = (bytes(&memory["held"]), bytes(&memory["budget"]));
    Ok(writeln!(out, "{held} of {budget}")?)
}

fn row(model: &Value) -> [String; 7] {
    let text = |name: &str| model[name].as_str().unwrap_or("-").to_owned();
    let count = |name: &str| {
        let count = model[name].as_u64();
        count.map_or_else(|| "-".to_owned(), |count| count.to_string())
    };
    let state = match (model["state"].as_str(), &model["load"]) {
        (Some("loading" | "fetching"), load) if load["fraction"].is_f64() => {
            let percent = load["fraction"].as_f64().unwrap_or_default() * 100.0;
            format!("{} {percent:.0} %", text("state"))
        }
        _ => text("state"),
    };
    [
        text("id"),
        state,
        bytes(&model["memory"]),
        count("context"),
        count("requests"),
        seconds(&model["idle_seconds"]),
        stays(model),
    ]
}

fn stays(model: &Value) -> String {
    match (
        model["keep_alive"].as_f64(),
        model["expires_in_seconds"].as_f64(),
    ) {
        (Some(time), _) if time < 0.0 => "pinned".to_owned(),
        (_, Some(_)) => format!("for {}", seconds(&model["expires_in_seconds"])),
        (Some(_), None) => format!("{} after use", seconds(&model["keep_alive"])),
        (None, None) => "until needed".to_owned(),
    }
}

/// `90s`, `1h30m`: the two greatest units.
fn seconds(value: &Value) -> String {
    let seconds = value.as_f64().unwrap_or_default().clamp(0.0, 1e9).round();
    let (minutes, hours, days) = (seconds / 60.0, seconds / 3600.0, seconds / 86_400.0);
    if minutes < 2.0 {
        format!("{seconds}s")
    } else if hours < 1.0 {
        format!("{}m{}s", minutes.floor(), seconds % 60.0)
    } else if days < 2.0 {
        format!("{}h{}m", hours.floor(), minutes.floor() % 60.0)
    } else {
        format!("{}d{}h", days.floor(), hours.floor() % 24.0)
    }
}

/// `4.7 GB`, and what of it lies on the GPU.
fn bytes(value: &Value) -> String {
    let of = |name: &str| value[name].as_u64().unwrap_or_default();
    match (of("host_bytes"), of("device_bytes")) {
        (host, 0) => DecimalBytes(host).to_string(),
        (0, device) => format!("{} on the GPU", DecimalBytes(device)),
        (host, device) => {
            format!(
                "{} and {} on the GPU",
                DecimalBytes(host),
                DecimalBytes(device)
            )
        }
    }
}

/// Loads a model and shows how that goes.
///
/// Errors: no Ingle is running; the model cannot be loaded.
pub(super) async fn load(
    args: &LoadArgs,
    config: &Config,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let running = Running::expect(config.listen).await?;
    let keep_alive = match args.keep_alive {
        _ if args.pin => Some(KeepAlive::Pinned),
        said => said,
    };
    let body = match keep_alive {
        Some(KeepAlive::Pinned) => json!({"keep_alive": -1}),
        Some(KeepAlive::For(time)) => json!({"keep_alive": time.as_secs_f64()}),
        Some(KeepAlive::UntilNeeded) | None => json!({}),
    };
    let path = format!("/api/models/{}/load", part(&args.model)?);
    let request = running.request(Method::POST, &path).json(&body);
    let mut lines = Lines::new(running.send(request).await?);
    let bar = StageBar::new();
    while let Some(line) = lines.next().await? {
        let line: Value = serde_json::from_slice(&line)?;
        if let Some(message) = error_message(&line) {
            bar.clear();
            bail!(message);
        }
        if line["stage"] == "ready" {
            bar.clear();
            let (model, memory) = (line["model"].as_str(), bytes(&line["memory"]));
            let (model, context) = (model.unwrap_or_default(), &line["context"]);
            writeln!(
                out,
                "{model} is loaded: {memory}, a context of {context} tokens"
            )?;
            return Ok(());
        }
        bar.show(&line);
    }
    bar.clear();
    bail!(
        "the running Ingle stopped telling how the load of {} goes",
        args.model
    )
}

/// Takes a model out of memory.
///
/// Errors: no Ingle is running; it knows no such model.
pub(super) async fn unload(
    model: &str,
    config: &Config,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let running = Running::expect(config.listen).await?;
    let path = format!("/api/models/{}/unload", part(model)?);
    let answer = running.json(Method::POST, &path).await?;
    let id = answer["model"].as_str().unwrap_or(model);
    let was = if answer["unloaded"] == true {
        "is out of memory"
    } else {
        "was not in memory"
    };
    Ok(writeln!(out, "{id} {was}")?)
}

/// What a model is and asks of this machine; of the running Ingle where there is one.
///
/// Errors: nothing has this name; its file cannot be read; `out` does not take more.
pub(super) async fn info(
    model: &str,
    as_json: bool,
    config: &Config,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let is_file = Path::new(model).is_file();
    let name = path_part(model).filter(|_| !is_file);
    let value = match (Running::find(config.listen).await, name) {
        (Some(running), Some(name)) => {
            running
                .json(Method::GET, &format!("/api/models/{name}"))
                .await?
        }
        _ => described(model, config).await?,
    };
    if as_json {
        return Ok(writeln!(out, "{value:#}")?);
    }
    write_info(&value, out)
}

/// Without a running Ingle.
async fn described(model: &str, config: &Config) -> anyhow::Result<Value> {
    let app = App::start(config, None)?;
    let pool = app.backend.pool();
    let id = pool.resolve(model)?;
    let description = pool.describe(id.as_str()).await?;
    Ok(crate::http::description(&description, pool.budget()))
}

fn write_info(value: &Value, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let list = |value: &Value| {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
        items.join(", ")
    };
    let file = &value["file"];
    let mut rows: Vec<[String; 2]> = Vec::new();
    let mut row = |name: &str, text: String| {
        if !text.is_empty() {
            rows.push([name.to_owned(), text]);
        }
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    row("model", text(&value["id"]));
    row("also called", list(&value["aliases"]));
    row("state", text(&value["state"]));
    row("from", list(&value["sources"]));
    row("license", text(&value["license"]));
    if file.is_null() {
        row("file", "not here: `ingle pull` fetches it".to_owned());
    } else {
        row("file", text(&file["path"]));
        let size = DecimalBytes(file["size_bytes"].as_u64().unwrap_or_default());
        row(
            "size",
            format!("{size}, mostly {}", text(&file["weight_type"])),
        );
        let parameters = file["parameters"].as_u64().unwrap_or_default() as f64 / 1e9;
        let architecture = text(&file["architecture"]);
        row(
            "network",
            format!("{architecture}, {parameters:.2} billion parameters"),
        );
        let (context, trained) = (&file["context"], &file["shape"]["trained_context"]);
        row("context", format!("{context} tokens, trained on {trained}"));
    }
    table::write(&rows, out)?;
    write_requirements(&value["requirements"], out)
}

/// What a model takes, by context and form of the cache.
fn write_requirements(value: &Value, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let requirements = value.as_array().map_or(&[][..], Vec::as_slice);
    if requirements.is_empty() {
        return Ok(());
    }
    let head = [
        "",
        "CONTEXT",
        "KV",
        "MEMORY",
        "WEIGHTS",
        "CACHE",
        "WORKSPACE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for one in requirements {
        let fits = if one["fits"] == true {
            "fits"
        } else {
            "too large"
        };
        rows.push([
            fits.to_owned(),
            one["context"].to_string(),
            text(&one["kv_type"]),
            bytes(&one["memory"]),
            bytes(&one["weights"]),
            bytes(&one["kv_cache"]),
            bytes(&one["workspace"]),
        ]);
    }
    writeln!(out)?;
    Ok(table::write(&rows, out)?)
}

/// Has the running Ingle remove a model's file; `None` where there is none.
///
/// Errors: it is not in the store, or just being fetched.
pub(super) async fn remove(model: &str, config: &Config) -> anyhow::Result<Option<u64>> {
    let Some(running) = Running::find(config.listen).await else {
        return Ok(None);
    };
    let path = format!("/api/models/{}", part(model)?);
    let answer = running.json(Method::DELETE, &path).await?;
    Ok(Some(answer["freed_bytes"].as_u64().unwrap_or_default()))
}

fn part(model: &str) -> anyhow::Result<String> {
    path_part(model)
        .ok_or_else(|| anyhow!("{model:?} is no name of a model: `ingle list` has them"))
}

/// How a load is shown: a bar on a terminal, elsewhere a line a stage.
struct StageBar {
    bar: Option<ProgressBar>,
    told: std::cell::RefCell<String>,
}

impl StageBar {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %");
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new(1000));
        if let (Some(bar), Ok(style)) = (&bar, style) {
            bar.set_style(style);
        }
        Self {
            bar,
            told: std::cell::RefCell::default(),
        }
    }

    fn show(&self, line: &Value) {
        let stage = line["stage"].as_str().unwrap_or_default().replace('_', " ");
        let stage = match line["source"].as_str() {
            Some(source) => format!("{stage} {source}"),
            None => stage,
        };
        match &self.bar {
            Some(bar) => {
                bar.set_message(stage);
                let done = line["fraction"]
                    .as_f64()
                    .unwrap_or_default()
                    .clamp(0.0, 1.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 0 and 1000"
                )]
                bar.set_position((done * 1000.0) as u64);
            }
            None if *self.told.borrow() != stage => {
                // Where stderr is gone there is nobody to tell.
                let _ = writeln!(io::stderr(), "{stage}");
                self.told.replace(stage);
            }
            None => {}
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
