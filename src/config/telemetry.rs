//! Where spans go: the table `[telemetry]`, and over it the variables that OpenTelemetry names.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::document::{Node, Problem, Reading, Table};
use super::router::{Variables, address};
use crate::secret::Secret;

/// The table that is read here.
pub(super) const TABLE: &str = "telemetry";
/// Where an endpoint takes spans.
const TRACES_PATH: &str = "/v1/traces";
/// The variables that mean something here.
pub const VARIABLES: [&str; 14] = [
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];
/// An hour: nobody waits longer for a collector.
const TIMEOUT_MOST_MS: u64 = 3_600_000;

/// Where spans go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetrySettings {
    /// The address that takes them, whole; absent: there are none.
    pub endpoint: Option<String>,
    /// What is sent along with them.
    pub headers: Vec<(String, Secret)>,
    /// In which form.
    pub protocol: Protocol,
    /// How long the collector may take.
    pub timeout: Duration,
    /// What this process is called there.
    pub service_name: String,
    /// What else is said of it.
    pub resource: Vec<(String, String)>,
    /// Which requests are told.
    pub sampling: Sampling,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: Vec::new(),
            protocol: Protocol::Protobuf,
            timeout: Duration::from_secs(10),
            service_name: "ingle".to_owned(),
            resource: Vec::new(),
            sampling: Sampling::default(),
        }
    }
}

/// In which form spans are sent over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As `http/protobuf`.
    Protobuf,
    /// As `http/json`.
    Json,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "http/protobuf" => Ok(Self::Protobuf),
            "http/json" => Ok(Self::Json),
            _ => Err(format!(
                "{text:?} is not spoken here: say http/protobuf or http/json, and the collector's port for HTTP, \
                 usually 4318"
            )),
        }
    }
}

/// Which requests are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether a request that comes with a trace is told if, and only if, that trace is.
    pub follows_parent: bool,
    /// The share of the others.
    pub ratio: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            follows_parent: true,
            ratio: 1.0,
        }
    }
}

/// A name of a sampler: whether it follows the parent, and its ratio where the name says it.
struct Sampler(bool, Option<f64>);

impl FromStr for Sampler {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (follows, name) = match text.strip_prefix("parentbased_") {
            Some(name) => (true, name),
            None => (false, text),
        };
        match name {
            "always_on" => Ok(Self(follows, Some(1.0))),
            "always_off" => Ok(Self(follows, Some(0.0))),
            "traceidratio" => Ok(Self(follows, None)),
            _ => Err(format!(
                "{text:?} is no sampler: there are always_on, always_off and traceidratio, each with parentbased_ \
                 before it or not"
            )),
        }
    }
}

/// Whether anything is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Sends,
    Silent,
}

/// Reads the table of `document`, which is called `file`, and the variables.
///
/// # Errors
/// All that is wrong, never empty.
pub(super) fn read(
    document: &Node,
    file: &str,
    variables: Variables<'_>,
) -> Result<TelemetrySettings, Vec<Problem>> {
    let reading = Reading::new(file);
    let mut settings = TelemetrySettings::default();
    if let Some(table) = reading.table(document, "").table(TABLE) {
        read_table(&table, &mut settings);
    }
    let use_of_them = read_variables(&variables, &mut settings);
    let mut problems = reading.finish(()).err().unwrap_or_default();
    // They may be there for other programs.
    if use_of_them == Use::Sends {
        problems.extend(variables.into_problems());
    }
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(problems)
    }
}

fn read_table(table: &Table<'_>, settings: &mut TelemetrySettings) {
    table.only(&[
        "endpoint",
        "headers",
        "protocol",
        "timeout_ms",
        "service_name",
        "sample_ratio",
    ]);
    match table.text("endpoint").map(address::base) {
        Some(Ok(base)) => settings.endpoint = Some(format!("{base}{TRACES_PATH}")),
        Some(Err(problem)) => table.refuse("endpoint", problem),
        None => {}
    }
    if let Some(headers) = table.table("headers") {
        for entry in headers.entries() {
            let value = headers.text(&entry.key).map(Secret::new);
            settings
                .headers
                .extend(value.map(|value| (entry.key.clone(), value)));
        }
    }
    if let Some(protocol) = table.parsed("protocol") {
        settings.protocol = protocol;
    }
    if let Some(ms) = table.whole("timeout_ms", 1..=TIMEOUT_MOST_MS) {
        settings.timeout = Duration::from_millis(ms);
    }
    if let Some(name) = table.text("service_name") {
        name.clone_into(&mut settings.service_name);
    }
    if let Some(ratio) = table.number("sample_ratio", 0.0..=1.0) {
        settings.sampling.ratio = ratio;
    }
}

