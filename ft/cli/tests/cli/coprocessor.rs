//! An x87 error with CR0.NE clear, as DOS programs have it: FERR#, line 13 of the 8259 pair, port 0xf0, and on.
//!
//! Not responsible for: the pins one by one (`gemel-devices`, `gemel-interp`).

use super::{gemel, kernel};
use std::fs;

/// Where the code is loaded.
const START: u32 = 0x10_0020;
const IDT: u32 = 0x20_0000;
/// The slave's vectors start at 28h.
const VECTOR: u32 = 0x28 + 5;

/// out port, value
fn out(port: u8, value: u8) -> [u8; 4] {
    [0xb0, value, 0xe6, port]
}

/// mov dx, 3f8h; mov al, byte; out dx, al
fn say(byte: u8) -> [u8; 7] {
    [0x66, 0xba, 0xf8, 0x03, 0xb0, byte, 0xee]
}

/// Two divisions by zero; the handler says `!`, the program what follows.
fn program() -> Vec<u8> {
    let handler = [
        &out(0xf0, 0)[..],
        &[0xdb, 0xe2], // fnclex
        &out(0xa0, 0x20),
        &out(0x20, 0x20),
        &say(b'!'),
        &[0xcf], // iret
    ]
    .concat();
    let entry = START + 2;
    let gate = IDT + 8 * VECTOR;
    let mut code = vec![0xeb, handler.len() as u8]; // jmp past the handler
    code.extend_from_slice(&handler);
    code.extend_from_slice(&[0xbc, 0, 0, 0x30, 0]); // mov esp, 300000h
    code.extend_from_slice(&[0x0f, 0x20, 0xc0, 0x83, 0xe0, 0xd3, 0x0f, 0x22, 0xc0]); // CR0: NE, TS, EM off
    // The gate: offset and this code segment; present, 32-bit interrupt.
    code.extend_from_slice(&[0x8c, 0xc8, 0xc1, 0xe0, 0x10, 0x66, 0xb8]); // mov eax, cs; shl eax, 16; mov ax, ...
    code.extend_from_slice(&(entry as u16).to_le_bytes());
    code.push(0xa3); // mov [gate], eax
    code.extend_from_slice(&gate.to_le_bytes());
    code.extend_from_slice(&[0xc7, 0x05]); // mov dword [gate + 4], ...
    code.extend_from_slice(&(gate + 4).to_le_bytes());
    code.extend_from_slice(&(entry & 0xffff_0000 | 0x8e00).to_le_bytes());
    code.push(0x68); // push base; push word limit; lidt [esp]
    code.extend_from_slice(&IDT.to_le_bytes());
    code.extend_from_slice(&[0x66, 0x68, 0xff, 0x07, 0x0f, 0x01, 0x1c, 0x24]);
    let pair = [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        (0x21, 0xfb),
        (0xa1, 0xdf),
    ];
    pair.iter().for_each(|(port, value)| code.extend_from_slice(&out(*port, *value)));
    code.extend_from_slice(&[0xfb, 0xdb, 0xe3]); // sti; fninit
    code.extend_from_slice(&[0x68, 0x7b, 0x03, 0, 0, 0xd9, 0x2c, 0x24]); // fldcw: divide by zero unmasked
    for byte in [b'1', b'2'] {
        code.extend_from_slice(&[0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9]); // fld1; fldz; fdivp
        code.extend_from_slice(&say(byte)); // nothing is reported before the next waiting instruction
        code.push(0x9b); // wait
    }
    code.extend_from_slice(&say(b'.'));
    code.extend_from_slice(&out(0xf4, 0x21));
    code
}

#[test]
fn an_x87_error_comes_back_as_interrupt_13() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("kernel"), kernel(&program())).unwrap();
    for command in [
        "record -o run.gml --kernel kernel -m 8 --clock free --serial file:out",
        "replay run.gml --serial file:out",
    ] {
        let output = gemel(at, command);
        let code = if command.starts_with("record") { 0x43 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
        assert_eq!(fs::read_to_string(at.join("out")).unwrap(), "1!2!.");
    }
}
