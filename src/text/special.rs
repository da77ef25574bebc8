//! Control tokens in text: where they are meant and where they are only quoted.
//!
//! A rendered chat is one text in which the template's `<|im_end|>` is structure and the same
//! letters inside a message are not. So before rendering, [`SpecialTexts::quote`] puts a mark into
//! every control token's text in a message; [`SpecialTexts::split`] then finds only the template's,
//! and [`unquote`] takes the marks out of what is left. The marks are noncharacters of Unicode,
//! which no font, no vocabulary and no template uses; a message that does contain one gets it
//! escaped, and back.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use super::vocabulary::{TokenKind, Vocabulary};
use super::{Error, SpecialTokens};
use crate::chat::TokenId;

/// Every mark begins with this.
const MARK: char = '\u{FDD0}';
/// After [`MARK`]: nothing stands here, two letters are only kept apart.
const BREAK: char = '\u{FDD1}';
/// After [`MARK`]: the message itself has a [`MARK`] here.
const ITSELF: char = '\u{FDD2}';

/// Ends a message that the model is to go on with: no message can hold it, and what a template writes behind
/// it is cut off.
pub(super) const OPEN_END: &str = "\u{FDD0}\u{FDD3}";

/// The automata grow with the texts; the largest vocabularies in use have some 20 KB of them.
const MAX_BYTES: usize = 1 << 20;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// Text for the model behind.
    Text(&'a str),
    /// A token that was found by its text.
    Token(TokenId),
}

/// Finds the texts of tokens that are not made of smaller ones.
#[derive(Debug)]
pub(super) struct SpecialTexts {
    /// Control, unknown and user-defined tokens.
    all: Finder,
    /// User-defined tokens: pieces of text that are one token wherever they stand.
    text_only: Finder,
    /// Control and unknown tokens, overlaps included.
    quoted: AhoCorasick,
    /// The texts of those.
    structure: Vec<Box<str>>,
}

#[derive(Debug)]
struct Finder {
    automaton: AhoCorasick,
    ids: Vec<TokenId>,
}

impl SpecialTexts {
    /// Errors: the texts are too long together.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<Self, Error> {
        let of_kinds = |kinds: &[TokenKind]| -> Vec<(TokenId, &str)> {
            let tokens = vocabulary.iter();
            let wanted = tokens.filter(|(_, t)| kinds.contains(&t.kind) && !t.text.is_empty());
            wanted.map(|(id, token)| (id, &*token.text)).collect()
        };
        let structure = of_kinds(&[TokenKind::Control, TokenKind::Unknown]);
        let text_only = of_kinds(&[TokenKind::UserDefined]);
        let mut all = structure.clone();
        all.extend(&text_only);
        let n_bytes = all.iter().map(|(_, text)| text.len()).sum();
        let too_long = Error::SpecialTokens {
            n_bytes,
            limit: MAX_BYTES,
        };
        if n_bytes > MAX_BYTES {
            return Err(too_long);
        }
        let texts = structure.iter().map(|(_, text)| *text);
        let Ok(quoted) = AhoCorasick::new(texts.clone()) else {
            return Err(too_long);
        };
        let structure = texts.map(Into::into).collect();
        match (Finder::new(&all), Finder::new(&text_only)) {
            (Some(all), Some(text_only)) => Ok(Self {
                all,
                text_only,
                quoted,
                structure,
            }),
            _ => Err(too_long),
        }
    }

    /// Cuts a text into special tokens and what stands between them. No segment is empty.
    pub(super) fn split<'a>(
        &'a self,
        text: &'a str,
        special_tokens: SpecialTokens,
    ) -> impl Iterator<Item = Segment<'a>> {
        let finder = match special_tokens {
            SpecialTokens::Parse => &self.all,
            SpecialTokens::AsText => &self.text_only,
        };
        let mut end = 0;
        let found = finder.automaton.find_iter(text).map(|found| {
            let token = finder.ids.get(found.pattern().as_usize()).copied();
            (found.start(), found.end(), token)
        });
        found
            .chain([(text.len(), text.len(), None)])
            .flat_map(move |(start, next, token)| {
                let between = text.get(end..start).filter(|between| !between.is_empty());
                end = next;
                [between.map(Segment::Text), token.map(Segment::Token)]
                    .into_iter()
                    .flatten()
            })
    }

    /// A message in which no control token can be found.
    pub(super) fn quote<'a>(&self, message: &'a str) -> Cow<'a, str> {
        let mut breaks: Vec<usize> = self
            .quoted
            .find_overlapping_iter(message)
            .map(|found| {
                let first = message
                    .get(found.range())
                    .and_then(|text| text.chars().next());
                found.start() + first.map_or(0, char::len_utf8)
            })
            .collect();
        // A token begun here must not be ended by what the template writes next.
        if self.begins_a_token(message) {
            breaks.push(message.len());
        }
        breaks.sort_unstable();
        breaks.dedup();
        if breaks.is_empty() && !message.contains(MARK) {
            return Cow::Borrowed(message);
        }
        let escape = |part: &str| part.replace(MARK, &format!("{MARK}{ITSELF}"));
        let mut quoted = String::with_capacity(message.len() + 6 * breaks.len());
        let mut start = 0;
        for end in breaks {
            quoted.push_str(&escape(message.get(start..end).unwrap_or_default()));
            quoted.extend([MARK, BREAK]);
            start = end;
        }
        quoted.push_str(&escape(message.get(start..).unwrap_or_default()));
        Cow::Owned(quoted)
    }

    fn begins_a_token(&self, message: &str) -> bool {
        self.structure.iter().any(|text| {
            let ends = text.char_indices().skip(1).map(|(end, _)| end);
            ends.into_iter()
                .any(|end| text.get(..end).is_some_and(|head| message.ends_with(head)))
        })
    }
}

