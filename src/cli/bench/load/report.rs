//! What many chats took: quantiles of each server, and how far they are from the first one's.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::request::Taken;

/// Everything that was measured.
pub(super) struct Report {
    seconds: f64,
    servers: Vec<Server>,
    /// Requests that were due while too many were under way.
    pub(super) n_not_begun: u64,
}

#[derive(Default)]
struct Server {
    url: String,
    whole: Vec<Duration>,
    first: Vec<Duration>,
    gaps: Vec<Duration>,
    errors: BTreeMap<String, u64>,
}

/// Quantiles that are told.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

impl Report {
    pub(super) fn new(urls: Vec<String>, time: Duration) -> Self {
        let servers = urls.into_iter().map(|url| Server {
            url,
            ..Server::default()
        });
        Self {
            seconds: time.as_secs_f64(),
            servers: servers.collect(),
            n_not_begun: 0,
        }
    }

    pub(super) fn add(&mut self, server: usize, outcome: Result<Taken, String>) {
        let Some(server) = self.servers.get_mut(server) else {
            return;
        };
        match outcome {
            Ok(taken) => {
                server.whole.push(taken.whole);
                server.first.extend(taken.first);
                server.gaps.extend(taken.gaps);
            }
            Err(error) => *server.errors.entry(error).or_default() += 1,
        }
    }

    fn rows(&self) -> Vec<(&Server, &'static str, Vec<f64>)> {
        let rows = self.servers.iter().flat_map(|server| {
            let of = [
                ("whole", &server.whole),
                ("first", &server.first),
                ("gap", &server.gaps),
            ];
            let of = of.into_iter().filter(|(_, times)| !times.is_empty());
            of.map(move |(what, times)| (server, what, quantiles(times)))
        });
        rows.collect()
    }

    /// The quantiles of the first server for the same.
    fn base(&self, what: &str) -> Vec<f64> {
        let first = self.rows().into_iter().find(|(_, one, _)| *one == what);
        first.map(|(_, _, values)| values).unwrap_or_default()
    }

    /// Units: milliseconds.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "server | what | n | p50 ms | p90 | p99 | max | more than the first: p50 | p90 | p99\n",
        );
        for (server, what, values) in self.rows() {
            let n = match what {
                "whole" => server.whole.len(),
                "first" => server.first.len(),
                _ => server.gaps.len(),
            };
            let base = self.base(what);
            let _ = write!(text, "{} | {what} | {n}", server.url);
            for value in &values {
                let _ = write!(text, " | {value:.3}");
            }
            for (value, base) in values.iter().zip(&base).take(3) {
                let _ = write!(text, " | {:+.3}", value - base);
            }
            text.push('\n');
        }
        for server in &self.servers {
            let rate = server.whole.len() as f64 / self.seconds;
            let _ = writeln!(text, "{}: {rate:.1} answers a second", server.url);
            for (error, n) in &server.errors {
                let _ = writeln!(text, "{}: {n} failed: {error}", server.url);
            }
        }
        if self.n_not_begun > 0 {
            let _ = writeln!(
                text,
                "{} were not begun: too many under way",
                self.n_not_begun
            );
        }
        text
    }

    /// The same as JSON. Units: milliseconds.
    pub(super) fn json(&self) -> Value {
        let servers = self.servers.iter().map(|server| {
            let mut object = json!({
                "url": server.url,
                "answers_per_second": server.whole.len() as f64 / self.seconds,
                "n": server.whole.len(),
                "errors": server.errors,
            });
            for (one, what, values) in self.rows() {
                if one.url == server.url {
                    let named = QUANTILES.iter().zip(values);
                    object[what] = named.map(|((name, _), v)| (*name, json!(v))).collect();
                }
            }
            object
        });
        json!({
            "seconds": self.seconds,
            "n_not_begun": self.n_not_begun,
            "servers": servers.collect::<Vec<_>>(),
        })
    }
}

/// Units: milliseconds.
fn quantiles(times: &[Duration]) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort();
    let of = QUANTILES.iter().map(|(_, share)| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length"
        )]
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        let time = sorted.get(rank.max(1) - 1).copied().unwrap_or_default();
        time.as_secs_f64() * 1000.0
    });
    of.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn servers_are_compared_with_the_first() {
        let urls = vec!["http://a/v1".to_owned(), "http://b/v1".to_owned()];
        let mut report = Report::new(urls, Duration::from_secs(10));
        for n in 1..=100 {
            for (server, more) in [(0, 0), (1, 5)] {
                let taken = Taken {
                    whole: ms(n + more),
                    ..Taken::default()
                };
                report.add(server, Ok(taken));
            }
        }
        report.add(1, Err("500".to_owned()));
        let told = report.json();
        assert_eq!(told["servers"][0]["whole"]["p50"], 50.0);
        assert_eq!(told["servers"][1]["whole"]["p99"], 104.0);
        assert_eq!(told["servers"][1]["errors"]["500"], 1);
        assert_eq!(told["servers"][1]["answers_per_second"], 10.0);
        let table = report.table();
        assert!(table.contains("| +5.000 | +5.000 | +5.000"), "{table}");
        assert!(table.contains("1 failed: 500"), "{table}");
    }
}
