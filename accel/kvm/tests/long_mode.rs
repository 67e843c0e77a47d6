//! 64-bit guests with ring 0 and ring 3: every access, its position, the state and RAM as on the interpreter.

mod board;

use board::*;
use gemel_x86::CpuModel;
use iced_x86::code_asm::*;

const RING0: u64 = 0x1000;
const RING3: u64 = 0x3000;
const FAULT: u64 = 0x4000;
const INTERRUPT: u64 = 0x5000;
const LAST: u64 = 0x6000;

/// A guest whose ring 0 goes to ring 3, where a HLT ends it.
fn program(user: (u64, Vec<u8>)) -> Program {
    let mut memory = long_mode_memory();
    memory.push(user);
    memory.push(assembled(64, RING0, |a| {
        a.push(USER_DATA as i32)?;
        a.push(0x8000)?;
        a.push(0x202)?;
        a.push(USER_CODE as i32)?;
        a.push(RING3 as i32)?;
        a.iretq()
    }));
    // A page fault: its address goes to the board, and the two bytes of the instruction are skipped.
    memory.push(assembled(64, FAULT, |a| {
        a.push(rax)?;
        a.mov(rax, cr2)?;
        a.out(0x60, eax)?;
        a.mov(eax, dword_ptr(rsp + 8))?;
        a.out(0x61, eax)?;
        a.pop(rax)?;
        a.add(rsp, 8)?;
        a.add(qword_ptr(rsp), 2)?;
        a.iretq()
    }));
    memory.push(assembled(64, INTERRUPT, |a| {
        a.inc(r15)?;
        a.out(0x62, al)?;
        a.iretq()
    }));
    memory.push(assembled(64, LAST, |a| {
        a.mov(eax, dword_ptr(rsp))?;
        a.out(0x63, eax)?;
        a.cli()?;
        a.hlt()
    }));
    memory.extend([gate(14, FAULT), gate(0x21, INTERRUPT), gate(13, LAST), gate(0, LAST), gate(6, LAST)]);
    Program { model: CpuModel::x86_64_v2(), memory, state: long_mode(RING0) }
}

#[test]
fn ring_3_computes_and_reaches_the_board() {
    program(assembled(64, RING3, |a| {
        let mut again = a.create_label();
        a.mov(ecx, 1000)?;
        a.xor(ebx, ebx)?;
        a.set_label(&mut again)?;
        a.imul_3(rax, rcx, 77)?;
        a.add(rbx, rax)?;
        a.cvtsi2sd(xmm0, rax)?;
        a.addsd(xmm1, xmm0)?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.mov(eax, ebx)?;
        a.out(0x50, eax)?;
        a.out(0x50, al)?;
        a.mov(edx, 0x51)?;
        a.out(dx, ax)?;
        a.in_(eax, dx)?;
        a.mov(rsi, WINDOW)?;
        a.mov(rax, qword_ptr(rsi + 8))?;
        a.mov(qword_ptr(rsi + 16), rbx)?;
        a.mov(byte_ptr(rsi + 24), bl)?;
        a.movzx(eax, word_ptr(rsi + 26))?;
        a.add(dword_ptr(rsi + 28), eax)?;
        a.movdqu(xmmword_ptr(rsi + 32), xmm1)?;
        a.movdqu(xmm2, xmmword_ptr(rsi + 64))?;
        a.mov(qword_ptr(rsi + 0x83), rbx)?;
        a.push(qword_ptr(rsi))?;
        a.mov(rdi, 0x9000u64)?;
        a.mov(ecx, 5)?;
        a.rep().movsq()?;
        a.mov(edx, 0x52)?;
        a.mov(ecx, 3)?;
        a.rep().insb()?;
        a.mov(rsi, 0x9000u64)?;
        a.mov(ecx, 3)?;
        a.rep().outsb()?;
        a.hlt()
    }))
    .same_on_both(&ways());
}