/// Takes out what [`SpecialTexts::quote`] put in.
pub(super) fn unquote(text: &str) -> Cow<'_, str> {
    if !text.contains(MARK) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split(MARK);
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        if let Some(rest) = part.strip_prefix(BREAK) {
            plain.push_str(rest);
        } else {
            plain.push(MARK);
            plain.push_str(part.strip_prefix(ITSELF).unwrap_or(part));
        }
    }
    Cow::Owned(plain)
}

impl Finder {
    fn new(tokens: &[(TokenId, &str)]) -> Option<Self> {
        let automaton = AhoCorasickBuilder::new()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|(_, text)| text))
            .ok()?;
        Some(Self {
            automaton,
            ids: tokens.iter().map(|(id, _)| *id).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::vocabulary::Token;
    use super::*;

    fn special() -> SpecialTexts {
        let token = |(text, kind): (&str, _)| Token {
            text: text.into(),
            kind,
        };
        let tokens = [
            ("<s>", TokenKind::Control),
            ("<s><s>", TokenKind::Control),
            ("<unk>", TokenKind::Unknown),
            ("word", TokenKind::UserDefined),
            ("a", TokenKind::Normal),
            ("", TokenKind::Control),
        ];
        let tokens = tokens.map(token).to_vec();
        let vocabulary = Vocabulary {
            tokens,
            bos: None,
            eos: None,
            unknown: None,
            end_of_turn: vec![],
        };
        SpecialTexts::new(&vocabulary).unwrap()
    }

    #[test]
    fn structure_is_found_only_where_it_is_parsed() {
        use Segment::{Text, Token};
        let special = special();
        let parsed: Vec<_> = special
            .split("a<s><s><s>word b", SpecialTokens::Parse)
            .collect();
        assert_eq!(
            parsed,
            [Text("a"), Token(1), Token(0), Token(3), Text(" b")]
        );
        let as_text: Vec<_> = special.split("a<s>word b", SpecialTokens::AsText).collect();
        assert_eq!(as_text, [Text("a<s>"), Token(3), Text(" b")]);
        assert_eq!(special.split("", SpecialTokens::Parse).count(), 0);
    }

    #[test]
    fn a_token_begun_in_a_message_is_not_ended_by_the_template() {
        let special = special();
        let prompt = format!("{}s>", special.quote("so <"));
        assert_eq!(special.split(&prompt, SpecialTokens::Parse).count(), 1);
        assert_eq!(unquote(&prompt), "so <s>");
        assert!(matches!(special.quote("plain > text"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn quoted_text_holds_no_structure_and_comes_back(
            message in "([<s>aé]|<s>|<unk>|word|[\u{FDD0}-\u{FDD2}]){0,12}",
        ) {
            let special = special();
            let quoted = special.quote(&message);
            let is_structure = |segment: Segment<'_>| matches!(segment, Segment::Token(0..=2));
            prop_assert!(!special.split(&quoted, SpecialTokens::Parse).any(is_structure));
            prop_assert_eq!(unquote(&quoted), &*message);
        }
    }
}
