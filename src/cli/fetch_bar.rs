//! How a download is shown on stderr: a bar on a terminal, now and then a line elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::catalog::{FetchEvent, Progress};

/// So often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const KNOWN_TOTAL: &str =
    "{msg}{wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta}";
const UNKNOWN_TOTAL: &str = "{msg}{spinner} {decimal_bytes} {decimal_bytes_per_sec}";

/// Shows a fetch to a person.
pub(crate) struct FetchBar(Kind);

enum Kind {
    Terminal(ProgressBar, Mutex<Option<Part>>),
    Lines(Box<Mutex<Lines>>),
}

impl FetchBar {
    /// A bar if stderr is a terminal, else lines.
    pub(crate) fn stderr() -> Self {
        if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            Self(Kind::Terminal(bar, Mutex::default()))
        } else {
            Self::lines(Box::new(io::stderr()), LINE_EVERY)
        }
    }

    /// Lines into `out`: every event, and how far it is at most once in `every`.
    pub(crate) fn lines(out: Box<dyn Write + Send>, every: Duration) -> Self {
        let lines = Lines {
            out,
            every,
            begun: None,
            told: Instant::now(),
        };
        Self(Kind::Lines(Box::new(Mutex::new(lines))))
    }
}

impl Progress for FetchBar {
    fn event(&self, event: FetchEvent) {
        match &self.0 {
            Kind::Terminal(bar, part) => {
                let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
                show(bar, &mut part, event);
            }
            Kind::Lines(lines) => {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .event(event);
            }
        }
    }
}

/// The file of several that is being read.
struct Part {
    /// Which one, e.g. `2/3 config.json`.
    label: String,
    /// Bytes of the files before.
    before: u64,
    size_bytes: u64,
}

impl Part {
    /// What is said of it beside the bar of all files.
    fn message(&self, done: u64) -> String {
        let percent = done.saturating_sub(self.before).saturating_mul(100);
        let percent = percent.checked_div(self.size_bytes).unwrap_or(100).min(100);
        format!("{} {percent} % ", self.label)
    }
}

fn show(bar: &ProgressBar, part: &mut Option<Part>, event: FetchEvent) {
    match event {
        FetchEvent::File {
            name,
            number,
            count,
            size_bytes,
        } => {
            let before = part
                .as_ref()
                .map_or(0, |last| last.before.saturating_add(last.size_bytes));
            let now = part.insert(Part {
                label: format!("{number}/{count} {name}"),
                before,
                size_bytes: size_bytes.unwrap_or(0),
            });
            bar.set_message(now.message(before));
        }
        FetchEvent::Bytes { done, total } => {
            if let Some(part) = part {
                bar.set_message(part.message(done));
            }
            let is_first = bar.position() == 0;
            if bar.length() != total {
                set_total(bar, total);
            }
            bar.set_position(done);
            if is_first {
                // What an earlier try left would count as very fast.
                bar.reset_eta();
            }
        }
        FetchEvent::Started { source, total } => {
            bar.println(sentence(&FetchEvent::Started { source, total }));
            set_total(bar, total);
            bar.set_position(0);
            *part = None;
            bar.set_message("");
        }
        FetchEvent::Done => bar.finish_and_clear(),
        other => bar.println(sentence(&other)),
    }
}

