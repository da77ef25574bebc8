//! Which inputs are computed together: pure.
//!
//! Requests take turns at leading a step. The leader's longest input says how wide the step is; what
//! else is about as long, the leader's or another's, fills it up, so that little is padded.

use std::collections::VecDeque;

use crate::chat::TokenId;

/// A request's number. Later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestId(pub(super) u64);

/// An input on its way through a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picked {
    pub(super) request: RequestId,
    /// Its place in the request.
    pub(super) index: usize,
    pub(super) tokens: Vec<TokenId>,
}

/// Requests with inputs that are still to be computed.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The next to lead is the first.
    requests: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    /// By length, the longest last.
    inputs: Vec<(usize, Vec<TokenId>)>,
}

impl Waiting {
    /// Takes the longest input of `shortest..=longest` tokens.
    fn take(&mut self, shortest: usize, longest: usize) -> Option<Picked> {
        let n_short_enough = self
            .inputs
            .partition_point(|(_, tokens)| tokens.len() <= longest);
        let place = n_short_enough.checked_sub(1)?;
        if self.inputs[place].1.len() < shortest {
            return None;
        }
        let (index, tokens) = self.inputs.remove(place);
        Some(Picked {
            request: self.id,
            index,
            tokens,
        })
    }
}

impl Queue {
    /// Adds a request.
    pub(super) fn push(&mut self, id: RequestId, inputs: Vec<Vec<TokenId>>) {
        let mut inputs: Vec<_> = inputs.into_iter().enumerate().collect();
        inputs.sort_by_key(|(_, tokens)| tokens.len());
        self.requests.push_back(Waiting { id, inputs });
    }

    /// Forgets a request.
    pub(super) fn remove(&mut self, id: RequestId) {
        self.requests.retain(|request| request.id != id);
    }

    /// Takes the inputs of the next step: at least one, unless there is none, and of more together at
    /// most `n_tokens_most` tokens once all are padded to the longest.
    pub(super) fn next_step(&mut self, n_tokens_most: usize) -> Vec<Picked> {
        let Some(first) = self
            .requests
            .front_mut()
            .and_then(|leader| leader.take(0, usize::MAX))
        else {
            return Vec::new();
        };
        let width = first.tokens.len().max(1);
        let shortest = width - (width / 4).max(4).min(width);
        let n_most = (n_tokens_most / width).max(1);
        let mut step = vec![first];
        for request in &mut self.requests {
            while step.len() < n_most
                && let Some(picked) = request.take(shortest, width)
            {
                step.push(picked);
            }
        }
        self.requests.rotate_left(1);
        self.requests.retain(|request| !request.inputs.is_empty());
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(lengths: &[usize]) -> Vec<Vec<TokenId>> {
        lengths.iter().map(|n| vec![7; *n]).collect()
    }

    fn step(queue: &mut Queue, most: usize) -> Vec<(u64, usize, usize)> {
        let step = queue.next_step(most);
        let shown = |picked: &Picked| (picked.request.0, picked.index, picked.tokens.len());
        step.iter().map(shown).collect()
    }

    #[test]
    fn a_step_holds_what_is_about_as_long_and_no_more_than_its_bound() {
        let mut queue = Queue::default();
        queue.push(RequestId(0), inputs(&[3, 100, 90, 10, 80]));
        assert_eq!(step(&mut queue, 200), [(0, 1, 100), (0, 2, 90)]);
        assert_eq!(step(&mut queue, 200), [(0, 4, 80)]);
        assert_eq!(step(&mut queue, 200), [(0, 3, 10)]);
        assert_eq!(step(&mut queue, 200), [(0, 0, 3)]);
        assert_eq!(step(&mut queue, 200), []);
        queue.push(RequestId(1), inputs(&[500]));
        assert_eq!(step(&mut queue, 200), [(1, 0, 500)], "one always fits");
    }

    #[test]
    fn a_small_request_does_not_wait_for_a_large_one() {
        let mut queue = Queue::default();
        queue.push(RequestId(0), inputs(&[50; 100]));
        assert_eq!(step(&mut queue, 100).len(), 2);
        queue.push(RequestId(1), inputs(&[5]));
        queue.push(RequestId(2), inputs(&[50, 48]));
        let second = step(&mut queue, 200);
        assert_eq!(second.len(), 4, "{second:?}");
        assert_eq!(step(&mut queue, 200), [(1, 0, 5)]);
        assert_eq!(step(&mut queue, 100), [(2, 0, 50), (2, 1, 48)]);
        queue.remove(RequestId(0));
        assert_eq!(step(&mut queue, 200), []);
    }

    #[test]
    fn every_input_is_computed_once() {
        let lengths: Vec<usize> = (0..200).map(|n| 1 + n * 37 % 251).collect();
        let mut queue = Queue::default();
        for id in 0..3 {
            queue.push(RequestId(id), inputs(&lengths));
        }
        let mut seen = Vec::new();
        loop {
            let step = step(&mut queue, 512);
            let Some(longest) = step.iter().map(|(_, _, n)| *n).max() else {
                break;
            };
            assert!(step.len() == 1 || step.len() * longest <= 512, "{step:?}");
            seen.extend(step.into_iter().map(|(id, index, n)| {
                assert_eq!(n, lengths[index]);
                (id, index)
            }));
        }
        seen.sort_unstable();
        let all: Vec<_> = (0..3)
            .flat_map(|id| (0..200).map(move |i| (id, i)))
            .collect();
        assert_eq!(seen, all);
    }
}
