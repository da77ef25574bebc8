//! F0: the configuration: flag over `INGLE_…` variable over `ingle.toml` over default, read once and
//! checked.

pub mod budgets;
pub mod document;
mod forms;
mod reload;
pub mod router;
pub mod telemetry;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use figment::Figment;
use figment::providers::{Env, Serialized};
use figment::value::Dict;
use serde::{Deserialize, Serialize};

use crate::keep_alive::KeepAlive;
use crate::telemetry::LogFormat;
use budgets::BudgetSettings;
use document::{Node, Problem, Reading, Value, nearest};
pub use reload::Source;
use router::{RouterSettings, Variables};
use telemetry::TelemetrySettings;

/// The file that is read where no other is named: here, else in the configuration's folder.
const FILE_NAME: &str = "ingle.toml";
/// The folder of teams, where it is here and no other is named.
const TEAMS_FOLDER: &str = "teams";
/// Where Ollama listens too: clients find it there.
const LISTEN_DEFAULT: &str = "127.0.0.1:11434";

/// Everything that can be set. The keys of `ingle.toml` are the fields' names; a variable is
/// `INGLE_` and the name in capitals.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own"
)]
pub struct Config {
    /// Where the server listens, and where `ingle run` looks for a running one.
    pub listen: SocketAddr,
    /// Threads that compute; absent: one for each core this process may run on.
    pub threads: Option<NonZeroUsize>,
    /// Instructions to use: `scalar`, `avx2`, `avxvnni` or `avx512vnni`; absent: the best there are.
    pub isa: Option<String>,
    /// Tokens of one conversation at most; absent: the model's default.
    pub ctx: Option<NonZeroU32>,
    /// In what form keys and values are kept: `f16`, or `int8` for half the memory.
    pub kv_type: KvType,
    /// Bytes all models together may hold; absent: what is free, less a reserve.
    pub memory_bytes: Option<NonZeroU64>,
    /// Take a cache's memory from the system when its model is loaded, not as it is first written.
    pub preallocate: bool,
    /// The GPU that models are put on, counted from 0.
    pub gpu: usize,
    /// Layers of a model that lie on the GPU, 0 for none; absent: as many as its memory holds.
    pub gpu_layers: Option<usize>,
    /// Bytes of the GPU's memory that all models together may hold; absent: what is free, less a reserve.
    pub gpu_memory_bytes: Option<NonZeroU64>,
    /// On a GPU too, compute every request's answer with the same bits in any batch.
    pub deterministic: bool,
    /// How long a model stays in memory once nobody uses it, e.g. `10m`; `0` not at all, `-1` for ever; absent:
    /// until others need its memory.
    pub keep_alive: Option<KeepAlive>,
    /// Whether a request for a model that is not in memory loads it.
    pub autoload: bool,
    /// Requests computed together.
    pub max_running: NonZeroUsize,
    /// Requests that may wait while others run.
    pub max_waiting: usize,
    /// A file of API keys, one a line.
    pub api_key_file: Option<PathBuf>,
    /// Allows an address that others reach without any key.
    pub insecure: bool,
    /// The folder of model files.
    pub home: PathBuf,
    /// A folder of manifests that replace and extend the built-in ones.
    pub models: Option<PathBuf>,
    /// Connections that share the download of a large file.
    pub pull_connections: NonZeroUsize,
    /// A file of certificates, in PEM, that downloads trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Folders of GGUF files, each a model under its file's name as soon as it is there, besides `gguf` in
    /// `home`; a variable may name several as `PATH` does.
    #[serde(default, deserialize_with = "forms::folders")]
    pub model_folders: Vec<PathBuf>,
    /// Nothing leaves this machine.
    #[serde(deserialize_with = "forms::yes_or_no")]
    pub offline: bool,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Seconds that answers under way may take after the server was told to stop.
    pub drain_seconds: u64,
    /// Who answers: the tables `router` and `providers`.
    #[serde(skip)]
    pub router: RouterSettings,
    /// What may be used: the tables `budget` and `local_price`.
    #[serde(skip)]
    pub budgets: BudgetSettings,
    /// Where spans go: the table `telemetry`.
    #[serde(skip)]
    pub telemetry: TelemetrySettings,
    /// Where all this came from.
    #[serde(skip)]
    pub source: Source,
}

/// In what form keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// Half precision.
    F16,
    /// Eight bits and a scale for each token and head: half the memory.
    Int8,
}