#[test]
fn faults_and_interrupts_go_to_ring_0_and_back() {
    program(assembled(64, RING3, |a| {
        a.mov(rsi, 0x40_0010u64)?;
        a.xor(eax, eax)?;
        a.mov(al, byte_ptr(rsi))?;
        a.mov(byte_ptr(rsi), al)?;
        a.mov(al, 0x21)?;
        a.out(0x40, al)?;
        a.inc(rbx)?;
        a.out(0x40, al)?;
        a.out(0x40, al)?;
        a.mov(rsi, 0x50_0010u64)?;
        a.mov(al, byte_ptr(rsi))?;
        a.xor(ecx, ecx)?;
        a.div(ecx)
    }))
    .same_on_both(&ways());
}

#[test]
fn ring_0_with_msrs_priorities_nmis_and_halts() {
    let mut guest = program((RING3, vec![0xf4]));
    guest.memory.retain(|(address, _)| *address != RING0);
    guest.memory.push(assembled(64, RING0, |a| {
        for msr in [0xc000_0100u32, 0xc000_0101, 0xc000_0102, 0xc000_0082, 0x277, 0x6e0, 0x174] {
            a.mov(ecx, msr)?;
            a.mov(eax, 0x0007_0406)?;
            a.mov(edx, 0)?;
            a.wrmsr()?;
            a.rdmsr()?;
            a.out(0x50, eax)?;
        }
        a.mov(ecx, 0xc000_0080u32)?;
        a.rdmsr()?;
        a.out(0x50, eax)?;
        a.swapgs()?;
        a.mov(eax, 5)?;
        a.mov(cr8, rax)?;
        a.mov(rbx, cr8)?;
        a.out(0x41, al)?;
        a.inc(rbx)?;
        a.cli()?;
        a.out(0x41, al)?;
        a.mov(eax, 3)?;
        a.mov(cr8, rax)?;
        a.mov(al, 0x21)?;
        a.sti()?;
        a.out(0x40, al)?;
        a.hlt()
    }));
    guest.memory.push(gate(2, INTERRUPT));
    // The last HLT waits with interrupts on.
    guest.same_on_both(&ways());
}

#[test]
fn every_way_from_ring_3_into_ring_0() {
    let mut guest = program(assembled(64, RING3, |a| {
        a.pxor(xmm3, xmm3)?;
        a.int(0x30)?;
        a.mov(eax, 7)?;
        a.int3()?;
        a.mov(ebx, 9)?;
        a.syscall()?;
        a.out(0x51, al)?;
        a.pushfq()?;
        a.or(qword_ptr(rsp), 0x100)?;
        a.popfq()?;
        a.nop()?;
        a.inc(rbx)?;
        a.pushfq()?;
        a.and(qword_ptr(rsp), !0x100)?;
        a.popfq()?;
        a.ud2()
    }));
    // SYSCALL goes to ring 0, which returns.
    guest.state.lstar = 0x6800;
    guest.state.star = 0x0013_0008 << 32;
    guest.state.sfmask = 0x200;
    guest.memory.push(assembled(64, 0x6800, |a| {
        a.mov(r14, rsp)?;
        a.mov(rsp, 0x7000u64)?;
        a.out(0x70, eax)?;
        a.mov(rax, rcx)?;
        a.out(0x71, eax)?;
        a.mov(rax, r11)?;
        a.out(0x72, eax)?;
        a.mov(rsp, r14)?;
        a.sysretq()
    }));
    let open = |(address, mut bytes): (u64, Vec<u8>)| {
        bytes[5] |= 0x60;
        (address, bytes)
    };
    guest.memory.extend([open(gate(0x30, INTERRUPT)), open(gate(3, INTERRUPT)), gate(1, INTERRUPT)]);
    // Where only ring 3 is run by KVM, they all end with the assistant. Elsewhere ring 0 is KVM's own, and on this list only if the CPU's.
    guest.same_on_both(&ways()[3..]);
}
