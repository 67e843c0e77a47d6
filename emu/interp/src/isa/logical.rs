//! Logical instructions (SDM 1 5.1.4): AND, OR, XOR, TEST, NOT.
//!
//! Not responsible for: the operand forms (`binary_arith` has them).

use super::binary_arith::{Alu, Unary, one_operand, two_operands};
use super::undefined;
use crate::cpu::Width;
use crate::flags::LazyFlags;
use crate::lower::Form;
use crate::op::Handler;

/// AF, which the manuals leave undefined.
const AF: bool = undefined::LOGIC_AF.constant();

struct And;
struct Or;
struct Xor;
struct Test;
struct Not;

impl Alu for And {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(a.zext() & b.zext());
        flags.logic(r, AF);
        r
    }
}

impl Alu for Or {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(a.zext() | b.zext());
        flags.logic(r, AF);
        r
    }
}

impl Alu for Xor {
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        let r = W::cut(a.zext() ^ b.zext());
        flags.logic(r, AF);
        r
    }
}

impl Alu for Test {
    const WRITES: bool = false;
    #[inline(always)]
    fn run<W: Width>(flags: &mut LazyFlags, a: W, b: W) -> W {
        And::run(flags, a, b)
    }
}

impl Unary for Not {
    #[inline(always)]
    fn run<W: Width>(_flags: &mut LazyFlags, a: W) -> W {
        W::cut(!a.zext())
    }
}

/// AND.
pub fn and(f: &Form<'_>) -> Option<Handler> {
    two_operands::<And>(f)
}

/// OR.
pub fn or(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Or>(f)
}

/// XOR.
pub fn xor(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Xor>(f)
}

/// TEST.
pub fn test(f: &Form<'_>) -> Option<Handler> {
    two_operands::<Test>(f)
}

/// NOT.
pub fn not(f: &Form<'_>) -> Option<Handler> {
    one_operand::<Not>(f)
}
