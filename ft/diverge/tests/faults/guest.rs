//! A small guest that uses what a real one does: timer, serial and disk interrupts, a disk by its ring, port and string
//! instructions, SSE, x87, random numbers, sleep. 64-bit ring 0, one turn after the other.
//!
//! Not responsible for: what comes in (`outside`).

use gemel_devices::board::{self, BOARD};
use gemel_interp::Interp;
use gemel_machine::{BootSpec, DiskSpec, GuestRam, Machine, MachineSpec, Reckoning, Vcpu};
use gemel_x86::segment::{CS, DS, ES, SS, TableRegister};
use gemel_x86::{CpuModel, CpuState, Segment};
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use std::sync::Arc;

/// Sectors of the disk.
pub const SECTORS: u64 = 64;
const CODE: u64 = 0x1_0000;
const STACK_TOP: u64 = 0x8000;
const IDT: u64 = 0x5000;
const GDT: u64 = 0x6000;
/// What turns store into, 16 KiB.
const WORK: u64 = 0x2_0000;
const DESCRIPTORS: u64 = 0x3_0000;
const AVAILABLE: u64 = 0x3_0400;
const USED: u64 = 0x3_0800;
const REQUEST: u64 = 0x3_1000;
const STATUS: u64 = 0x3_1100;
const BUFFER: u64 = 0x3_2000;
/// Ticks, bytes received, the last byte, disk completions, the sum of random numbers: 8 bytes each.
const COUNTERS: u64 = 0x3_4000;
/// Where the disk's registers are before anybody moves them.
const REGISTERS: u64 = 0xc000_0000;
const HIGH_DIRECTORY: u64 = 0x4000;

/// RAM that the guest uses, from and to.
pub const USED_RAM: [(u64, u64); 6] = [
    (STACK_TOP - 0x80, STACK_TOP),
    (0x1000, 0x1008),
    (CODE, CODE + 0x300),
    (WORK, WORK + 0x1000),
    (DESCRIPTORS, DESCRIPTORS + 0x40),
    (BUFFER, COUNTERS + 0x28),
];

pub fn spec() -> MachineSpec {
    MachineSpec {
        board: BOARD,
        ram: 1 << 20,
        cpu: "x86-64-v3".into(),
        reckoning: Reckoning::default(),
        rtc_base: 1_700_000_000,
        seed: 0,
        disks: vec![DiskSpec { sectors: SECTORS, read_only: false, digest: 0 }],
        nics: Vec::new(),
        boot: BootSpec::default(),
    }
}

/// The guest on an engine that `wrap` makes of an interpreter.
pub fn machine(wrap: impl FnOnce(Interp, Arc<GuestRam>) -> Box<dyn Vcpu>) -> Machine {
    let (spec, model) = (spec(), CpuModel::x86_64_v3());
    let ram = Arc::new(GuestRam::new(spec.ram).unwrap());
    let bus = board::build(&spec, &model, Arc::clone(&ram)).unwrap();
    // 2 MiB mapped one to one, and the disk's registers.
    for (at, entry) in [
        (0x1000, 0x2003u64),
        (0x2000, 0x3003),
        (0x2018, HIGH_DIRECTORY | 3),
        (0x3000, 0x83),
        (HIGH_DIRECTORY, REGISTERS | 0x93),
    ] {
        ram.write(at, &entry.to_le_bytes()).unwrap();
    }
    for (n, descriptor) in [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffffu64].into_iter().enumerate() {
        ram.write(GDT + 8 * n as u64, &descriptor.to_le_bytes()).unwrap();
    }
    let (code, handlers) = program().unwrap();
    ram.write(CODE, &code).unwrap();
    for (vector, handler) in handlers {
        let gate = handler & 0xffff | 0x10 << 16 | 0x8e << 40 | (handler >> 16 & 0xffff) << 48;
        ram.write(IDT + 16 * vector, &gate.to_le_bytes()).unwrap();
    }
    let data = Segment { selector: 0x18, attr: 0xc93, limit: u32::MAX, base: 0 };
    let mut state = CpuState {
        cr0: 0x8000_0013,
        cr3: 0x1000,
        cr4: 0x620,
        efer: 0x500,
        rip: CODE,
        fcw: 0x37f,
        gdtr: TableRegister { base: GDT, limit: 0x1f },
        idtr: TableRegister { base: IDT, limit: 0xfff },
        ..Default::default()
    };
    (state.seg[DS], state.seg[ES], state.seg[SS]) = (data, data, data);
    state.seg[CS] = Segment { selector: 0x10, attr: 0xa9b, limit: u32::MAX, base: 0 };
    state.gpr = [0; 16];
    state.gpr[4] = STACK_TOP;
    let mut vcpu = wrap(Interp::new(model, Arc::clone(&ram)), Arc::clone(&ram));
    vcpu.restore(&state).unwrap();
    Machine::new(vcpu, bus, ram, Reckoning::default(), spec.id())
}

