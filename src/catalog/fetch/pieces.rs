//! Which bytes of a file are here while several connections bring them: pure, and what of it is
//! written beside the file.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::catalog::disk;

/// Bytes from `start` on, up to `end`, which is not one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Spans in order, with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    /// The first `n_bytes`.
    pub(super) fn prefix(n_bytes: u64) -> Self {
        let mut spans = Self::default();
        spans.add(Span {
            start: 0,
            end: n_bytes,
        });
        spans
    }

    /// Adds a span, which may touch or cover others.
    pub(super) fn add(&mut self, span: Span) {
        if span.len() == 0 {
            return;
        }
        let first = self.0.partition_point(|other| other.end < span.start);
        let behind = self.0.partition_point(|other| other.start <= span.end);
        let touched = self.0.get(first..behind).unwrap_or_default();
        let merged = touched.iter().fold(span, |merged, other| Span {
            start: merged.start.min(other.start),
            end: merged.end.max(other.end),
        });
        self.0.splice(first..behind, [merged]);
    }

    /// How many bytes they have.
    pub(super) fn n_bytes(&self) -> u64 {
        self.0.iter().map(|span| span.len()).sum()
    }

    /// How many bytes are here from the first one on without a gap.
    pub(super) fn n_first(&self) -> u64 {
        let first = self.0.first().filter(|span| span.start == 0);
        first.map_or(0, |span| span.end)
    }

    /// What is missing of `span`, in pieces of at most `longest` bytes.
    fn missing(&self, span: Span, longest: u64) -> VecDeque<Span> {
        let mut pieces = VecDeque::new();
        let mut start = span.start;
        let behind = Span {
            start: span.end,
            end: span.end,
        };
        for here in self.0.iter().chain([&behind]) {
            let end = here.start.min(span.end);
            while start < end {
                let piece = Span {
                    start,
                    end: end.min(start.saturating_add(longest.max(1))),
                };
                start = piece.end;
                pieces.push_back(piece);
            }
            start = start.max(here.end);
        }
        pieces
    }
}

/// What is written beside the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    /// The file's length.
    total: u64,
    /// The entity tag its bytes came with.
    tag: Option<String>,
    /// Where pieces that are here start and end.
    here: Vec<(u64, u64)>,
}

impl Journal {
    pub(super) fn new(total: u64, tag: Option<String>, spans: &Spans) -> Self {
        let here = spans.0.iter().map(|span| (span.start, span.end)).collect();
        Self { total, tag, here }
    }

    /// Reads it; `None` if it is not there or not what was written.
    pub(super) fn read(path: &Path) -> Option<Self> {
        toml::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    /// Writes it whole or not at all.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        disk::write_atomic(path, &text)
    }

    pub(super) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// What is here of a file of this length, as far as the disk has it; `None` if the journal is of
    /// another.
    pub(super) fn spans(&self, total: Option<u64>, on_disk: u64) -> Option<Spans> {
        if total.is_some_and(|total| total != self.total) {
            return None;
        }
        let mut spans = Spans::default();
        let mut before = 0;
        for &(start, end) in &self.here {
            if start < before || end < start || end > self.total {
                return None;
            }
            before = end;
            let end = end.min(on_disk);
            spans.add(Span { start, end });
        }
        Some(spans)
    }
}

/// Who brings what.
pub(super) struct Board {
    state: Mutex<State>,
}

struct State {
    here: Spans,
    waiting: VecDeque<Span>,
}

impl Board {
    /// - `longest` — bytes of a piece at most
    pub(super) fn new(here: Spans, total: u64, longest: u64) -> Self {
        let whole = Span {
            start: 0,
            end: total,
        };
        let waiting = here.missing(whole, longest);
        Self {
            state: Mutex::new(State { here, waiting }),
        }
    }

    /// The next piece nobody brings yet.
    pub(super) fn take(&self) -> Option<Span> {
        self.state().waiting.pop_front()
    }

    /// A piece that somebody else should bring.
    pub(super) fn give_back(&self, span: Span) {
        if span.len() > 0 {
            self.state().waiting.push_front(span);
        }
    }

    /// Bytes that are in the file now.
    pub(super) fn wrote(&self, span: Span) {
        self.state().here.add(span);
    }

    /// What is missing of a piece whose bytes came in order.
    pub(super) fn rest(&self, span: Span) -> Span {
        let first = self.state().here.missing(span, u64::MAX).pop_front();
        let start = first.map_or(span.end, |missing| missing.start);
        Span { start, ..span }
    }

    pub(super) fn here(&self) -> Spans {
        self.state().here.clone()
    }

    pub(super) fn n_waiting(&self) -> usize {
        self.state().waiting.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    proptest! {
        #[test]
        fn spans_hold_what_was_added_and_pieces_are_what_is_missing(
            added in prop::collection::vec((0_u64..200, 0_u64..30), 0..20),
            longest in 1_u64..50,
        ) {
            let mut spans = Spans::default();
            let mut plain = [false; 256];
            for (start, len) in added {
                spans.add(span(start, start + len));
                (start..start + len).for_each(|at| plain[usize::try_from(at).unwrap()] = true);
            }
            let n_plain = plain.iter().filter(|is_here| **is_here).count();
            prop_assert_eq!(spans.n_bytes(), u64::try_from(n_plain).unwrap());
            let is_apart = |pair: &[Span]| pair[0].end < pair[1].start;
            prop_assert!(spans.0.windows(2).all(is_apart), "{:?}", spans);
            let first = plain.iter().take_while(|is_here| **is_here).count();
            prop_assert_eq!(spans.n_first(), u64::try_from(first).unwrap());
            for piece in spans.missing(span(0, 256), longest) {
                prop_assert!(piece.len() > 0 && piece.len() <= longest);
                for at in piece.start..piece.end {
                    let cell = &mut plain[usize::try_from(at).unwrap()];
                    prop_assert!(!*cell);
                    *cell = true;
                }
            }
            prop_assert!(plain.iter().all(|is_here| *is_here));
        }
    }

    #[test]
    fn a_journal_is_believed_no_further_than_the_disk() {
        let mut spans = Spans::prefix(10);
        spans.add(span(20, 30));
        let journal = Journal::new(100, Some("\"t\"".to_owned()), &spans);
        assert_eq!(journal.spans(Some(100), 100), Some(spans.clone()));
        assert_eq!(journal.spans(None, 25).unwrap().n_bytes(), 15);
        assert_eq!(journal.spans(Some(99), 100), None);
        for here in [vec![(5, 4)], vec![(0, 9), (8, 12)], vec![(90, 101)]] {
            let journal = Journal {
                here: here.clone(),
                ..Journal::new(100, None, &spans)
            };
            assert_eq!(journal.spans(Some(100), 100), None, "{here:?}");
        }
    }

    #[test]
    fn what_came_of_a_piece_is_not_asked_for_again() {
        let board = Board::new(Spans::prefix(5), 20, 10);
        assert_eq!(board.take(), Some(span(5, 15)));
        board.wrote(span(5, 9));
        assert_eq!(board.rest(span(5, 15)), span(9, 15));
        board.give_back(span(9, 15));
        assert_eq!(
            (board.take(), board.take()),
            (Some(span(9, 15)), Some(span(15, 20)))
        );
        board.wrote(span(9, 15));
        assert_eq!(board.rest(span(9, 15)).len(), 0);
    }
}
