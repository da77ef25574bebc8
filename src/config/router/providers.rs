//! The providers: whose API they speak, where they are, with which key, and what they do with what they are told.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::address;
use super::read::Variables;
use crate::config::document::{Table, nearest, read_bounded};
use crate::egress::Keeping;
use crate::secret::Secret;

/// What the engine of this process is called in names.
pub const LOCAL: &str = "local";
/// The provider that stands behind `LOCAL_MODEL_URL` where that is not this process.
pub const LOCAL_REMOTE: &str = "local-remote";

/// The longest a key may be; and no longer a file of one is read.
const MAX_KEY_BYTES: u64 = 4096;

/// Whose words a provider understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenRouter's: OpenAI's with more.
    OpenRouter,
    /// OpenAI's own.
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
    /// OpenAI's, as others speak it: another Ingle, vLLM, llama-server.
    Compatible,
}

impl Dialect {
    const NAMES: [&'static str; 4] = ["openrouter", "openai", "anthropic", "compatible"];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenRouter => "openrouter",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Compatible => "compatible",
        }
    }

    /// Where it is found, where nothing else is said.
    pub fn base_url(self) -> Option<&'static str> {
        match self {
            Self::OpenRouter => Some("https://openrouter.ai/api/v1"),
            Self::OpenAi => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Compatible => None,
        }
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "openrouter" => Ok(Self::OpenRouter),
            "openai" => Ok(Self::OpenAi),
            "anthropic" => Ok(Self::Anthropic),
            "compatible" => Ok(Self::Compatible),
            _ => Err(format!(
                "{text:?} is no dialect{}",
                nearest(text, Self::NAMES)
            )),
        }
    }
}

/// A provider that can be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSettings {
    /// What it is called before the colon of a name.
    pub name: String,
    /// Whose words it understands.
    pub dialect: Dialect,
    /// Its address without the path of a request; no slash at the end.
    pub base_url: String,
    /// Its key; absent where it asks for none.
    pub api_key: Option<Secret>,
    /// Globs of the models that it serves, so that they need no name before the colon.
    pub models: Vec<String>,
    /// What it does with what it is told.
    pub keeping: Keeping,
    /// Whether OpenRouter is asked with every request to keep nothing.
    pub zdr: bool,
    /// How long it may take.
    pub timeouts: ProviderTimeouts,
}

/// How long a provider may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderTimeouts {
    /// To a connection.
    pub connect: Duration,
    /// To the first content.
    pub first_content: Duration,
    /// From one content to the next.
    pub idle: Duration,
    /// To the end.
    pub total: Duration,
}

impl Default for ProviderTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_content: Duration::from_mins(1),
            idle: Duration::from_secs(30),
            total: Duration::from_mins(10),
        }
    }
}

const KEYS: [&str; 10] = [
    "dialect",
    "base_url",
    "api_key",
    "api_key_file",
    "models",
    "zdr",
    "connect_timeout_ms",
    "first_content_timeout_ms",
    "idle_timeout_ms",
    "total_timeout_ms",
];

/// The providers that exist before the file names any: they speak their own dialect.
const OWN: [(&str, Dialect); 3] = [
    ("openrouter", Dialect::OpenRouter),
    ("openai", Dialect::OpenAi),
    ("anthropic", Dialect::Anthropic),
];

/// Reads all providers: those of the file, and those that variables give a key. One without a key does not exist,
/// unless it is `compatible`.
pub(super) fn read(
    root: &Table<'_>,
    local_hosts: &[String],
    variables: &Variables<'_>,
) -> BTreeMap<String, ProviderSettings> {
    let mut found = BTreeMap::new();
    let tables = root.table("providers").map(|table| table.tables());
    let tables = tables.unwrap_or_default();
    for (name, table) in &tables {
        if let Some(provider) = one(name, Some(table), local_hosts, variables) {
            found.insert((*name).to_owned(), provider);
        }
    }
    for (name, _) in OWN {
        if !tables.iter().any(|(named, _)| *named == name)
            && let Some(provider) = one(name, None, local_hosts, variables)
        {
            found.insert(name.to_owned(), provider);
        }
    }
    found
}