type Handlers = Vec<(u64, u64)>;

/// The code, and the handlers by vector.
fn program() -> Result<(Vec<u8>, Handlers), IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut tick, mut byte, mut disk) = (a.create_label(), a.create_label(), a.create_label());
    set_up(&mut a)?;
    turns(&mut a)?;

    a.set_label(&mut tick)?;
    a.push(rax)?;
    a.inc(qword_ptr(COUNTERS))?;
    end_of_interrupt(&mut a, false)?;

    a.set_label(&mut byte)?;
    a.push(rax)?;
    a.push(rdx)?;
    a.mov(dx, 0x3f8)?;
    a.in_(al, dx)?;
    a.movzx(eax, al)?;
    a.add(qword_ptr(COUNTERS + 8), rax)?;
    a.mov(byte_ptr(COUNTERS + 16), al)?;
    a.pop(rdx)?;
    end_of_interrupt(&mut a, false)?;

    a.set_label(&mut disk)?;
    a.push(rax)?;
    // Reading the ISR takes the line back.
    a.mov(eax, (REGISTERS + 0x1000) as u32)?;
    a.movzx(eax, byte_ptr(rax))?;
    a.add(qword_ptr(COUNTERS + 24), rax)?;
    end_of_interrupt(&mut a, true)?;

    let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let result = a.assemble_options(CODE, options)?;
    let mut handlers = Vec::new();
    for (vector, label) in [(0x20, tick), (0x24, byte), (0x2a, disk), (0x2b, disk)] {
        handlers.push((vector, result.label_ip(&label)?));
    }
    Ok((result.inner.code_buffer, handlers))
}

/// Tells the 8259s, and returns with the RAX that was pushed first.
fn end_of_interrupt(a: &mut CodeAssembler, second: bool) -> Result<(), IcedError> {
    a.mov(al, 0x20)?;
    if second {
        a.out(0xa0, al)?;
    }
    a.out(0x20, al)?;
    a.pop(rax)?;
    a.iretq()
}

/// 8259s, 8254, UART, the disk's ring.
fn set_up(a: &mut CodeAssembler) -> Result<(), IcedError> {
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        // Timer, cascade, COM1; lines 10 and 11.
        (0x21, 0xea),
        (0xa1, 0xf3),
        // A tick each 8.4 us.
        (0x43, 0x34),
        (0x40, 10),
        (0x40, 0),
        (0x3fa, 1),
        (0x3fc, 0xb),
        (0x3f9, 1),
    ] {
        a.mov(al, value)?;
        a.mov(dx, port)?;
        a.out(dx, al)?;
    }
    // Memory and bus master.
    a.mov(dx, 0xcf8)?;
    a.mov(eax, 0x8000_0804u32)?;
    a.out(dx, eax)?;
    a.mov(dx, 0xcfc)?;
    a.mov(eax, 6)?;
    a.out(dx, eax)?;
    // Version 1, then FEATURES_OK; the ring of 4; DRIVER_OK (Virtio 1.2 3.1.1).
    a.mov(rbx, REGISTERS)?;
    for (offset, value) in [(8, 1), (12, 1), (32, DESCRIPTORS), (40, AVAILABLE), (48, USED)] {
        a.mov(dword_ptr(rbx + offset), value as u32)?;
    }
    a.mov(byte_ptr(rbx + 20), 0xb)?;
    a.mov(word_ptr(rbx + 24), 4)?;
    a.mov(word_ptr(rbx + 28), 1)?;
    a.mov(byte_ptr(rbx + 20), 0xf)?;
    // Header, data (device writes), status.
    let descriptors = [(REQUEST, 16u32, 1u32 | 1 << 16), (BUFFER, 512, 3 | 2 << 16), (STATUS, 1, 2)];
    for (n, (address, length, flags)) in descriptors.into_iter().enumerate() {
        let at = DESCRIPTORS + 16 * n as u64;
        a.mov(dword_ptr(at), address as u32)?;
        a.mov(dword_ptr(at + 8), length)?;
        a.mov(dword_ptr(at + 12), flags)?;
    }
    a.sti()
}

