//! Measures the products: multiplications a second, and weight bytes a second for one row.
//!
//! Usage: `cargo run --release -p ingle-kernels --example rate [n_threads [isa [n k [types [ms]]]]]`,
//! types and numbers of rows separated by commas.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use ingle_kernels::matmul::{linear_f32, linear_quantized};
use ingle_kernels::quantize::{quantize_rows, row_words};
use ingle_kernels::{Isa, Matrix, Out, Output, Part, ShapeError, Team, Turn, WeightType};

/// How long a rate is measured.
const SPAN: Duration = Duration::from_millis(300);
/// The best of so many spans counts: neighbours on the machine only ever slow it down.
const SPANS: usize = 5;

#[expect(clippy::print_stdout, reason = "the rates are what it is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |arg| arg.parse());
    let isa = args
        .get(1)
        .map_or(Ok(Isa::detect()), |name| Isa::named(name))?;
    let n_threads = NonZeroUsize::new(number(0, 2)?).ok_or("no threads")?;
    let (n, k) = (number(2, 1536)?, number(3, 576)?);
    let team = Team::new(n_threads, isa);
    let turn = team.take_turn();
    println!("{} threads, {}, {n} x {k}", team.n_threads(), isa.name());
    let idle = rate(|| {
        turn.run(team.n_threads(), &|_| {});
        Ok(())
    })?;
    println!("an empty run: {:.2} us", 1e6 / idle);
    let types = args
        .get(4)
        .map(|names| names.split(',').collect::<Vec<_>>());
    let ms = match args.get(5) {
        Some(ms) => ms.split(',').map(str::parse).collect::<Result<_, _>>()?,
        None => vec![1, 4, 128],
    };
    for weight_type in WeightType::ALL {
        if types
            .as_ref()
            .is_some_and(|types| !types.contains(&weight_type.name()))
        {
            continue;
        }
        let Some(row_bytes) = weight_type.row_bytes(k) else {
            continue;
        };
        for &m in &ms {
            let per_second = product_rate(&turn, weight_type, (m, n, k))?;
            let giga = per_second * n as f64 / 1e9;
            println!(
                "{:5} m={m:<4} {:7.1} GMAC/s {:6.1} GB/s",
                weight_type.name(),
                giga * (m * k) as f64,
                giga * row_bytes as f64,
            );
        }
    }
    Ok(())
}

/// Products a second.
fn product_rate(
    turn: &Turn<'_>,
    weight_type: WeightType,
    (m, n, k): (usize, usize, usize),
) -> Result<f64, ShapeError> {
    let n_bytes = weight_type.row_bytes(n * k).unwrap_or(0);
    let bytes: Vec<u8> = (0..=255).cycle().take(n_bytes).collect();
    let w = Matrix::new(turn, weight_type, n, k, &bytes)?;
    let x = vec![0.5; m * k];
    let mut values = vec![0.0; m * n];
    let mut out = Out {
        values: &mut values,
        stride: n,
        output: Output::Write,
    };
    let parts = [Part {
        matrix: &w,
        column: 0,
    }];
    if !w.takes_quantized() {
        return rate(|| linear_f32(turn, &parts, &x, &mut out));
    }
    let mut acts = vec![0; m * row_words(k)];
    quantize_rows(turn, &x, k, &mut acts)?;
    rate(|| linear_quantized(turn, &parts, &acts, &mut out))
}

/// Calls a second.
fn rate(mut call: impl FnMut() -> Result<(), ShapeError>) -> Result<f64, ShapeError> {
    let mut best = 0.0_f64;
    for _ in 0..SPANS {
        let start = Instant::now();
        let mut n_calls = 0_u32;
        while start.elapsed() < SPAN {
            call()?;
            n_calls += 1;
        }
        best = best.max(f64::from(n_calls) / start.elapsed().as_secs_f64());
    }
    Ok(best)
}
