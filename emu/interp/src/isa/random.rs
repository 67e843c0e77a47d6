//! Random numbers (SDM 1 5.1.15): RDRAND and RDSEED.
//!
//! Not responsible for: where the numbers come from. They are the world's answer, an input like any other.
//!
//! There always is a number: CF is set, the other status flags are clear (SDM 2B RDRAND).

use super::by_wide_width;
use crate::cpu::{Cpu, Width};
use crate::fault::R;
use crate::lower::Form;
use crate::op::{Handler, Op};
use gemel_machine::{CpuIo, Query};
use gemel_x86::flags::{CF, STATUS};

fn random<W: Width>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo) -> R {
    let value = io.query(c.at(op), Query::Random);
    W::cut(value).put(&mut c.regs, op.r[0]);
    c.flags.update(STATUS, CF);
    // A world that cannot answer ends the run, and what it wants next can depend on the answer.
    let attention = io.attention(c.at(op));
    c.attend(attention);
    Ok(())
}

/// RDRAND, RDSEED.
pub fn rdrand(f: &Form<'_>) -> Option<Handler> {
    Some(by_wide_width!(f, random))
}
