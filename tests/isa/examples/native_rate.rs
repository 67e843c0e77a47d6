//! How many cases a second the CPU under us runs, by mode: `cargo run --release -p gemel-isa-tests --example native_rate`.

use gemel_isa_tests::arena::{self, BASE};
use gemel_isa_tests::case::{Case, Mode};
use gemel_isa_tests::native::{BATCH, Native};
use std::time::{Duration, Instant};

const EACH: Duration = Duration::from_secs(2);

fn main() -> anyhow::Result<()> {
    for mode in Mode::ALL {
        let offset = |address| u64::from(if mode == Mode::Protected16 { address - BASE } else { address });
        // INC [EDI]; UD2.
        for (kind, code) in [("retired", &[0x67, 0xff, 0x07]), ("faulted", &[0x67, 0x0f, 0x0b])] {
            let mut case = Case { mode, length: 3, ..Case::default() };
            case.code[..3].copy_from_slice(code);
            case.before.rip = offset(arena::CODE);
            case.before.gpr[7] = offset(arena::DATA);
            let cases = [case; BATCH];
            let mut native = Native::start()?;
            let (start, mut done) = (Instant::now(), 0);
            while start.elapsed() < EACH {
                while native.room() > 0 {
                    native.submit(&cases)?;
                }
                done += native.collect()?.iter().flatten().count();
            }
            println!("{mode:?}: {:.0} cases/s {kind}", done as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
