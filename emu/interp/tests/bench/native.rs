//! The bench's native side: one instruction in a page of its own, run on a bench by the CPU under the test.
//!
//! Not responsible for: instructions that fault; who runs one that may trap has a handler.

use super::{Bench, STATUS};
use memmap2::{Mmap, MmapMut};
use std::arch::asm;

/// A line for each of sixteen registers.
macro_rules! of_sixteen {
    ($line:literal) => {
        concat!(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n", $line, "\n.endr")
    };
}

/// Loads a bench, calls its instruction, saves the bench. What follows first is run just before and just after the call.
macro_rules! run_natively {
    ($native:ident, $bench:ident, [$($before:expr),*], [$($after:expr),*], $($operands:tt)*) => {{
        let host_mxcsr = 0x1f80u32;
        let [rax, rcx, rdx] = &mut $bench.general;
        // SAFETY: the page holds one instruction that touches the registers named here, and memory only at RDI: 512
        // bytes of the bench.
        unsafe {
            asm!(
                "fxrstor64 [rsi]",
                $($before,)*
                "push {flags}",
                "popfq",
                "call {code}",
                "pushfq",
                "pop {flags}",
                "fxsave64 [rsi]",
                $($after,)*
                "fninit",
                "ldmxcsr [{host}]",
                flags = inout(reg) $bench.flags,
                code = in(reg) $native.0.as_ptr(),
                host = in(reg) &raw const host_mxcsr,
                $($operands)*
                in("rsi") &raw mut $bench.fx,
                in("rdi") $bench.memory.0.as_mut_ptr(),
                inout("rax") *rax,
                inout("rcx") *rcx,
                inout("rdx") *rdx,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
    }};
}
/// A page with one instruction and RET.
pub struct Native(Mmap);

impl Native {
    pub fn new(bytes: &[u8]) -> Self {
        let mut page = MmapMut::map_anon(4096).unwrap();
        page[..bytes.len()].copy_from_slice(bytes);
        page[bytes.len()] = 0xc3;
        Self(page.make_exec().unwrap())
    }

    pub fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    pub fn run(&self, bench: &mut Bench) {
        if is_x86_feature_detected!("avx512bw") {
            self.run_with_avx512(bench);
        } else if is_x86_feature_detected!("avx") {
            self.run_with_upper_halves(bench);
        } else {
            run_natively!(self, bench, [], [],);
        }
        bench.flags &= STATUS;
        bench.forget_pointers();
    }

    fn run_with_upper_halves(&self, bench: &mut Bench) {
        run_natively!(
            self,
            bench,
            [of_sixteen!("vinsertf128 ymm\\n, ymm\\n, [{upper} + 16*\\n], 1")],
            [of_sixteen!("vextractf128 [{upper} + 16*\\n], ymm\\n, 1"), "vzeroupper"],
            upper = in(reg) bench.upper.as_mut_ptr(),
        );
    }

    fn run_with_avx512(&self, bench: &mut Bench) {
        run_natively!(
            self,
            bench,
            [
                of_sixteen!("vinsertf128 ymm\\n, ymm\\n, [{upper} + 16*\\n], 1"),
                of_sixteen!("vinserti64x4 zmm\\n, zmm\\n, [{zmm} + 32*\\n], 1"),
                ".irp n,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "vmovdqu64 zmm\\n, [{high} + 64*\\n - 1024]",
                ".endr",
                ".irp n,0,1,2,3,4,5,6,7",
                "kmovq k\\n, [{masks} + 8*\\n]",
                ".endr"
            ],
            [
                of_sixteen!("vextractf128 [{upper} + 16*\\n], ymm\\n, 1"),
                of_sixteen!("vextracti64x4 [{zmm} + 32*\\n], zmm\\n, 1"),
                ".irp n,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
                "vmovdqu64 [{high} + 64*\\n - 1024], zmm\\n",
                ".endr",
                ".irp n,0,1,2,3,4,5,6,7",
                "kmovq [{masks} + 8*\\n], k\\n",
                ".endr",
                "vzeroupper"
            ],
            upper = in(reg) bench.upper.as_mut_ptr(),
            zmm = in(reg) bench.zmm_upper.as_mut_ptr(),
            high = in(reg) bench.zmm_high.as_mut_ptr(),
            masks = in(reg) bench.masks.as_mut_ptr(),
        );
    }
}
