//! How text is cut into words before byte pairs are merged: no token reaches across a cut.

use tokenizers::utils::SysRegex;

use super::Error;

/// GPT-2's words. Its last rules, `\s+(?!\S)|\s+`, are one here: [`Rule::word_end`] does the rest.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const DIGIT: &str = r"\p{N}";
const DIGITS: &str = r"\p{N}+";
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";
const PUNCTUATION: &str = r"[\p{P}$+<=>^~|]+";

/// What `tokenizer.ggml.pre` implies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    names: &'static [&'static str],
    /// Each cuts the parts the one before left.
    rules: &'static [&'static str],
    /// A word that is a token is that token, whatever merging would make of it.
    pub(super) ignores_merges: bool,
    /// Texts begin with the beginning-of-sequence token unless the file says otherwise.
    pub(super) adds_bos: bool,
}

/// Source: the regular expressions are those the models were trained with, as their
/// `tokenizer.json` or tiktoken definitions give them; the names are those GGUF files use.
const FAMILIES: &[Family] = &[
    Family {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        rules: &[LLAMA3],
        ignores_merges: true,
        adds_bos: true,
    },
    Family {
        names: &["smollm", "starcoder", "refact", "command-r"],
        rules: &[DIGIT, GPT2],
        ignores_merges: false,
        adds_bos: false,
    },
    Family {
        names: &["gpt-2", "phi-2"],
        rules: &[GPT2],
        ignores_merges: false,
        adds_bos: false,
    },
    Family {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen"],
        rules: &[QWEN2],
        ignores_merges: false,
        adds_bos: false,
    },
    Family {
        names: &["tekken"],
        rules: &[TEKKEN],
        ignores_merges: true,
        adds_bos: true,
    },
    Family {
        names: &["default"],
        rules: &[PUNCTUATION, GPT2, DIGITS, THREE_DIGITS],
        ignores_merges: false,
        adds_bos: false,
    },
];

impl Family {
    /// The family a file names. None named is `default`, which is logged.
    ///
    /// Errors: the name is unknown; guessing would give the model wrong tokens.
    pub(super) fn named(pre: Option<&str>) -> Result<Self, Error> {
        let name = pre.unwrap_or_else(|| {
            tracing::warn!(
                "the model file has no tokenizer.ggml.pre: text is cut into words by the default \
                 rules, which may not be the model's"
            );
            "default"
        });
        let family = FAMILIES.iter().find(|family| family.names.contains(&name));
        family.copied().ok_or_else(|| Error::UnknownPreTokenizer {
            pre: name.into(),
            supported: FAMILIES
                .iter()
                .flat_map(|family| family.names)
                .copied()
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}

/// Cuts text into words.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    rules: Vec<Rule>,
}

impl PreTokenizer {
    /// Errors: a rule does not compile.
    pub(super) fn new(family: &Family) -> Result<Self, Error> {
        Ok(Self {
            rules: family
                .rules
                .iter()
                .map(|rule| Rule::new(rule))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Gives every word to `each`, in order. Together they are the text.
    pub(super) fn words<'a>(&self, text: &'a str, each: &mut dyn FnMut(&'a str)) {
        cut(&self.rules, text, each);
    }
}

fn cut<'a>(rules: &[Rule], text: &'a str, each: &mut dyn FnMut(&'a str)) {
    match rules.split_first() {
        Some((rule, rest)) => rule.words(text, &mut |word| cut(rest, word, each)),
        None => each(text),
    }
}

#[derive(Debug)]
struct Rule {
    regex: SysRegex,
    /// The rule puts line breaks and the white space before them into words of their own.
    breaks_lines: bool,
    /// The rule has words of white space.
    cuts_white_space: bool,
}

impl Rule {
    fn new(rule: &'static str) -> Result<Self, Error> {
        let regex = SysRegex::new(rule).map_err(|error| Error::PreTokenizer {
            rule,
            problem: error.to_string(),
        })?;
        let cuts_white_space = rule.ends_with(r"|\s+");
        Ok(Self {
            regex,
            breaks_lines: rule.contains(r"\s*[\r\n]+"),
            cuts_white_space,
        })
    }

    /// What the rule matches are words, and so is what lies between.
    fn words<'a>(&self, text: &'a str, each: &mut dyn FnMut(&'a str)) {
        let mut rest = text;
        while let Some((start, end)) = self.regex.find_iter(rest).next() {
            let end = self.word_end(rest, start, end);
            let (between, word, after) = (&rest[..start], &rest[start..end], &rest[end..]);
            if !between.is_empty() {
                each(between);
            }
            if word.is_empty() {
                break;
            }
            each(word);
            rest = after;
        }
        if !rest.is_empty() {
            each(rest);
        }
    }

    /// Where a match ends: of several white space characters before something else the last one
    /// is left to what follows. That is `\s+(?!\S)|\s+` without looking ahead, which keeps the
    /// expression regular: matching takes linear time and no stack, whatever the text.
    fn word_end(&self, rest: &str, start: usize, end: usize) -> usize {
        let word = &rest[start..end];
        if !self.cuts_white_space || end == rest.len() || !word.chars().all(char::is_whitespace) {
            return end;
        }
        match word.char_indices().next_back() {
            Some((_, '\r' | '\n')) if self.breaks_lines => end,
            Some((last, _)) if last > 0 => start + last,
            _ => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words<'a>(pre: &str, text: &'a str) -> Vec<&'a str> {
        let pre_tokenizer = PreTokenizer::new(&Family::named(Some(pre)).unwrap()).unwrap();
        let mut words = Vec::new();
        pre_tokenizer.words(text, &mut |word| words.push(word));
        assert_eq!(words.concat(), text, "nothing is lost");
        words
    }

    #[test]
    fn the_last_space_belongs_to_the_word() {
        assert_eq!(words("gpt-2", "a   b  "), ["a", "  ", " b", "  "]);
        assert_eq!(words("gpt-2", "a \n\n b"), ["a", " \n\n", " b"]);
        assert_eq!(words("gpt-2", "\n\nb"), ["\n", "\n", "b"]);
        assert_eq!(words("llama-bpe", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(words("llama-bpe", "x\t\ty"), ["x", "\t", "\ty"]);
    }

    #[test]
    fn digits_are_cut_as_the_family_does() {
        assert_eq!(words("llama-bpe", "a12345"), ["a", "123", "45"]);
        assert_eq!(words("smollm", "a  12"), ["a", "  ", "1", "2"]);
        assert_eq!(words("gpt-2", "a 12345"), ["a", " 12345"]);
        assert_eq!(words("default", "a,12345"), ["a", ",", "123", "45"]);
    }

    #[test]
    fn capitals_begin_words_for_tekken_only() {
        assert_eq!(
            words("tekken", "helloWorld ABC"),
            ["hello", "World", " ABC"]
        );
        assert_eq!(
            words("qwen2", "helloWorld 12"),
            ["helloWorld", " ", "1", "2"]
        );
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = Family::named(Some("my-bpe")).unwrap_err().to_string();
        assert!(
            error.starts_with("tokenizer.ggml.pre is \"my-bpe\": supported are llama-bpe, "),
            "{error}"
        );
        assert!(Family::named(None).is_ok());
    }
}