/// What goes on for ever: RBX is the generator's state, R12 the turn, R13 a sum, R14 the requests made.
fn turns(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut turn, mut mix, mut busy, mut quiet, mut function) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(rbx, 0x9e37_79b9_7f4a_7c15u64)?;
    a.xor(r12d, r12d)?;
    a.xor(r13d, r13d)?;
    a.xor(r14d, r14d)?;

    a.set_label(&mut turn)?;
    // Integers, sixteen rounds.
    a.mov(ecx, 16)?;
    a.set_label(&mut mix)?;
    a.mov(rax, rbx)?;
    a.shl(rax, 13)?;
    a.xor(rbx, rax)?;
    a.mov(rax, rbx)?;
    a.shr(rax, 7)?;
    a.xor(rbx, rax)?;
    a.add(r13, rbx)?;
    a.adc(r13, 5)?;
    a.mov(edi, ebx)?;
    a.and(edi, 0xff8)?;
    a.mov(qword_ptr(rdi + WORK as i32), rbx)?;
    a.imul_3(rdx, rbx, 25)?;
    a.bt(rbx, 9)?;
    a.sbb(rdx, r13)?;
    a.neg(rdx)?;
    a.cmp(rdx, rbx)?;
    a.cmovb(r13, rdx)?;
    a.rol(r13, 3)?;
    a.call(function)?;
    a.dec(ecx)?;
    a.jne(mix)?;

    // Strings.
    a.mov(esi, WORK as u32)?;
    a.lea(rdi, qword_ptr(r12 + 0x100))?;
    a.and(edi, 0x7ff)?;
    a.add(edi, (WORK + 0x400) as u32)?;
    a.mov(ecx, 40)?;
    a.rep().movsb()?;
    a.mov(rax, r13)?;
    a.mov(ecx, 3)?;
    a.rep().stosq()?;
    a.mov(edi, WORK as u32)?;
    a.mov(al, 0x5a)?;
    a.mov(ecx, 32)?;
    a.repne().scasb()?;
    a.adc(r13, rcx)?;

    // SSE and x87.
    a.movq(xmm0, rbx)?;
    a.movdqu(xmm1, xmmword_ptr(WORK + 0x40))?;
    a.paddq(xmm0, xmm1)?;
    a.pshufd(xmm2, xmm0, 0x1b)?;
    a.cvtsi2sd(xmm3, r12)?;
    a.mulsd(xmm3, xmm3)?;
    a.movdqu(xmmword_ptr(WORK + 0xf00), xmm2)?;
    a.movsd_2(qword_ptr(WORK + 0xf10), xmm3)?;
    a.mov(qword_ptr(WORK + 0xf18), r12)?;
    a.fild(qword_ptr(WORK + 0xf18))?;
    a.fsqrt()?;
    a.fstp(qword_ptr(WORK + 0xf20))?;
    a.rdrand(rax)?;
    a.add(qword_ptr(COUNTERS + 32), rax)?;

    // What came in last goes out again.
    a.mov(al, byte_ptr(COUNTERS + 16))?;
    a.mov(dx, 0x3f8)?;
    a.out(dx, al)?;

    // A request whenever the last one is done: each fourth is a write.
    a.movzx(eax, word_ptr(USED + 2))?;
    a.cmp(eax, r14d)?;
    a.jne(busy)?;
    a.xor(ecx, ecx)?;
    a.test(r14d, 3)?;
    a.sete(cl)?;
    a.mov(dword_ptr(REQUEST), ecx)?;
    a.xor(ecx, 1)?;
    a.lea(ecx, dword_ptr(rcx * 2 + 1))?;
    a.mov(word_ptr(DESCRIPTORS + 16 + 12), cx)?;
    a.mov(ecx, r14d)?;
    a.and(ecx, SECTORS as u32 - 1)?;
    a.mov(qword_ptr(REQUEST + 8), rcx)?;
    a.mov(ecx, r14d)?;
    a.and(ecx, 3)?;
    a.mov(word_ptr(rcx * 2 + (AVAILABLE + 4) as i32), 0)?;
    a.inc(r14d)?;
    a.mov(word_ptr(AVAILABLE + 2), r14w)?;
    a.mov(ecx, (REGISTERS + 0x3000) as u32)?;
    a.mov(word_ptr(rcx), 0)?;
    a.set_label(&mut busy)?;

    a.inc(r12)?;
    a.test(r12d, 3)?;
    a.jne(quiet)?;
    a.hlt()?;
    a.set_label(&mut quiet)?;
    a.jmp(turn)?;

    a.set_label(&mut function)?;
    a.push(rbx)?;
    a.xor(rbx, r12)?;
    a.popcnt(rax, rbx)?;
    a.add(r13, rax)?;
    a.pop(rbx)?;
    a.ret()
}
