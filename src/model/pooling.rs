//! How the states of a text's tokens become its vector.

use std::fmt;

use super::error::Error;
use crate::gguf::Gguf;

/// A vector shorter than this is not made longer: there is nothing in it.
const NORM_LEAST: f64 = 1e-12;

/// Which of a text's states make its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// Their sum over the root of their number.
    MeanSqrtLen,
    /// The greatest value of each dimension.
    Max,
    /// The first token's.
    First,
    /// The last token's.
    Last,
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mean => "mean",
            Self::MeanSqrtLen => "sum over the root of the length",
            Self::Max => "max",
            Self::First => "first token",
            Self::Last => "last token",
        })
    }
}

/// From states to a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readout {
    /// Which states.
    pub pooling: Pooling,
    /// Whether the vector is then made one of length 1.
    pub is_normalised: bool,
}

impl Readout {
    /// That of a network that was made to write: as its file says, else the last token's state, which
    /// alone has seen the whole text. Length 1 in any case.
    ///
    /// # Errors
    /// The file asks for a readout that is not built.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, Error> {
        const KEY: &str = "llama.pooling_type";
        let pooling = match gguf.metadata().opt_u32(KEY)? {
            None | Some(0 | 3) => Pooling::Last,
            Some(1) => Pooling::Mean,
            Some(2) => Pooling::First,
            Some(other) => {
                let what = format!("pooling of type {other} ({KEY})");
                return Err(Error::Unsupported { what });
            }
        };
        Ok(Self {
            pooling,
            is_normalised: true,
        })
    }
}

/// A vector under way: takes a text's states one after the other.
#[derive(Clone, Debug)]
pub struct Pooler {
    readout: Readout,
    n_tokens: usize,
    /// The sum so far, the greatest so far, or the one state that counts.
    values: Vec<f64>,
}

impl Pooler {
    /// Nothing is taken yet.
    pub fn new(readout: Readout) -> Self {
        Self {
            readout,
            n_tokens: 0,
            values: Vec::new(),
        }
    }

    /// Which states it wants: all, or of a text that ends only the last.
    pub fn pooling(&self) -> Pooling {
        self.readout.pooling
    }

    /// Forgets what was taken: the text is computed anew.
    pub fn restart(&mut self) {
        self.n_tokens = 0;
        self.values.clear();
    }

    /// Takes the next token's state.
    pub fn add(&mut self, state: &[f32]) {
        let state = state.iter().copied().map(f64::from);
        let is_first = self.n_tokens == 0;
        self.n_tokens += 1;
        match self.readout.pooling {
            _ if is_first => self.values.extend(state),
            Pooling::First => {}
            Pooling::Last => {
                self.values.clear();
                self.values.extend(state);
            }
            Pooling::Mean | Pooling::MeanSqrtLen => {
                for (sum, value) in self.values.iter_mut().zip(state) {
                    *sum += value;
                }
            }
            Pooling::Max => {
                for (greatest, value) in self.values.iter_mut().zip(state) {
                    // A NaN stays: it is told of at the end.
                    if value > *greatest || value.is_nan() {
                        *greatest = value;
                    }
                }
            }
        }
    }

    /// The vector of what was taken.
    ///
    /// # Errors
    /// [`Error::Vector`] where a value is no number.
    pub fn finish(&self) -> Result<Vec<f32>, Error> {
        let n_tokens = self.n_tokens.max(1) as f64;
        let divisor = match self.readout.pooling {
            Pooling::Mean => n_tokens,
            Pooling::MeanSqrtLen => n_tokens.sqrt(),
            Pooling::Max | Pooling::First | Pooling::Last => 1.0,
        };
        let pooled = self.values.iter().map(|value| value / divisor);
        let length = if self.readout.is_normalised {
            let squares = pooled.clone().map(|value| value * value);
            squares.sum::<f64>().sqrt().max(NORM_LEAST)
        } else {
            1.0
        };
        let vector: Vec<f32> = pooled.map(|value| rounded(value / length)).collect();
        match vector.iter().position(|value| !value.is_finite()) {
            Some(dimension) => Err(Error::Vector {
                dimension,
                value: vector[dimension],
            }),
            None => Ok(vector),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is wanted"
)]
fn rounded(value: f64) -> f32 {
    value as f32
}

/// Cuts a vector to its first numbers, and makes it as long as it was.
pub fn shorten(vector: &mut Vec<f32>, n_dimensions: usize) {
    let length = |vector: &[f32]| {
        let squares = vector.iter().map(|value| f64::from(*value).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let whole = length(vector);
    vector.truncate(n_dimensions);
    let scale = whole / length(vector).max(NORM_LEAST);
    for value in vector {
        *value = rounded(f64::from(*value) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [[f32; 2]; 3] = [[1.0, -4.0], [5.0, -2.0], [3.0, 0.0]];

    fn pooled(pooling: Pooling, is_normalised: bool) -> Vec<f32> {
        let mut pooler = Pooler::new(Readout {
            pooling,
            is_normalised,
        });
        pooler.add(&[9.0, 9.0]);
        pooler.restart();
        for state in &STATES {
            pooler.add(state);
        }
        pooler.finish().unwrap()
    }

    #[test]
    fn each_pooling_makes_its_vector() {
        assert_eq!(pooled(Pooling::Mean, false), [3.0, -2.0]);
        let scaled = pooled(Pooling::MeanSqrtLen, false);
        for (value, sum) in scaled.iter().zip([9.0, -6.0_f32]) {
            assert!((value * 3.0_f32.sqrt() - sum).abs() < 1e-5, "{scaled:?}");
        }
        assert_eq!(pooled(Pooling::Max, false), [5.0, 0.0]);
        assert_eq!(pooled(Pooling::First, false), [1.0, -4.0]);
        assert_eq!(pooled(Pooling::Last, false), [3.0, 0.0]);
        assert_eq!(pooled(Pooling::Last, true), [1.0, 0.0]);
    }

    #[test]
    fn what_is_no_number_is_an_error_and_nothing_at_all_is_not() {
        for pooling in [Pooling::Mean, Pooling::Max, Pooling::Last] {
            for is_normalised in [false, true] {
                let mut pooler = Pooler::new(Readout {
                    pooling,
                    is_normalised,
                });
                pooler.add(&[0.0, 0.0]);
                assert_eq!(pooler.finish().unwrap(), [0.0, 0.0]);
                pooler.add(&[0.0, f32::NAN]);
                assert!(matches!(pooler.finish(), Err(Error::Vector { .. })));
            }
        }
    }

    #[test]
    fn a_shorter_vector_is_as_long_as_the_whole_one() {
        let mut vector = vec![0.6, 0.0, 0.8];
        shorten(&mut vector, 2);
        assert_eq!(vector, [1.0, 0.0]);
        let mut nothing = vec![0.0, 1.0];
        shorten(&mut nothing, 1);
        assert_eq!(nothing, [0.0]);
    }
}
