//! What may not be run natively, each with the reason. Tables in the interpreter's own tests take its place.
//!
//! Everything else may run, privileged instructions too: at privilege level 3 they raise #GP, as they should.
//!
//! Not responsible for: what the generator leaves out because no CPU model has it.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};

/// Why this instruction gives no answer about silicon, or none that holds on another run; `None` if it does.
pub fn reason(instruction: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    Some(match instruction.mnemonic() {
        M::Rdtsc | M::Rdtscp | M::Rdpmc | M::Rdpru => {
            "its result is the host's time or a count of its events"
        }
        M::Cpuid | M::Xgetbv | M::Rdpid => {
            "its result is the host's configuration; CPUID may also trap to a hypervisor"
        }
        M::Rdrand | M::Rdseed => "its result is random",
        M::Sgdt | M::Sidt | M::Sldt | M::Str | M::Smsw => {
            "UMIP makes it fault, and the kernel answers the fault with invented values (SDM 3A 2.5)"
        }
        M::Lar | M::Lsl | M::Verr | M::Verw => "its result is in the host kernel's descriptor tables",
        M::Syscall | M::Sysenter => "it enters the host's kernel instead of the case's",
        M::Int => "it enters the host's kernel through gates that no guest of ours has",
        M::Int1 => "its trap is not told from the single step's on every kernel",
        M::Vmcall | M::Vmmcall | M::Vmgexit | M::Vmfunc => "it may call a hypervisor below the host",
        M::Vmrun | M::Vmload | M::Vmsave | M::Stgi | M::Clgi | M::Skinit | M::Invlpga => {
            "whether it faults with #UD or #GP is up to the host's EFER.SVME"
        }
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => {
            "it loads a segment register from the host's descriptor tables"
        }
        M::Iret | M::Iretd | M::Iretq | M::Retf => "it loads CS from the host's descriptor tables",
        M::Call | M::Jmp if is_far(instruction) => "it loads CS from the host's descriptor tables",
        M::Mov | M::Pop if loads_segment(instruction) => {
            "it loads a segment register from the host's descriptor tables; with SS it also holds off the single step"
        }
        M::Wrfsbase | M::Wrgsbase => "it changes a base that is no part of an outcome",
        M::Xsave
        | M::Xsave64
        | M::Xsavec
        | M::Xsavec64
        | M::Xsaveopt
        | M::Xsaveopt64
        | M::Xrstor
        | M::Xrstor64 => {
            "what it writes and takes is up to the host's XCR0 and to its tracking of unused state"
        }
        M::Xsaves | M::Xsaves64 | M::Xrstors | M::Xrstors64 => "whether it is there is up to the host",
        M::Monitorx | M::Mwaitx | M::Umonitor | M::Umwait | M::Tpause => {
            "it waits for something that never comes"
        }
        M::Xbegin | M::Xabort | M::Xend | M::Xtest => {
            "a transaction ends at the single step, if the host has any"
        }
        _ => return None,
    })
}

fn is_far(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Call_ptr1616
            | Code::Call_ptr1632
            | Code::Call_m1616
            | Code::Call_m1632
            | Code::Call_m1664
            | Code::Jmp_ptr1616
            | Code::Jmp_ptr1632
            | Code::Jmp_m1616
            | Code::Jmp_m1632
            | Code::Jmp_m1664
    )
}

fn loads_segment(instruction: &Instruction) -> bool {
    instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_segment_register()
}