/// What flags say; absent ones leave the layer below as it is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Flags {
    /// See [`Config::listen`], and so for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<NonZeroU32>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_type: Option<KvType>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_layers: Option<usize>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deterministic: Option<bool>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_file: Option<PathBuf>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<PathBuf>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_folders: Vec<PathBuf>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<bool>,
    #[expect(missing_docs, reason = "see the field of Config")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// What holds where nothing is said.
#[derive(Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own"
)]
struct Defaults {
    listen: &'static str,
    kv_type: KvType,
    preallocate: bool,
    gpu: usize,
    deterministic: bool,
    autoload: bool,
    max_running: usize,
    max_waiting: usize,
    insecure: bool,
    home: PathBuf,
    pull_connections: usize,
    offline: bool,
    log_format: LogFormat,
    drain_seconds: u64,
}

/// The names of all settings: other `INGLE_` variables are somebody else's.
const KEYS: &[&str] = &[
    "listen",
    "threads",
    "isa",
    "ctx",
    "kv_type",
    "memory_bytes",
    "preallocate",
    "gpu",
    "gpu_layers",
    "gpu_memory_bytes",
    "deterministic",
    "keep_alive",
    "autoload",
    "max_running",
    "max_waiting",
    "api_key_file",
    "insecure",
    "home",
    "models",
    "pull_connections",
    "ca_file",
    "model_folders",
    "offline",
    "log_format",
    "drain_seconds",
];

/// The tables of the file, each read by its own reader.
const TABLES: &[&str] = &[
    "router",
    "providers",
    budgets::TABLES[0],
    budgets::TABLES[1],
    budgets::TABLES[2],
    telemetry::TABLE,
];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that cannot be.
    #[error("{}{}", .0.first().map(ToString::to_string).unwrap_or_default(), and_more(.0.len()))]
    Settings(Vec<Problem>),
    /// A named file that is not there.
    #[error("there is no configuration file {}: name one that exists", .path.display())]
    NoFile {
        /// What was named.
        path: PathBuf,
    },
    /// The system does not say where this user's files belong.
    #[error("there is no home folder: set INGLE_HOME to the folder of model files")]
    NoHome,
    /// An address others reach, and no key.
    #[error(
        "{listen} can be reached from other machines and no key is set: \
         name a file of keys with --api-key-file, or say --insecure"
    )]
    Open {
        /// The address.
        listen: SocketAddr,
    },
}

impl Config {
    /// Reads all layers. `file` is what `--config` names.
    ///
    /// # Errors
    /// [`Error`], naming the setting and where it stands.
    pub fn load(flags: &Flags, file: Option<&Path>) -> Result<Self, Error> {
        let file = file_in_use(file);
        if let Some(path) = &file
            && !path.is_file()
        {
            return Err(Error::NoFile { path: path.clone() });
        }
        let defaults = Defaults {
            listen: LISTEN_DEFAULT,
            kv_type: KvType::F16,
            preallocate: false,
            gpu: 0,
            deterministic: false,
            autoload: true,
            max_running: 16,
            max_waiting: 256,
            insecure: false,
            home: default_home()
                .or_else(|| flags.home.clone())
                .unwrap_or_default(),
            pull_connections: 4,
            offline: false,
            log_format: LogFormat::Text,
            drain_seconds: 30,
        };
        let mut problems = Vec::new();
        let (document, own) = read_file(file.as_deref(), &mut problems)?;
        let layers = Figment::from(Serialized::defaults(defaults))
            .merge(Serialized::defaults(&own))
            .merge(Env::prefixed("INGLE_").only(KEYS))
            .merge(Serialized::defaults(flags));
        let config = layers.extract::<Self>();
        let listen = layers.extract_inner("listen").ok();
        let name = shown(file.as_deref());
        let router = router::read(
            &document,
            &name,
            listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
            Variables::new(&variable),
        );
        let budgets = budgets::read(&document, &name);
        let telemetry = telemetry::read(&document, &name, Variables::new(&variable));
        let config = match (config, router, budgets, telemetry) {
            (Ok(config), Ok(router), Ok(budgets), Ok(telemetry)) if problems.is_empty() => Self {
                router: with_teams(router),
                budgets,
                telemetry,
                source: Source { file, own },
                ..config
            },
            (config, router, budgets, telemetry) => {
                problems.extend(config.err().map(|error| setting(&error, &name)));
                problems.extend(router.err().unwrap_or_default());
                problems.extend(budgets.err().unwrap_or_default());
                problems.extend(telemetry.err().unwrap_or_default());
                return Err(Error::Settings(problems));
            }
        };
        if config.home.as_os_str().is_empty() {
            return Err(Error::NoHome);
        }
        Ok(config)
    }