fn read_variables(variables: &Variables<'_>, settings: &mut TelemetrySettings) -> Use {
    let names = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    let is_named = names.iter().any(|name| variables.text(name).is_some());
    let [base, whole] = names.map(|name| variables.read(name, address::base));
    let has_place = is_named || settings.endpoint.is_some();
    if let Some(endpoint) = whole.or_else(|| base.map(|base| format!("{base}{TRACES_PATH}"))) {
        settings.endpoint = Some(endpoint);
    }
    let of_spans = |name: &str| name.replace("_OTLP_", "_OTLP_TRACES_");
    let headers = "OTEL_EXPORTER_OTLP_HEADERS";
    let general = variables.read(headers, pairs);
    if let Some(pairs) = variables.read(&of_spans(headers), pairs).or(general) {
        let pairs = pairs.into_iter();
        settings.headers = pairs
            .map(|(key, value)| (key, Secret::new(value)))
            .collect();
    }
    let protocol = "OTEL_EXPORTER_OTLP_PROTOCOL";
    let general = variables.read(protocol, str::parse);
    let own = variables.read(&of_spans(protocol), str::parse);
    settings.protocol = own.or(general).unwrap_or(settings.protocol);
    let timeout = "OTEL_EXPORTER_OTLP_TIMEOUT";
    let general = variables.read(timeout, millis);
    let own = variables.read(&of_spans(timeout), millis);
    settings.timeout = own.or(general).unwrap_or(settings.timeout);
    if let Some(mut resource) = variables.read("OTEL_RESOURCE_ATTRIBUTES", pairs) {
        let name = resource.iter().position(|(key, _)| key == "service.name");
        if let Some(place) = name {
            settings.service_name = resource.remove(place).1;
        }
        settings.resource = resource;
    }
    if let Some(name) = variables.text("OTEL_SERVICE_NAME") {
        settings.service_name = name;
    }
    read_sampling(variables, &mut settings.sampling);
    let disabled = variables.read("OTEL_SDK_DISABLED", |text| {
        Ok::<_, fmt::Error>(text.eq_ignore_ascii_case("true"))
    });
    let goes_nowhere = variables.read("OTEL_TRACES_EXPORTER", |text| match text {
        "otlp" => Ok(false),
        "none" => Ok(true),
        _ => Err(format!("{text:?} is no exporter: say otlp or none")),
    });
    if disabled == Some(true) || goes_nowhere == Some(true) {
        settings.endpoint = None;
        return Use::Silent;
    }
    if has_place { Use::Sends } else { Use::Silent }
}

fn read_sampling(variables: &Variables<'_>, sampling: &mut Sampling) {
    let ratio = variables.read("OTEL_TRACES_SAMPLER_ARG", |text| {
        let ratio = text
            .parse()
            .ok()
            .filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| format!("{text:?} is no number from 0 to 1"))
    });
    if let Some(Sampler(follows_parent, own)) = variables.read("OTEL_TRACES_SAMPLER", str::parse) {
        *sampling = Sampling {
            follows_parent,
            ratio: own.or(ratio).unwrap_or(1.0),
        };
    }
}

/// `a=1,b=2`, the values with `%20` and the like where they must.
///
/// Errors: one clause, without the text, which may hold a password.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let escaped = value.trim().replace('+', "%2B").replace('&', "%26");
        let whole = format!("value={escaped}");
        let (_, value) = form_urlencoded::parse(whole.as_bytes()).next()?;
        Some((key.trim().to_owned(), value.into_owned())).filter(|(key, _)| !key.is_empty())
    };
    let wrong = || "it must be pairs as in name=value,other=value".to_owned();
    parts.map(|part| pair(part).ok_or_else(wrong)).collect()
}

