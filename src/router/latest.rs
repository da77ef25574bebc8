//! The latest values of something, and how they are spread.

use std::collections::VecDeque;

/// The latest `N` values.
#[derive(Clone, Debug)]
pub(super) struct Latest<T, const N: usize>(VecDeque<T>);

impl<T, const N: usize> Default for Latest<T, N> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Copy + PartialOrd, const N: usize> Latest<T, N> {
    /// Another one came; the oldest is forgotten for it.
    pub(super) fn push(&mut self, value: T) {
        if self.0.len() == N {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// All of them, in order of size.
    pub(super) fn sorted(&self) -> Sorted<T> {
        let mut sorted: Vec<T> = self.0.iter().copied().collect();
        sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        Sorted(sorted)
    }
}

/// Values in order of size.
#[derive(Clone, Debug)]
pub(super) struct Sorted<T>(Vec<T>);

impl<T: Copy> Sorted<T> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that so many of a hundred are no greater than.
    pub(super) fn at(&self, percent: usize) -> Option<T> {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.max(1) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_their_percentiles_are_values_of_theirs() {
        let mut latest = Latest::<f64, 10>::default();
        assert_eq!(latest.sorted().at(50), None);
        for value in (1..=12).rev() {
            latest.push(f64::from(value));
        }
        let sorted = latest.sorted();
        assert_eq!(sorted.len(), 10);
        let at = [0, 10, 50, 90, 91, 100].map(|percent| sorted.at(percent).unwrap());
        assert_eq!(at, [1.0, 1.0, 5.0, 9.0, 10.0, 10.0]);
    }
}
