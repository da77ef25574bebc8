//! What was measured, for people and for programs.

use std::io::Write;

use indicatif::DecimalBytes;
use ingle_kernels::limits::Limits;
use serde_json::{Value, json};

use super::cost::{Cost, Reached};
use super::points::Point;

/// Everything that was measured.
pub(super) struct Report {
    /// The model as it was named.
    pub(super) model: String,
    pub(super) file_bytes: u64,
    pub(super) n_parameters: u64,
    pub(super) isa: &'static str,
    pub(super) n_threads: usize,
    pub(super) n_chunk: u32,
    pub(super) cost: Cost,
    pub(super) limits_before: Limits,
    pub(super) limits_after: Limits,
    pub(super) samples: Vec<Sample>,
}

/// The rates of a point. Units: tokens a second.
pub(super) struct Sample {
    pub(super) point: Point,
    /// At least one.
    pub(super) rates: Vec<f64>,
}

impl Sample {
    fn least(&self) -> f64 {
        self.rates.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn median(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        if rates.len().is_multiple_of(2) && middle > 0 {
            return f64::midpoint(rates[middle - 1], rates[middle]);
        }
        rates.get(middle).copied().unwrap_or_default()
    }
}

impl Report {
    /// The better of both: something else may have disturbed one of them.
    fn limits(&self) -> Limits {
        let (before, after) = (self.limits_before, self.limits_after);
        Limits {
            read_bytes_per_second: before
                .read_bytes_per_second
                .max(after.read_bytes_per_second),
            multiply_adds_per_second: before
                .multiply_adds_per_second
                .max(after.multiply_adds_per_second),
        }
    }

    fn reached(&self, sample: &Sample) -> Reached {
        let limits = self.limits();
        self.cost
            .reached(&sample.point, sample.median(), self.n_chunk, &limits)
    }

    /// Writes a table.
    ///
    /// Errors: `out` does not take more.
    pub(super) fn write_table(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        writeln!(
            out,
            "{}: {}, {:.2} billion parameters; {} threads, {}; prompts in chunks of {}",
            self.model,
            DecimalBytes(self.file_bytes),
            self.n_parameters as f64 / 1e9,
            self.n_threads,
            self.isa,
            self.n_chunk
        )?;
        let giga = |value: f64| value / 1e9;
        let (before, after) = (&self.limits_before, &self.limits_after);
        writeln!(
            out,
            "limits: reads {:.1} GB/s (after: {:.1}), {:.0} billion multiply-adds/s (after: {:.0})\n",
            giga(before.read_bytes_per_second),
            giga(after.read_bytes_per_second),
            giga(before.multiply_adds_per_second),
            giga(after.multiply_adds_per_second),
        )?;
        let columns = ["tokens/s", "min", "max", "weights", "with KV", "multiply"];
        write!(out, "{:<12} {:>6} {:>5}", "test", "depth", "batch")?;
        writeln!(
            out,
            " {}",
            columns.map(|name| format!("{name:>9}")).join(" ")
        )?;
        for sample in &self.samples {
            let point = &sample.point;
            let reached = self.reached(sample);
            let test = format!("{} {}", point.test.name(), point.n_tokens);
            write!(
                out,
                "{test:<12} {:>6} {:>5}",
                point.depth, point.n_sequences
            )?;
            for rate in [sample.median(), sample.least(), sample.most()] {
                write!(out, " {rate:>9.2}")?;
            }
            for part in [
                reached.reading_weights,
                reached.reading_all,
                reached.multiplying,
            ] {
                write!(out, " {:>8.1}%", 100.0 * part)?;
            }
            writeln!(out)?;
        }
        writeln!(
            out,
            "\ntokens/s: the median, all sequences together; percentages are of the limits: weights \
             read, with\nkeys and values, and multiply-adds of the linear layers"
        )?;
        Ok(())
    }

    /// The same as one JSON object.
    pub(super) fn json(&self) -> Value {
        let mut all = self.json_head();
        all["limits"]["after"] = limits_json(&self.limits_after);
        all["results"] = self
            .samples
            .iter()
            .map(|sample| self.json_of(sample))
            .collect();
        all
    }

    /// What there is to measure, before anything is.
    pub(super) fn json_of_points(&self, points: &[Point]) -> Value {
        let mut all = self.json_head();
        all["points"] = points.iter().map(point_json).collect();
        all
    }

    fn json_head(&self) -> Value {
        json!({
            "model": {
                "name": self.model,
                "bytes": self.file_bytes,
                "parameters": self.n_parameters,
                "weight_bytes_per_step": self.cost.weight_bytes,
                "multiply_adds_per_token": self.cost.multiply_adds_per_token,
                "multiply_adds_per_logits": self.cost.multiply_adds_per_logits,
                "kv_bytes_per_position": self.cost.kv_bytes_per_position,
            },
            "version": env!("CARGO_PKG_VERSION"),
            "isa": self.isa,
            "threads": self.n_threads,
            "chunk": self.n_chunk,
            "limits": { "before": limits_json(&self.limits_before) },
        })
    }

    fn json_of(&self, sample: &Sample) -> Value {
        let reached = self.reached(sample);
        let mut result = point_json(&sample.point);
        result["tokens_per_second"] = json!({
            "median": sample.median(),
            "min": sample.least(),
            "max": sample.most(),
            "all": sample.rates,
        });
        result["reached"] = json!({
            "reading_weights": reached.reading_weights,
            "reading_all": reached.reading_all,
            "multiplying": reached.multiplying,
        });
        result
    }
}

fn point_json(point: &Point) -> Value {
    json!({
        "test": point.test.name(),
        "depth": point.depth,
        "batch": point.n_sequences,
        "tokens": point.n_tokens,
    })
}

fn limits_json(limits: &Limits) -> Value {
    json!({
        "read_bytes_per_second": limits.read_bytes_per_second,
        "multiply_adds_per_second": limits.multiply_adds_per_second,
    })
}

#[cfg(test)]
mod tests {
    use super::super::points::Test;
    use super::*;

    fn sample(rates: &[f64]) -> Sample {
        let point = Point {
            depth: 0,
            test: Test::Decode,
            n_sequences: 1,
            n_tokens: 8,
        };
        Sample {
            point,
            rates: rates.to_vec(),
        }
    }

    #[test]
    fn the_median_is_the_one_in_the_middle_or_between_two() {
        assert_eq!(sample(&[9.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(sample(&[4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        let some = sample(&[9.0, 1.0, 2.0]);
        assert_eq!((some.least(), some.most()), (1.0, 9.0));
    }
}