fn millis(text: &str) -> Result<Duration, String> {
    let ms = text
        .parse()
        .ok()
        .filter(|ms| (1..=TIMEOUT_MOST_MS).contains(ms));
    ms.map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is no number of milliseconds from 1 to {TIMEOUT_MOST_MS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str, set: &[(&str, &str)]) -> Result<TelemetrySettings, String> {
        let get = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let document = Node::from_toml(toml, "ingle.toml").unwrap();
        read(&document, "ingle.toml", Variables::new(&get)).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            problems.join("\n")
        })
    }

    #[test]
    fn nothing_is_sent_where_nobody_says_where_to() {
        assert_eq!(settings("", &[]).unwrap(), TelemetrySettings::default());
        assert_eq!(TelemetrySettings::default().endpoint, None);
    }

    #[test]
    fn variables_mean_what_opentelemetry_says_and_win_over_the_file() {
        let file = "[telemetry]\nendpoint = 'http://collector:4318/'\nheaders = { k = 'v' }\n\
                    protocol = 'http/json'\ntimeout_ms = 500\nservice_name = 'hearth'\nsample_ratio = 0.5\n";
        let read = settings(file, &[]).unwrap();
        assert_eq!(
            read.endpoint.as_deref(),
            Some("http://collector:4318/v1/traces")
        );
        assert_eq!(read.headers, [("k".to_owned(), Secret::new("v"))]);
        assert_eq!(
            (read.protocol, read.timeout),
            (Protocol::Json, Duration::from_millis(500))
        );
        assert_eq!(
            read.sampling,
            Sampling {
                follows_parent: true,
                ratio: 0.5
            }
        );
        let over = settings(
            file,
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://other"),
                (
                    "OTEL_EXPORTER_OTLP_HEADERS",
                    "authorization=Bearer%20a+b&c==, x=1",
                ),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
                (
                    "OTEL_RESOURCE_ATTRIBUTES",
                    "service.name=a,deployment.environment.name=lab",
                ),
                ("OTEL_SERVICE_NAME", "b"),
                ("OTEL_TRACES_SAMPLER", "traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ],
        );
        let over = over.unwrap();
        assert_eq!(over.endpoint.as_deref(), Some("https://other/v1/traces"));
        let authorization = ("authorization".to_owned(), Secret::new("Bearer a+b&c=="));
        assert_eq!(over.headers[0], authorization);
        assert_eq!((over.headers.len(), over.protocol), (2, Protocol::Protobuf));
        assert_eq!(over.service_name, "b");
        assert_eq!(
            over.resource,
            [("deployment.environment.name".to_owned(), "lab".to_owned())]
        );
        assert_eq!(
            over.sampling,
            Sampling {
                follows_parent: false,
                ratio: 0.25
            }
        );
        let whole = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/otel/spans"),
        ];
        let whole = settings("", &whole).unwrap();
        assert_eq!(whole.endpoint.as_deref(), Some("http://b/otel/spans"));
    }

    #[test]
    fn what_is_switched_off_goes_nowhere() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a");
        for off in [
            ("OTEL_SDK_DISABLED", "True"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(settings("", &[endpoint, off]).unwrap().endpoint, None);
        }
        let on = settings("", &[endpoint, ("OTEL_SDK_DISABLED", "false")]);
        assert!(on.unwrap().endpoint.is_some());
        // What is set for other programs is no mistake here.
        let others = settings("", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!(others.unwrap().endpoint, None);
    }

    #[test]
    fn what_cannot_be_is_named_and_no_secret_with_it() {
        for (toml, set, says) in [
            (
                "[telemetry]\nendpoint = 'collector:4318'",
                None,
                "telemetry.endpoint in ingle.toml, line 2",
            ),
            ("[telemetry]\nendpont = ''", None, "did you mean endpoint?"),
            (
                "[telemetry]\nsample_ratio = 2",
                None,
                "a number from 0 to 1",
            ),
            (
                "",
                Some(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")),
                "say http/protobuf or http/json",
            ),
            (
                "",
                Some(("OTEL_EXPORTER_OTLP_HEADERS", "hush")),
                "it must be pairs",
            ),
            (
                "",
                Some(("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hush@host")),
                "a name or a password",
            ),
            (
                "",
                Some(("OTEL_TRACES_SAMPLER", "sometimes")),
                "is no sampler",
            ),
            ("", Some(("OTEL_TRACES_SAMPLER_ARG", "7")), "from 0 to 1"),
            (
                "",
                Some(("OTEL_EXPORTER_OTLP_TIMEOUT", "0")),
                "milliseconds",
            ),
            (
                "",
                Some(("OTEL_TRACES_EXPORTER", "zipkin")),
                "say otlp or none",
            ),
        ] {
            let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/v1/traces");
            let set: Vec<_> = set.into_iter().chain([endpoint]).collect();
            let error = settings(toml, &set).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