    /// Checks that a server may listen where it is told to.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn check_serving(&self) -> Result<(), Error> {
        let is_open = !self.listen.ip().is_loopback() && self.api_key_file.is_none();
        if is_open && !self.insecure {
            return Err(Error::Open {
                listen: self.listen,
            });
        }
        Ok(())
    }
}

/// A variable of the environment, if it is set, not empty and text.
pub fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let value = std::env::var(name).ok();
    value.filter(|value| !value.is_empty())
}

/// The names of all variables that mean something.
pub fn variable_names() -> Vec<String> {
    /// Not settings of the file: where it is, the key of a client, and what tests ask for.
    const OTHERS: [&str; 4] = ["config", "api_key", "ca_file", "test_gpu"];
    let names = KEYS.iter().chain(&OTHERS);
    names
        .map(|name| format!("INGLE_{}", name.to_uppercase()))
        .collect()
}

/// Variables that are called as ours are, and mean nothing.
pub fn unknown_variables() -> Vec<String> {
    let known = variable_names();
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names
        .filter(|name| name.starts_with("INGLE_") && !known.contains(name))
        .collect()
}

/// The file that is read: the one that was named, else the one that is found.
pub fn file_in_use(named: Option<&Path>) -> Option<PathBuf> {
    let named = named
        .map(Path::to_owned)
        .or_else(|| variable("INGLE_CONFIG").map(PathBuf::from));
    named.or_else(default_file)
}

fn default_file() -> Option<PathBuf> {
    let here = PathBuf::from(FILE_NAME);
    if here.is_file() {
        return Some(here);
    }
    let folder = etcetera::choose_base_strategy().ok()?.config_dir();
    Some(folder.join("ingle").join(FILE_NAME)).filter(|file| file.is_file())
}

fn default_home() -> Option<PathBuf> {
    let folder = etcetera::choose_base_strategy().ok()?.cache_dir();
    Some(folder.join("ingle"))
}

/// The document in the file, and of it the settings that are not in tables. Keys that mean nothing are noted.
fn read_file(file: Option<&Path>, problems: &mut Vec<Problem>) -> Result<(Node, Dict), Error> {
    let nothing = Node {
        line: None,
        value: Value::Null,
    };
    let Some(path) = file else {
        return Ok((nothing, Dict::new()));
    };
    let wrong = |problem: Problem| Error::Settings(vec![problem]);
    let whole = |problem: String| {
        wrong(Problem {
            key: String::new(),
            place: path.display().to_string(),
            problem,
        })
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| whole(format!("it cannot be read: {error}")))?;
    let name = path.display().to_string();
    let document = Node::from_toml(&text, &name).map_err(wrong)?;
    let mut own: Dict = toml::from_str(&text).map_err(|error| whole(error.to_string()))?;
    own.retain(|key, _| KEYS.contains(&&**key));
    let reading = Reading::new(name);
    reading.table(&document, "").known(&|key| {
        if KEYS.contains(&key) || TABLES.contains(&key) {
            return Ok(());
        }
        if router::KEYS.contains(&key) {
            return Err("there is no such key here: it belongs in the table [router]".to_owned());
        }
        let known = KEYS.iter().chain(TABLES).copied();
        Err(format!("there is no such key{}", nearest(key, known)))
    });
    if let Err(unknown) = reading.finish(()) {
        problems.extend(unknown);
    }
    Ok((document, own))
}

/// With the folder of teams that is here, where none is named.
fn with_teams(mut router: RouterSettings) -> RouterSettings {
    router.teams_folder = router.teams_folder.or_else(|| {
        let here = PathBuf::from(TEAMS_FOLDER);
        Some(here).filter(|folder| folder.is_dir())
    });
    router
}

fn shown(file: Option<&Path>) -> String {
    file.unwrap_or(Path::new(FILE_NAME)).display().to_string()
}

fn and_more(n_problems: usize) -> String {
    match n_problems {
        0 | 1 => String::new(),
        n => format!(" (and {} more: see ingle config check)", n - 1),
    }
}

/// The problem with a setting, where it stands, in our words.
fn setting(error: &figment::Error, file: &str) -> Problem {
    let key = error.path.join(".");
    let layer = error.metadata.as_ref().map_or("", |layer| &*layer.name);
    let place = if layer.contains("environment") {
        format!("INGLE_{}", key.to_uppercase())
    } else {
        format!("{key} in {file}")
    };
    Problem {
        key,
        place,
        problem: error.kind.to_string(),
    }
}

#[cfg(test)]
#[expect(
    clippy::result_large_err,
    reason = "figment's Jail wants its own error"
)]
mod tests;
