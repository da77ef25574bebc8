use std::num::NonZeroUsize;

use super::*;
use crate::Team;

/// Weights that look like a model's: most are small, some rows hold zeros, a few weights stand out.
fn weights(n: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..n)
        .map(|i| {
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                u16::try_from(state >> 48).unwrap()
            };
            let sum: f32 = (0..4).map(|_| f32::from(next())).sum();
            let value = (sum - 131_070.0) / 1_048_576.0;
            let stands_out = next() < 200;
            match i / 64 % 37 {
                5 => 0.0,
                9 => value.abs(),
                _ if stands_out => value * 16.0,
                _ => value,
            }
        })
        .collect()
}

#[test]
fn dump() {
    let x = weights(576 * 40 * 4);
    let imp: Vec<f32> = weights(2304).iter().map(|v| v * v * 100.0).collect();
    std::fs::write("/tmp/q/x.bin", bytemuck::cast_slice::<f32, u8>(&x)).unwrap();
    std::fs::write("/tmp/q/imp.bin", bytemuck::cast_slice::<f32, u8>(&imp)).unwrap();
    for isa in Isa::available() {
        let team = Team::new(NonZeroUsize::MIN, isa);
        for to in WeightType::ALL {
            for (name, importance) in [("plain", None), ("imp", Some(&imp[..]))] {
                let r = Recode {
                    from: WeightType::F32,
                    to,
                    k: 2304,
                    importance,
                };
                let mut out = vec![0; to.row_bytes(2304).unwrap() * 40];
                let t = std::time::Instant::now();
                r.rows(&team.take_turn(), bytemuck::cast_slice(&x), &mut out)
                    .unwrap();
                let s = t.elapsed().as_secs_f64();
                eprintln!(
                    "{} {} {name}: {:.1} Mvalues/s",
                    isa.name(),
                    to.name(),
                    x.len() as f64 / s / 1e6
                );
                std::fs::write(
                    format!("/tmp/q/{}-{}-{name}.bin", isa.name(), to.name()),
                    &out,
                )
                .unwrap();
            }
        }
    }
}
