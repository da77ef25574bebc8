//! What is measured: points of depth and batch, and the cache they need.

use std::fmt;
use std::num::NonZeroU32;

use crate::model::BLOCK_LEN;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Test {
    /// A prompt, in chunks.
    Prompt,
    /// One token of each sequence a step.
    Decode,
}

/// One measurement: so many tokens a sequence, after so many that are in the cache already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    /// Tokens before those that are timed.
    pub(super) depth: u32,
    pub(super) test: Test,
    pub(super) n_sequences: u32,
    /// Tokens timed, of each sequence.
    pub(super) n_tokens: u32,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) n_prompt: u32,
    pub(super) n_decode: u32,
    pub(super) depths: Vec<u32>,
    pub(super) batches: Vec<NonZeroU32>,
    /// Every depth with every batch, not only with the smallest.
    pub(super) all_pairs: bool,
}

/// Why something cannot be measured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    #[error("there is nothing to measure: -p and -n are both 0, so make one of them more")]
    Nothing,
    #[error(
        "{point} ends at position {end}, but the model was trained for {context_length}: \
         ask for less depth or fewer tokens"
    )]
    Context {
        point: Point,
        end: u64,
        context_length: u32,
    },
}

impl Point {
    /// The position behind its last token.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.depth) + u64::from(self.n_tokens)
    }

    /// All tokens that are timed.
    pub(super) fn n_tokens_in_all(&self) -> u64 {
        u64::from(self.n_sequences) * u64::from(self.n_tokens)
    }
}

impl Test {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Decode => "decode",
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            n_tokens, depth, ..
        } = self;
        write!(
            f,
            "{} of {n_tokens} tokens at a depth of {depth}",
            self.test.name()
        )
    }
}

/// The points, so ordered that what one leaves in the cache serves the next.
///
/// Errors: there are none, or one goes past `context_length`.
pub(super) fn points(wanted: &Wanted, context_length: u32) -> Result<Vec<Point>, PlanError> {
    let mut points = Vec::new();
    let least_depth = wanted.depths.iter().min();
    let least_batch = wanted.batches.iter().min();
    for depth in &wanted.depths {
        if wanted.n_prompt > 0 {
            points.push(Point {
                depth: *depth,
                test: Test::Prompt,
                n_sequences: 1,
                n_tokens: wanted.n_prompt,
            });
        }
        for batch in &wanted.batches {
            let is_wanted =
                wanted.all_pairs || Some(depth) == least_depth || Some(batch) == least_batch;
            if is_wanted && wanted.n_decode > 0 {
                points.push(Point {
                    depth: *depth,
                    test: Test::Decode,
                    n_sequences: batch.get(),
                    n_tokens: wanted.n_decode,
                });
            }
        }
    }
    points.sort_unstable();
    points.dedup();
    match points
        .iter()
        .find(|point| point.end() > u64::from(context_length))
    {
        Some(point) => Err(PlanError::Context {
            point: *point,
            end: point.end(),
            context_length,
        }),
        None if points.is_empty() => Err(PlanError::Nothing),
        None => Ok(points),
    }
}

/// Blocks of the cache each sequence needs: as many as its longest point.
pub(super) fn blocks(points: &[Point]) -> Vec<u64> {
    let n_sequences = points
        .iter()
        .map(|point| point.n_sequences)
        .max()
        .unwrap_or(0);
    let longest = |sequence: u32| {
        let its = points.iter().filter(|point| point.n_sequences > sequence);
        its.map(Point::end).max().unwrap_or(0)
    };
    (0..n_sequences)
        .map(|sequence| longest(sequence).div_ceil(BLOCK_LEN as u64))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(depths: &[u32], batches: &[u32], all_pairs: bool) -> Wanted {
        let batches = batches.iter().map(|batch| NonZeroU32::new(*batch).unwrap());
        Wanted {
            n_prompt: 512,
            n_decode: 128,
            depths: depths.to_vec(),
            batches: batches.collect(),
            all_pairs,
        }
    }

    fn decodes(points: &[Point]) -> Vec<(u32, u32)> {
        let of = points.iter().filter(|point| point.test == Test::Decode);
        of.map(|point| (point.depth, point.n_sequences)).collect()
    }

    #[test]
    fn depths_go_with_the_smallest_batch_and_batches_with_the_smallest_depth() {
        let some = points(&wanted(&[2048, 0, 0], &[1, 4, 2], false), 4096).unwrap();
        assert_eq!(decodes(&some), [(0, 1), (0, 2), (0, 4), (2048, 1)]);
        let prompts: Vec<_> = some
            .iter()
            .filter(|point| point.test == Test::Prompt)
            .collect();
        assert_eq!((some[0].test, prompts.len()), (Test::Prompt, 2));
        let all = points(&wanted(&[2048, 0], &[1, 4], true), 4096).unwrap();
        assert_eq!(decodes(&all), [(0, 1), (0, 4), (2048, 1), (2048, 4)]);
    }

    #[test]
    fn each_sequence_has_blocks_for_its_longest_point() {
        let some = points(&wanted(&[0, 2048], &[1, 3], false), 4096).unwrap();
        assert_eq!(blocks(&some), [(2048 + 512) / 32, 4, 4]);
        assert!(blocks(&[]).is_empty());
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let error = points(&wanted(&[8192], &[1], false), 8192).unwrap_err();
        assert_eq!(
            error.to_string(),
            "prompt of 512 tokens at a depth of 8192 ends at position 8704, but the model was \
             trained for 8192: ask for less depth or fewer tokens"
        );
        let mut nothing = wanted(&[0], &[1], false);
        (nothing.n_prompt, nothing.n_decode) = (0, 0);
        assert_eq!(points(&nothing, 8192), Err(PlanError::Nothing));
    }
}
