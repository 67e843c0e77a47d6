//! Real-mode guests: every access, its position, the state and RAM as on the interpreter.

mod board;

use board::{Program, real_mode, ways};
use gemel_x86::CpuModel;

fn program(code: &[u8], more: &[(u64, &[u8])]) -> Program {
    let mut memory = vec![(0x1000, code.to_vec())];
    memory.extend(more.iter().map(|(a, b)| (*a, b.to_vec())));
    Program { model: CpuModel::x86_64_v2(), memory, state: real_mode(0x1000) }
}

#[test]
fn ports_of_every_size_and_form() {
    program(
        &[
            0xb8, 0x34, 0x12, // mov ax, 0x1234
            0xba, 0x78, 0x00, // mov dx, 0x78
            0xee, // out dx, al
            0xee, // out dx, al
            0xef, // out dx, ax
            0x66, 0xef, // out dx, eax
            0xe6, 0x79, // out 0x79, al
            0xe7, 0x7a, // out 0x7a, ax
            0x66, 0xe7, 0x7c, // out 0x7c, eax
            0xec, // in al, dx
            0x88, 0xc3, // mov bl, al
            0xed, // in ax, dx
            0x66, 0xed, // in eax, dx
            0xe4, 0x55, // in al, 0x55
            0x66, 0xe5, 0x56, // in eax, 0x56
            0xf4, // hlt
        ],
        &[],
    )
    .same_on_both(&ways());
}

#[test]
fn string_input_and_output_element_by_element() {
    program(
        &[
            0xba, 0x99, 0x00, // mov dx, 0x99
            0xbf, 0x00, 0x20, // mov di, 0x2000
            0xb9, 0x05, 0x00, // mov cx, 5
            0xfc, // cld
            0xf3, 0x6c, // rep insb
            0xb9, 0x03, 0x00, // mov cx, 3
            0x66, 0xf3, 0x6d, // rep insd
            0x6d, // insw
            0xbe, 0x00, 0x20, // mov si, 0x2000
            0xb9, 0x04, 0x00, // mov cx, 4
            0xf3, 0x6e, // rep outsb
            0xb9, 0x02, 0x00, // mov cx, 2
            0xf3, 0x6f, // rep outsw
            0x6e, // outsb
            0xfd, // std
            0xb9, 0x03, 0x00, // mov cx, 3
            0xf3, 0x6c, // rep insb
            0xf4, // hlt
        ],
        &[],
    )
    .same_on_both(&ways());
}

#[test]
fn memory_that_is_no_ram() {
    program(
        &[
            0xb8, 0x00, 0xa0, // mov ax, 0xa000
            0x8e, 0xd8, // mov ds, ax
            0x8e, 0xc0, // mov es, ax
            0xa0, 0x10, 0x00, // mov al, [0x10]
            0xa1, 0x12, 0x00, // mov ax, [0x12]
            0x66, 0x8b, 0x1e, 0x14, 0x00, // mov ebx, [0x14]
            0x88, 0x26, 0x20, 0x00, // mov [0x20], ah
            0x66, 0x89, 0x1e, 0x24, 0x00, // mov [0x24], ebx
            0xc7, 0x06, 0x28, 0x00, 0x34, 0x12, // mov word [0x28], 0x1234
            0x83, 0x06, 0x2a, 0x00, 0x07, // add word [0x2a], 7
            0x87, 0x1e, 0x2c, 0x00, // xchg bx, [0x2c]
            0xa1, 0x31, 0x00, // mov ax, [0x31]: misaligned
            0xa3, 0x33, 0x00, // mov [0x33], ax: misaligned
            0xbf, 0x40, 0x00, // mov di, 0x40
            0xb9, 0x03, 0x00, // mov cx, 3
            0xf3, 0xab, // rep stosw
            0xaa, // stosb
            0xbe, 0x50, 0x00, // mov si, 0x50
            0xac, // lodsb
            0xb9, 0x02, 0x00, // mov cx, 2
            0xf3, 0xa5, // rep movsw: from and to the window
            0xf4, // hlt
        ],
        &[],
    )
    .same_on_both(&ways());
}

#[test]
fn interrupts_where_flags_and_shadows_allow_them() {
    // The handler of vector 0x21 counts in BX and returns.
    program(
        &[
            0xba, 0x40, 0x00, // mov dx, 0x40
            0xb0, 0x21, // mov al, 0x21
            0xfb, // sti
            0xee, // out dx, al: taken right after
            0x41, // inc cx
            0xfa, // cli
            0xee, // out dx, al
            0x41, 0x41, // inc cx, twice
            0xfb, // sti
            0x41, // inc cx: in the shadow
            0x41, // inc cx
            0xfa, // cli
            0xee, // out dx, al
            0x9c, // pushf
            0x58, // pop ax
            0x80, 0xcc, 0x02, // or ah, 2
            0x50, // push ax
            0x9d, // popf: taken right after
            0x41, // inc cx
            0xb0, 0x21, // mov al, 0x21
            0xfa, // cli
            0xee, // out dx, al
            0xfb, // sti
            0xf4, // hlt: wakes at once
            0xfa, // cli
            0xf4, // hlt
        ],
        &[(0x21 * 4, &[0x00, 0x18, 0x00, 0x00]), (0x1800, &[0x43, 0xcf])],
    )
    .same_on_both(&ways());
}

#[test]
fn what_kvm_may_not_emulate() {
    program(
        &[
            0x0f, 0xa2, // cpuid
            0xd9, 0xe8, // fld1
            0xd9, 0xeb, // fldpi
            0xde, 0xc1, // faddp
            0xe6, 0x50, // out 0x50, al
            0xdb, 0xe3, // fninit
            0x66, 0xb9, 0x77, 0x02, 0x00, 0x00, // mov ecx, 0x277 (PAT)
            0x0f, 0x32, // rdmsr
            0x66, 0xb9, 0xe0, 0x06, 0x00, 0x00, // mov ecx, 0x6e0 (TSC_DEADLINE)
            0x0f, 0x30, // wrmsr
            0x0f, 0x32, // rdmsr
            0x0f, 0x31, // rdtsc, of the same count
            0x66, 0x31, 0xc0, // xor eax, eax: KVM's own TSC is another
            0x66, 0x31, 0xd2, // xor edx, edx
            0xf4, // hlt
        ],
        &[],
    )
    .same_on_both(&ways());
}
