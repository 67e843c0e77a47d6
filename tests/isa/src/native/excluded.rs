//! What may not be run natively, each with the reason. Tables in the interpreter's own tests take its place.
//!
//! Everything else may run, privileged instructions too: at privilege level 3 they raise #GP, as they should. So may loads of
//! segment registers and far transfers, if the selector is one that is refused wherever it is loaded, or null.
//!
//! Not responsible for: what no CPU model has, nor for which selectors are refused (`generate`).

use iced_x86::{Code, Mnemonic};

/// Why a form gives no answer about silicon, or none that holds on another run; `None` if it does.
pub fn reason(code: Code) -> Option<&'static str> {
    use Mnemonic as M;
    Some(match code.mnemonic() {
        M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdpru => {
            "its result is the host's time, or a count of its events"
        }
        M::Cpuid | M::Xgetbv | M::Rdpid => "its result is the host's configuration",
        M::Rdrand | M::Rdseed => "its result is random",
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => {
            "UMIP makes it fault (SDM 3A 2.5), and the host's kernel answers the fault with results of its own"
        }
        M::Lar | M::Lsl | M::Verr | M::Verw => "its result is in the host kernel's descriptor tables",
        M::Syscall | M::Sysenter => "it enters the host's kernel",
        M::Int1 => "its trap is told from the single step's by some kernels only",
        M::Vmcall | M::Vmmcall | M::Vmgexit | M::Vmfunc => "it may call a hypervisor below the host",
        M::Vmrun | M::Vmload | M::Vmsave | M::Stgi | M::Clgi | M::Skinit | M::Invlpga => {
            "whether it faults with #UD or #GP is up to the host's EFER.SVME"
        }
        M::Wrfsbase | M::Wrgsbase => "it changes what is no part of an outcome",
        M::Xsave | M::Xsave64 | M::Xsavec | M::Xsavec64 | M::Xsaveopt | M::Xsaveopt64 => {
            "it writes which components are in use, and MXCSR_MASK, as the host has them"
        }
        M::Xrstor | M::Xrstor64 => "whether its header is valid is up to the host's XCR0",
        M::Xsaves | M::Xsaves64 | M::Xrstors | M::Xrstors64 => "whether it is there is up to the host",
        M::Monitorx | M::Mwaitx | M::Umonitor | M::Umwait | M::Tpause => "it waits for what never comes",
        M::Xbegin | M::Xabort | M::Xend | M::Xtest => {
            "a transaction ends at the single step, if the host has any"
        }
        M::Lss => "a loaded SS holds off the single step",
        _ => match code {
            Code::Popw_SS | Code::Popd_SS => "a loaded SS holds off the single step",
            _ => return None,
        },
    })
}

/// Whether bytes that are no instruction to the decoder may be one here: of AVX-512, whose fields the host may take less
/// strictly, or on opmask registers, which have VEX prefixes; or VMCALL and VMMCALL behind prefixes, which a hypervisor below
/// the host may answer.
pub fn may_be_more(code: &[u8]) -> bool {
    let opmask = |map: u8, opcode: u8| match map {
        1 => matches!(opcode, 0x41..=0x4b | 0x90..=0x93 | 0x98 | 0x99),
        3 => matches!(opcode, 0x30..=0x33),
        _ => false,
    };
    code.windows(3).any(|w| w[0] == 0xc5 && opmask(1, w[2]) || matches!(w, [0x0f, 0x01, 0xc1 | 0xd9]))
        || code.windows(3).any(|w| w[0] == 0x62 && w[2] & 4 != 0)
        // What follows the code in the page then makes it one.
        || code.iter().rev().take(2).any(|byte| *byte == 0x62)
        || code.windows(4).any(|w| w[0] == 0xc4 && opmask(w[1] & 0x1f, w[3]))
}
