//! What an engine is asked.

use super::error::SubmitError;
use super::sequence::count;
use crate::chat::{Sampling, TokenId};

/// A prompt and how to go on from it.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// At least one token, beginning-of-sequence included where the model wants it.
    pub prompt: Vec<TokenId>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At most so many tokens; the context's end ends the answer too. 0 evaluates the prompt only.
    pub max_new_tokens: u32,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<TokenId>,
}

impl GenerateRequest {
    /// Checks that it can be answered by a model of `n_vocab` tokens within `n_ctx`.
    ///
    /// Errors: every [`SubmitError`] that does not depend on the moment.
    pub(super) fn check(&self, n_vocab: usize, n_ctx: u32) -> Result<(), SubmitError> {
        if self.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        let n_prompt_tokens = count(self.prompt.len());
        if n_prompt_tokens.saturating_add(self.max_new_tokens.min(1)) > n_ctx {
            return Err(SubmitError::PromptTooLong {
                n_prompt_tokens,
                n_ctx,
            });
        }
        if let Some(token) = self.prompt.iter().find(|token| **token as usize >= n_vocab) {
            return Err(SubmitError::TokenOutOfRange {
                token: *token,
                n_vocab,
            });
        }
        check_sampling(&self.sampling)
    }
}

fn check_sampling(sampling: &Sampling) -> Result<(), SubmitError> {
    let share = 0.0..=1.0;
    let finite = f32::MIN..=f32::MAX;
    let from_zero = 0.0..=f32::MAX;
    let above_zero = f32::MIN_POSITIVE..=f32::MAX;
    let laws = [
        (
            "temperature",
            sampling.temperature(),
            from_zero,
            "at least 0 and finite",
        ),
        ("top_p", sampling.top_p, share.clone(), "between 0 and 1"),
        ("min_p", sampling.min_p, share, "between 0 and 1"),
        (
            "repetition_penalty",
            sampling.repetition_penalty,
            above_zero,
            "above 0 and finite",
        ),
        (
            "presence_penalty",
            sampling.presence_penalty,
            finite.clone(),
            "finite",
        ),
        (
            "frequency_penalty",
            sampling.frequency_penalty,
            finite,
            "finite",
        ),
    ];
    match laws
        .into_iter()
        .find(|(_, value, range, _)| !range.contains(value))
    {
        Some((name, value, _, must_be)) => Err(SubmitError::Sampling {
            name,
            value,
            must_be,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(n_prompt: u32, max_new_tokens: u32) -> GenerateRequest {
        GenerateRequest {
            prompt: (0..n_prompt).collect(),
            sampling: Sampling::default(),
            max_new_tokens,
            stop_tokens: Vec::new(),
        }
    }

    #[test]
    fn a_prompt_must_be_there_and_leave_room_for_what_is_asked() {
        assert_eq!(request(0, 1).check(100, 8), Err(SubmitError::EmptyPrompt));
        assert_eq!(request(8, 0).check(100, 8), Ok(()));
        assert_eq!(request(7, u32::MAX).check(100, 8), Ok(()));
        let error = request(8, 1).check(100, 8).unwrap_err();
        assert_eq!(
            error,
            SubmitError::PromptTooLong {
                n_prompt_tokens: 8,
                n_ctx: 8
            }
        );
        assert!(
            error
                .to_string()
                .contains("exceeds the available context size of 8 tokens")
        );
    }

    #[test]
    fn a_token_outside_the_vocabulary_is_named() {
        let error = request(8, 1).check(7, 100).unwrap_err();
        assert_eq!(
            error.to_string(),
            "prompt token 7 is outside the vocabulary of 7 tokens"
        );
    }

    #[test]
    fn sampling_values_without_a_meaning_are_named_and_extremes_are_not_refused() {
        type Change = fn(&mut Sampling);
        let bad: [(&str, Change); 9] = [
            ("temperature", |s| s.temperature = Some(-0.1)),
            ("temperature", |s| s.temperature = Some(f32::NAN)),
            ("temperature", |s| s.temperature = Some(f32::INFINITY)),
            ("top_p", |s| s.top_p = 1.1),
            ("top_p", |s| s.top_p = f32::NAN),
            ("min_p", |s| s.min_p = -1.0),
            ("repetition_penalty", |s| s.repetition_penalty = 0.0),
            ("presence_penalty", |s| s.presence_penalty = f32::NAN),
            ("frequency_penalty", |s| s.frequency_penalty = f32::INFINITY),
        ];
        for (field, change) in bad {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            match check_sampling(&sampling) {
                Err(SubmitError::Sampling { name, .. }) => assert_eq!(name, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        let extreme = Sampling {
            temperature: Some(f32::MAX),
            top_k: Some(u32::MAX),
            top_p: 0.0,
            seed: Some(u64::MAX),
            min_tokens: u32::MAX,
            ..Sampling::default()
        };
        assert_eq!(check_sampling(&extreme), Ok(()));
    }
}
