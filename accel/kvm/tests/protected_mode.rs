//! 32-bit guests without paging: every access, its position, the state and RAM as on the interpreter.

mod board;

use board::*;
use gemel_x86::CpuModel;
use gemel_x86::TableRegister;
use iced_x86::code_asm::*;

#[test]
fn flat_ring_0_with_ports_memory_and_interrupts() {
    let mut state = protected_mode(0x1000);
    state.gdtr = TableRegister { base: 0x2000, limit: 0x17 };
    state.idtr = TableRegister { base: 0x3000, limit: 0x3ff };
    let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let memory = vec![
        (0x2000, words(&[0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff])),
        (0x3000 + 8 * 0x21, words(&[0x0000_8e00_0008_4000])),
        assembled(32, 0x4000, |a| {
            a.inc(esi)?;
            a.out(0x62, al)?;
            a.iretd()
        }),
        assembled(32, 0x1000, |a| {
            let mut again = a.create_label();
            a.mov(ebx, 0xd000_0000u32)?;
            a.mov(ecx, 3)?;
            a.set_label(&mut again)?;
            a.mov(eax, dword_ptr(ebx + ecx * 4))?;
            a.add(dword_ptr(ebx), eax)?;
            a.mov(word_ptr(ebx + 6), cx)?;
            a.out(0x50, eax)?;
            a.in_(al, 0x51)?;
            a.loop_(again)?;
            a.mov(edi, 0xd000_0100u32)?;
            a.mov(esi, 0x1000)?;
            a.mov(ecx, 4)?;
            a.rep().movsd()?;
            a.push(dword_ptr(ebx))?;
            a.mov(edx, 0x40)?;
            a.mov(al, 0x21)?;
            a.sti()?;
            a.out(dx, al)?;
            a.mov(edx, 0x77)?;
            a.mov(edi, 0x5000)?;
            a.mov(ecx, 70)?;
            a.rep().insw()?;
            a.cli()?;
            a.hlt()
        }),
    ];
    Program { model: CpuModel::x86_64_v2(), memory, state }.same_on_both(&ways());
}