fn set_total(bar: &ProgressBar, total: Option<u64>) {
    let template = if total.is_some() {
        KNOWN_TOTAL
    } else {
        UNKNOWN_TOTAL
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    match total {
        Some(total) => bar.set_length(total),
        None => bar.unset_length(),
    }
}

/// Where there is no terminal.
struct Lines {
    out: Box<dyn Write + Send>,
    every: Duration,
    /// When the first bytes of this source were told, and how many those were.
    begun: Option<(Instant, u64)>,
    told: Instant,
}

impl Lines {
    fn event(&mut self, event: FetchEvent) {
        let line = match event {
            FetchEvent::Bytes { done, total } => {
                let (begun, at_first) = *self.begun.get_or_insert((Instant::now(), done));
                if self.told.elapsed() < self.every {
                    return;
                }
                let arrived = done.saturating_sub(at_first);
                far(done, total, arrived, begun.elapsed())
            }
            FetchEvent::Started { .. } => {
                self.begun = None;
                sentence(&event)
            }
            FetchEvent::Done => return,
            other => sentence(&other),
        };
        self.told = Instant::now();
        // Nobody may be there to read; the download does not depend on it.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

/// How far a download is, in one line.
fn far(done: u64, total: Option<u64>, arrived: u64, took: Duration) -> String {
    let rate = arrived as f64 / took.as_secs_f64().max(1e-3);
    let per_second = format!("{}/s", DecimalBytes(whole(rate)));
    let Some(total) = total else {
        return format!("  {}, {per_second}", DecimalBytes(done));
    };
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    let left = total.saturating_sub(done) as f64 / rate.max(1.0);
    format!(
        "  {} of {} ({percent} %), {per_second}, {} left",
        DecimalBytes(done),
        DecimalBytes(total),
        HumanDuration(Duration::from_secs(whole(left)))
    )
}

/// The whole part of a number that is not negative.
fn whole(number: f64) -> u64 {
    Duration::try_from_secs_f64(number).map_or(u64::MAX, |seconds| seconds.as_secs())
}

fn sentence(event: &FetchEvent) -> String {
    match event {
        FetchEvent::Waiting => "waiting for another download of the same model".to_owned(),
        FetchEvent::Started {
            source,
            total: None,
        } => format!("fetching from {source}"),
        FetchEvent::Started {
            source,
            total: Some(total),
        } => {
            format!("fetching {} from {source}", DecimalBytes(*total))
        }
        FetchEvent::File {
            name,
            number,
            count,
            size_bytes,
        } => {
            let size =
                size_bytes.map_or_else(String::new, |size| format!(", {}", DecimalBytes(size)));
            format!("file {number} of {count}: {name}{size}")
        }
        FetchEvent::Retrying { reason } => format!("{reason}: trying again"),
        FetchEvent::Failed {
            source,
            reason,
            next: Some(next),
        } => {
            format!("{source}: {reason}\ntrying {next} now")
        }
        FetchEvent::Failed {
            source,
            reason,
            next: None,
        } => format!("{source}: {reason}"),
        FetchEvent::Verifying => "verifying".to_owned(),
        FetchEvent::Bytes { .. } | FetchEvent::Done => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn told(every: Duration) -> String {
        let page = Page::default();
        let bar = FetchBar::lines(Box::new(page.clone()), every);
        let source = || "hub a/b@main/c.gguf".to_owned();
        bar.event(FetchEvent::Started {
            source: source(),
            total: None,
        });
        for done in 0..=1000 {
            bar.event(FetchEvent::Bytes {
                done: done * 1000,
                total: Some(1_000_000),
            });
        }
        let (reason, next) = (
            "it broke".to_owned(),
            Some("package p 1, c.gguf".to_owned()),
        );
        bar.event(FetchEvent::Failed {
            source: source(),
            reason,
            next,
        });
        bar.event(FetchEvent::Verifying);
        bar.event(FetchEvent::Done);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_are_few_and_tell_what_happened() {
        assert_eq!(
            told(Duration::MAX),
            "fetching from hub a/b@main/c.gguf\nhub a/b@main/c.gguf: it broke\n\
             trying package p 1, c.gguf now\nverifying\n"
        );
        let all = told(Duration::ZERO);
        assert!(all.lines().count() > 1000);
        assert!(all.contains("500.00 kB of 1.00 MB (50 %), "), "{all}");
    }

    #[test]
    fn each_of_several_files_is_told_with_how_far_it_is() {
        let (bar, mut part) = (ProgressBar::hidden(), None);
        for (number, name) in [(1, "a.json"), (2, "b.safetensors")] {
            let event = FetchEvent::File {
                name: name.to_owned(),
                number,
                count: 2,
                size_bytes: Some(1000),
            };
            assert!(sentence(&event).starts_with(&format!("file {number} of 2: {name}, 1.00 kB")));
            show(&bar, &mut part, event);
        }
        let total = Some(2000);
        show(&bar, &mut part, FetchEvent::Bytes { done: 1250, total });
        assert_eq!(bar.message(), "2/2 b.safetensors 25 % ");
        assert_eq!(bar.position(), 1250);
    }

    #[test]
    fn rates_and_times_left_are_plain() {
        assert_eq!(
            far(
                50_000_000,
                Some(98_000_000),
                24_000_000,
                Duration::from_secs(3)
            ),
            "  50.00 MB of 98.00 MB (51 %), 8.00 MB/s, 6 seconds left"
        );
        assert_eq!(far(7, None, 7, Duration::from_secs(1)), "  7 B, 7 B/s");
        assert!(far(0, Some(0), 0, Duration::ZERO).contains("100 %"));
        assert!(far(0, Some(u64::MAX), 0, Duration::ZERO).contains("(0 %)"));
    }
}
