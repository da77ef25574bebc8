//! Texts that end an answer and are not part of it.

use super::Error;

/// More stop texts than any client sends; each costs work for every byte of an answer.
const MAX_STOPS: usize = 256;

/// Finds the first of several stop texts in an answer that comes in pieces.
///
/// The match that is complete first ends the answer; of several complete at the same place the
/// longest counts. So the outcome does not depend on how the answer is cut into pieces. Text is
/// given out as soon as it cannot be part of a match any more.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text seen but not given out: the longest end of the answer that begins a stop text.
    held: String,
    matched: bool,
}

/// What a piece of the answer led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopProgress {
    /// Text that is certainly not part of a stop text.
    pub text: String,
    /// A stop text is complete: the answer ends after `text`.
    pub matched: bool,
}

impl StopMatcher {
    /// Matches any of these texts.
    ///
    /// # Errors
    /// One of them is empty, or there are more than 256.
    pub fn new(stops: Vec<String>) -> Result<Self, Error> {
        if stops.len() > MAX_STOPS {
            return Err(Error::TooManyStops {
                n_stops: stops.len(),
                limit: MAX_STOPS,
            });
        }
        if let Some(number) = stops.iter().position(String::is_empty) {
            return Err(Error::EmptyStop { number });
        }
        let stops = stops.into_iter().map(Stop::new).collect();
        Ok(Self {
            stops,
            held: String::new(),
            matched: false,
        })
    }

    /// Takes the next piece of the answer. After a match there is nothing more to come.
    pub fn push(&mut self, text: &str) -> StopProgress {
        if self.matched {
            return StopProgress {
                text: String::new(),
                matched: true,
            };
        }
        let n_held = self.held.len();
        self.held.push_str(text);
        for (idx, byte) in text.bytes().enumerate() {
            let completed = self
                .stops
                .iter_mut()
                .filter_map(|stop| stop.step(byte))
                .max();
            if let Some(n_bytes) = completed {
                let end = n_held + idx + 1;
                self.held.truncate(end.saturating_sub(n_bytes));
                self.matched = true;
                return StopProgress {
                    text: std::mem::take(&mut self.held),
                    matched: true,
                };
            }
        }
        // What may still become a stop text begins with one's first byte, so it begins a character.
        let n_pending = self
            .stops
            .iter()
            .map(|stop| stop.n_matched)
            .max()
            .unwrap_or(0);
        let pending = self
            .held
            .split_off(self.held.len().saturating_sub(n_pending));
        StopProgress {
            text: std::mem::replace(&mut self.held, pending),
            matched: false,
        }
    }

    /// The answer ended without a stop text: gives what was held back.
    pub fn finish(self) -> String {
        self.held
    }
}

/// One stop text and how much of it the answer ends with.
///
/// Source: Knuth, Morris and Pratt, "Fast pattern matching in strings", 1977.
#[derive(Debug)]
struct Stop {
    text: Box<[u8]>,
    /// For each length of a beginning: the longest shorter beginning it ends with.
    borders: Box<[usize]>,
    n_matched: usize,
}

impl Stop {
    fn new(text: String) -> Self {
        let text = text.into_bytes().into_boxed_slice();
        let mut borders = vec![0, 0];
        let mut border = 0;
        for idx in 1..text.len() {
            while border > 0 && text[border] != text[idx] {
                border = borders[border];
            }
            border += usize::from(text[border] == text[idx]);
            borders.push(border);
        }
        Self {
            text,
            borders: borders.into(),
            n_matched: 0,
        }
    }

    /// Takes a byte of the answer; the length of the stop text if that completes it.
    fn step(&mut self, byte: u8) -> Option<usize> {
        while self.n_matched > 0 && self.text[self.n_matched] != byte {
            self.n_matched = self.borders[self.n_matched];
        }
        self.n_matched += usize::from(self.text[self.n_matched] == byte);
        (self.n_matched == self.text.len()).then_some(self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is left of a whole answer: everything before the match that ends first.
    fn offline(stops: &[String], answer: &str) -> (String, bool) {
        let ends = |stop: &String| {
            (0..=answer.len()).find(|end| answer.as_bytes()[..*end].ends_with(stop.as_bytes()))
        };
        let first = stops
            .iter()
            .filter_map(|stop| Some((ends(stop)?, stop.len())));
        match first.min_by_key(|(end, n_bytes)| (*end, usize::MAX - n_bytes)) {
            Some((end, n_bytes)) => (answer[..end - n_bytes].into(), true),
            None => (answer.into(), false),
        }
    }

    fn online(stops: &[String], pieces: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.to_vec()).unwrap();
        let mut text = String::new();
        for piece in pieces {
            let progress = matcher.push(piece);
            text += &progress.text;
            if progress.matched {
                assert_eq!(
                    matcher.push("more"),
                    StopProgress {
                        text: String::new(),
                        matched: true
                    }
                );
                return (text, true);
            }
        }
        (text + &matcher.finish(), false)
    }

    #[test]
    fn a_stop_text_across_pieces_is_never_given_out() {
        let stops = ["</end>".to_owned()];
        assert_eq!(
            online(&stops, &["one <", "/e", "nd> two"]),
            ("one ".into(), true)
        );
        assert_eq!(
            online(&stops, &["one <", "/e", "n! two"]),
            ("one </en! two".into(), false)
        );
        assert_eq!(online(&stops, &["one </en"]), ("one </en".into(), false));
    }

    #[test]
    fn text_is_given_out_as_soon_as_it_is_certain() {
        let mut matcher = StopMatcher::new(vec!["aab".into()]).unwrap();
        assert_eq!(matcher.push("xa").text, "x");
        assert_eq!(matcher.push("a").text, "");
        assert_eq!(matcher.push("a").text, "a");
        assert_eq!(matcher.push("é").text, "aaé");
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn the_match_complete_first_counts() {
        let stops = ["abcd".to_owned(), "bc".to_owned(), "xbc".to_owned()];
        assert_eq!(online(&stops, &["1abcd"]), ("1a".into(), true));
        assert_eq!(online(&stops, &["1xbc"]), ("1".into(), true));
    }

    #[test]
    fn empty_and_too_many_stop_texts_are_refused() {
        let empty = StopMatcher::new(vec!["a".into(), String::new()]).unwrap_err();
        assert_eq!(empty.to_string(), "stop text 1 is empty");
        let many = StopMatcher::new(vec!["a".into(); 100_000]).unwrap_err();
        assert_eq!(
            many.to_string(),
            "there are 100000 stop texts: at most 256 are supported"
        );
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            pieces in prop::collection::vec("[abcé]{0,5}", 0..8),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (text, matched) = online(&stops, &pieces);
            prop_assert_eq!((text.clone(), matched), offline(&stops, &pieces.concat()));
            prop_assert!(!stops.iter().any(|stop| text.contains(stop.as_str())));
        }
    }
}