fn one(
    name: &str,
    table: Option<&Table<'_>>,
    local_hosts: &[String],
    variables: &Variables<'_>,
) -> Option<ProviderSettings> {
    let own = OWN.iter().find(|(own, _)| *own == name);
    if let Some(table) = table {
        table.only(&KEYS);
        if !check_name(name, table) {
            return None;
        }
    }
    let dialect = table.and_then(|table| table.parsed("dialect"));
    let dialect = dialect.or(own.map(|(_, dialect)| *dialect));
    let dialect = dialect.unwrap_or(Dialect::Compatible);
    let mut api_key = table.and_then(key_of_file);
    let mut base_url = table.and_then(|table| address_of_file(table, "base_url"));
    if own.is_some() {
        let variable = |end: &str| format!("{}_{end}", name.to_uppercase());
        api_key = variables.read(&variable("API_KEY"), key).or(api_key);
        base_url = variables
            .read(&variable("BASE_URL"), address::base)
            .or(base_url);
    }
    let Some(base_url) = base_url.or_else(|| dialect.base_url().map(str::to_owned)) else {
        if let Some(table) = table.filter(|table| !table.has("base_url")) {
            table.refuse_it("its base_url is missing: that is the provider's address");
        }
        return None;
    };
    if api_key.is_none() && dialect != Dialect::Compatible {
        return None;
    }
    let zdr = table.and_then(|table| table.bool("zdr"));
    let zdr = zdr.unwrap_or(dialect == Dialect::OpenRouter);
    Some(ProviderSettings {
        name: name.to_owned(),
        dialect,
        keeping: keeping(&base_url, zdr, local_hosts),
        base_url,
        api_key,
        models: table
            .and_then(|table| table.texts("models"))
            .unwrap_or_default(),
        zdr,
        timeouts: table.map(timeouts).unwrap_or_default(),
    })
}

/// What a provider does with what it is told.
pub(super) fn keeping(base_url: &str, zdr: bool, local_hosts: &[String]) -> Keeping {
    if address::is_one_of(base_url, local_hosts) {
        Keeping::Ours
    } else if zdr {
        Keeping::Nothing
    } else {
        Keeping::Maybe
    }
}

fn check_name(name: &str, table: &Table<'_>) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_plain) {
        table.refuse_it("a provider's name has small letters, digits, - and _ only");
    } else if [LOCAL, LOCAL_REMOTE, "auto", "ingle"].contains(&name) {
        table.refuse_it("this name is Ingle's own: choose another");
    } else {
        return true;
    }
    false
}

fn address_of_file(table: &Table<'_>, key: &str) -> Option<String> {
    let text = table.text(key)?;
    match address::base(text) {
        Ok(url) => Some(url),
        Err(problem) => {
            table.refuse(key, problem);
            None
        }
    }
}

/// A text that can be sent as a key.
///
/// Errors: one clause, without the text.
fn key(text: &str) -> Result<Secret, String> {
    let key = text.trim();
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the key has a character that no key has, such as a space".to_owned());
    }
    Ok(Secret::new(key))
}

/// `api_key`, or what stands in `api_key_file`.
fn key_of_file(table: &Table<'_>) -> Option<Secret> {
    let (name, text) = match (table.text("api_key"), table.text("api_key_file")) {
        (Some(_), Some(_)) => {
            table.refuse("api_key_file", "there is an api_key too: one is enough");
            return None;
        }
        (Some(key), None) => ("api_key", Ok(key.to_owned())),
        (None, Some(path)) => ("api_key_file", read_key(path)),
        (None, None) => return None,
    };
    match text.and_then(|text| key(&text)) {
        Ok(key) => Some(key),
        Err(problem) => {
            table.refuse(name, problem);
            None
        }
    }
}

fn read_key(path: &str) -> Result<String, String> {
    let text = read_bounded(Path::new(path), MAX_KEY_BYTES);
    text.map_err(|problem| problem.to_string())
}

fn timeouts(table: &Table<'_>) -> ProviderTimeouts {
    let usual = ProviderTimeouts::default();
    let read = |key, usual| {
        let millis = table.whole(key, 1..=86_400_000);
        millis.map_or(usual, Duration::from_millis)
    };
    ProviderTimeouts {
        connect: read("connect_timeout_ms", usual.connect),
        first_content: read("first_content_timeout_ms", usual.first_content),
        idle: read("idle_timeout_ms", usual.idle),
        total: read("total_timeout_ms", usual.total),
    }
}
